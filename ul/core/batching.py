"""Applying a compiled function to any number of rows."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from ul.core import arrays
from ul.core import mesh as meshes


def map_rows(
    fn: Callable[..., Any],
    batch: dict[str, np.ndarray],
    *,
    batch_size: int,
    mesh: jax.sharding.Mesh,
    title: str = "",
    check: Callable[[], None] = lambda: None,
) -> Any:
    """Apply `fn(**rows)` to chunks of `batch_size` rows and concatenate the results.

    The rows of a chunk are sharded over `mesh`. The result is an array, or a tree of
    arrays, on the host. The last chunk is padded before the call and cut afterwards, so
    that every chunk has the same compiled shape. With a `title`, a progress bar shows
    the rate and the time left. `check` is called before each chunk and may raise.
    """
    (total,) = {len(v) for v in batch.values()}
    # A power of two for small inputs: few distinct sizes are ever compiled.
    chunk_size = min(batch_size, 1 << (total - 1).bit_length())
    chunk_size = -(-chunk_size // mesh.size) * mesh.size
    results = []
    progress = tqdm(
        total=total, unit="image", desc=title, disable=not title, dynamic_ncols=True
    )
    with progress, jax.set_mesh(mesh):
        for first in range(0, total, chunk_size):
            check()
            chunk = {k: v[first : first + chunk_size] for k, v in batch.items()}
            real_rows = min(chunk_size, total - first)
            padded = arrays.pad_rows(chunk, chunk_size)
            del padded["mask"]
            result = meshes.to_host(mesh, fn(**meshes.to_global(mesh, padded)))
            results.append(jax.tree.map(lambda r, n=real_rows: r[:n], result))
            progress.update(real_rows)
    return jax.tree.map(lambda *chunks: np.concatenate(chunks), *results)
