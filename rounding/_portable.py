"""The portable scalar core, by the names that the other portable code uses."""

from lowp.rounding._namespaces import Namespace, namespace_of
from lowp.rounding._portable_scalar import decode_values, encode_values, quantize_values
from lowp.rounding._portable_words import c_positions, seed_keys, split_positions, words

__all__ = [
    "Namespace",
    "c_positions",
    "decode_values",
    "encode_values",
    "namespace_of",
    "quantize_values",
    "seed_keys",
    "split_positions",
    "words",
]
