"""Run the paper's ablations and four more baselines on digits, and print both tables.

    python -m ul ablations --out runs/ablations
    python -m ul ablations --out runs/few --only ul,pixels --set steps=20

The tables have the form of the paper's tables 5 and 6, without row C of table 6, which is
not run. The trials are those of the shipped sweep `ablations`; the same command resumes it.
Logs are in <out>/<trial>.log, the tables in <out>/tables.md.
"""

from absl import flags
from etils import epath

from experiments.sweeps import ablations
from launch.lib import cli, failures, trials
from ul import sweeps
from ul.core.files import write_atomic
from ul.evaluation import paper_tables, table

_OUT = flags.DEFINE_string("out", None, "Directory of the runs. Required.")
_ONLY = flags.DEFINE_list("only", [], "Trials to run; all if empty.")
_SET = flags.DEFINE_multi_string("set", [], "key=value for every config of the trials.")
_JOBS = flags.DEFINE_integer(
    "jobs", 1, "Trials that run at the same time.", lower_bound=1
)
FILE = "ablations"


def _numbers(out: epath.Path, trial: dict) -> dict:
    return table.merge_defaults(*(out / stage["workdir"] for stage in trial["stages"]))


def main() -> None:
    """Run the trials and print the tables."""
    out, described = cli.required(_OUT), ablations.get_sweep()
    # The trials are chosen before they are expanded: --set need not fit the others.
    chosen = trials.choose("--only", described, _ONLY.value, lambda t: t["name"])
    expanded = trials.expand(chosen, _SET.value)
    sweeps.write_or_check_sweep(out, FILE, expanded, is_subset=bool(_ONLY.value))
    failed = trials.run(out, expanded, at_once=_JOBS.value)
    numbers = {t["name"]: _numbers(epath.Path(out), t) for t in described}
    text = paper_tables.tables(numbers)
    write_atomic(epath.Path(out) / "tables.md", text + "\n")
    print(text)
    failures.raise_failures(out, failed)


if __name__ == "__main__":
    cli.run(main)
