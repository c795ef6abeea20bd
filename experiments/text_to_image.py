"""Text to image at 512x512, with base models of about 100, 300 and 970 GFLOP as in the paper.

    python -m ul import_images --out /data/coco512 --size 512 --one_class \\
        --train train2017 --eval val2017
    python -m ul embed_captions --images /data/coco512 --out /data/coco512_t5 \\
        --captions captions_train2017.json,captions_val2017.json \\
        --model google/t5-v1_1-xxl --tokens 128
    python -m ul train --config text_to_image:stage1 --workdir gs://b/t1 \\
        --config.data.source.path=/data/coco512
    python -m ul train --config text_to_image:stage2_970 --workdir W \\
        --config.data.source.path=/data/coco512 --config.stage1.workdir=gs://b/t1 \\
        --config.data.source.captions=/data/coco512_t5
    python -m ul plan flops --config text_to_image:stage2_970

`stage1` is that of imagenet512.py on the images alone. `stage2_100`, `stage2_300` and
`stage2_970` are conditioned on text: 128 vectors of 4,096 channels, the output of T5-XXL.
For another text encoder set `--config.data.text="(77,768)"` to its tokens and channels.
`stage1,smoke` and so on are the same code at a reduced width, three steps on a CPU.

The paper states only the cost of its base models in GFLOP. We count one forward pass, 1 MAC
as 2 FLOP, including the projections of the text. Like the base model for ImageNet, each has
two levels with heads of 128 channels.

Status: never trained, because no captioned images were available. The train step of
`stage2_970` was compiled for TPU v5p, TPU v6e and H200; 8 H200 need `--config.accumulate=2`
(RESULTS.md).
"""

import ml_collections
from ml_collections import config_dict

from experiments import common, imagenet512, large

# Widths and depths. `ul plan flops` prints their FLOPs and parameters.
BASE_SIZES = {
    "stage2_100": ((512, 1024), (4, 8)),
    "stage2_300": ((640, 1280), (8, 16)),
    "stage2_970": ((1024, 2048), (8, 24)),
}
STAGES = ("stage1", *BASE_SIZES)
VARIANTS = tuple(stage + option for stage in STAGES for option in ("", ",smoke"))


def get_config(arg: str = "stage1") -> ml_collections.ConfigDict:
    common.check_variant(arg, VARIANTS)
    stage, _, option = arg.partition(",")
    c = imagenet512.get_config("stage1" if stage == "stage1" else "stage2").unlock()
    c.data.num_classes = 1
    # A mirror image would contradict a caption with the words left or right.
    c.data.flip = False
    if stage in BASE_SIZES:
        c.base.widths, c.base.depths = BASE_SIZES[stage]
        c.data.source = dict(
            kind="imported_captions",
            path=config_dict.placeholder(str),
            captions=config_dict.placeholder(str),
        )
        c.data.text = (128, 4096)
    if option == "smoke":
        large.shrink(c)
    return c.lock()
