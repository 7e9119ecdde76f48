"""Four fake CPU devices, strict promotion, and the tests' shared fixtures."""

import jax

jax.config.update('jax_num_cpu_devices', 4)
jax.config.update('jax_numpy_rank_promotion', 'raise')
