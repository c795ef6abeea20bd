"""The paper's ablations and baselines at small scale, and its tables 5 and 6 of them.

    python -m launch.ablations --out runs/ablations
    python -m launch.ablations --out runs/few --only ul,pixels --set steps=20

Each is trained and evaluated by the ordinary commands, in processes of their own; run
it again and it goes on. Logs: <out>/<trial>.log; tables: <out>/tables.md.
"""

import concurrent.futures
import subprocess
import sys

from absl import flags
from etils import epath
from tqdm import tqdm

from experiments import ablations, single_stage
from launch import cli
from ul.core.errors import ConfigError, UserError
from ul.evals import paper, report
from ul.train.workdir import load_config, write_atomic

_OUT = flags.DEFINE_string("out", None, "Where the runs go.")
_ONLY = flags.DEFINE_list("only", [], "These trials alone.")
_SET = flags.DEFINE_multi_string("set", [], "key=value for every config of the trials.")
_JOBS = flags.DEFINE_integer("jobs", 1, "Trials at a time.", lower_bound=1)
TRIALS = (*ablations.KINDS, *single_stage.VARIANTS)


def _stages(out: epath.Path, name: str) -> list[tuple[epath.Path, str, list[str]]]:
    """Workdir, config and overrides of each stage of a trial."""
    if name in single_stage.VARIANTS:
        return [(out / name, f"experiments/single_stage.py:{name}", [])]
    file, below = "experiments/ablations.py", f"--config.stage1.workdir={out / name}"
    base = (out / f"{name}_base", f"{file}:{name}_base", [below])
    return [(out / name, f"{file}:{name}", []), base]


def _trial(out: epath.Path, name: str) -> int:
    """Train and evaluate; the exit code of what failed, or 0."""
    sets = [f"--config.{pair}" for pair in _SET.value]
    with (out / f"{name}.log").open("a") as log:
        for workdir, config, below in _stages(out, name):
            where = ["--workdir", str(workdir)]
            train = ["launch.train", "--config", config, *where, *sets, *below]
            for command in (train, ["launch.evaluate", *where]):
                if command is not train and _evaluated(workdir):
                    continue
                line = [sys.executable, "-m", *command]
                if code := subprocess.run(line, stdout=log, stderr=log).returncode:
                    return code
    return 0


def _evaluated(workdir: epath.Path) -> bool:
    last = load_config(workdir)["config"]["steps"]
    return any(record["step"] == last for record in report.records(workdir))


def main() -> None:
    out, chosen = epath.Path(cli.required(_OUT)), _ONLY.value or TRIALS
    unknown = sorted(set(chosen) - set(TRIALS))
    if unknown:
        raise ConfigError(f"--only has unknown {unknown}; known are {TRIALS}")
    out.mkdir(parents=True, exist_ok=True)
    with concurrent.futures.ThreadPoolExecutor(_JOBS.value) as pool:
        running = {pool.submit(_trial, out, name): name for name in chosen}
        done = concurrent.futures.as_completed(running)
        bar = tqdm(done, total=len(running), unit="trial", dynamic_ncols=True)
        failed = {running[f]: f.result() for f in bar if f.result()}
    text = paper.tables({name: report.merged(out, name) for name in TRIALS})
    write_atomic(out / "tables.md", text + "\n")
    print(text)
    if failed:
        raise UserError(f"failed, with exit codes: {failed}; see {out}/<trial>.log")


if __name__ == "__main__":
    cli.run(main)
