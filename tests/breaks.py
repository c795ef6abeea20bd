"""Breaks that the tests must catch: each is made in a copy, and its test must go red.

    python -m tests.breaks            # all of them
    python -m tests.breaks sum ema    # those whose name contains a word

A test that stays green under its break is a test that cannot fail.
"""

import dataclasses
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent


@dataclasses.dataclass(frozen=True)
class Break:
    """In `file`, `old` (which must occur) becomes `new`; `test` must then fail."""

    name: str
    file: str
    old: str
    new: str
    test: str


BREAKS = (
    Break(
        "fixed crops drawn anew in every epoch",
        "ul/data/pipeline.py",
        "grain.MapDataset.source(fixed).seed(seed).shuffle()",
        "fixed.seed(seed).shuffle()",
        "tests/data/test_pipeline.py",
    ),
    Break(
        "mirrored latents of images that were not",
        "ul/data/pipeline.py",
        "dataset.map(transforms.mirror)",
        "dataset",
        "tests/data/test_pipeline.py",
    ),
    Break(
        "a cache of any encoder",
        "ul/data/latents.py",
        'if a["encoder"] != b["encoder"]:',
        "if False:",
        "tests/data/test_latents.py",
    ),
    Break(
        "a cache of any images",
        "ul/data/latents.py",
        'for key in ("count", "fingerprint")',
        'for key in ("count",)',
        "tests/data/test_latents.py",
    ),
    Break(
        "digests of latents not compared",
        "ul/data/shards.py",
        'damaged = sha256(path) != record["sha256"]',
        'damaged = sha256(path) == ""',
        "tests/data/test_latents.py",
    ),
    Break(
        "a shard is kept for its name",
        "ul/data/shards.py",
        "return record if whole else None",
        "return record",
        "tests/data/test_latents.py",
    ),
    Break(
        "a record's place not looked at",
        "ul/data/latents.py",
        "if index != i:",
        "if index < 0:",
        "tests/data/test_latents.py",
    ),
    Break(
        "latents rounded only where a cache keeps them",
        "ul/runs.py",
        "z.astype(config.latent_dtype).astype(np.float32)",
        "z.astype(np.float32)",
        "tests/test_cache.py::test_twenty_steps_on_digits_are_those_on_images",
    ),
    Break(
        "latents above float16's largest kept as infinity",
        "ul/data/latents.py",
        "if not np.isfinite(kept.astype(np.float32)).all():",
        "if False:",
        "tests/data/test_latents.py",
    ),
    Break(
        "a mean where a sum belongs",
        "ul/diffusion/gaussian.py",
        "return jnp.sum(x.astype(jnp.float32), axis",
        "return jnp.mean(x.astype(jnp.float32), axis",
        "tests/objectives/test_joint.py",
    ),
    Break(
        "a mean in the terminal KL",
        "ul/diffusion/gaussian.py",
        "return sum_elements(elements)",
        "return sum_elements(elements) / x[0].size",
        "tests/objectives/test_joint.py",
    ),
    Break(
        "a sweep: what was done with another config counts as done",
        "ul/sweeps/records.py",
        'record is not None and record.get("digests") == digests',
        "record is not None",
        "tests/sweeps/test_records.py",
    ),
    Break(
        "a sweep: a config that changed since is not seen",
        "ul/sweeps/records.py",
        'for name in saved["configs"].keys() & wanted["configs"].keys()',
        "for name in ()",
        "tests/sweeps/test_records.py",
    ),
    Break(
        "a sweep: stage 2 starts on an unverified stage 1",
        "ul/sweeps/runner.py",
        "if stage.steps not in verified_steps(self._path / stage.workdir)",
        "if False",
        "tests/sweeps/test_runner.py",
    ),
    Break(
        "a sweep: commands do not hold their stage",
        "ul/sweeps/runner.py",
        "stderr=log, pass_fds=held",
        "stderr=log, pass_fds=()",
        "tests/sweeps/test_runner.py",
    ),
    Break(
        "a sweep: a bad config is tried again",
        "ul/sweeps/runner.py",
        "elif self._again(code) and work.retries:",
        "elif work.retries:",
        "tests/sweeps/test_runner.py",
    ),
    Break(
        "a sweep: the latents' shape does not follow",
        "ul/sweeps/expand.py",
        'resolved["latent_shape"] != shape',
        "False",
        "tests/sweeps/test_expand.py",
    ),
    Break(
        "a sweep: two trials of one name",
        "ul/sweeps/expand.py",
        "        if name in found:",
        "        if False:",
        "tests/sweeps/test_expand.py",
    ),
    Break(
        "the other sign of the weight",
        "ul/diffusion/weightings.py",
        "jax.nn.sigmoid(self.bias - logsnr)",
        "jax.nn.sigmoid(logsnr - self.bias)",
        "tests/objectives/test_joint.py",
    ),
    Break(
        "z_hat instead of z_0",
        "ul/diffusion/samplers.py",
        "    return z_0\n",
        "    return _\n",
        "tests/diffusion/test_samplers.py",
    ),
    Break(
        "EMA of the old parameters",
        "ul/train/step.py",
        "ema=ema.update(state.ema, params,",
        "ema=ema.update(state.ema, state.params,",
        "tests/train/test_step.py",
    ),
    Break(
        "a stop-gradient on z_clean for the prior",
        "ul/objectives/joint.py",
        "z_prior = trees.scale_gradient(z_clean, ramp)",
        "z_prior = trees.scale_gradient(z_clean, 0.0)",
        "tests/objectives/test_joint.py",
    ),
    Break(
        "a stop-gradient on z_clean for the decoder",
        "ul/objectives/joint.py",
        "z_0 = least_noise(z_clean,",
        "z_0 = least_noise(trees.scale_gradient(z_clean, 0.0),",
        "tests/objectives/test_joint.py",
    ),
    Break(
        "encoder noise not tied to the prior's end",
        "ul/objectives/joint.py",
        "draws, prior_schedule.logsnr_max)",
        "draws, 10.0)",
        "tests/objectives/test_joint.py",
    ),
    Break(
        "one noise for prior and encoder",
        "ul/objectives/joint.py",
        'draws.noise("prior_noise"',
        'draws.noise("encoder_noise"',
        "tests/objectives/test_joint.py",
    ),
    Break(
        "one time for prior and decoder",
        "ul/objectives/joint.py",
        'draws.time("decoder_time")',
        'draws.time("prior_time")',
        "tests/objectives/test_joint.py",
    ),
    Break(
        "the ramp changes values",
        "ul/objectives/joint.py",
        "trees.scale_gradient(z_clean, ramp)",
        "z_clean * ramp",
        "tests/objectives/test_joint.py",
    ),
    Break(
        "noise added to z_clean in stage 2",
        "ul/objectives/base.py",
        'z_clean, draws = batch["z_clean"],',
        'z_clean, draws = 1.1 * batch["z_clean"],',
        "tests/objectives/test_base.py",
    ),
    Break(
        "a missing derivative",
        "ul/objectives/denoising.py",
        "-schedule.derivative(t) / 2.0",
        "7.5",
        "tests/objectives/test_denoising.py",
    ),
    Break(
        "alpha and sigma swapped in v",
        "ul/diffusion/predictions.py",
        "return alpha(logsnr) * z_t - sigma(logsnr) * v",
        "return sigma(logsnr) * z_t - alpha(logsnr) * v",
        "tests/diffusion/test_predictions.py",
    ),
    Break(
        "the same noise every step",
        "ul/train/step.py",
        'rng.stream(root, "train", state.step)',
        'rng.stream(root, "train", 0)',
        "tests/train/test_step.py",
    ),
    Break(
        "a broken gradient is applied",
        "ul/train/step.py",
        "jnp.where(good, a, b)",
        "a",
        "tests/train/test_step.py",
    ),
    Break(
        "microbatches not averaged",
        "ul/train/step.py",
        "lambda g: g / accumulate",
        "lambda g: g",
        "tests/train/test_step.py",
    ),
    Break(
        "digests not checked on resume",
        "ul/train/checkpoint.py",
        'digests != meta["digests"] or',
        "",
        "tests/train/test_checkpoint.py",
    ),
    Break(
        "half-written steps are listed",
        "ul/train/checkpoint.py",
        "AtomicityMode.COMMIT_FILE",
        "AtomicityMode.DEFAULT",
        "tests/train/test_checkpoint.py",
    ),
    Break(
        "augmentation by chance",
        "ul/data/transforms.py",
        "top = rng.integers(",
        "top = np.random.default_rng().integers(",
        "tests/data/test_pipeline.py",
    ),
    Break(
        "every device gets the first rows",
        "ul/core/mesh.py",
        "at = np.searchsorted(rows, first)",
        "at = 0",
        "tests/core/test_mesh.py",
    ),
    Break(
        "the data's digest does not see the pictures",
        "ul/data/pipeline.py",
        'digest.update(np.ascontiguousarray(found["image"]).tobytes())',
        "pass",
        "tests/data/test_pipeline.py",
    ),
    Break(
        "2M extrapolates twice as far",
        "ul/diffusion/samplers.py",
        "width / (2.0 * before)",
        "width / before",
        "tests/diffusion/test_samplers.py",
    ),
    Break(
        "2M takes the next step for the one before",
        "ul/diffusion/samplers.py",
        "jnp.inf), width[:-1]]",
        "jnp.inf), width[1:]]",
        "tests/diffusion/test_samplers.py",
    ),
    Break(
        "DDIM moves by the whole rise",
        "ul/diffusion/samplers.py",
        "(move.logsnr_s - move.logsnr_t) / 2.0",
        "(move.logsnr_s - move.logsnr_t)",
        "tests/diffusion/test_samplers.py",
    ),
    Break(
        "a variance where a std belongs",
        "ul/diffusion/samplers.py",
        "jnp.sqrt(variance) * eps()",
        "variance * eps()",
        "tests/diffusion/test_samplers.py",
    ),
    Break(
        "the same noise at every sampling step",
        "ul/diffusion/samplers.py",
        '"step", move.number',
        '"step", 0',
        "tests/diffusion/test_samplers.py",
    ),
    Break(
        "the posterior's variance at t, not s",
        "ul/diffusion/gaussian.py",
        "jax.nn.sigmoid(-logsnr_s) * c",
        "jax.nn.sigmoid(-logsnr_t) * c",
        "tests/diffusion/test_gaussian.py",
    ),
    Break(
        "sigma by subtraction",
        "ul/diffusion/gaussian.py",
        "jnp.sqrt(jax.nn.sigmoid(-logsnr))",
        "jnp.sqrt(1.0 - jax.nn.sigmoid(logsnr))",
        "tests/diffusion/test_predictions.py",
    ),
    Break(
        "the terminal KL without its -1",
        "ul/diffusion/gaussian.py",
        "(jnp.square(x) - 1.0)",
        "jnp.square(x)",
        "tests/objectives/test_closed_forms.py",
    ),
    Break(
        "alpha and sigma swapped in the noise",
        "ul/diffusion/gaussian.py",
        "return alpha(logsnr) * x + sigma(logsnr) * eps",
        "return sigma(logsnr) * x + alpha(logsnr) * eps",
        "tests/objectives/test_closed_forms.py",
    ),
    Break(
        "guidance away from the condition",
        "ul/diffusion/guidance.py",
        "extra * (x_c - x_u)",
        "extra * (x_u - x_c)",
        "tests/diffusion/test_guidance.py",
    ),
    Break(
        "guidance of scale w + 1",
        "ul/diffusion/guidance.py",
        "jnp.where(inside, scale - 1.0",
        "jnp.where(inside, scale",
        "tests/diffusion/test_guidance.py",
    ),
    Break(
        "the shift forgotten in the cosine's inverse",
        "ul/diffusion/schedules.py",
        "jnp.exp(-(logsnr - self.shift) / 2.0)",
        "jnp.exp(-logsnr / 2.0)",
        "tests/diffusion/test_schedules.py",
    ),
    Break(
        "the cosine's derivative without its 2",
        "ul/diffusion/schedules.py",
        "return -2.0 * width *",
        "return -width *",
        "tests/diffusion/test_schedules.py",
    ),
    Break(
        "a weight of the ELBO other than 1",
        "ul/diffusion/weightings.py",
        "return jnp.ones_like(logsnr)",
        "return jnp.full_like(logsnr, 1.1)",
        "tests/objectives/test_closed_forms.py",
    ),
    Break(
        "the loss factor forgotten",
        "ul/diffusion/weightings.py",
        "return self.factor * jax",
        "return jax",
        "tests/objectives/test_closed_forms.py",
    ),
    Break(
        "nats called bits",
        "ul/diffusion/waterfilling.py",
        "nats = 2.0 * np.log(2.0) * target_bits",
        "nats = 2.0 * target_bits",
        "tests/diffusion/test_waterfilling.py",
    ),
    Break(
        "the half of the integrand forgotten",
        "ul/objectives/denoising.py",
        "/ 2.0 * weight(logsnr)",
        "* weight(logsnr)",
        "tests/objectives/test_closed_forms.py",
    ),
    Break(
        "the line's slope for every schedule",
        "ul/objectives/denoising.py",
        "-schedule.derivative(t) / 2.0",
        "(schedule.logsnr_max - schedule.logsnr_min) / 2.0",
        "tests/objectives/test_closed_forms.py",
    ),
    Break(
        "the terminal KL is left out",
        "ul/objectives/joint.py",
        "rate=prior + terminal",
        "rate=prior",
        "tests/objectives/test_closed_forms.py",
    ),
    Break(
        "one noise for decoder and encoder",
        "ul/objectives/joint.py",
        'draws.noise("decoder_noise"',
        'draws.noise("encoder_noise"',
        "tests/objectives/test_closed_forms.py",
    ),
    Break(
        "half the decoder's gradient to the encoder",
        "ul/objectives/joint.py",
        "z_0 = least_noise(z_clean",
        "z_0 = least_noise(trees.scale_gradient(z_clean, 0.5)",
        "tests/objectives/test_closed_forms.py",
    ),
    Break(
        "an upward import",
        "ul/core/arrays.py",
        "import jax.numpy as jnp\n",
        "import jax.numpy as jnp\nfrom ul.diffusion import gaussian  # noqa\n",
        "tests/test_structure.py",
    ),
    Break(
        "an import that has an owner",
        "ul/diffusion/times.py",
        "import jax\n",
        "import jax\nimport orbax.checkpoint  # noqa\n",
        "tests/test_structure.py",
    ),
    Break(
        "a file over its budget",
        "ul/core/rng.py",
        "import zlib\n",
        "import zlib\n" + "# more\n" * 400,
        "tests/test_structure.py",
    ),
    Break(
        "dry run: convolutions without their groups",
        "ul/pods/flops.py",
        "math.prod(kernel) // features",
        "math.prod(kernel)",
        "tests/pods/test_flops.py",
    ),
    Break(
        "dry run: a scan counted once",
        "ul/pods/flops.py",
        'eqn.params.get("length", 1)',
        "1",
        "tests/pods/test_flops.py",
    ),
    Break(
        "dry run: three products where data need two",
        "ul/pods/closed_form.py",
        "3 * self.forward - self.data_layers",
        "3 * self.forward",
        "tests/pods/test_flops.py",
    ),
    Break(
        "dry run: a loop's bound unread",
        "ul/pods/hlo.py",
        "bounds[0] if len(bounds) == 1 else 1",
        "1",
        "tests/pods/test_hlo.py",
    ),
    Break(
        "dry run: chains counted again",
        "ul/pods/collectives.py",
        "key = (kind, chain[1]) if chain else (name, i.name)",
        "key = (name, i.name)",
        "tests/pods/test_hlo.py",
    ),
    Break(
        "dry run: gathers by all-reduce overlooked",
        "ul/pods/collectives.py",
        'made.opcode == "dynamic-update-slice"',
        "False",
        "tests/pods/test_hlo.py",
    ),
    Break(
        "dry run: whole stacks read where a slice is",
        "ul/pods/traffic.py",
        'if user.opcode == "dynamic-slice":',
        'if user.opcode == "no-slice":',
        "tests/pods/test_hlo.py",
    ),
    Break(
        "dry run: what is missing unseen",
        "ul/pods/dry.py",
        "max(0, self.peak - round(chip.memory_gib * GIB)) if chip else 0",
        "0",
        "tests/pods/test_dry.py",
    ),
    Break(
        "dry run: the slowest is proposed",
        "ul/pods/search.py",
        "fastest = max(",
        "fastest = min(",
        "tests/pods/test_dry.py",
    ),
    Break(
        "kernels are not gathered where they are used",
        "ul/models/products.py",
        "mesh.gathered(kernel)",
        "kernel",
        "tests/pods/test_dry.py",
    ),
    Break(
        "the gradient of a gathered kernel is whole",
        "ul/core/mesh.py",
        "lambda _, gradient: (constrain_leaves(gradient),)",
        "lambda _, gradient: (jax.lax.with_sharding_constraint(gradient, P()),)",
        "tests/core/test_mesh.py",
    ),
    Break(
        "dinov2: gelu by tanh",
        "ul/evals/features/dinov2.py",
        "approximate=False",
        "approximate=True",
        "tests/evals/features/test_dinov2.py::test_features_are_those_of_pytorch",
    ),
    Break(
        "dinov2: keys for queries",
        "ul/evals/features/dinov2.py",
        "q, k, v = jnp.moveaxis",
        "k, q, v = jnp.moveaxis",
        "tests/evals/features/test_dinov2.py::test_features_are_those_of_pytorch",
    ),
    Break(
        "dinov2: the norm's epsilon of PyTorch",
        "ul/evals/features/dinov2.py",
        "epsilon=1e-6",
        "epsilon=1e-5",
        "tests/evals/features/test_dinov2.py::test_blocks_scaled_by_zero_leave_the_class_token",
    ),
    Break(
        "dinov2: images resized without antialiasing",
        "ul/evals/features/dinov2.py",
        "antialias=True",
        "antialias=False",
        "tests/evals/features/test_dinov2.py::test_resizing_is_pils_bicubic",
    ),
    Break(
        "dinov2: positions resized by the plain ratio",
        "ul/evals/features/dinov2.py",
        "old / (grid + 0.1)",
        "old / grid",
        "tests/evals/features/test_dinov2.py::test_positions_are_resized_as_pytorch_does",
    ),
    Break(
        "dinov2: positions resized by PIL's cubic",
        "ul/evals/features/dinov2.py",
        "a: float = -0.75",
        "a: float = -0.5",
        "tests/evals/features/test_dinov2.py::test_positions_are_resized_as_pytorch_does",
    ),
    Break(
        "dinov2: patches read by columns",
        "ul/evals/features/dinov2.py",
        ".transpose(1, 0, 2, 3)",
        "",
        "tests/evals/features/test_dinov2.py::test_both_public_layouts_are_read",
    ),
    Break(
        "dinov2: products in the device's precision",
        "ul/evals/features/dinov2.py",
        'jax.default_matmul_precision("highest")',
        'jax.default_matmul_precision("default")',
        "tests/evals/features/test_dinov2.py::test_products_run_in_full_precision",
    ),
    Break(
        "i3d: the normalisation's epsilon of PyTorch",
        "ul/evals/features/i3d.py",
        "EPSILON = 1e-3",
        "EPSILON = 1e-5",
        "tests/evals/features/test_i3d.py::test_blocks_give_what_pytorch_gives",
    ),
    Break(
        "i3d: padding before rather than after",
        "ul/evals/features/i3d.py",
        '        "SAME",\n        dimension',
        '        "SAME_LOWER",\n        dimension',
        "tests/evals/features/test_i3d.py::test_padding_is_tensorflows",
    ),
    Break(
        "i3d: the branches in another order",
        "ul/evals/features/i3d.py",
        "[b0, b1, b2, b3]",
        "[b0, b2, b1, b3]",
        "tests/evals/features/test_i3d.py::test_blocks_give_what_pytorch_gives",
    ),
    Break(
        "i3d: kernels with sides exchanged",
        "ul/evals/features/i3d.py",
        "transpose(2, 3, 4, 1, 0)",
        "transpose(2, 4, 3, 1, 0)",
        "tests/evals/features/test_i3d.py::test_blocks_give_what_pytorch_gives",
    ),
    Break(
        "i3d: frames resized with antialiasing",
        "ul/evals/features/i3d.py",
        "antialias=False",
        "antialias=True",
        "tests/evals/features/test_i3d.py::test_frames_are_reduced_without_antialiasing",
    ),
    Break(
        "i3d: pixels in 0..1",
        "ul/evals/features/i3d.py",
        "2.0 * x / 255.0 - 1.0",
        "x / 255.0",
        "tests/evals/features/test_i3d.py::test_frames_are_enlarged_as_pil_does_and_scaled",
    ),
    Break(
        "i3d: time averaged without pairs",
        "ul/evals/features/i3d.py",
        "(1, 2, 7, 7, 1), (1, 1, 1, 1, 1)",
        "(1, 1, 7, 7, 1), (1, 1, 1, 1, 1)",
        "tests/evals/features/test_i3d.py::test_logits_are_means_over_pairs_and_time",
    ),
    Break(
        "i3d: clips of any length",
        "ul/evals/features/i3d.py",
        "if video.shape[1] < MIN_FRAMES",
        "if video.shape[1] < 1",
        "tests/evals/features/test_i3d.py::test_clips_of_any_size_give_400_logits",
    ),
    Break(
        "remat dots keeps nothing",
        "ul/models/remat.py",
        '"dots": _products,',
        '"dots": jax.checkpoint_policies.nothing_saveable,',
        "tests/models/test_networks.py",
    ),
    Break(
        "inception: padding counts in the average pools",
        "ul/evals/features/inception.py",
        "return total / jax.lax.reduce_window(ones, 0.0, jax.lax.add, *window)",
        "return total / 9.0",
        "tests/evals/features/test_networks.py",
    ),
    Break(
        "inception: the last block pools by the mean",
        "ul/evals/features/inception.py",
        '"Mixed_7c": _e("max")',
        '"Mixed_7c": _e("mean")',
        "tests/evals/features/test_networks.py",
    ),
    Break(
        "inception: the spatial features of the next block",
        "ul/evals/features/inception.py",
        'SPATIAL_BLOCK, SPATIAL_CHANNELS = "Mixed_6d", 7',
        'SPATIAL_BLOCK, SPATIAL_CHANNELS = "Mixed_6e", 7',
        "tests/evals/features/test_networks.py",
    ),
    Break(
        "inception: the normalisation's epsilon of PyTorch",
        "ul/evals/features/inception.py",
        "_EPSILON = 1e-3",
        "_EPSILON = 1e-5",
        "tests/evals/features/test_networks.py",
    ),
    Break(
        "resize: read at the centres of pixels",
        "ul/evals/features/resize.py",
        "np.arange(out, dtype=np.float32) * np.float32(size / out)",
        "np.maximum((np.arange(out, dtype=np.float32) + 0.5) * size / out - 0.5, 0)",
        "tests/evals/features/test_networks.py",
    ),
    Break(
        "lpips: no shift in the scaling layer",
        "ul/evals/features/lpips.py",
        "(x - _SHIFT[None, None, None])",
        "x",
        "tests/evals/features/test_networks.py",
    ),
    Break(
        "lpips: channels keep their length",
        "ul/evals/features/lpips.py",
        "jnp.split(_unit(activation), 2)",
        "jnp.split(activation, 2)",
        "tests/evals/features/test_networks.py",
    ),
    Break(
        "weights: the digest is not compared",
        "ul/evals/features/weights.py",
        'if digest != entry["sha256"]:',
        "if not digest:",
        "tests/evals/features/test_weights.py",
    ),
    Break(
        "weights: names and shapes are not compared",
        "ul/evals/features/weights.py",
        "    check(path, arrays, module)\n    return arrays",
        "    return arrays",
        "tests/evals/features/test_weights.py",
    ),
    Break(
        "weights: a transposed view is written as it lies",
        "ul/evals/features/weights.py",
        "{k: np.ascontiguousarray(v) for k, v in arrays.items()}",
        "arrays",
        "tests/evals/features/test_weights.py",
    ),
    Break(
        "weights: a pickle beside the place is an absent file",
        "ul/core/files.py",
        'PICKLES = (".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth")',
        "PICKLES = ()",
        "tests/evals/features/test_weights.py",
    ),
    Break(
        "external latents: padded at the beginning",
        "ul/models/kl_autoencoder.py",
        "padding=((0, 1), (0, 1))",
        "padding=((1, 0), (1, 0))",
        "tests/models/test_kl_autoencoder.py::test_down_it_pads_at_the_end_alone",
    ),
    Break(
        "external latents: the encoder's variance for its mean",
        "ul/models/kl_autoencoder.py",
        "return h[..., : s.latent_channels]",
        "return h[..., s.latent_channels :]",
        "tests/models/test_kl_autoencoder.py::test_the_latents_are_the_mean",
    ),
    Break(
        "external latents: the shift forgotten",
        "ul/builders/external.py",
        "config.scale * (mean - config.shift)",
        "config.scale * mean",
        "tests/test_external.py::test_latents_are_the_scaled_mean_and_decoding_undoes_it",
    ),
    Break(
        "external latents: CompVis's decoder upside down",
        "ul/external.py",
        "levels - 1 - int(m[1])",
        "int(m[1])",
        "tests/test_external.py::test_other_names_for_the_same_weights",
    ),
    Break(
        "external latents: a tensor that nothing uses passes",
        "ul/external.py",
        "for name in found if name not in wanted]",
        "for name in found if name in ()]",
        "tests/test_external.py::test_every_tensor_is_used_and_every_parameter_filled",
    ),
    Break(
        "external latents: other weights over the same workdir",
        "ul/external.py",
        'known["sha256"] != digest',
        'known["sha256"] == 0',
        "tests/test_external.py::test_what_an_import_leaves_and_that_again_changes_nothing",
    ),
    Break(
        "external latents: a length taken for a pickle",
        "ul/core/files.py",
        ' and head[8:9] != b"{"',
        "",
        "tests/test_external.py::test_a_header_as_long_as_a_pickle_begins_is_none",
    ),
    Break(
        "a report mixes counts of examples",
        "ul/reporting/numbers.py",
        'count = numbers.get("num_examples")',
        "count = None",
        "tests/test_report.py::test_counts_and_guidances_never_share_a_column",
    ),
    Break(
        "a report escapes nothing",
        "ul/reporting/page.py",
        "return html.escape(str(value))",
        "return str(value)",
        "tests/test_report.py::test_all_text_is_escaped",
    ),
    Break(
        "a report takes the oldest step",
        "ul/reporting/numbers.py",
        'newest = max(r.numbers["step"]',
        'newest = min(r.numbers["step"]',
        "tests/test_report.py::test_the_newest_step_of_ema_weights_and_the_lowest_seed_is_taken",
    ),
    Break(
        "a report counts the forward pass alone",
        "ul/reporting/costs.py",
        "count.closed(stage.parsed).training",
        "count.closed(stage.parsed).forward",
        "tests/test_report.py::test_flops_are_three_forward_passes_of_all_steps",
    ),
    Break(
        "published MACs pass for FLOPs",
        "ul/reporting/published.py",
        "return 6.0 *",
        "return 3.0 *",
        "tests/test_report.py::test_published_costs_are_those_of_the_papers_in_flop",
    ),
    Break(
        "a report's links do not leave its folder",
        "ul/reporting/page.py",
        'urllib.parse.quote(f"../{source}")',
        "urllib.parse.quote(source)",
        "tests/test_report.py::test_every_link_leads_to_a_file",
    ),
    Break(
        "a failed trial is partial",
        "ul/reporting/folder.py",
        "for x in lines[-LOG_LINES:] if ERROR",
        "for x in lines[:0] if ERROR",
        "tests/test_report.py::test_partial_failed_and_missing_trials_are_said_to_be",
    ),
    Break(
        "covariance divided by N",
        "ul/evals/frechet.py",
        "self.outer / (self.count - 1)",
        "self.outer / self.count",
        "tests/evals/test_frechet.py",
    ),
    Break(
        "moments merged without the gap of the means",
        "ul/evals/frechet.py",
        "self.outer + other.outer + between",
        "self.outer + other.outer",
        "tests/evals/test_frechet.py",
    ),
    Break(
        "inception score of the last split alone",
        "ul/evals/inception_score.py",
        "self._scores.append(self._score())",
        "self._scores = [self._score()]",
        "tests/evals/test_inception_score.py",
    ),
    Break(
        "a row is its own nearest neighbour",
        "ul/evals/manifold.py",
        "axis=1)[:, NEIGHBOURS]",
        "axis=1)[:, NEIGHBOURS - 1]",
        "tests/evals/test_manifold.py",
    ),
    Break(
        "sFID of the pool features",
        "ul/evals/measures.py",
        '"sfid": _frechet("spatial", "sFID")',
        '"sfid": _frechet("pool", "sFID")',
        "tests/evals/test_measures.py",
    ),
    Break(
        "few samples are printed as FID",
        "ul/evals/measures.py",
        "count >= FULL else",
        "count >= 2 else",
        "tests/evals/test_measures.py",
    ),
    Break(
        "a reference's digest is not compared",
        "ul/evals/references.py",
        "if there[key] != here[key]:",
        "if key == 'file' and there[key] != here[key]:",
        "tests/evals/test_references.py",
    ),
    Break(
        "a reference of other images is taken",
        "ul/evals/references.py",
        'tuple(stated["image_shape"]) != shape',
        'len(stated["image_shape"]) != len(shape)',
        "tests/evals/test_references.py",
    ),
    Break(
        "every part of the samples draws as the first",
        "ul/evaluation/generator.py",
        "first=first,",
        "first=0,",
        "tests/evals/test_runs.py",
    ),
    Break(
        "a killed reference begins again",
        "ul/evaluation/reference.py",
        "        seen.restore(dict(data))",
        "        dict(data)",
        "tests/evals/test_runs.py",
    ),
    Break(
        "a deleted step ends the evaluation",
        "ul/evaluation/sequence.py",
        "return step not in checkpoint.verified_steps(workdir)",
        "return False",
        "tests/evals/test_runs.py",
    ),
    Break(
        "the recorded command asks for the newest step",
        "ul/evaluation/request.py",
        '            "step": step,\n',
        "",
        "tests/test_evaluation.py",
    ),
)


def survives(case: Break) -> bool:
    """Whether the test stays green on a copy with the break in it."""
    with tempfile.TemporaryDirectory() as where:
        for part in ("ul", "experiments", "launch", "tests"):
            shutil.copytree(
                ROOT / part,
                Path(where) / part,
                ignore=shutil.ignore_patterns("__pycache__"),
            )
        for part in (".pytest.ini", "setup.py"):
            shutil.copy(ROOT / part, where)
        file = Path(where) / case.file
        text = file.read_text()
        assert case.old in text, f"{case.name}: {case.file} has no {case.old!r}"
        file.write_text(text.replace(case.old, case.new))
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-x", case.test],
            cwd=where,
            env=os.environ | {"PYTHONPATH": where},
            capture_output=True,
            text=True,
        )
        assert done.returncode in (0, 1), done.stdout + done.stderr
        return done.returncode == 0


def main() -> None:
    words = sys.argv[1:]
    chosen = [b for b in BREAKS if not words or any(w in b.name for w in words)]
    alive = []
    for case in chosen:
        alive += [case] if survives(case) else []
        verdict = "SURVIVED" if case in alive else "caught"
        print(f"{verdict:9} {case.name} ({case.test})", flush=True)
    print(f"{len(chosen) - len(alive)} passed, {len(alive)} failed")
    sys.exit(bool(alive))


if __name__ == "__main__":
    main()
