"""How a real becomes a code: rounding and overflow modes, scale recipes, and the verbs that apply them."""

from lowp.rounding import exact
from lowp.rounding.encoded import Encoded
from lowp.rounding.verbs import decode, encode, quantize

__all__ = ["Encoded", "decode", "encode", "exact", "quantize"]
