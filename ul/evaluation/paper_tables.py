"""Our ablations in the shape of the paper's tables 5 and 6, the paper's figures beside.

The paper's are on ImageNet-512 (arXiv 2602.17270); its distances are FIDs, ours are
Frechet distances on 8x8 pixels. They compare down a column, never across.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Row:
    """One line: our trial's name, what it is, and the paper's figures as it prints them."""

    trial: str
    what: str
    paper: tuple[str, ...]


# bits/pixel with the prior, with the base, rFID, gFID.
TABLE_5 = (
    Row("ul", "diffusion prior, diffusion decoder", (".079", ".079", ".86", "1.4")),
    Row("mse_decoder", "diffusion prior, MSE decoder", (".072", ".072", "1.1", "2.4")),
    Row(
        "normal_prior", "normal prior, diffusion decoder", (".39", ".26", ".83", "2.5")
    ),
)
# bits/pixel, rFID, gFID; those below the paper's own have no figure in these tables.
TABLE_6 = (
    Row("ul", "baseline", (".059", ".47", "1.54")),
    Row("detached_prior", "A prior without gradient, KL", (".121", "1.81", "7.80")),
    Row("logsnr_10", "B logsnr_z(0) = 10", (".008", "28.27", "-")),
    Row("-", "C trained on other images (not run)", (".034", "1.37", "1.63")),
    Row("learned_variance", "D learned encoder variance", (".060", ".69", "1.81")),
    Row("kl_autoencoder", "KL autoencoder (KL x 0.1), base on it", ("", "", "")),
    Row("shifted_loss", "single stage, decoder shifted", ("", "", "> 2")),
    Row("random_noise", "single stage, random noise", ("", "", "about 4")),
    Row("pixels", "pixel diffusion, same UViT", ("", "", "")),
)


def _cell(values: dict, key: str, form: str) -> str:
    return form.format(values[key]) if values.get(key) is not None else ""


def _ours(values: dict, base: bool) -> list[str]:
    """Our columns of one trial: its records merged into one dict."""
    cells = [_cell(values, "rate_bpp", "{:.3f}")]
    cells += [_cell(values, "base_rate_bpp", "{:.3f}")] if base else []
    # A mean errs half as much as a sample: the two are not to be compared.
    mean = " (mean)" if values.get("decoder") == "one call" else ""
    return cells + [
        _cell(values, "psnr_db", "{:.2f}" + mean),
        _cell(values, "reconstruction_frechet", "{:.3f}"),
        _cell(values, "frechet", "{:.3f}"),
        _cell(values, "class_accuracy", "{:.3f}"),
    ]


def _table(title: str, rows, head: list[str], found: dict, base: bool) -> str:
    lines = [title, "", "| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for row in rows:
        ours = _ours(found.get(row.trial, {}), base)
        lines.append("| " + " | ".join([row.what, *ours, *row.paper]) + " |")
    return "\n".join(lines)


def tables(found: dict[str, dict]) -> str:
    """Markdown. `found`: of each trial, the numbers of all its evaluations."""
    ours = ["PSNR dB", "rec. Frechet", "gen. Frechet", "class accuracy"]
    five = ["bits/pixel, prior", "bits/pixel, base", *ours]
    five += ["paper: prior", "paper: base", "paper: rFID", "paper: gFID"]
    six = ["bits/pixel", *ours, "paper: bits/pixel", "paper: rFID", "paper: gFID"]
    return "\n\n".join(
        (
            _table("Prior and decoder (shape of the paper's table 5)", TABLE_5,
                   ["", *five], found, base=True),
            _table("Ablations and baselines (shape of the paper's table 6)", TABLE_6,
                   ["", *six], found, base=False),
            "Ours: digits 8x8, Frechet distances on 8x8 pixels (not FID). The paper's: "
            "ImageNet-512, FID. (mean): a decoder of one call, 3 dB above samples at best.",
        )
    )  # fmt: skip
