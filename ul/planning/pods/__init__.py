"""Dry run: compile one train step for machines that are not attached, and analyze it."""
