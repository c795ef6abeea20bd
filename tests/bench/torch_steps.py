"""Training steps beside those of the same networks in PyTorch, in turn in one process.

    python -m tests.bench.torch_steps --config photos:stage1_16 --pairs 7

Both sides have the same parameters, data, losses, clipping, AdamW and averages, in float32
on the CPU with the same number of threads. PyTorch runs eagerly. Needs PyTorch.
"""

import argparse
import copy
import os
import statistics
import sys
import time

import jax
import numpy as np
import torch
from tqdm import tqdm

from tests.lib import untrained
from ul.data.datasets import Datasets
from ul.inference.pytorch import convert
from ul.inference.pytorch import networks as torch_networks
from ul.runs import assemble
from ul.stages import registry
from ul.train import loop
from ul.train import state as states


def jax_side(config):
    """Return the run on untrained networks, and the parameters with which it begins."""
    stage, datasets = registry.build(config), Datasets.from_config(config)
    if config.stage == "joint":
        return assemble.build_stage1_run(config, stage, datasets), {}
    stage1 = untrained.stage("photos", "stage1")
    frozen = stage1.init(jax.random.key(0))
    run = assemble.build_stage2_run(config, stage, datasets, stage1.codec, frozen)
    return run, frozen


def jax_step(run, batch):
    """Return a function of no arguments that makes one update and waits for it."""
    state = states.initialize(run.init, run.tx, run.ema_names, run.mesh)
    with jax.set_mesh(run.mesh):
        ready = loop.place_batch(run, batch, 1, None)
        compiled = loop.lower_step(run, state, ready).compile()

    def step():
        nonlocal state
        with jax.set_mesh(run.mesh):
            state, moments = compiled(state, loop.place_batch(run, batch, 1, None))
        jax.block_until_ready((state, moments))

    return step, sum(leaf.size for leaf in jax.tree.leaves(state.params))


def denoising_loss(x, network, weight, *condition):
    """Return the weighted v loss; the schedule's shape does not matter for the time."""
    logsnr = 17.0 * torch.rand(len(x), device=x.device) - 9.0
    level = logsnr.view(-1, *[1] * (x.ndim - 1))
    a, s = level.sigmoid().sqrt(), (-level).sigmoid().sqrt()
    x_t = a * x + s * torch.randn_like(x)
    x_hat = a * x_t - s * network(x_t, logsnr, *condition)
    return (weight(level) * level.exp() * (x - x_hat).square()).sum() / len(x)


class TorchStep:
    """The update of stage 1, or of a stage 2 that encodes its images."""

    def __init__(self, config, batch, params, frozen):
        shape = config.data.image_shape
        self.config, self.label = config, torch.tensor(batch["label"]).long()
        self.image = torch.tensor(batch["image"])
        self.is_joint = config.stage == "joint"
        encoder = config.encoder if self.is_joint else untrained_encoder()
        self.encoder = torch_networks.Encoder(encoder, shape)
        networks, conditions = {}, {"text_channels": 0, "has_context": False}
        if self.is_joint:
            grid = registry.build(config).latent_shape
            settings = config.prior | conditions | {"num_classes": 0}
            networks["encoder"] = self.encoder
            networks["decoder"] = torch_networks.UViT(config.decoder, shape, grid)
        else:
            grid = config.latent_shape
            settings = config.base | conditions
            settings |= {"num_classes": config.data.num_classes}
        self.denoiser = torch_networks.ViT(settings, grid)
        networks["prior" if self.is_joint else "base"] = self.denoiser
        self.networks = torch.nn.ModuleDict(networks)
        for name, network in networks.items():
            own = params[name] if self.is_joint else params
            network.load_state_dict(tensors(own))
        if not self.is_joint:
            self.encoder.load_state_dict(tensors(frozen["encoder"]))
        self.parameters = list(self.networks.parameters())
        self.average = copy.deepcopy(self.parameters)
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-4)

    def __call__(self):
        x = self.image.float() / 127.5 - 1.0
        if self.is_joint:
            z = self.encoder(x)
            z_0 = z * 0.9966 + 0.082 * torch.randn_like(z)
            loss = denoising_loss(z, self.denoiser, torch.ones_like)
            decoder = self.networks["decoder"]
            loss += denoising_loss(x, decoder, lambda v: (3.0 - v).sigmoid(), z_0)
        else:
            with torch.no_grad():
                z = self.encoder(x)
            loss = denoising_loss(z, self.denoiser, torch.ones_like, self.label)
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(self.average, self.parameters, 0.002)


def tensors(params):
    return {k: torch.tensor(v) for k, v in convert.state_dict(params).items()}


def untrained_encoder():
    return untrained.parsed("photos", "stage1").encoder


def seconds(step, count):
    """Return seconds by the clock and of the process, per step."""
    began = time.perf_counter(), time.process_time()
    for _ in range(count):
        step()
    ended = time.perf_counter(), time.process_time()
    return [(b - a) / count for a, b in zip(began, ended, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="photos:stage1_16")
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--steps", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    config = untrained.parsed(*options.config.split(":"))
    run, frozen = jax_side(config)
    batch = next(run.batches(0, 1))
    ours, size = jax_step(run, batch)
    theirs = TorchStep(config, batch, run.init(), frozen)
    assert sum(p.numel() for p in theirs.parameters) == size
    seconds(ours, 2), seconds(theirs, 2)
    ratios, times = [], []
    for _ in tqdm(range(options.pairs), unit="pair", dynamic_ncols=True):
        pair = [seconds(step, options.steps) for step in (ours, theirs)]
        times.append(pair)
        ratios.append([a / b for a, b in zip(*pair, strict=True)])
    medians = np.median(np.asarray(times), axis=0)
    wall, cpu = ([r[i] for r in ratios] for i in (0, 1))
    sys.stdout.write(
        f"{options.config}: {size:,} parameters, batch {config.batch_size}, "
        f"{torch.get_num_threads()} threads, JAX {jax.__version__}, PyTorch "
        f"{torch.__version__}\nms per step: JAX {1e3 * medians[0][0]:.0f}, PyTorch "
        f"{1e3 * medians[1][0]:.0f}\nratio of wall time, median of {options.pairs}: "
        f"{statistics.median(wall):.2f} ({min(wall):.2f} to {max(wall):.2f}); of CPU time: "
        f"{statistics.median(cpu):.2f}\n"
    )


if __name__ == "__main__":
    main()
