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
        "a mean where a sum belongs",
        "ul/diffusion/gaussian.py",
        "return jnp.sum(jnp.square(x.astype",
        "return jnp.mean(jnp.square(x.astype",
        "tests/objectives/test_joint.py",
    ),
    Break(
        "a mean in the terminal KL",
        "ul/diffusion/gaussian.py",
        "return jnp.sum(elements",
        "return jnp.mean(elements",
        "tests/objectives/test_joint.py",
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
        "z_0 = gaussian.corrupt(z_clean,",
        "z_0 = gaussian.corrupt(trees.scale_gradient(z_clean, 0.0),",
        "tests/objectives/test_joint.py",
    ),
    Break(
        "encoder noise not tied to the prior's end",
        "ul/objectives/joint.py",
        "eps_0, prior_schedule.logsnr_max)",
        "eps_0, 10.0)",
        "tests/objectives/test_joint.py",
    ),
    Break(
        "one noise for prior and encoder",
        "ul/objectives/joint.py",
        'draw("prior_noise"',
        'draw("encoder_noise"',
        "tests/objectives/test_joint.py",
    ),
    Break(
        "one time for prior and decoder",
        "ul/objectives/joint.py",
        'time("decoder_time")',
        'time("prior_time")',
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
        'row, z_clean = batch["row"], batch["z_clean"]',
        'row, z_clean = batch["row"], 1.1 * batch["z_clean"]',
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
        "every process reads the same rows",
        "ul/data/pipeline.py",
        "np.arange(process * share, (process + 1) * share)",
        "np.arange(share)",
        "tests/data/test_pipeline.py",
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
