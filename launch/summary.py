"""One table of all evaluations of the given runs.

python -m launch.summary --workdirs runs/demo/stage1,runs/demo/stage2
"""

from absl import flags
from etils import epath

from launch.lib import cli
from ul.core.errors import ConfigError
from ul.core.files import write_atomic
from ul.evaluation import table

_WORKDIRS = flags.DEFINE_list("workdirs", [], "The runs.")
_OUT = flags.DEFINE_string("out", None, "Write the table there as well.")


def main() -> None:
    if not _WORKDIRS.value:
        raise ConfigError("--workdirs is missing")
    text = table.table(table.read(_WORKDIRS.value))
    print(text)
    if _OUT.value:
        write_atomic(epath.Path(_OUT.value), text + "\n")


if __name__ == "__main__":
    cli.run(main)
