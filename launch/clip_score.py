"""The CLIP score of samples in an .npz, each with its caption; one JSON on the terminal.

python -m launch.clip_score --npz samples.npz --captions captions.txt --weights_dir weights
"""

import json
import os

from absl import flags
from tqdm import tqdm

from launch.lib import cli
from ul.core import mesh
from ul.evaluation import samples_npz
from ul.metrics import clip_score

_NPZ = flags.DEFINE_string("npz", None, "arr_0: uint8 [N, H, W, 3] (launch.evaluate).")
_CAPTIONS = flags.DEFINE_string("captions", None, "A caption a line, in their order.")
_DIR = flags.DEFINE_string("weights_dir", None, "CLIP's files; else UL_WEIGHTS.")
_ROWS = 256  # images held at a time


def main() -> None:
    npz, path = cli.required(_NPZ), cli.required(_CAPTIONS)
    samples = samples_npz.Reader(npz)
    total = samples.shape[0]
    captions = clip_score.read(path, total)
    folder = _DIR.value or os.environ.get("UL_WEIGHTS") or cli.required(_DIR)
    score = clip_score.ClipScore(clip_score.load(folder), mesh.make())
    with tqdm(total=total, unit="pair", desc="CLIP", dynamic_ncols=True) as bar:
        for image in samples.parts(_ROWS):
            score.add(image, captions[score.count : score.count + len(image)])
            bar.update(len(image))
    print(json.dumps(score.record() | {"protocol": score.protocol()}, indent=2))


if __name__ == "__main__":
    cli.run(main)
