"""Floor 2: losses per example in nats. Networks come in as callables."""
