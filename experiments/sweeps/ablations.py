"""The paper's table 5, its table 6 without row C, and four more baselines, on digits.

`ul ablations` runs this sweep and prints both tables.
"""

from experiments import ablations, single_stage, sweeps


def _trial(file: str, name: str, has_stage2: bool) -> list[dict]:
    config = f"experiments/{file}.py:{name}"
    return sweeps.trials(
        [{}],
        stage1=config,
        stage2=f"{config}_base" if has_stage2 else None,
        name=lambda point: name,
    )


def _diffusion_decoder() -> dict:
    """Return the trial of the second row of table 5, on the encoder of `mse_decoder`."""
    stages = [
        {
            "config": "experiments/ablations.py:mse_decoder",
            "workdir": "mse_decoder/stage1",
        },
        {
            "config": "experiments/ablations.py:diffusion_decoder",
            "workdir": "diffusion_decoder/decoder",
        },
    ]
    return {"name": "diffusion_decoder", "overrides": {}, "stages": stages, "more": {}}


def get_sweep(arg: str = "") -> list[dict]:
    """Return all trials, or the one named `arg`."""
    trials = [_trial("ablations", name, True) for name in ablations.KINDS]
    trials.append([_diffusion_decoder()])
    trials += [_trial("single_stage", name, False) for name in single_stage.VARIANTS]
    return [trial for trial in sweeps.chain(*trials) if arg in ("", trial["name"])]
