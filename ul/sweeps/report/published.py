"""FIDs from papers with the training they took: facts, each with its source.

All on ImageNet-512, FID of 50,000 samples against the training set's statistics. Training
FLOPs here are 6 x MACs of one evaluation x training images: 1 MAC = 2 FLOP, and three
times the forward pass. Of latent models the autoencoder's training is not in them.
"""

import dataclasses

DATA = "ImageNet-512"


@dataclasses.dataclass(frozen=True)
class Point:
    """`gmacs`: of one network evaluation; `images`: seen in training, in millions. Either
    None: the paper does not say, and the FID stands without its cost."""

    family: str
    name: str
    gmacs: float | None
    images: float | None
    fid: float
    guided: bool
    source: str

    @property
    def training_flops(self) -> float | None:
        if self.gmacs is None or self.images is None:
            return None
        return 6.0 * self.gmacs * 1e9 * self.images * 1e6


_EDM2 = "EDM2, arXiv 2312.02696, tables 2 and 6"
_DIT = "DiT, arXiv 2212.09748: 525 GMAC, 3M steps of 256"
_UL = "Unified Latents, arXiv 2602.17270, table 2; no cost stated as a number"
_SID2 = "SiD2, arXiv 2410.19324; images seen in training not known here"


def _edm2(size: str, gmacs: float, images: float, plain: float, guided: float):
    return (
        Point("EDM2", f"EDM2-{size}", gmacs, images, plain, False, _EDM2),
        Point("EDM2", f"EDM2-{size}", gmacs, images, guided, True, _EDM2),
    )


POINTS = (
    *_edm2("XS", 45.5, 2147, 3.53, 2.91),
    *_edm2("S", 102, 2147, 2.56, 2.23),
    *_edm2("M", 181, 2147, 2.25, 2.01),
    *_edm2("L", 282, 1879, 2.06, 1.88),
    *_edm2("XL", 406, 1342, 1.96, 1.85),
    *_edm2("XXL", 552, 940, 1.91, 1.81),
    Point("DiT", "DiT-XL/2", 525, 768, 12.03, False, _DIT),
    Point("DiT", "DiT-XL/2", 525, 768, 3.04, True, _DIT),
    Point("SiD2", "SiD2 UViT/2", 653, None, 1.48, True, _SID2),
    *(
        Point("UL", f"UL {size}, c_lf {factor:g}", None, None, fid, True, _UL)
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
