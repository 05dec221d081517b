"""Binary floating-point formats: one description for IEEE, OCP, FNUZ, P3109 and everything between."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

from lowp._errors import FormatError, unknown_name
from lowp.formats.spec import REGISTERED_NAMES, Meaning, ScalarFormat, check_flag

#: Special-value conventions. Each says which codes are not finite numbers.
SPECIALS = {
    "ieee": "top exponent is infinity (mantissa 0) and NaN (mantissa not 0); -0 exists",
    "fn": "only the all-ones code (of each sign) is NaN, no infinity; -0 exists",
    "fnuz": "the code of -0 is NaN, no infinity, no -0",
    "finite": "every code is a finite number; -0 exists where the format is signed",
    "dlfloat": "all ones (of each sign) is NaN, no infinity; code 0 is zero, else exponent 0 is normal; -0 exists",
    "p3109": "one NaN in the place of -0 (all ones if unsigned), infinities next to it; no -0",
    "p3109_finite": "one NaN in the place of -0 (all ones if unsigned), no infinity; no -0",
}
#: How much less bias the array kernels give P3109 formats that reach past float64, to see float64's subnormals.
LIFT = 100
_SUFFIX = {"ieee": "", "fn": "fn", "fnuz": "fnuz", "finite": "f", "dlfloat": "dl"}


@dataclass(frozen=True)
class Float(ScalarFormat):
    """A binary float: sign, exponent and mantissa fields, a bias and a special-value convention.

    A code with exponent field `E > 0` and mantissa `T` is `(1 + T/2^m) * 2^(E - bias)`; with `E = 0` it is the
    subnormal `T/2^m * 2^(1 - bias)`. Without subnormals, `E = 0` is zero whatever `T`. Without zero (`zero=False`,
    as E8M0), `E = 0` is read like any other exponent; so it is in "dlfloat", but for the code 0, which is zero.

    Args:
        exponent_bits: Width of the exponent field, 1 to 11, P3109 to 15 (0 is not a float; see `Fixed`).
        mantissa_bits: Width of the stored mantissa, 0 to 52.
        bias: Exponent bias; default `2^(exponent_bits-1) - 1`, for fnuz and P3109 one more.
        signed: Whether there is a sign bit.
        subnormals: Whether exponent field 0 holds subnormals.
        specials: One of "ieee", "fn", "fnuz", "finite", "dlfloat", "p3109", "p3109_finite".
        zero: Whether zero is a value; only unsigned formats without subnormals may leave it out.

    Raises:
        FormatError: No such format can exist, or its values leave the range of float64 (those of P3109, with its
            bias, may: values are then the nearest float64, zero or infinity, while codes and `lowp.exact` are exact).

    Example:
        >>> Float(4, 3, specials="fn").max
        448.0
        >>> Float(5, 7).bits
        13
    """

    exponent_bits: int
    mantissa_bits: int
    bias: int | None = None
    signed: bool = True
    subnormals: bool = True
    specials: str = "ieee"
    zero: bool = True

    kind = "arithmetic"

    def __post_init__(self) -> None:
        for field in ("exponent_bits", "mantissa_bits") + (("bias",) if self.bias is not None else ()):
            value = getattr(self, field)
            if isinstance(value, bool) or not hasattr(value, "__index__"):
                raise FormatError(f"{field}={value!r} is not an integer.")
            object.__setattr__(self, field, int(value))
        for flag in ("signed", "subnormals", "zero"):
            check_flag(flag, getattr(self, flag))
        if self.specials not in SPECIALS:
            raise FormatError(unknown_name("specials", self.specials, SPECIALS))
        self._check_fields()
        if self.bias is None:
            object.__setattr__(self, "bias", self._default_bias())
        least = 0 if not self.zero else 1 if self.subnormals or not self.normal_field else 1 << self.mantissa_bits
        if self.max_code < least:
            raise FormatError(f"{self!r} has no finite value besides zero; give it more bits or specials='finite'.")
        self._check_range()

    def _check_fields(self) -> None:
        e, m = self.exponent_bits, self.mantissa_bits
        most = 15 if self.specials.startswith("p3109") else 11
        if not 1 <= e <= most:
            raise FormatError(
                f"exponent_bits={e!r} is out of range; allowed: 1 to {most} (0 is fixed point: use Fixed)."
            )
        if not 0 <= m <= 52:
            raise FormatError(f"mantissa_bits={m!r} is out of range; allowed: 0 to 52.")
        if self.specials == "fnuz" and not self.signed:
            raise FormatError("specials='fnuz' puts NaN in the code of -0, so it needs signed=True; use 'fn'.")
        if self.specials == "ieee" and m == 0:
            raise FormatError(
                "specials='ieee' needs mantissa_bits >= 1 to tell infinity from NaN; use 'fn' or 'finite'."
            )
        if not self.zero and (self.signed or self.subnormals or self.specials not in ("fn", "finite")):
            raise FormatError("zero=False needs signed=False, subnormals=False and specials 'fn' or 'finite'.")
        if self.specials == "dlfloat" and not 1 <= m <= 22:
            raise FormatError(f"specials='dlfloat' needs 1 to 22 mantissa_bits, not {m!r}.")
        if self.subnormals and (m == 0 or self.specials == "dlfloat"):
            object.__setattr__(self, "subnormals", False)

    def _default_bias(self) -> int:
        half = 1 << (self.exponent_bits - 1)
        return half if self.specials in ("fnuz", "p3109", "p3109_finite") else half - 1

    def _check_range(self) -> None:
        assert self.bias is not None
        if self.specials.startswith("p3109") and self._default_bias() - self.bias in (0, LIFT):
            return
        if self.emin < -1022 or self.emin - self.mantissa_bits < -1074 or self.emax > 1023:
            raise FormatError(
                f"bias={self.bias!r} puts the normal range 2^{self.emin} to 2^{self.emax} outside that of float64 "
                f"(2^-1022 to 2^1023); allowed here: {self._bias_bounds()}."
            )

    def _bias_bounds(self) -> str:
        low = (self.bias or 0) + self.emax - 1023
        high = (self.bias or 0) + self.emin + 1022
        return f"{low} to {high}" if low <= high else "none, use fewer exponent bits"

    @property
    def bits(self) -> int:
        """Storage bits of one code."""
        return self.exponent_bits + self.mantissa_bits + self.signed

    @property
    def emin(self) -> int:
        """Exponent of the smallest normal value."""
        assert self.bias is not None
        return self.normal_field - self.bias

    @property
    def normal_field(self) -> int:
        """Exponent field of the smallest normal values: 1, or 0 where that is read like any other."""
        return int(self.zero and self.specials != "dlfloat")

    @property
    def emax(self) -> int:
        """Exponent of the largest finite value."""
        assert self.bias is not None
        return (self.max_code >> self.mantissa_bits) - self.bias

    @cached_property
    def max_code(self) -> int:
        """Code of the largest finite value."""
        magnitudes = 1 << (self.exponent_bits + self.mantissa_bits)
        if self.specials == "ieee":
            return magnitudes - (1 << self.mantissa_bits) - 1
        if self.specials in ("fn", "dlfloat"):
            return magnitudes - 2
        if self.specials == "p3109":
            return magnitudes - (2 if self.signed else 3)
        if self.specials == "p3109_finite" and not self.signed:
            return magnitudes - 2
        return magnitudes - 1

    @property
    def infinity_code(self) -> int | None:
        """Code of +infinity, or None."""
        return self.max_code + 1 if self.has_infinity else None

    @property
    def nan_code(self) -> int | None:
        """Canonical code of NaN (quiet, positive where the format has a choice), or None."""
        if not self.has_nan:
            return None
        if self.specials == "ieee":
            return self.max_code + 1 + (1 << (self.mantissa_bits - 1))
        if self.signed and self.specials in ("fnuz", "p3109", "p3109_finite"):
            return 1 << (self.bits - 1)
        return (1 << (self.bits - self.signed)) - 1

    @property
    def has_nan(self) -> bool:
        return self.specials != "finite"

    @property
    def has_infinity(self) -> bool:
        return self.specials in ("ieee", "p3109")

    @property
    def has_negative_zero(self) -> bool:
        return self.signed and self.specials in ("ieee", "fn", "finite", "dlfloat")

    @property
    def has_zero(self) -> bool:
        return self.zero

    def meaning(self, code: int) -> Meaning:
        self.check_code(code)
        sign_bit = 1 << (self.bits - 1) if self.signed else 0
        magnitude, negative = code & ~sign_bit, bool(code & sign_bit)
        if magnitude == 0 and negative and not self.has_negative_zero:
            return "nan"
        if magnitude > self.max_code:
            is_infinity = magnitude == self.infinity_code
            return ("-inf" if negative else "inf") if is_infinity else "nan"
        value = self._magnitude(magnitude)
        if value == 0 and negative:
            return "-0" if self.has_negative_zero else Fraction(0)
        return -value if negative else value

    def _magnitude(self, code: int) -> Fraction:
        assert self.bias is not None
        exponent, mantissa = divmod(code, 1 << self.mantissa_bits)
        fraction = Fraction(mantissa, 1 << self.mantissa_bits)
        if code == 0 and self.zero:
            return Fraction(0)
        if exponent < self.normal_field:
            return fraction * Fraction(2) ** self.emin if self.subnormals else Fraction(0)
        return (1 + fraction) * Fraction(2) ** (exponent - self.bias)

    @cached_property
    def _limits(self) -> tuple[Fraction, Fraction, Fraction, Fraction]:
        largest = self._magnitude(self.max_code)
        normal = Fraction(2) ** self.emin if self.specials != "dlfloat" else self._magnitude(1)
        if self.max_code < 1 << self.mantissa_bits and self.subnormals:
            normal = self._magnitude(1)
        smallest = self._magnitude(1) if self.subnormals else normal
        lowest = -largest if self.signed else (Fraction(0) if self.zero else normal)
        return largest, lowest, normal, smallest

    @cached_property
    def eps(self) -> float:
        ulp = Fraction(2) ** max(-self.mantissa_bits, self.emin - self.mantissa_bits if self.subnormals else -(10**6))
        least = self.emin + (self.specials == "dlfloat")  # where 2^emin itself is zero
        one_is_value = least <= 0 <= self.emax or (self.subnormals and ulp <= 1 <= self._limits[0])
        return float(ulp) if one_is_value and 1 + ulp <= self._limits[0] else float("nan")

    def generated_name(self) -> str:
        e, m = self.exponent_bits, self.mantissa_bits
        sign = "" if self.signed else "u"
        if self.specials.startswith("p3109"):
            domain = "e" if self.specials == "p3109" else "f"
            bias = "" if self.bias == self._default_bias() else f"b{self.bias}"
            return f"binary{self.bits}p{m + 1}{'s' if self.signed else 'u'}{domain}{bias}"
        bias = "" if self.bias == self._default_bias() else f"b{self.bias}"
        tail = ("" if self.zero else "_nozero") + ("" if self.subnormals or m == 0 or not self.zero else "_nosub")
        tail = "" if self.specials == "dlfloat" else tail
        name = f"float{self.bits}_{sign}e{e}m{m}{bias}{_SUFFIX[self.specials]}{tail}"
        if not bias and REGISTERED_NAMES.get(self) != name and name in REGISTERED_NAMES.values():
            return name.replace(f"m{m}", f"m{m}b{self.bias}", 1)  # ml_dtypes says fn of its finite formats too
        return name
