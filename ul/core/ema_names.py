"""Names of averages of the parameters: `0.999`, a decay, or `power:0.05`, a width."""

POWER = "power:"
# The width of the mean of all steps; of the averages that weigh late steps more, none
# is wider.
WIDEST = 12.0**-0.5


def width(name: str) -> float | None:
    """Of a power-function average: the standard deviation of its weights over the steps,
    in parts of the run so far (sigma_rel). None of any other name, or a width that no
    such average has.
    """
    try:
        found = float(name.removeprefix(POWER))
    except ValueError:
        return None
    return found if name.startswith(POWER) and 0.0 < found < WIDEST else None


def is_average(entry: float | str) -> bool:
    """Whether a config's entry is a decay, or a width as it is printed: its name."""
    if isinstance(entry, str):
        found = width(entry)
        return found is not None and entry == f"{POWER}{found}"
    return 0.0 < entry < 1.0
