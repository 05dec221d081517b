"""How a real becomes a code: rounding and overflow modes, scale recipes, and the verbs that apply them."""

from lowp.rounding import exact
from lowp.rounding.encoded import Encoded
from lowp.rounding.hadamard import hadamard
from lowp.rounding.shard import Shard
from lowp.rounding.verbs import decode, encode, quantize

__all__ = ["Encoded", "Shard", "decode", "encode", "exact", "hadamard", "quantize"]
