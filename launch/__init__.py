"""Thin mains, the only owners of flags. `python -m launch.train --help`."""
