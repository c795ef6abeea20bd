"""Layer 2: objectives, which return losses per example in nats.

An objective is a function (params, batch, key, step) -> `Terms`. It receives the networks
as callables.
"""
