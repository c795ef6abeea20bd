"""Feature networks and other feature sets that metrics compare, one module for each."""
