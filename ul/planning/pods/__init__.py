"""The dry run: one train step compiled for machines that are not here, and weighed."""
