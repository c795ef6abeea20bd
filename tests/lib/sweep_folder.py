"""Folders as sweeps leave them, made by hand in no time: for the report's tests.

python -m tests.lib.sweep_folder runs/made
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

# Loss factor, bias -> bits/pixel, PSNR: the digits' as the README measured them.
POINTS = {
    (1.5, 3.0): (0.174, 17.1),
    (2.0, 3.0): (0.442, 20.0),
    (2.5, 3.0): (0.690, 21.6),
    (1.5, 4.0): (0.389, 19.4),
    (2.0, 4.0): (0.844, 22.9),
    (2.5, 4.0): (1.153, 24.6),
}


def resolved(variant: str, **changes) -> dict:
    """A config of digits with dotted keys changed, as config.json has it."""
    config = digits.get_config(variant).unlock()
    for key, value in changes.items():
        assert key in flatten(config.to_dict()), key
        config.update_from_flattened_dict({key: value})
    return json.loads(json.dumps(registry.to_dict(config)))


def run(where: Path, config: dict, *, trained: int | None = None) -> None:
    """A run directory that was trained so far, by default to its end."""
    trained = config["steps"] if trained is None else trained
    where.mkdir(parents=True)
    provenance = {"mesh": {"data": 1, "fsdp": 1}, "processes": 1, "devices": "cpu"}
    record = {
        "config": config,
        "provenance": provenance,
        "code_version": "abc123",
        "versions": {},
    }
    (where / "config.json").write_text(json.dumps(record))
    name = "base_bpp" if config["stage"] == "base" else "rate_bpp"
    steps = range(1, max(trained, 1) + 1, max(1, trained // 60))
    lines = [{"step": s, "loss_bpp": 1 + 4 / s, name: 0.3 + 2 / s} for s in steps]
    (where / "metrics.jsonl").write_text("".join(f"{json.dumps(x)}\n" for x in lines))
    if trained:
        (where / "verified").mkdir()
        (where / "verified" / f"{trained}.json").write_text("{}")
        (where / "checkpoints" / str(trained)).mkdir(parents=True)
        (where / "checkpoints" / str(trained) / COMMIT_MARKER).touch()


def evaluation(where: Path, kind: str, step: int, n: int, picture=True, **numbers):
    """One evaluation's JSON and, unless not wanted, its picture; returns the JSON."""
    record = {
        "evaluation": kind,
        "step": step,
        "weights": "ema",
        "seed": 0,
        "num_examples": n,
        "device": "cpu",
        "jax": "0.10.2",
        "code_version": "abc123",
        "written": f"2026-11-2{step % 9}T10:00:00+00:00",
        **numbers,
    }
    guidance = f"-guidance{record['guidance']:g}" if "guidance" in record else ""
    stem = f"{kind}{guidance}-{step}-{record['weights']}-seed{record['seed']}-n{n}"
    path = where / "evals" / f"{stem}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(record))
    if picture:
        pixels = np.random.default_rng(n).integers(0, 255, (60, 240), np.uint8)
        Image.fromarray(pixels).save(path.with_suffix(".png"))
    return path


def trial(out: Path, factor: float, bias: float, *, fid: bool = False) -> dict:
    """Both stages trained and evaluated; what sweep.json says of it."""
    name = f"factor{factor:g}-bias{bias:g}"
    rate, psnr = POINTS[factor, bias]
    settings = {"loss.weighting.factor": factor, "loss.weighting.bias": bias}
    one, two = out / name / "stage1", out / name / "stage2"
    run(one, resolved("stage1", **settings))
    run(two, resolved("stage2", **{"stage1.workdir": str(one)}))
    more = {"rfid": 90 / psnr, "printed": {"rfid": "rFID@360"}} if fid else {}
    evaluation(
        one, "reconstruction", 2000, 360, rate_bpp=rate, rate_bpp_sem=0.01,
        psnr_db=psnr, ssim=1 - 1 / psnr, reconstruction_frechet=9 / psnr,
        skipped={"lpips": "lpips_vgg.safetensors is not in <weights>"}, **more,
    )  # fmt: skip
    for guidance in (1.0, 1.5):
        more = {"fid": 9 + 8 * abs(rate - 0.4) + guidance} if fid else {}
        more |= {"printed": {"fid": "FID@500"}} if fid else {}
        evaluation(
            two, "generation", 2500, 500, guidance=guidance, base_rate_bpp=0.9 * rate,
            base_rate_bpp_sem=0.01, frechet=0.4 + abs(rate - 0.4) + guidance / 10,
            frechet_real=0.41, class_accuracy=0.97, **more,
        )  # fmt: skip
    stages = [
        {"config": "experiments/digits.py:stage1", "workdir": f"{name}/stage1"},
        {"config": "experiments/digits.py:stage2", "workdir": f"{name}/stage2"},
    ]
    chosen = {f"stage1:{k}": v for k, v in settings.items()}
    return {
        "name": name,
        "overrides": chosen,
        "stages": [s | {"overrides": settings if i == 0 else {}} for i, s in
                   enumerate(stages)],
    }  # fmt: skip


def listed(out: Path, trials: list[dict]) -> Path:
    """The folder with its sweep.json."""
    plan = {
        "sweep": "experiments/sweeps/made.py",
        "code_version": "abc123",
        "trials": trials,
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / "sweep.json").write_text(json.dumps(plan))
    return out


def sweep(out: Path, *, fid: bool = False) -> Path:
    """Six trials, done."""
    return listed(out, [trial(out, *point, fid=fid) for point in POINTS])


if __name__ == "__main__":
    sweep(Path(sys.argv[1]), fid=True)
