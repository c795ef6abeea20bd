"""Layer 6: evaluations of restored runs: each gives one dict of numbers with their protocol."""

from ul.evaluation.context import EvaluationContext
from ul.evaluation.generation import evaluate_generator
from ul.evaluation.reconstruction import evaluate_autoencoder
from ul.evaluation.reference import make_reference
from ul.evaluation.request import Request
from ul.evaluation.runner import kinds_of, run_all

__all__ = [
    "EvaluationContext",
    "Request",
    "evaluate_autoencoder",
    "evaluate_generator",
    "kinds_of",
    "make_reference",
    "run_all",
]
