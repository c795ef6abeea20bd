"""Print the CLIP score of samples in an .npz with their captions, as one JSON object.

python -m ul clip_score --npz samples.npz --captions captions.txt --weights_dir weights
"""

import json
import os

from absl import flags
from tqdm import tqdm

from launch.lib import cli
from ul.core import mesh
from ul.evaluation import samples_npz
from ul.metrics import clip_score

_NPZ = flags.DEFINE_string(
    "npz", None, "Samples of python -m ul evaluate: arr_0, uint8 [N, H, W, 3]."
)
_CAPTIONS = flags.DEFINE_string(
    "captions",
    None,
    "Text file with one caption per line, in the order of the samples.",
)
_WEIGHTS_DIR = flags.DEFINE_string(
    "weights_dir", None, "Folder of CLIP's converted weights; default: UL_WEIGHTS."
)
_CHUNK_SIZE = 256  # images in memory at a time


def main() -> None:
    """Compute the score of all samples and print it with its protocol."""
    npz, path = cli.required(_NPZ), cli.required(_CAPTIONS)
    samples = samples_npz.SamplesReader(npz)
    total = samples.shape[0]
    captions = clip_score.read_captions(path, total)
    folder = (
        _WEIGHTS_DIR.value or os.environ.get("UL_WEIGHTS") or cli.required(_WEIGHTS_DIR)
    )
    score = clip_score.ClipScore(clip_score.load_network(folder), mesh.make())
    with tqdm(total=total, unit="pair", desc="CLIP", dynamic_ncols=True) as bar:
        for image in samples.batches(_CHUNK_SIZE):
            score.add(image, captions[score.count : score.count + len(image)])
            bar.update(len(image))
    print(json.dumps(score.record() | {"protocol": score.protocol()}, indent=2))


if __name__ == "__main__":
    cli.run(main)
