"""Compare samplers, grids and numbers of steps on a trained run.

    python -m ul samplers --workdir runs/s1
    python -m ul samplers --workdir runs/s1 --samplers logsnr:dpmpp_2m --nfe 5,9,17
    python -m ul samplers --workdir runs/s1 --students runs/student --picture students.png
    python -m ul samplers --workdir runs/s1 --adapt

The reference is the solution of the probability-flow ODE from the same noise. `--adapt`
measures the information per unit of log-SNR and writes an adaptive grid into config.json.
"""

from absl import flags
from etils import epath

from launch.lib import cli, common_flags
from ul.checkpoints import workdir as workdirs
from ul.core.errors import ConfigError
from ul.evaluation import sampler_comparison
from ul.train.writer import save_png

_WORKDIR = flags.DEFINE_string("workdir", None, "Run to sample from. Required.")
_SAMPLERS = flags.DEFINE_list(
    "samplers",
    list(sampler_comparison.DEFAULT_PAIRS),
    "Pairs of a grid and a sampler, such as logsnr:dpmpp_2m.",
)
_NFE = flags.DEFINE_list(
    "nfe", ["5", "9", "17", "33"], "Network calls (NFE) per sample, besides guidance."
)
_STUDENTS = flags.DEFINE_list(
    "students",
    [],
    "Runs of stage 'distill' to compare with the decoder that they copy.",
)
_NUM = flags.DEFINE_integer("num_examples", 180, "Held-out examples to use.", 2)
_PICTURE = flags.DEFINE_string(
    "picture", None, "PNG file for the originals and the samples of every sampler."
)
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
    picture = _PICTURE.value
    if picture is not None and not picture.endswith(".png"):
        raise ConfigError(f"--picture must end in .png; got {picture}.")
    if not all(word.isdigit() and int(word) > 1 for word in _NFE.value):
        raise ConfigError(f"--nfe must hold integers of at least 2; got {_NFE.value}.")
    comparison = sampler_comparison.compare(
        workdir,
        _SAMPLERS.value,
        [int(word) for word in _NFE.value],
        num_examples=_NUM.value,
        guidance=_GUIDANCE.value,
        step=_STEP.value,
        weights=_WEIGHTS.value,
        seed=_SEED.value,
        students=_STUDENTS.value,
    )
    print(sampler_comparison.to_markdown(comparison))
    if picture is not None:
        save_png(epath.Path(picture), sampler_comparison.draw(comparison))
    if _ADAPT.value:
        nats = [float(f"{value:.4g}") for value in comparison.nats_per_logsnr]
        workdirs.update_sampling(workdir, {"grid": "adaptive", "nats_per_logsnr": nats})
        print(
            f"\n{workdir} now samples on the adaptive grid. If you train on, add "
            "--config.sampling.grid=adaptive to the command."
        )


if __name__ == "__main__":
    cli.run(main)
