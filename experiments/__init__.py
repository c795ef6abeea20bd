"""Configs of experiments. They import `ml_collections` and each other, and nothing else."""
