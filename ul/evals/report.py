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
    ("bound bits/dim", "bound_bpd", "{:.3f}"),
    ("rec. Frechet (pixels_8x8)", "reconstruction_frechet", "{:.3f}"),
    ("base rate bpp", "base_rate_bpp", "{:.3f}"),
    ("guidance", "guidance", "{:g}"),
    ("class accuracy", "class_accuracy", "{:.3f}"),
    ("real", "class_accuracy_real", "{:.3f}"),
    ("Frechet (pixels_8x8)", "frechet", "{:.3f}"),
    ("real vs real", "frechet_real", "{:.3f}"),
    ("n", "num_examples", "{}"),
    ("seed", "seed", "{}"),
    ("step", "step", "{}"),
    ("weights", "weights", "{}"),
    ("run", "workdir", "{}"),
)


def table(records: list[dict]) -> str:
    """Evaluations as a Markdown table; a column nobody has is left out."""
    columns = [c for c in COLUMNS if any(r.get(c[1]) is not None for r in records)]
    rows = [["evaluation", *(title for title, _, _ in columns)]]
    for record in records:
        cells = [
            "" if record.get(key) is None else form.format(record[key])
            for _, key, form in columns
        ]
        rows.append([record["evaluation"], *cells])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return "\n".join(lines)


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
