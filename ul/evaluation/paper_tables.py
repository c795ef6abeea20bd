"""Ablations in the form of the paper's tables 5 and 6, beside the figures of the paper.

The paper's figures are of ImageNet-512 (arXiv 2602.17270), and its distances are FIDs; the
distances of this project are Frechet distances of 8x8 pixels. Values are comparable within
a column only.
"""

import dataclasses

from ul.metrics import registry


@dataclasses.dataclass(frozen=True)
class PaperRow:
    """One line: the name of the trial, a description, and the paper's figures as printed."""

    trial: str
    description: str
    paper: tuple[str, ...]


# bits/pixel with the prior, with the base model, rFID, gFID.
TABLE_5 = (
    PaperRow(
        "ul", "diffusion prior, diffusion decoder", (".079", ".079", ".86", "1.4")
    ),
    PaperRow(
        "diffusion_decoder",
        "diffusion prior, MSE decoder, then a diffusion decoder",
        (".072", ".072", "1.1", "2.4"),
    ),
    PaperRow("mse_decoder", "diffusion prior, MSE decoder alone", ("", "", "", "")),
    PaperRow(
        "normal_prior", "normal prior, diffusion decoder", (".39", ".26", ".83", "2.5")
    ),
)
# bits/pixel, rFID, gFID; the rows from the KL autoencoder on are not in the paper's tables.
TABLE_6 = (
    PaperRow("ul", "baseline", (".059", ".47", "1.54")),
    PaperRow(
        "detached_prior", "A prior without gradient, KL", (".121", "1.81", "7.80")
    ),
    PaperRow("logsnr_10", "B logsnr_z(0) = 10", (".008", "28.27", "-")),
    PaperRow("-", "C trained on other images (not run)", (".034", "1.37", "1.63")),
    PaperRow("learned_variance", "D learned encoder variance", (".060", ".69", "1.81")),
    PaperRow("kl_autoencoder", "KL autoencoder (KL x 0.1), base on it", ("", "", "")),
    PaperRow("shifted_loss", "single stage, decoder shifted", ("", "", "> 2")),
    PaperRow("random_noise", "single stage, random noise", ("", "", "about 4")),
    PaperRow("pixels", "pixel diffusion, same UViT", ("", "", "")),
)
QUALITIES = ("psnr_db", "reconstruction_frechet", "frechet", "class_accuracy")


def _cell(numbers: dict, key: str) -> str:
    """A number of a trial in its metric's format; "" where the trial has none."""
    if numbers.get(key) is None:
        return ""
    cell = registry.find_column(key).format.format(numbers[key])
    # The mean has half the squared error of a sample, so that the two do not compare.
    is_mean = key == "psnr_db" and numbers.get("decoder") == "one call"
    return f"{cell} (mean)" if is_mean else cell


def _table(title: str, rows, head: list[str], numbers: dict, keys) -> str:
    lines = [title, "", "| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for row in rows:
        cells = [_cell(numbers.get(row.trial, {}), key) for key in keys]
        lines.append("| " + " | ".join([row.description, *cells, *row.paper]) + " |")
    return "\n".join(lines)


def tables(numbers: dict[str, dict]) -> str:
    """Return both tables as Markdown, from the numbers of each trial by its name."""
    own = ["PSNR dB", "rec. Frechet", "gen. Frechet", "class accuracy"]
    five = ["bits/pixel, prior", "bits/pixel, base", *own]
    five += ["paper: prior", "paper: base", "paper: rFID", "paper: gFID"]
    six = ["bits/pixel", *own, "paper: bits/pixel", "paper: rFID", "paper: gFID"]
    return "\n\n".join(
        (
            _table("Prior and decoder (form of the paper's table 5)", TABLE_5,
                   ["", *five], numbers, ("rate_bpp", "base_rate_bpp", *QUALITIES)),
            _table("Ablations and baselines (form of the paper's table 6)", TABLE_6,
                   ["", *six], numbers, ("rate_bpp", *QUALITIES)),
            "This project: digits 8x8, Frechet distances of 8x8 pixels (not FID). The "
            "paper: ImageNet-512, FID. (mean): a decoder of one call, whose PSNR is at "
            "most 3 dB above that of samples.",
        )
    )  # fmt: skip
