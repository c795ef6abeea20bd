"""scikit-learn's handwritten digits."""

import numpy as np

from ul.core import extras
from ul.data.sources.base import FunctionSource, Shape


def make_source(split: str, shape: Shape) -> FunctionSource:
    """Return scikit-learn's 1,797 scanned digits: 8x8, gray, 10 classes.

    One fifth of every class is held out, always the same.
    """
    extra = ("The data source 'digits'", "demo", "scikit-learn")
    datasets = extras.require("sklearn.datasets", *extra)
    model_selection = extras.require("sklearn.model_selection", *extra)
    data = datasets.load_digits()
    images = np.round(data.images * (255.0 / 16.0)).astype(np.uint8)[..., None]
    train, held_out = model_selection.train_test_split(
        np.arange(len(images)), test_size=0.2, random_state=0, stratify=data.target
    )
    indices = np.sort(train if split == "train" else held_out)

    def get_example(i):
        return {"image": images[indices[i]], "label": int(data.target[indices[i]])}

    return FunctionSource(len(indices), get_example, num_classes=10)
