"""Rounding and overflow modes by name; a deterministic mode is one 16-bit truth table.

Notation: `x` is the exact real value, `lo` the representable neighbour nearer zero, `hi` the one farther from zero,
`ulp = hi - lo` in magnitude, `nu = (|x| - |lo|) / ulp`, and `odd` says whether the code of `lo` is odd.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from lowp._errors import ArgumentError, ArgumentTypeError, unknown_name

EXACT, BELOW_HALF, HALF, ABOVE_HALF = range(4)

#: mode -> (formula of "round to hi", the same as a function of position, sign and parity).
_DETERMINISTIC: dict[str, tuple[str, Callable[[int, bool, bool], bool]]] = {
    "ties_to_even": ("nu > 1/2, or nu = 1/2 and odd", lambda p, neg, odd: p == ABOVE_HALF or (p == HALF and odd)),
    "ties_to_odd": (
        "nu > 1/2, or nu = 1/2 and not odd",
        lambda p, neg, odd: p == ABOVE_HALF or (p == HALF and not odd),
    ),
    "ties_to_away": ("nu >= 1/2", lambda p, neg, odd: p >= HALF),
    "ties_to_zero": ("nu > 1/2", lambda p, neg, odd: p == ABOVE_HALF),
    "ties_to_positive": (
        "nu > 1/2, or nu = 1/2 and x > 0",
        lambda p, neg, odd: p == ABOVE_HALF or (p == HALF and not neg),
    ),
    "ties_to_negative": ("nu > 1/2, or nu = 1/2 and x < 0", lambda p, neg, odd: p == ABOVE_HALF or (p == HALF and neg)),
    "toward_zero": ("never", lambda p, neg, odd: False),
    "away_from_zero": ("nu > 0", lambda p, neg, odd: p > EXACT),
    "toward_positive": ("nu > 0 and x > 0", lambda p, neg, odd: p > EXACT and not neg),
    "toward_negative": ("nu > 0 and x < 0", lambda p, neg, odd: p > EXACT and neg),
    "to_odd": ("nu > 0 and not odd", lambda p, neg, odd: p > EXACT and not odd),
}
#: Stochastic modes with N random bits R, uniform in [0, 2^N). A, B, C as IEEE P3109 (interim report 4.0).
_STOCHASTIC = {
    "stochastic_a": "floor(nu * 2^N) + R >= 2^N",
    "stochastic_b": "floor(nu * 2^(N+1)) + 2R + 1 >= 2^(N+1)",
    "stochastic_c": "round_half_even(nu * 2^N) + R >= 2^N",
    "stochastic_equal": "nu > 0 and the top random bit is 1",
}
ROUNDING_MODES: dict[str, str] = {**{k: v[0] for k, v in _DETERMINISTIC.items()}, **_STOCHASTIC}

_ALIASES = {
    "nearest": "ties_to_even", "rne": "ties_to_even", "rna": "ties_to_away", "rtz": "toward_zero",
    "truncate": "toward_zero", "ru": "toward_positive", "ceil": "toward_positive", "rd": "toward_negative",
    "floor": "toward_negative", "stochastic": "stochastic_a", "odd": "to_odd",
    "ap_rnd": "ties_to_positive", "ap_rnd_zero": "ties_to_zero", "ap_rnd_min_inf": "ties_to_negative",
    "ap_rnd_inf": "ties_to_away", "ap_rnd_conv": "ties_to_even", "ap_trn": "toward_negative",
    "ap_trn_zero": "toward_zero",
    "tiestoeven": "ties_to_even", "tiestoaway": "ties_to_away",
    "nearesttiestoeven": "ties_to_even", "nearesttiestoaway": "ties_to_away", "towardpositive": "toward_positive",
    "towardnegative": "toward_negative", "towardzero": "toward_zero", "toodd": "to_odd",
    "stochastica": "stochastic_a", "stochasticb": "stochastic_b", "stochasticc": "stochastic_c",
}  # fmt: skip

#: Overflow modes: what happens to a rounded value beyond the largest finite one, and to infinities.
OVERFLOW_MODES = {
    "saturate": "clamp everything, infinities too (OCP saturating, P3109 SatFinite, AP_SAT)",
    "propagate": "clamp finite values, keep infinities where the format has them (P3109 SatPropagate)",
    "infinity_or_nan": "infinity if the format has it, else NaN, else clamp; directed modes stop at the largest finite "
    "value on their side (IEEE 754, OCP non-saturating, P3109 SatNone)",
    "wrap": "keep the low bits (AP_WRAP); integers and fixed point only",
    "saturate_zero": "zero (AP_SAT_ZERO); integers and fixed point only",
    "saturate_symmetric": "clamp to the symmetric range (AP_SAT_SYM); integers and fixed point only",
    "wrap_sign_magnitude": "wrap in sign-magnitude (AP_WRAP_SM); signed integers and fixed point only",
}
_OVERFLOW_ALIASES = {
    "clamp": "saturate", "sat": "saturate", "satfinite": "saturate", "sat_finite": "saturate", "ap_sat": "saturate",
    "satpropagate": "propagate", "sat_propagate": "propagate",
    "satnone": "infinity_or_nan", "sat_none": "infinity_or_nan", "ieee": "infinity_or_nan",
    "nonsaturating": "infinity_or_nan",
    "ap_wrap": "wrap", "ap_sat_zero": "saturate_zero",
    "ap_sat_sym": "saturate_symmetric", "ap_wrap_sm": "wrap_sign_magnitude",
}  # fmt: skip
INTEGER_ONLY = ("wrap", "saturate_zero", "saturate_symmetric", "wrap_sign_magnitude")


class Rounding(NamedTuple):
    """A rounding mode made ready for kernels.

    Attributes:
        name: Canonical name.
        table: Bit `position*4 + negative*2 + odd` says whether to round away from zero (deterministic modes).
        variant: 0 deterministic; 1, 2, 3 stochastic A, B, C; 4 equal probability.
        random_bits: Number of random bits N (stochastic modes).
    """

    name: str
    table: int
    variant: int
    random_bits: int

    def away(self, position: int, negative: bool, odd: bool) -> bool:
        """Whether a deterministic mode rounds away from zero."""
        return bool(self.table >> (position * 4 + negative * 2 + odd) & 1)


def rounding(name: str, random_bits: int | None = None) -> Rounding:
    """Return the rounding mode of that name.

    Args:
        name: A key of `ROUNDING_MODES`, or an alias: "rne", "rtz", "floor", AMD's "AP_RND_CONV", P3109's "ToOdd", ...
        random_bits: Random bits N of a stochastic mode, 1 to 32; default 32.

    Raises:
        ArgumentError: Unknown name, or N out of range.

    Example:
        >>> rounding("AP_RND").name
        'ties_to_positive'
    """
    key = _lookup("rounding", name, ROUNDING_MODES, _ALIASES)
    bits = 32 if random_bits is None else random_bits
    if isinstance(bits, bool) or not hasattr(bits, "__index__") or not 1 <= bits <= 32:
        raise ArgumentError(f"random_bits={random_bits!r} must be an integer from 1 to 32.")
    return _lowered(key, int(bits))


@lru_cache(maxsize=256)
def _lowered(key: str, bits: int) -> Rounding:
    if key in _STOCHASTIC:
        return Rounding(key, 0, 1 + list(_STOCHASTIC).index(key), bits)
    decide = _DETERMINISTIC[key][1]
    table = sum(decide(i >> 2, bool(i & 2), bool(i & 1)) << i for i in range(16))
    return Rounding(key, table, 0, 0)


def overflow_mode(name: str) -> str:
    """Return the canonical name of an overflow mode.

    Raises:
        ArgumentError: Unknown name.

    Example:
        >>> overflow_mode("SatFinite")
        'saturate'
    """
    return _lookup("overflow", name, OVERFLOW_MODES, _OVERFLOW_ALIASES)


def _lookup(argument: str, name: object, names: dict[str, str], aliases: dict[str, str]) -> str:
    if not isinstance(name, str):
        raise ArgumentTypeError(f"{argument}={name!r} must be a name, one of: {', '.join(names)}.")
    key = name.strip().lower().replace("-", "_")
    key = aliases.get(key, key)
    if key not in names:
        raise ArgumentError(unknown_name(argument, name, [*names, *aliases]))
    return key
