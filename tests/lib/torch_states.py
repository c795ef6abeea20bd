"""Random weights in the layout of the public PyTorch files, without PyTorch."""

import numpy as np

from ul.metrics.features import inception, lpips


def _random_kernel(rng, shape):
    """Return a PyTorch kernel [out, in, height, width] for [height, width, in, out].

    Its outputs have the scale of its inputs.
    """
    kernel = rng.standard_normal(shape, np.float32).transpose(3, 2, 0, 1)
    # Contiguous like PyTorch's: safetensors writes the memory, not the view.
    return np.ascontiguousarray(kernel * np.float32(np.sqrt(2.0 / np.prod(shape[:3]))))


def random_tensors(shapes, seed):
    """Return random tensors of these shapes, scaled so that each changes the features."""
    rng = np.random.default_rng(seed)

    def tensor(name, shape):
        value = rng.normal(size=shape).astype(np.float32)
        if name.endswith("kernel"):
            return value / np.float32(np.prod(shape[-2:-1])) ** 0.5
        return 1 + 0.3 * value if "scale" in name else 0.3 * value

    return {name: tensor(name, shape) for name, shape in shapes.items()}


def inception_state(seed=0):
    """Return random weights in the layout of pytorch-fid and torch-fidelity.

    The running statistics are far from 0 and 1.
    """
    rng = np.random.default_rng(seed)
    state = {}
    for name, shape in inception.shapes().items():
        path, _, kind = name.rpartition(".")
        if path == "fc":
            # Small logits: softmax turns their absolute errors into relative ones.
            state["fc.weight"] = rng.standard_normal(shape[::-1], np.float32) / 100
            state["fc.bias"] = rng.standard_normal(shape[1:], np.float32)
        elif kind == "weight":
            state[f"{path}.conv.weight"] = _random_kernel(rng, shape)
            out = shape[-1:]
            state[f"{path}.bn.weight"] = rng.uniform(0.5, 1.5, out).astype(np.float32)
            state[f"{path}.bn.bias"] = 0.3 * rng.standard_normal(out, np.float32)
            state[f"{path}.bn.running_mean"] = 0.3 * rng.standard_normal(
                out, np.float32
            )
            state[f"{path}.bn.running_var"] = rng.uniform(0.5, 2, out).astype(
                np.float32
            )
            state[f"{path}.bn.num_batches_tracked"] = np.asarray(7)
    return state


def torchscript_state(state):
    """Return the same network in the layout of NVIDIA's TorchScript, which has no gamma."""
    kinds = {"bias": "beta", "running_mean": "mean", "running_var": "var"}
    script = {"output.weight": state["fc.weight"], "output.bias": state["fc.bias"]}
    for path, layer in inception.torchscript_names().items():
        script[f"{layer}.weight"] = state[f"{path}.conv.weight"]
        for name, kind in kinds.items():
            script[f"{layer}.{kind}"] = state[f"{path}.bn.{name}"]
    return script


def lpips_state(seed=0):
    """Return random weights of torchvision's VGG16 and of the heads of the lpips package."""
    rng = np.random.default_rng(seed)
    state = {"classifier.0.bias": np.zeros(4096, np.float32)}
    for name, shape in lpips.shapes().items():
        if name.endswith(".weight"):
            state[name] = _random_kernel(rng, shape)
        elif name.endswith(".bias"):
            state[name] = 0.3 * rng.standard_normal(shape, np.float32)
        else:
            head = rng.uniform(0.0, 1.0, (1, *shape, 1, 1)).astype(np.float32)
            state[f"{name}.model.1.weight"] = head
    return state


def make_images(seed, *shape):
    """Return uint8 images: half noise, half a ramp, so that positions and colors differ."""
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 256, shape)
    rows, columns, channels = np.ogrid[tuple(slice(n) for n in shape[1:])]
    ramp = 255 * (rows + 2 * columns) / (shape[1] + 2 * shape[2]) * (1 - channels / 4)
    return (noise // 2 + ramp / 2).astype(np.uint8)


def excerpt(values):
    """Return about 24 evenly spaced values of an output."""
    return np.asarray(values).reshape(-1)[:: max(1, values.size // 24)]
