"""Evaluations of restored runs: one dict of numbers, with the protocol they come from."""

from ul.evaluation.autoencoder import autoencoder
from ul.evaluation.generator import generator
from ul.evaluation.reference import make_reference
from ul.evaluation.request import Request
from ul.evaluation.sequence import every, kinds_of
from ul.evaluation.shared import Shared

__all__ = [
    "Request",
    "Shared",
    "autoencoder",
    "every",
    "generator",
    "kinds_of",
    "make_reference",
]
