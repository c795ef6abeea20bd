"""One table of all evaluations under the given folders.

python -m launch.summary runs/demo/stage1 runs/demo/stage2
"""

import sys

from absl import flags
from etils import epath

from launch import cli
from ul.core.errors import ConfigError
from ul.evals import report
from ul.train.workdir import write_atomic

_OUT = flags.DEFINE_string("out", None, "Write the table there as well.")


def main() -> None:
    folders = flags.FLAGS(sys.argv)[1:]
    if not folders:
        raise ConfigError("give one or more workdirs")
    text = report.table(report.read(folders))
    print(text)
    if _OUT.value:
        write_atomic(epath.Path(_OUT.value), text + "\n")


if __name__ == "__main__":
    cli.run(main)
