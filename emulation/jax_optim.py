"""Optimizers in low precision for JAX, as optax transformations: states, parameters and updates in number formats."""

from lowp.emulation._jax_collage import CollageState, collage_adamw
from lowp.emulation._jax_madam import MadamState, madam
from lowp.emulation._jax_optim import LowPrecisionState, apply_updates, low_precision, state_nbytes
from lowp.emulation._jax_stored import StoredArray
from lowp.emulation.optimizer_states import STATE_FORMATS

__all__ = [
    "STATE_FORMATS",
    "CollageState",
    "LowPrecisionState",
    "MadamState",
    "StoredArray",
    "apply_updates",
    "collage_adamw",
    "low_precision",
    "madam",
    "state_nbytes",
]
