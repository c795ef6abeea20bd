"""Any number of rows through a function compiled for one batch size."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from ul.core import arrays, mesh


def map_rows(
    fn: Callable[..., Any],
    batch: dict[str, np.ndarray],
    *,
    batch_size: int,
    on: jax.sharding.Mesh,
    title: str = "",
    check: Callable[[], None] = lambda: None,
) -> Any:
    """`fn(**rows)` over chunks of `batch_size` rows, split over the mesh; host arrays out,
    one or a tree of them.

    The last chunk is padded and cut, so every chunk has the same compiled shape. With
    a `title`, a bar shows rate and time left. `check` is called before each chunk.
    """
    (total,) = {len(v) for v in batch.values()}
    devices = on.size
    # Few sizes, so that few are ever compiled.
    size = min(batch_size, 1 << (total - 1).bit_length())
    size = -(-size // devices) * devices
    out = []
    bar = tqdm(
        total=total, unit="image", desc=title, disable=not title, dynamic_ncols=True
    )
    with bar, jax.set_mesh(on):
        for first in range(0, total, size):
            check()
            part = {k: v[first : first + size] for k, v in batch.items()}
            real = min(size, total - first)
            padded = arrays.pad_rows(part, size)
            del padded["mask"]
            result = mesh.to_host(on, fn(**mesh.to_global(on, padded)))
            out.append(jax.tree.map(lambda r, real=real: r[:real], result))
            bar.update(real)
    return jax.tree.map(lambda *parts: np.concatenate(parts), *out)
