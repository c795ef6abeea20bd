"""Data sources: random access to the examples of a split (see registry.py)."""
