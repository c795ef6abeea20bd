"""Write folders that look like finished sweeps, without training: for the report's tests.

python -m tests.lib.sweep_folder runs/example_sweep
"""

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from experiments import digits
from ul.checkpoints.store import COMMIT_MARKER
from ul.checkpoints.workdir import flatten
from ul.stages import registry

# Loss factor and bias -> bits/pixel and PSNR, of a plausible size.
POINTS = {
    (1.5, 3.0): (0.174, 17.1),
    (2.0, 3.0): (0.442, 20.0),
    (2.5, 3.0): (0.690, 21.6),
    (1.5, 4.0): (0.389, 19.4),
    (2.0, 4.0): (0.844, 22.9),
    (2.5, 4.0): (1.153, 24.6),
}


def resolved_config(variant: str, **changes) -> dict:
    """Return a digits config as config.json has it, with dotted keys changed."""
    config = digits.get_config(variant).unlock()
    for key, value in changes.items():
        assert key in flatten(config.to_dict()), key
        config.update_from_flattened_dict({key: value})
    return json.loads(json.dumps(registry.to_dict(config)))


def write_run(workdir: Path, config: dict, *, trained_steps: int | None = None) -> None:
    """Write a run directory that has trained this many steps, by default all of them."""
    trained_steps = config["steps"] if trained_steps is None else trained_steps
    workdir.mkdir(parents=True)
    provenance = {"mesh": {"data": 1, "fsdp": 1}, "processes": 1, "devices": "cpu"}
    record = {
        "config": config,
        "provenance": provenance,
        "code_version": "abc123",
        "versions": {},
    }
    (workdir / "config.json").write_text(json.dumps(record))
    name = "base_bpp" if config["stage"] == "base" else "rate_bpp"
    steps = range(1, max(trained_steps, 1) + 1, max(1, trained_steps // 60))
    lines = [{"step": s, "loss_bpp": 1 + 4 / s, name: 0.3 + 2 / s} for s in steps]
    metrics = "".join(f"{json.dumps(line)}\n" for line in lines)
    (workdir / "metrics.jsonl").write_text(metrics)
    if trained_steps:
        (workdir / "verified").mkdir()
        (workdir / "verified" / f"{trained_steps}.json").write_text("{}")
        checkpoint = workdir / "checkpoints" / str(trained_steps)
        checkpoint.mkdir(parents=True)
        (checkpoint / COMMIT_MARKER).touch()


def write_evaluation(
    workdir: Path, kind: str, step: int, num_examples: int, picture=True, **fields
) -> Path:
    """Write an evaluation's JSON and, unless `picture` is false, its picture.

    Returns the path of the JSON.
    """
    record = {
        "evaluation": kind,
        "step": step,
        "weights": "ema",
        "seed": 0,
        "num_examples": num_examples,
        "device": "cpu",
        "jax": "0.10.2",
        "code_version": "abc123",
        "date": f"2026-11-2{step % 9}T10:00:00+00:00",
        **fields,
    }
    guidance = f"-guidance{record['guidance']:g}" if "guidance" in record else ""
    weights_and_seed = f"{record['weights']}-seed{record['seed']}"
    stem = f"{kind}{guidance}-{step}-{weights_and_seed}-n{num_examples}"
    path = workdir / "evals" / f"{stem}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(record))
    if picture:
        rng = np.random.default_rng(num_examples)
        pixels = rng.integers(0, 255, (60, 240), np.uint8)
        Image.fromarray(pixels).save(path.with_suffix(".png"))
    return path


def write_trial(out: Path, factor: float, bias: float, *, fid: bool = False) -> dict:
    """Write a trial whose stages are trained and evaluated; return its sweep.json entry."""
    name = f"factor{factor:g}-bias{bias:g}"
    rate, psnr = POINTS[factor, bias]
    settings = {"loss.weighting.factor": factor, "loss.weighting.bias": bias}
    stage1, stage2 = out / name / "stage1", out / name / "stage2"
    write_run(stage1, resolved_config("stage1", **settings))
    write_run(stage2, resolved_config("stage2", **{"stage1.workdir": str(stage1)}))
    fid_fields = {"rfid": 90 / psnr, "titles": {"rfid": "rFID@360"}} if fid else {}
    write_evaluation(
        stage1, "reconstruction", 2000, 360, rate_bpp=rate, rate_bpp_sem=0.01,
        psnr_db=psnr, psnr_db_sem=0.2, ssim=1 - 1 / psnr, reconstruction_frechet=9 / psnr,
        skipped={"lpips": "lpips_vgg.safetensors is not in <weights>"}, **fid_fields,
    )  # fmt: skip
    for guidance in (1.0, 1.5):
        fid_fields = {"fid": 9 + 8 * abs(rate - 0.4) + guidance} if fid else {}
        fid_fields |= {"titles": {"fid": "FID@500"}} if fid else {}
        write_evaluation(
            stage2, "generation", 2500, 500, guidance=guidance,
            base_rate_bpp=0.9 * rate, base_rate_bpp_sem=0.01,
            frechet=0.4 + abs(rate - 0.4) + guidance / 10,
            frechet_real=0.41, class_accuracy=0.97, **fid_fields,
        )  # fmt: skip
    return {
        "name": name,
        "overrides": {f"stage1:{key}": value for key, value in settings.items()},
        "stages": [
            {
                "config": "experiments/digits.py:stage1",
                "workdir": f"{name}/stage1",
                "overrides": settings,
            },
            {
                "config": "experiments/digits.py:stage2",
                "workdir": f"{name}/stage2",
                "overrides": {},
            },
        ],
    }


def write_sweep_json(out: Path, trials: list[dict]) -> Path:
    """Write the sweep.json of these trials; return the folder."""
    content = {
        "sweep": "experiments/sweeps/example.py",
        "code_version": "abc123",
        "trials": trials,
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / "sweep.json").write_text(json.dumps(content))
    return out


def write_sweep(out: Path, *, fid: bool = False) -> Path:
    """Write a sweep of six finished trials; return its folder."""
    return write_sweep_json(out, [write_trial(out, *p, fid=fid) for p in POINTS])


if __name__ == "__main__":
    write_sweep(Path(sys.argv[1]), fid=True)
