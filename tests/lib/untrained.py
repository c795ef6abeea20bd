"""Runs as training leaves them, without the training: random weights, verified steps."""

import dataclasses
import importlib

import jax
import jax.numpy as jnp
from etils import epath

from ul.checkpoints import workdir
from ul.data.datasets import Datasets
from ul.runs import session
from ul.stages import registry
from ul.train import state


def settings(file, variant):
    """An experiment's config as nested dicts."""
    module = importlib.import_module(f"experiments.{file}")
    return registry.to_dict(module.get_config(variant))


def parsed(file, variant, **changes):
    """An experiment's config, parsed, with some keys or sections changed."""
    config = importlib.import_module(f"experiments.{file}").get_config(variant).unlock()
    config.update(changes)
    return registry.parse(registry.to_dict(config))


def stage(file, variant, **changes):
    """The stage of an experiment."""
    return registry.build(parsed(file, variant, **changes))


def datasets(file, variant, **changes):
    """The datasets of an experiment."""
    return Datasets.from_config(parsed(file, variant, **changes))


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
    settings = dataclasses.asdict(parsed)
    record = provenance | session.run_provenance(run)
    workdir.write_or_check_config(path, settings, record, allow_changes=False)
    checkpoints = session.open_checkpoints(path, parsed.checkpoint)
    # On one device: a checkpoint is the same from any, and eight take thrice the time.
    first = jax.jit(lambda: state.create(awake(run.init()), run.tx, run.ema_names))()
    for step in steps:
        scaled = jax.tree.map(lambda p, s=step: p * (1.0 + 0.05 * s), first.params)
        now = first.replace(step=jnp.asarray(step, jnp.int32), params=scaled)
        checkpoints.save(step, now)
    checkpoints.close()
    return str(where)
