"""Checkpoints, workdirs and exports: everything that a run stores. The owner of Orbax."""
