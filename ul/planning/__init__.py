"""Predictions before training: bitrates, and what a pod needs (pods/)."""
