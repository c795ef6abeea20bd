"""Evaluations of restored runs: one dict of numbers, with the protocol they come from."""

from ul.evaluation.context import Shared
from ul.evaluation.generation import generator
from ul.evaluation.reconstruction import autoencoder
from ul.evaluation.reference import make_reference
from ul.evaluation.request import Request
from ul.evaluation.runner import every, kinds_of

__all__ = [
    "Request",
    "Shared",
    "autoencoder",
    "every",
    "generator",
    "kinds_of",
    "make_reference",
]
