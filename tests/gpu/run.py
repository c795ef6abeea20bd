"""Check and measure training on one accelerator, in at most nine minutes.

    python -m tests.gpu.run --out gpu.json
    python -m tests.gpu.run --out cpu.json --reduced

It compares dropout and gradients with the CPU, measures the updates of ImageNet stage 1 and
stage 2 at full width with several settings, the same base in PyTorch (if it is installed),
and the input pipeline, and trains photographs of 64x64 for 90 seconds. It prints one table
and rewrites one JSON file after each row. A row that would end too late is skipped, and the
table says so. `--reduced` takes tiny networks, for a machine without a GPU. The exit code is
1 if a result is wrong or an error occurred.
"""

import argparse
import functools
import importlib.metadata
import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

# PyTorch and the trained command need memory too.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import jax
from tqdm import tqdm

from tests.gpu import measure
from ul.core import markdown

STAGE1 = dict(stage="stage1", batch=64)
STAGE2 = dict(stage="stage2_medium", batch=128)
# Name, function, and the seconds that it may need at full width, with compilation.
Row = tuple[str, Callable[[bool], dict], float]


def rows(is_reduced: bool) -> list[Row]:
    """Return what is measured, the most important first."""
    seconds = 0.5 if is_reduced else 5.0
    kernels = "xla" if jax.default_backend() == "cpu" else "auto"
    checks = [
        ("bfloat16", kernels, measure.MAX_BFLOAT16_ERROR),
        ("bfloat16", "xla", measure.MAX_BFLOAT16_ERROR),
        ("float32", "xla", measure.MAX_FLOAT32_ERROR),
    ]
    steps = [
        ("", {}, {}),
        (", attention xla", {"attention": "xla"}, {"attention": "xla"}),
        (", remat full", {"remat": "full"}, {"remat": "full"}),
        (", JAX's dropout", {"hashed_dropout": False}, {"hashed_dropout": False}),
    ]
    partial = functools.partial
    train = partial(measure.train_photos, seconds=20 if is_reduced else 90)
    table: list[Row] = [("dropout equals the CPU's", measure.check_dropout, 15)]
    table += [
        (
            f"gradients in {dtype}, attention {attention}",
            partial(
                measure.check_gradients, attention=attention, dtype=dtype, limit=limit
            ),
            25,
        )
        for dtype, attention, limit in checks
    ]
    for name, first, second in steps:
        for stage, settings in ((STAGE1, first), (STAGE2, second)):
            step = partial(measure.measure_step, seconds=seconds, **stage, **settings)
            table.append((f"{stage['stage']}{name}", step, 60))
    torch = partial(measure.measure_torch, batch=128, seconds=seconds)
    table.insert(6, ("stage2_medium, base in PyTorch", torch, 60))
    table.insert(7, ("input pipeline", partial(measure.measure_input, seconds=3), 40))
    table.insert(8, ("photos 64x64 by ul train", train, 110))
    return table


def run(table: list[Row], is_reduced: bool, deadline: float, path: Path) -> list[dict]:
    """Measure the rows until the deadline; write the file after each."""
    results: list[dict] = []
    for name, function, needed in tqdm(table, unit="row", dynamic_ncols=True):
        result: dict = {"name": name}
        if "PyTorch" in name and importlib.util.find_spec("torch") is None:
            result["skipped"] = "PyTorch is not installed"
        elif time.monotonic() + needed / (4 if is_reduced else 1) > deadline:
            result["skipped"] = "too little time is left"
        else:
            try:
                result |= function(is_reduced)
            except Exception as e:
                result["failed"] = f"{type(e).__name__}: {e}".splitlines()[0]
        results.append(result)
        path.write_text(json.dumps(_environment() | {"rows": results}, indent=1))
    return results


def _environment() -> dict:
    packages = ("jax", "jaxlib", "flax", "torch")
    installed = {p: importlib.metadata.version(p) for p in packages if _exists(p)}
    return {"device": jax.devices()[0].device_kind, "versions": installed}


def _exists(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def to_markdown(results: list[dict]) -> str:
    """Return a table with a row for each measurement."""

    def cell(value) -> str:
        return f"{value:.4g}" if isinstance(value, float) else str(value)

    lines = [["row", "figures"]]
    for result in results:
        pairs = (f"{k} {cell(v)}" for k, v in result.items() if k != "name")
        lines.append([result["name"], ", ".join(pairs)])
    return markdown.table(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--reduced", action="store_true", help="tiny networks")
    parser.add_argument("--seconds", type=float, default=540.0, help="time limit")
    options = parser.parse_args()
    deadline = time.monotonic() + options.seconds
    results = run(rows(options.reduced), options.reduced, deadline, options.out)
    sys.stdout.write(f"{_environment()['device']}\n{to_markdown(results)}\n")
    sys.exit(1 if any("failed" in r for r in results) else 0)


if __name__ == "__main__":
    main()
