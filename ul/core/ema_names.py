"""Names of parameter averages: a decay such as `0.999`, or a width such as `power:0.05`.

The width of a power-function average (Karras et al., arXiv 2312.02696) is its relative
standard deviation sigma_rel.
"""

POWER_PREFIX = "power:"
# The relative standard deviation of uniform weights over all steps. Power-function
# averages weigh late steps more, so all of them are narrower.
MAX_RELATIVE_STD = 12.0**-0.5


def relative_std(name: str) -> float | None:
    """Return sigma_rel of the power-function average `name`.

    sigma_rel is the standard deviation of the average's weights over the steps, as a
    fraction of the run so far. The result is None for any other name and for a width
    that no power-function average has.
    """
    try:
        std = float(name.removeprefix(POWER_PREFIX))
    except ValueError:
        return None
    is_power = name.startswith(POWER_PREFIX) and 0.0 < std < MAX_RELATIVE_STD
    return std if is_power else None


def is_valid(entry: float | str) -> bool:
    """Return whether a config entry is a decay, or the canonical name of a width."""
    if isinstance(entry, str):
        std = relative_std(entry)
        return std is not None and entry == f"{POWER_PREFIX}{std}"
    return 0.0 < entry < 1.0
