"""Eight CPU devices, no silent rank promotion, flags that count as parsed."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
# Nothing here runs for long: compile fast, in this process and in the commands it starts.
os.environ["XLA_FLAGS"] = "--xla_backend_optimization_level=0"

import jax  # noqa: E402

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")

from absl import flags  # noqa: E402

flags.FLAGS.mark_as_parsed()
