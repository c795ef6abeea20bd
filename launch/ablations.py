"""The paper's ablations and baselines at small scale, and its tables 5 and 6 of them.

    python -m launch.ablations --out runs/ablations
    python -m launch.ablations --out runs/few --only ul,pixels --set steps=20

The sweep of experiments/sweeps/ablations.py; run it again and it goes on. Logs:
<out>/<trial>.log; tables: <out>/tables.md.
"""

from absl import flags
from etils import epath

from experiments.sweeps import ablations
from launch.lib import cli, trials
from ul import sweeps
from ul.core.files import write_atomic
from ul.evaluation import paper_tables, table

_OUT = flags.DEFINE_string("out", None, "Where the runs go.")
_ONLY = flags.DEFINE_list("only", [], "These trials alone.")
_SET = flags.DEFINE_multi_string("set", [], "key=value for every config of the trials.")
_JOBS = flags.DEFINE_integer("jobs", 1, "Trials at a time.", lower_bound=1)
FILE = "experiments/sweeps/ablations.py"


def _numbers(out: epath.Path, trial: dict) -> dict:
    return table.merged(*(out / stage["workdir"] for stage in trial["stages"]))


def main() -> None:
    out, described = cli.required(_OUT), ablations.get_sweep()
    # Before they are expanded: what --set says need not fit the others.
    chosen = trials.choose("--only", described, _ONLY.value, lambda t: t["name"])
    made = trials.expand(chosen, _SET.value)
    sweeps.write_or_check_sweep(out, FILE, made, is_subset=bool(_ONLY.value))
    failed = trials.run(out, made, at_once=_JOBS.value)
    found = {t["name"]: _numbers(epath.Path(out), t) for t in described}
    text = paper_tables.tables(found)
    write_atomic(epath.Path(out) / "tables.md", text + "\n")
    print(text)
    trials.raise_failures(out, failed)


if __name__ == "__main__":
    cli.run(main)
