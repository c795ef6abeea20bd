"""Imports of the packages that the networks are compared with: `make oracle`."""

import importlib
import warnings

import pytest


def package(name):
    """The package, which may want torchvision; skips where one is missing."""
    torch = pytest.importorskip("torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            importlib.import_module("torchvision")
        except RuntimeError:
            # A torchvision built for CUDA beside a PyTorch without it registers nothing,
            # and then misses its own operators. None of them is called here.
            _KEPT.append(lib := torch.library.Library("torchvision", "DEF"))
            for op in ("nms", "qnms"):
                lib.define(
                    f"{op}(Tensor dets, Tensor scores, float threshold) -> Tensor"
                )
        except ImportError:
            pass  # some do without
        return pytest.importorskip(name)


_KEPT = []  # an operator is gone with its library
