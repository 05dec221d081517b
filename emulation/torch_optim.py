"""Optimizers in low precision for torch: states, parameters and updates in number formats."""

from lowp.emulation._torch_collage import CollageAdamW
from lowp.emulation._torch_madam import Madam
from lowp.emulation._torch_optim import LowPrecision
from lowp.emulation.optimizer_states import STATE_FORMATS

__all__ = ["STATE_FORMATS", "CollageAdamW", "LowPrecision", "Madam"]
