"""Floor 3: state, step, checkpoints and loop. The same for every stage."""
