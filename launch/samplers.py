"""Compare samplers, grids and numbers of steps on a trained run.

    python -m ul samplers --workdir runs/s1
    python -m ul samplers --workdir runs/s1 --samplers logsnr:dpmpp_2m --calls 5,9,17
    python -m ul samplers --workdir runs/s1 --adapt

For a stage 1 these are samplers of its decoder, for a stage 2 those of its base model. Each
is compared with the converged flow from the same noise. `--adapt` stores the measured curve
of bits over log-SNR in the run, which then samples on the adaptive grid that follows it.
"""

from absl import flags

from launch.lib import cli, common_flags
from ul.checkpoints import workdir as workdirs
from ul.core.errors import ConfigError
from ul.evaluation import sampler_comparison

_WORKDIR = flags.DEFINE_string("workdir", None, "Run to sample from. Required.")
_SAMPLERS = flags.DEFINE_list(
    "samplers",
    list(sampler_comparison.DEFAULT_PAIRS),
    "Pairs of a grid and a sampler, such as logsnr:dpmpp_2m.",
)
_CALLS = flags.DEFINE_list(
    "calls", ["5", "9", "17", "33"], "Numbers of network calls for one sample."
)
_NUM = flags.DEFINE_integer("num_examples", 180, "Held-out examples to use.", 2)
_GUIDANCE = flags.DEFINE_float("guidance", 1.0, "Guidance of a stage 2.")
_ADAPT = flags.DEFINE_bool(
    "adapt", False, "Let the run sample on the adaptive grid from now on."
)
_SEED = common_flags.define_seed()
_STEP = common_flags.define_step()
_WEIGHTS = common_flags.define_weights()


def main() -> None:
    """Print the table."""
    workdir = cli.required(_WORKDIR)
    if not all(word.isdigit() and int(word) > 1 for word in _CALLS.value):
        raise ConfigError(f"--calls must be integers above 1; got {_CALLS.value}.")
    comparison = sampler_comparison.compare(
        workdir,
        _SAMPLERS.value,
        [int(word) for word in _CALLS.value],
        num_examples=_NUM.value,
        guidance=_GUIDANCE.value,
        step=_STEP.value,
        weights=_WEIGHTS.value,
        seed=_SEED.value,
    )
    print(sampler_comparison.to_markdown(comparison))
    if _ADAPT.value:
        curve = [float(f"{value:.4g}") for value in comparison.curve]
        workdirs.update_sampling(workdir, {"grid": "adaptive", "curve": curve})
        print(f"\n{workdir} now samples on the adaptive grid.")


if __name__ == "__main__":
    cli.run(main)
