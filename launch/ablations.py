"""The paper's ablations and baselines at small scale, and its tables 5 and 6 of them.

    python -m launch.ablations --out runs/ablations
    python -m launch.ablations --out runs/few --only ul,pixels --set steps=20

Each is trained and evaluated by the ordinary commands, in processes of their own; run
it again and it goes on. Logs: <out>/<trial>.log; tables: <out>/tables.md.
"""

from absl import flags
from etils import epath

from experiments import ablations, single_stage
from launch import cli
from ul import trials
from ul.core.errors import ConfigError, Preempted, UserError
from ul.core.files import write_atomic
from ul.evals import paper, report
from ul.trials import Stage

_OUT = flags.DEFINE_string("out", None, "Where the runs go.")
_ONLY = flags.DEFINE_list("only", [], "These trials alone.")
_SET = flags.DEFINE_multi_string("set", [], "key=value for every config of the trials.")
_JOBS = flags.DEFINE_integer("jobs", 1, "Trials at a time.", lower_bound=1)
TRIALS = (*ablations.KINDS, *single_stage.VARIANTS)


def _stages(out: epath.Path, trial: str) -> list[Stage]:
    """A trial's configs, as the command line names them."""
    if trial in single_stage.VARIANTS:
        name = f"experiments/single_stage.py:{trial}"
        return [Stage(name, single_stage.get_config(trial), out / trial)]
    below, name = out / trial, f"experiments/ablations.py:{trial}"
    one = Stage(name, ablations.get_config(trial), below)
    resolved = ablations.get_config(f"{trial}_base")
    return [one, Stage(f"{name}_base", resolved, out / f"{trial}_base", below)]


def main() -> None:
    out, chosen = epath.Path(cli.required(_OUT)), _ONLY.value or TRIALS
    unknown = sorted(set(chosen) - set(TRIALS))
    if unknown:
        raise ConfigError(f"--only has unknown {unknown}; known are {TRIALS}")
    stages = {name: _stages(out, name) for name in chosen}
    failed = trials.run(out, stages, _SET.value, _JOBS.value)
    text = paper.tables({name: report.merged(out, name) for name in TRIALS})
    write_atomic(out / "tables.md", text + "\n")
    print(text)
    if trials.PREEMPTED in failed.values():
        raise Preempted("interrupted; run the same command again to go on")
    if failed:
        error = UserError(f"failed, with exit codes: {failed}; see {out}/<trial>.log")
        error.code = next(iter(failed.values()))
        raise error


if __name__ == "__main__":
    cli.run(main)
