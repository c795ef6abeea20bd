"""Layer 3: training, the same for every stage: state, optimizer step, loop, and what a run logs."""
