"""The paper's tables 5 and 6 on digits: `launch.ablations` runs this and prints them."""

from experiments import ablations, single_stage, sweeps


def _trial(file: str, name: str, base: bool) -> list[dict]:
    config = f"experiments/{file}.py:{name}"
    return sweeps.trials(
        [{}],
        stage1=config,
        stage2=f"{config}_base" if base else None,
        name=lambda point: name,
    )


def get_sweep(arg: str = "") -> list[dict]:
    """All of them, or the one that is named."""
    found = [_trial("ablations", name, True) for name in ablations.KINDS]
    found += [_trial("single_stage", name, False) for name in single_stage.VARIANTS]
    return [trial for trial in sweeps.chain(*found) if arg in ("", trial["name"])]
