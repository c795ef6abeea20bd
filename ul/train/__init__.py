"""Layer 3: the training loop of every stage: state, optimizer step, EMA, logs, watchdog."""
