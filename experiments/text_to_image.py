"""Text to image at 512x512, base models of about 100, 300 and 970 GFLOP as in the paper.

    python -m launch.import_images --out /data/coco512 --size 512 --one_class \\
        --train train2017 --eval val2017
    python -m launch.embed_captions --images /data/coco512 --out /data/coco512_t5 \\
        --captions captions_train2017.json,captions_val2017.json \\
        --model google/t5-v1_1-xxl --tokens 128
    python -m launch.train --config experiments/text_to_image.py:stage1 --workdir gs://b/t1 \\
        --config.data.source.path=/data/coco512
    python -m launch.train --config experiments/text_to_image.py:stage2_970 --workdir W \\
        --config.data.source.path=/data/coco512 --config.stage1.workdir=gs://b/t1 \\
        --config.data.source.captions=/data/coco512_t5
    python -m launch.plan flops --config experiments/text_to_image.py:stage2_970

Text is 128 vectors of 4,096 channels, as T5-XXL gives it; another encoder's by
--config.data.text="(77,768)". Stage 1 is imagenet512.py's, on the images alone. ",smoke" after
a variant is the same code at reduced width: three steps on a CPU.

The paper gives the bases' costs alone. Here they are of one forward pass, 1 MAC = 2 FLOP, with
the text's projections: two levels with heads of 128, as the base of its ImageNet models.
  stage2_100   98.99 GFLOP   214.4M parameters
  stage2_300   295.8 GFLOP   640.1M
  stage2_970   955.1 GFLOP   2,298M
Never trained yet: no captioned images were at hand. The dry run of stage2_970 (`launch.plan
pod`, commits f3a9be7 and 56bd825), batch 2048: GiB a chip and ms a step at best
  v6e:8x16   data=8, fsdp=16                         10.64 GiB of 31.25    179 ms
  v5p:4x4x8  data=8, fsdp=16                         10.92 GiB of 95.74    106 ms
  h200:8     data=1, fsdp=8, --config.accumulate=2   78.37 GiB of 140.4   1070 ms
On h200:8 in one part 4.13 GiB are missing.
"""

import ml_collections
from ml_collections import config_dict

from experiments import common, imagenet512, large

# widths, depths; GFLOP of a forward pass and parameters: launch.plan flops.
BASES = {
    "stage2_100": ((512, 1024), (4, 8)),
    "stage2_300": ((640, 1280), (8, 16)),
    "stage2_970": ((1024, 2048), (8, 24)),
}
STAGES = ("stage1", *BASES)
VARIANTS = tuple(stage + way for stage in STAGES for way in ("", ",smoke"))


def get_config(arg: str = "stage1") -> ml_collections.ConfigDict:
    if arg not in VARIANTS:
        raise common.unknown(arg, VARIANTS)
    stage, _, way = arg.partition(",")
    c = imagenet512.get_config("stage1" if stage == "stage1" else "stage2").unlock()
    c.data.num_classes = 1
    # A caption may say left and right.
    c.data.flip = False
    if stage in BASES:
        c.base.widths, c.base.depths = BASES[stage]
        c.data.source = dict(
            kind="imported_captions",
            path=config_dict.placeholder(str),
            captions=config_dict.placeholder(str),
        )
        c.data.text = (128, 4096)
    if way == "smoke":
        large.shrink(c)
    return c.lock()
