"""Import the packages that the networks are compared with (`make oracle`)."""

import importlib
import warnings

import pytest


def import_package(name):
    """Import a package that may need torchvision; skip the test if one is missing."""
    torch = pytest.importorskip("torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            importlib.import_module("torchvision")
        except RuntimeError:
            # A torchvision built for CUDA beside a PyTorch without it registers nothing,
            # and then fails on its own operators. No test calls one of them.
            _LIBRARIES.append(library := torch.library.Library("torchvision", "DEF"))
            for op in ("nms", "qnms"):
                library.define(
                    f"{op}(Tensor dets, Tensor scores, float threshold) -> Tensor"
                )
        except ImportError:
            pass  # some packages work without torchvision
        return pytest.importorskip(name)


_LIBRARIES = []  # an operator exists only as long as its library
