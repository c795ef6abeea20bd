"""Runs as training leaves them, without the training: random weights, verified steps."""

import dataclasses
import importlib

import jax
import jax.numpy as jnp
from etils import epath

from ul import config
from ul.checkpoints import workdir
from ul.runs import session
from ul.stages import registry
from ul.train import state


def parsed(file, variant, **changes):
    made = importlib.import_module(f"experiments.{file}").get_config(variant).unlock()
    made.update(changes)
    return config.parse(registry.plain(made))


def awake(params):
    """No layer at zero: what starts there says the same whatever it is asked."""

    def moved(p):
        return p + 0.02 * jnp.sin(jnp.arange(p.size, dtype=p.dtype)).reshape(p.shape)

    return jax.tree.map(moved, params)


def leave(where, parsed, steps=(2, 4)):
    """config.json and verified checkpoints, every step with other weights, EMA and raw."""
    run, provenance = session.build_run(parsed, {})
    path = epath.Path(where)
    path.mkdir(parents=True)
    plain = dataclasses.asdict(parsed)
    workdir.claim(path, plain, provenance | session.about(run), allow=False)
    checkpoints = session.open_checkpoints(path, parsed.checkpoint)
    # On one device: a checkpoint is the same from any, and eight take thrice the time.
    first = jax.jit(lambda: state.create(awake(run.init()), run.tx, run.decays))()
    for step in steps:
        scaled = jax.tree.map(lambda p, s=step: p * (1.0 + 0.05 * s), first.params)
        now = first.replace(step=jnp.asarray(step, jnp.int32), params=scaled)
        checkpoints.save(step, now)
    checkpoints.close()
    return str(where)
