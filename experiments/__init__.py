"""Experiments: configs as documents. They import ml_collections and `common` alone."""
