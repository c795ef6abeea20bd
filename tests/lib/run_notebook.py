"""Run a notebook from top to bottom in a temporary folder; the first error ends it.

python -m tests.lib.run_notebook experiments/tour.ipynb [EXECUTED.ipynb]
"""

import sys
import tempfile
import time

import nbclient
import nbformat


def main(path: str, out: str | None = None) -> None:
    """Run the notebook, and write it with its outputs to `out`."""
    notebook = nbformat.read(path, as_version=4)
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        resources = {"metadata": {"path": folder}}
        nbclient.NotebookClient(notebook, timeout=600, resources=resources).execute()
    print(f"{path} ran in {time.monotonic() - start:.0f} s")
    if out:
        nbformat.write(notebook, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
