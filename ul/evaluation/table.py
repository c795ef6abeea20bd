"""Evaluation records of several runs as one table."""

import json

from etils import epath

from ul.core.errors import DataError

# Columns of the table: title, key, format.
COLUMNS = (
    ("rate bpp", "rate_bpp", "{:.3f}"),
    ("± sem", "rate_bpp_sem", "{:.3f}"),
    ("optimum bpp", "optimum_bpp", "{:.3f}"),
    ("PSNR dB", "psnr_db", "{:.2f}"),
    ("pooled PSNR dB", "pooled_psnr_db", "{:.2f}"),
    ("optimum PSNR dB", "optimum_psnr_db", "{:.2f}"),
    ("Gaussian PSNR dB", "gaussian_psnr_db", "{:.2f}"),
    ("SSIM", "ssim", "{:.3f}"),
    ("LPIPS", "lpips", "{:.4f}"),
    ("bound bits/dim", "bound_bpd", "{:.3f}"),
    ("rFID", "rfid", "{:.3f}"),
    ("rec. Frechet (pixels_8x8)", "reconstruction_frechet", "{:.3f}"),
    ("base rate bpp", "base_rate_bpp", "{:.3f}"),
    ("guidance", "guidance", "{:g}"),
    ("guide", "guide", "{}"),
    ("class accuracy", "class_accuracy", "{:.3f}"),
    ("real", "class_accuracy_real", "{:.3f}"),
    ("text accuracy", "text_accuracy", "{:.3f}"),
    ("of real", "text_accuracy_real", "{:.3f}"),
    ("digit", "text_accuracy_digit", "{:.3f}"),
    ("colour", "text_accuracy_colour", "{:.3f}"),
    ("CLIP score", "clip_score", "{:.2f}"),
    ("FID", "fid", "{:.3f}"),
    ("sFID", "sfid", "{:.3f}"),
    ("IS", "inception_score", "{:.3f}"),
    ("precision", "precision", "{:.3f}"),
    ("recall", "recall", "{:.3f}"),
    ("FD-DINOv2", "fd_dinov2", "{:.3f}"),
    ("FVD", "fvd", "{:.3f}"),
    ("Frechet (pixels_8x8)", "frechet", "{:.3f}"),
    ("real vs real", "frechet_real", "{:.3f}"),
    ("n", "num_examples", "{}"),
    ("seed", "seed", "{}"),
    ("step", "step", "{}"),
    ("weights", "weights", "{}"),
    ("run", "workdir", "{}"),
)


def _title(record: dict, title: str, key: str) -> str:
    """A column's title for this record: "FID@500" where the record says so."""
    return record.get("printed", {}).get(key, title)


def _name(record: dict) -> str:
    """The evaluation, with its guidance if it has one."""
    if record["evaluation"] == "generation":
        return f"generation-guidance{record['guidance']:g}"
    return record["evaluation"]


def table(records: list[dict]) -> str:
    """Evaluations as a Markdown table; a column nobody has is left out.

    Numbers of unlike sample counts have columns of their own: they do not compare.
    """
    columns = []
    for title, key, form in COLUMNS:
        have = [r for r in records if r.get(key) is not None]
        titles = dict.fromkeys(_title(r, title, key) for r in have)
        columns += [(shown, title, key, form) for shown in titles]
    rows = [["evaluation", *(shown for shown, _, _, _ in columns)]]
    for record in records:
        cells = [
            form.format(record[key])
            if record.get(key) is not None and _title(record, title, key) == shown
            else ""
            for shown, title, key, form in columns
        ]
        rows.append([_name(record), *cells])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return "\n".join(lines)


def protocols(records: list[dict]) -> str:
    """What the numbers of a table are of, each protocol once, with what was skipped."""
    said: dict[str, list[str]] = {}
    for record in records:
        lines = [f"  {k}: {_flat(v)}" for k, v in record["protocol"].items()]
        skipped = record.get("skipped", {})
        lines += [f"  skipped {name}: {reason}" for name, reason in skipped.items()]
        name = f"{_name(record)} step {record['step']} {record['weights']}"
        said.setdefault("\n".join(lines), []).append(name)
    return "\n".join(f"{', '.join(names)}\n{text}" for text, names in said.items())


def _flat(value) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {_flat(v)}" for k, v in value.items())
    if isinstance(value, list):
        return "; ".join(map(_flat, value))
    return str(value)


def records(folder) -> list[dict]:
    """All evaluations of a workdir, oldest first; none is an empty list."""
    files = sorted((epath.Path(folder) / "evals").glob("*.json"))
    found = [json.loads(file.read_text()) for file in files]
    return sorted(found, key=lambda record: record["written"])


def merged(*folders) -> dict:
    """The numbers of a trial, its stages' evaluations in one: later ones win.

    Only what `launch.evaluate` does unasked: EMA weights, seed 0, no guidance.
    """
    both = [record for folder in folders for record in records(folder)]
    usual = [r for r in both if r["weights"] == "ema" and r["seed"] == 0]
    plain = [r for r in usual if r.get("guidance", 1.0) == 1.0]
    return {key: value for record in plain for key, value in record.items()}


def read(folders: list[str]) -> list[dict]:
    """Records of all evaluations in the workdirs.

    Raises:
      DataError: there is none.
    """
    found = [record for folder in folders for record in records(folder)]
    if not found:
        raise DataError(
            f"no evaluations under {', '.join(folders)}; run launch.evaluate"
        )
    return found
