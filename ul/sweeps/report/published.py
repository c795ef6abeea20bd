"""FIDs from papers with their training costs, each with its source.

All are on ImageNet-512: FID of 50,000 samples against the statistics of the training set.
Training FLOPs are 6 x MACs of one network evaluation x training images, because 1 MAC is
2 FLOP and training costs three times the forward pass. They do not include the training of
the autoencoder of a latent model.
"""

import dataclasses
from collections.abc import Iterable

from ul.sweeps.report.rows import TrialResult

DATASET = "ImageNet-512"
IMAGE_SHAPE, NUM_CLASSES = (512, 512, 3), 1000


@dataclasses.dataclass(frozen=True)
class PublishedResult:
    """One FID from a paper.

    gmacs: GMACs of one network evaluation, or None if the paper does not state them.
    million_images: images seen in training, in millions, or None if unknown.
    """

    family: str
    name: str
    gmacs: float | None
    million_images: float | None
    fid: float
    guided: bool
    source: str

    @property
    def training_flops(self) -> float | None:
        """FLOPs of training the generator, or None if they are unknown."""
        if self.gmacs is None or self.million_images is None:
            return None
        return 6.0 * self.gmacs * 1e9 * self.million_images * 1e6


_EDM2 = "EDM2, arXiv 2312.02696, tables 2 and 6"
_DIT = "DiT, arXiv 2212.09748: 525 GMAC, 3M steps of 256"
_UL = "Unified Latents, arXiv 2602.17270, table 2; the cost is not stated as a number"
_SID2 = "SiD2, arXiv 2410.19324; the images seen in training are unknown"


def _edm2(
    size: str, gmacs: float, million_images: float, fid: float, guided_fid: float
) -> tuple[PublishedResult, PublishedResult]:
    name = f"EDM2-{size}"
    return (
        PublishedResult("EDM2", name, gmacs, million_images, fid, False, _EDM2),
        PublishedResult("EDM2", name, gmacs, million_images, guided_fid, True, _EDM2),
    )


RESULTS = (
    *_edm2("XS", 45.5, 2147, 3.53, 2.91),
    *_edm2("S", 102, 2147, 2.56, 2.23),
    *_edm2("M", 181, 2147, 2.25, 2.01),
    *_edm2("L", 282, 1879, 2.06, 1.88),
    *_edm2("XL", 406, 1342, 1.96, 1.85),
    *_edm2("XXL", 552, 940, 1.91, 1.81),
    PublishedResult("DiT", "DiT-XL/2", 525, 768, 12.03, False, _DIT),
    PublishedResult("DiT", "DiT-XL/2", 525, 768, 3.04, True, _DIT),
    PublishedResult("SiD2", "SiD2 UViT/2", 653, None, 1.48, True, _SID2),
    *(
        PublishedResult("UL", f"UL {size}, c_lf {factor:g}", None, None, fid, True, _UL)
        for factor, small, medium in (
            (1.3, 1.42, 1.37),
            (1.5, 1.54, 1.31),
            (1.7, 1.77, 1.38),
            (1.9, 2.02, 1.45),
            (2.1, 2.38, 1.58),
        )
        for size, fid in (("small", small), ("medium", medium))
    ),
)


def is_comparable(trials: Iterable[TrialResult]) -> bool:
    """Return whether a trial's images have the size and the classes of ImageNet-512."""
    data = [
        stage.config["data"]
        for trial in trials
        for stage in trial.stages
        if stage.stage and stage.config
    ]
    return any(
        (tuple(d["image_shape"]), d["num_classes"]) == (IMAGE_SHAPE, NUM_CLASSES)
        for d in data
    )
