"""What every run has in common, and the recipes that are compared."""

import math
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Settings:
    """Model and training, the same for torch and JAX."""

    width: int = 128
    layers: int = 2
    heads: int = 4
    context: int = 64
    batch: int = 16
    steps: int = 150
    warm_up: int = 20
    peak_rate: float = 3e-3
    last_rate: float = 3e-4
    weight_decay: float = 0.1
    judged_on: int = 20  # held-out batches

    def rate(self, step: int) -> float:
        """Return the learning rate: linear warm-up, then a cosine down to the last rate."""
        if step < self.warm_up:
            return self.peak_rate * (step + 1) / self.warm_up
        share = (step - self.warm_up) / max(self.steps - self.warm_up, 1)
        return self.last_rate + 0.5 * (self.peak_rate - self.last_rate) * (1 + math.cos(math.pi * share))

    def rate_schedule(self) -> Any:
        """Return the learning rate as optax reads it."""
        import jax.numpy as jnp

        rates = jnp.array([self.rate(step) for step in range(self.steps)])
        return lambda count: rates[count]

    def as_dict(self) -> dict[str, Any]:
        """Return the settings for the record."""
        return asdict(self)


#: Recipe -> what it is, in the order in which the papers rank the first ones by loss.
RECIPES = {
    "float32": "no emulation",
    "bf16": "all operands in bfloat16",
    "fp8_transformer_engine": "E4M3 forward, E5M2 gradients, delayed scaling",
    "fp8_deepseek_v3": "E4M3, tiles of 1x128 and 128x128",
    "mxfp8": "E4M3, blocks of 32",
    "nvfp4_pretraining": "NVFP4 with 16x16 weights, stochastic gradients, Hadamard",
    "four_over_six": "NVFP4, the better of two scales",
    "quartet2": "NVFP4 with MS-EDEN gradients",
    "quartet": "MXFP4, QuEST forward, stochastic backward",
    "mxfp4_sr_rht": "MXFP4 backward with stochastic rounding and Hadamard",
    "nvfp4": "NVFP4 throughout, to nearest",
    "mxfp4": "MXFP4 throughout, to nearest",
    "quest": "INT4 weights and activations, Hadamard, trust mask",
    "bitnet_b158": "ternary weights, INT8 activations",
    "lns_madam": "8-bit logarithmic numbers, multiplicative updates",
    "gauss_ws": "Gaussian noise on the weights",
}
#: What the papers report, best first; a pair says "no worse than" about the loss.
ORDER = [
    ("bf16", "nvfp4_pretraining"),
    ("fp8_transformer_engine", "nvfp4_pretraining"),
    ("nvfp4_pretraining", "mxfp4_sr_rht"),
    ("mxfp4_sr_rht", "mxfp4"),
]
JAX_RECIPES = ("float32", "mxfp8", "nvfp4", "mxfp4")
