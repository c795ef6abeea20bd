"""Print one table of all evaluations of some runs, and a table of their wall time by phase.

python -m ul summary --workdirs runs/demo/stage1,runs/demo/stage2
"""

from absl import flags
from etils import epath

from launch.lib import cli
from ul.core.files import write_atomic
from ul.evaluation import table
from ul.train import goodput

_WORKDIRS = flags.DEFINE_list("workdirs", [], "Runs, separated by commas. Required.")
_OUT = flags.DEFINE_string("out", None, "Also write the table to this file.")


def main() -> None:
    """Print the tables."""
    workdirs = cli.required(_WORKDIRS)
    texts = [goodput.table(workdirs)]
    if not texts[0] or any(map(table.evaluations, workdirs)):
        texts.insert(0, table.table(table.read(workdirs)))
    text = "\n\n".join(filter(None, texts))
    print(text)
    if _OUT.value:
        write_atomic(epath.Path(_OUT.value), text + "\n")


if __name__ == "__main__":
    cli.run(main)
