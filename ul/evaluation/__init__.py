"""Evaluations of restored runs: one dict of numbers, with the protocol they come from."""

from ul import api, config
from ul.evaluation.autoencoder import autoencoder
from ul.evaluation.generator import generator

__all__ = ["autoencoder", "generator", "kinds_of"]


def kinds_of(workdir) -> tuple[str, ...]:
    """Which evaluations a run has: "autoencoder", "generator"; a single stage has both."""
    parsed = api.load_config_of(workdir, config.Settings)
    found = ("autoencoder",) if isinstance(parsed, config.Autoencoder) else ()
    samples = ("generator",) if isinstance(parsed, config.Generators) else ()
    return found + samples
