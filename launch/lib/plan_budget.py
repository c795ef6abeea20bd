"""Fit a sweep, and name the best bitrate at each training budget (`ul plan budget`)."""

from absl import flags

from launch.lib import cli
from ul.core.errors import ConfigError
from ul.sweeps import budget, budget_plots

_RUNS = flags.DEFINE_string("runs", None, "Folder of a finished sweep. Required.")
_FLOPS = flags.DEFINE_list(
    "flops",
    [],
    "FLOPs of training the base model, such as 1e21; by default three of the sweep's range "
    "and ten times its largest.",
)
_PICTURE = flags.DEFINE_string("picture", None, "Also draw the law into this PNG file.")


def main() -> None:
    """Print the table of budgets."""
    try:
        budgets = [float(word) for word in _FLOPS.value]
    except ValueError:
        raise ConfigError(f"--flops must be numbers; got {_FLOPS.value}.") from None
    if _PICTURE.value and not _PICTURE.value.endswith(".png"):
        raise ConfigError(f"--picture must end in .png; got {_PICTURE.value}.")
    sweep = budget.read_trials(cli.required(_RUNS))
    for skipped in sweep.skipped:
        print(f"left out: {skipped}")
    print(budget.recommend(sweep, budgets))
    if _PICTURE.value:
        budget_plots.draw(_PICTURE.value, sweep)
