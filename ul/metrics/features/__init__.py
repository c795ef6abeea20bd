"""Feature sets for Frechet distances, each with a name that goes into the report."""
