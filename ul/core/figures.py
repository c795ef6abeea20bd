"""Matplotlib, imported only where something is drawn: the import takes a fifth of a second."""

from types import ModuleType


def pyplot() -> ModuleType:
    """Return matplotlib.pyplot, which draws into memory and needs no display."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot
