"""Data sources: one file each, and the registry of their kinds."""
