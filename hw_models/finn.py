"""FINN's resource estimates of streaming matrix-vector units, exact, and with their known defects corrected.

`P` processing elements of `Q` lanes each stream a matrix of `MH x MW` weights past vectors of `MW` activations.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import Any

from lowp._errors import ArgumentError, ArgumentTypeError, FormatError, unknown_name
from lowp.formats import parse
from lowp.formats.codebook import Codebook
from lowp.formats.integer import Fixed, Integer
from lowp.formats.spec import Format
from lowp.hw_models.arguments import sizes
from lowp.hw_models.dsp_packing import DSP_BLOCKS
from lowp.hw_models.fpga_memories import bram18, lutram, uram
from lowp.hw_models.tables import rows

STYLES = ("hls", "rtl")
MULTIPLIERS = ("lut", "dsp")
WEIGHT_MEMORIES = ("block", "ultra", "distributed", "embedded", "external")
#: Deepest embedded weight memory that becomes LUTs, words.
_EMBEDDED_WORDS = 128
_LUTRAM_WORDS = 64
_NARROW = 4  # widest operands of the four-lane core


@dataclass(frozen=True)
class Mvau:
    """A matrix-vector unit as FINN configures it.

    Attributes:
        mw: Columns of the weights: length of a dot product.
        mh: Rows of the weights.
        pe: Processing elements P; divides `mh`.
        simd: Lanes Q; divides `mw`.
        w: Bits of a weight.
        a: Bits of an activation.
        a_signed: Whether activations are signed.
        accumulator: Bits of the accumulator type; FINN's default INT32.
        thresholds: Bits of the fused activation, which takes `2^bits - 1` thresholds per row; 0: none.
        style: "hls" or "rtl".
        multipliers: "lut" or "dsp".
        memory: Of the weights: "block", "ultra" or "distributed" beside the unit, "embedded" in it, or "external".
        dsp_block: DSP of the device, for the RTL style.

    Raises:
        ArgumentError: A size that is not positive or does not divide, an unknown name, or RTL with LUT multipliers.
        ArgumentTypeError: A size that is no integer.
    """

    mw: int
    mh: int
    pe: int
    simd: int
    w: int
    a: int
    a_signed: bool = False
    accumulator: int = 32
    thresholds: int = 0
    style: str = "hls"
    multipliers: str = "lut"
    memory: str = "block"
    dsp_block: str = "DSP48E2"

    def __post_init__(self) -> None:
        sizes(mw=self.mw, mh=self.mh, pe=self.pe, simd=self.simd, w=self.w, a=self.a, accumulator=self.accumulator)
        sizes(thresholds=self.thresholds + 1)
        for name, whole, part in (("pe", self.mh, self.pe), ("simd", self.mw, self.simd)):
            if whole % part:
                raise ArgumentError(f"{name}={part!r} must divide {'mh' if name == 'pe' else 'mw'}={whole!r}.")
        for argument, value, allowed in (
            ("style", self.style, STYLES),
            ("multipliers", self.multipliers, MULTIPLIERS),
            ("memory", self.memory, WEIGHT_MEMORIES),
            ("dsp_block", self.dsp_block, DSP_BLOCKS),
        ):
            if value not in allowed:
                raise ArgumentError(unknown_name(argument, value, allowed))
        if self.style == "rtl" and self.multipliers == "lut":
            raise ArgumentError("multipliers='lut' is not possible in RTL; allowed: 'dsp', or style='hls'.")
        if self.style == "rtl" and self.thresholds:
            raise ArgumentError(f"thresholds={self.thresholds!r} are a unit of their own in RTL; allowed: 0.")
        if self.style == "rtl" and self.core == "mvu_vvu_8sx9" and (self.w > 8 or self.a > 8 + self.a_signed):
            raise ArgumentError(f"w={self.w!r}, a={self.a!r} do not fit the DSP58's ports of 8 and 9 bits.")

    @property
    def words(self) -> int:
        """Words of the weight memory, each of `P Q` weights."""
        return self.mw * self.mh // (self.pe * self.simd)

    @property
    def word_bits(self) -> int:
        """Bits of a word of the weight memory."""
        return self.simd * self.w * self.pe

    @property
    def accumulator_bits(self) -> int:
        """Bits of the accumulator: those of its type, or what every dot product of such operands fits in."""
        return min(self.accumulator, data_type_bound(self.mw, self.w, self.a, self.a_signed))

    def cycles(self, vectors: int = 1) -> int:
        """Return the cycles per so many activation vectors."""
        (vectors,) = sizes(vectors=vectors)
        return (self.mh // self.pe) * (self.mw // self.simd) * vectors

    @property
    def core(self) -> str:
        """The RTL core that FINN picks, or "hls"."""
        if self.style == "hls":
            return "hls"
        if self.w <= _NARROW and self.a <= _NARROW:
            return "mvu_4sx4u"
        return "mvu_vvu_8sx9" if self.dsp_block == "DSP58" else "mvu_8sx8u"

    # FINN's estimates

    def lut(self, corrected: bool = False) -> int:
        """Return the LUTs.

        Args:
            corrected: FINN's formula has a step of four times between 3-bit and 4-bit multipliers, and gives 0 for RTL
                units. Corrected, multipliers follow a smooth fit to synthesised ones, never below the formula where it
                is too low, and RTL units take what their source instantiates: corrections of overlapping lanes, adder
                trees, accumulators, and the replay buffer.

        Source: Xilinx/finn @0064bae, `matrixvectoractivation_hls.py`, after FINN-R (Blott et al., TRETS 2018).

        Example:
            >>> Mvau(256, 256, 16, 16, w=4, a=4).lut()
            11722
        """
        if self.style == "rtl":
            return self._rtl_lut() if corrected else 0
        multiply = 0.0 if self.multipliers == "dsp" else self.simd * multiplier_lut(self.w, self.a, corrected)
        tree = (self.w + self.a) * (2 * self.simd - 1)
        accumulate = self.accumulator_bits
        levels = (1 << self.thresholds) - 1
        thresholds = levels * accumulate * math.ceil(self.mh / self.pe / _LUTRAM_WORDS)
        compare = levels * accumulate
        memory = self.word_bits * math.ceil(self.words / _LUTRAM_WORDS) if self._weights_in_luts else 0
        each = multiply + tree + accumulate + thresholds + compare
        return int(_constant("c0") + _constant("c1") * (self.pe * each) + memory)

    def dsp(self, corrected: bool = False) -> int:
        """Return the DSPs.

        Args:
            corrected: FINN counts four lanes per DSP48 in RTL, also for the core of more than 4 bits, which has two,
                and three for every DSP58, also where the four-lane core is used. Corrected, cores' own lanes count.
        """
        if self.style == "hls":
            return self.pe * self.simd * math.ceil((self.w + self.a) / 48) if self.multipliers == "dsp" else 0
        if corrected:
            return _CORES[self.core](self.pe, self.simd)
        return _CORES["mvu_vvu_8sx9" if self.dsp_block == "DSP58" else "mvu_4sx4u"](self.pe, self.simd)

    def bram18(self) -> int:
        """Return the 18 Kb block RAMs of the weights.

        Example:
            >>> Mvau(256, 256, 16, 16, w=4, a=4).bram18()
            29
        """
        embedded = self.memory == "embedded" and self.words > _EMBEDDED_WORDS
        return bram18(self.word_bits, self.words) if self.memory == "block" or embedded else 0

    def uram(self, corrected: bool = False) -> int:
        """Return the UltraRAMs of the weights.

        Args:
            corrected: FINN counts a large embedded memory twice, as block RAMs and as UltraRAMs. Corrected, it is in
                block RAMs.
        """
        twice = self.memory == "embedded" and self.words > _EMBEDDED_WORDS and not corrected
        return uram(self.word_bits, self.words) if self.memory == "ultra" or twice else 0

    @property
    def bram_efficiency(self) -> float:
        """What part of the block RAMs' bits the weights fill; 1 without block RAMs."""
        blocks = self.bram18()
        return self.w * self.mw * self.mh / (blocks * 36 * 512) if blocks else 1.0

    @property
    def _weights_in_luts(self) -> bool:
        return self.memory == "distributed" or (self.memory == "embedded" and self.words <= _EMBEDDED_WORDS)

    # Corrections

    def _rtl_lut(self) -> int:
        memory = self.word_bits * math.ceil(self.words / _LUTRAM_WORDS) if self._weights_in_luts else 0
        replay = lutram(self.simd * self.a, self.mw // self.simd)
        total = _constant("c0") + replay + memory
        if self.core != "mvu_vvu_8sx9":
            lanes, low = (4, 8) if self.core == "mvu_4sx4u" else (2, self.w + self.a)
            total += sum(self._pipe_lut(min(lanes, self.pe - first), low) for first in range(0, self.pe, lanes))
        return int(total)

    def _pipe_lut(self, lanes: int, low: int) -> float:
        """LUTs behind a column of DSPs: overflow corrections, trees of low and high parts, the lanes' totals."""
        acc, extra = self.accumulator_bits, lanes - 1
        corrections = 5 * self.simd * extra
        low_trees = lanes * _tree_bits(self.simd, low)
        high_trees = extra * (_tree_bits(self.simd, 2) + max(acc - low, 1) + 1)
        return corrections + low_trees + high_trees + lanes * acc


#: DSPs of P processing elements of Q lanes each.
_CORES: dict[str, Callable[[int, int], int]] = {
    "mvu_4sx4u": lambda pe, simd: math.ceil(pe / 4) * simd,
    "mvu_8sx8u": lambda pe, simd: math.ceil(pe / 2) * simd,
    "mvu_vvu_8sx9": lambda pe, simd: pe * math.ceil(simd / 3),
}


def _tree_bits(leaves: int, bits: int) -> int:
    total = 0
    while leaves > 1:
        total += leaves // 2 * (bits + 1)
        leaves, bits = (leaves + 1) // 2, bits + 1
    return total


@cache
def _constant(name: str) -> float:
    return next(float(r["value"]) for r in rows("fpga_finn") if r["coefficient"] == name)


def multiplier_lut(w: int, a: int, corrected: bool = False) -> float:
    """Return the LUTs of a multiplier of two integers by FINN's formula `(2 ceil((w+a)/6) - 1)(w + a)`.

    Args:
        w: Bits of one operand.
        a: Bits of the other.
        corrected: Without the formula's steps: `1.25 w a`, which the formula's values and a vendor's 18 x 18
            multipliers (365 to 411 LUTs) scatter about; at least one LUT per result bit, fewer for single bits.

    Raises:
        ArgumentError: A size is not positive.

    Example:
        >>> [int(multiplier_lut(n, n)) for n in (4, 8, 18)]
        [24, 80, 396]
        >>> multiplier_lut(3, 3), multiplier_lut(3, 3, corrected=True), multiplier_lut(4, 4, corrected=True)
        (6.0, 11.25, 20.0)
    """
    w, a = sizes(w=w, a=a)
    if not corrected:
        return float((2 * math.ceil((w + a) / 6) - 1) * (w + a))
    if min(w, a) == 1:
        return float(max(w, a))
    return max(_constant("per_bit_pair") * w * a, float(w + a))


def data_type_bound(terms: int, w: int, a: int, a_signed: bool = False) -> int:
    """Return the accumulator bits that hold every dot product of signed weights and activations of so many bits.

    `ceil(alpha + log2(1 + 2^-alpha) + 1)` with `alpha = log2(terms) + w + a - 1 - signed`.

    Raises:
        ArgumentError: A size is not positive.

    Source: A2Q (Colbert et al., arXiv 2301.13376).

    Example:
        >>> data_type_bound(256, 4, 4), data_type_bound(256, 8, 8, a_signed=True)
        (17, 24)
    """
    terms, w, a = sizes(terms=terms, w=w, a=a)
    if not isinstance(a_signed, bool):
        raise ArgumentTypeError(f"a_signed={a_signed!r} must be True or False.")
    return (terms << (w + a - 1 - int(a_signed))).bit_length() + 1  # in integers: floats miss 31 terms of single bits


def weight_norm_bound(norm: float, a: int, a_signed: bool = False) -> int:
    """Return the accumulator bits that hold every dot product with weights of a given L1 norm.

    Args:
        norm: Sum of the magnitudes of the integer weights of a row, at least 1.
        a: Bits of an activation.
        a_signed: Whether activations are signed.

    Raises:
        ArgumentError: The norm is below 1 or a size not positive.

    Source: A2Q (Colbert et al., arXiv 2301.13376).

    Example:
        >>> weight_norm_bound(100, 8), data_type_bound(256, 4, 8)
        (16, 21)
    """
    (a,) = sizes(a=a)
    if not 1 <= norm < math.inf:
        raise ArgumentError(f"norm={norm!r} must be finite and at least 1.")
    reach = Fraction(norm) * (1 << (a - int(a_signed)))
    return math.ceil(reach).bit_length() + 1


def chain_delay(length: int) -> float:
    """Return the delay in seconds of a chain of so many DSP58s without registers between them.

    Source: Xilinx/finn @0064bae: 0.741 ns for the first, 0.605 ns for each further one.

    Example:
        >>> round(chain_delay(3) * 1e9, 3)
        1.951
    """
    (length,) = sizes(length=length)
    return (_constant("first_dsp58") + _constant("next_dsp58") * (length - 1)) * 1e-9


def chain_length(clock: float, simd: int) -> int:
    """Return how many DSP58s may follow each other without a register at a clock.

    Args:
        clock: In Hz.
        simd: Lanes, three per DSP58.

    Raises:
        ArgumentError: A size is not positive, or one DSP is too slow for the clock.

    Example:
        >>> chain_length(500e6, 64), chain_length(200e6, 6)
        (3, 2)
    """
    (simd,) = sizes(simd=simd)
    if not 0 < clock < 1 / chain_delay(1):
        raise ArgumentError(f"clock={clock!r} must be positive and below {1 / chain_delay(1):.4g} Hz.")
    period = 1e9 / clock
    longest = math.floor((period - _constant("first_dsp58")) / _constant("next_dsp58") + 1)
    return min(longest, math.ceil(simd / 3))


def mvau(
    mw: int, mh: int, pe: int, simd: int, weights: str | Format | int, activations: str | Format | int, **options: Any
) -> Mvau:
    """Return a matrix-vector unit for two formats of integers.

    Args:
        mw: Columns of the weights.
        mh: Rows of the weights.
        pe: Processing elements.
        simd: Lanes.
        weights: Format of the weights, its name, or bits.
        activations: Format of the activations, its name, or bits of unsigned ones.
        options: Further fields of `Mvau`.

    Raises:
        FormatError: A format that FINN has no data type for.
        ArgumentError: As `Mvau`.

    Example:
        >>> unit = mvau(64, 64, 4, 8, "ternary", "uint2")
        >>> unit.w, unit.a, unit.cycles()
        (2, 2, 128)
    """
    w, _ = _data_type("weights", weights)
    a, signed = _data_type("activations", activations)
    return Mvau(mw, mh, pe, simd, w, a, a_signed=options.pop("a_signed", signed), **options)


def _data_type(name: str, value: str | Format | int) -> tuple[int, bool]:
    if isinstance(value, str | Format):
        fmt = parse(value)
        if isinstance(fmt, Integer | Fixed):
            return fmt.bits, fmt.signed
        if isinstance(fmt, Codebook) and all(x == int(x) for x in fmt.values):
            return fmt.bits, min(fmt.values) < 0
        raise FormatError(
            f"{name}={fmt.name!r} is no data type of FINN; allowed: integers, fixed point, ternary, bipolar."
        )
    (bits,) = sizes(**{name: value})
    return bits, False
