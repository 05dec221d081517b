"""How sums of products are kept: one frozen description for a tensor core, an FPGA's MAC, a quire or a loop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lowp.emulation._accumulator_checks import check_accumulator, check_alignment
from lowp.emulation.gauss_table import GaussTable
from lowp.formats.spec import Format


@dataclass(frozen=True, kw_only=True)
class Alignment:
    """How the exact terms of one step are brought to one exponent and cut, as a fused dot-product unit does.

    Terms are exact products `a * b` (times their scales). The exponent of an operand or a scale is `floor(log2 |x|)`,
    but not less than that of its format's least normal number (in families without subnormals, of the least positive
    one); that of a product is the sum of its factors', not renormalised. The largest exponent `E` among the nonzero
    terms is the reference: every term is cut at the bit of weight `2^(E - fraction_bits)`, and what is left is summed
    exactly, in as many bits as that takes. A sum of zero is +0. The running sum that a product starts from may be of
    another format, which then decides its exponent.

    Args:
        fraction_bits: Bits that are kept below the largest exponent.
        cut: Rounding mode of that cut: "toward_zero" cuts magnitudes, "toward_negative" two's complements; "to_odd"
            keeps a sticky bit.
        zero_exponent: The reference is not less than this; None: no such limit.
        lanes: Terms are dealt out to so many lanes in turn; each lane has a reference of its own, and the lanes' sums
            are then aligned under the largest of these and cut at `fraction_bits` by `sum_cut`. A step's first term
            goes to the first lane.
        running_sum: "term": the running sum is one of the terms. "after": it is aligned with the finished sum of the
            products, both cut under the larger exponent (of that sum its reference, none if all products are zero; of
            the running sum not less than its format's least normal exponent, which is zero's too).
        sum_fraction_bits: Bits of the sum of products that are kept when the running sum comes "after".
        running_fraction_bits: Bits of the running sum that are kept then.
        sum_cut: Rounding mode of these cuts, of the lanes' one, and of the next one.
        result_fraction_bits: Bits kept below the result's own exponent before it is rounded to the format; None: all.
        running_reach: A running sum more than so many binades below the reference is dropped; None: never.
        product_limit: Products of magnitude `2^product_limit` and more are infinite; None: none are.
        scaled_group: Products of so many terms are summed exactly, times the significands of their scales; that sum is
            one term, whose exponent is the sum of the scales' alone, also where it cancels: it counts as zero where all
            its products, or a scale, are. For operands with block scales only.

    Source:
        F. A. Khattak, M. Mikaitis, "Accurate Models of NVIDIA Tensor Cores", ACM TACO, doi 10.1145/3830409; MMA-Sim,
        arXiv 2511.10909.
    """

    fraction_bits: int
    cut: str = "toward_zero"
    zero_exponent: int | None = None
    lanes: int = 1
    running_sum: str = "term"
    sum_fraction_bits: int | None = None
    running_fraction_bits: int | None = None
    sum_cut: str = "toward_negative"
    result_fraction_bits: int | None = None
    running_reach: int | None = None
    product_limit: int | None = None
    scaled_group: int | None = None

    def __post_init__(self) -> None:
        check_alignment(self)


@dataclass(frozen=True, kw_only=True)
class Accumulator:
    """How `c + a[0] * b[0] + a[1] * b[1] + ...` is summed, step by step.

    The products are taken in `order`, `group` at a time. The products of a group are combined as `group_sum` says, and
    the result of each step is stored as the running sum: rounded to `format` by `rounding`, then `overflow`. Partial
    sums (`chunk`, `lanes`, `splits`) start from +0 and are added by `outer`, which starts from `c`; without partial
    sums the running sum itself starts from `c`. No `c` is +0; `c` is not rounded first, and is the result if there are
    no terms.

    NaN, infinities, and infinity times zero, are those of IEEE 754 in each step.

    Args:
        format: Format of the running sum: any scalar format. An integer or fixed-point one with `overflow="wrap"` is a
            hardware integer accumulator ("int33" to "int64", and "uint48" and so on, are fixed point without fraction
            bits); a posit's, logarithmic or codebook one rounds as that format does.
        rounding: Rounding mode of every value that is stored, stochastic ones included: the s-th value that is stored
            for output `i` among `n` has the random bits of position `s * n + i`, s from 0. Values are stored in this
            order: rounded products of a step, their sums, the running sum; partial sums one after the other (a chunk's
            lanes, then the additions of these; a split's chunks, then theirs), then the additions of `outer`; in a tree
            all leaves, then for each of its halves in turn the additions inside, then their sum.
        overflow: An overflow mode of `lowp.quantize`, or "infinity": what rounds beyond the largest number is infinite
            in every rounding mode.
        product: "exact": products are not rounded. A format: they are rounded to it, by `rounding`, first; `overflow`
            holds for it where it can, else "infinity_or_nan".
        group: Terms that are summed in one step.
        group_sum: How terms of a group are combined. "fused": exactly, or cut as `alignment` says, together with the
            running sum; one rounding (a logarithmic running sum counts as float64 has it). "pairwise" or "sequential":
            products are rounded to `product` (or `format`) and added in a tree of halves (the larger half first) or one
            by one, every result rounded; their sum is added to the running sum.
        alignment: How the terms of a fused step are cut; None: they are not, the sum of a step is exact.
        order: "sequential"; "pairwise": the steps' own sums are added in a tree of halves (the larger half first), then
            `c`; "random": a permutation drawn from `seed`, the same for every output; or a tuple, which permutes every
            run of so many terms (shorter tails keep those of its entries that exist). Terms are permuted before they
            are cut into partial sums.
        chunk: Every run of so many terms is a partial sum of its own. None: there are no chunks.
        lanes: Terms of a chunk (of a split, of the whole product) are dealt out in turn to so many partial sums, which
            are added to each other, each addition rounded to `format`, before `outer` adds them to the rest: one by
            one, or if `order` is "pairwise" in a tree.
        lane_width: Terms that are dealt to a lane at a time.
        splits: The product is cut in so many contiguous runs, each a partial sum ("split-K"): all of
            `ceil(tiles / splits)` tiles, the last ones shorter or left out. The chunks of one of several runs are added
            by `outer` from zero, then the runs.
        split_tile: Terms of a tile.
        outer: How partial sums are added: an `Accumulator` of which `format`, `rounding`, `overflow`, `order`,
            `compensation`, `chunk`, `signed_zero`, `table`, `seed` and the flushes count; None: one by one as this one
            stores its sums.
        compensation: None; or a second number e of the same format, +0 at first, holds what rounding lost. Every
            operation is stored, p is a product: "kahan": `y = p - e; t = s + y; e = (t - s) - y; s = t`, in the end `s
            - e`. "neumaier": `t = s + p; e = e + ((x - t) + y); s = t`, x and y being the larger and the smaller of s
            and p (s is x where they are equal), in the end `s + e`. "two_sum", an expansion as Collage's weights: `t =
            s + p; u = t - s; v = e + ((s - (t - u)) + (p - u)); s = t + v; e = v - (s - t)`, in the end `s + e`.
        subnormal_inputs: "keep", "zero" (keeps the sign) or "positive_zero": what an addition or product takes
            subnormal operands, rounded products, partial and running sums for; each by its own format, and what an
            addition of two numbers takes by that of their sum.
        subnormal_results: "keep" or "zero": what a subnormal value is stored as; the sign stays. A value is subnormal
            if it is below the normal numbers after rounding as if their exponents had no end, as x86 has it.
        signed_zero: Whether a sum of zero may be -0 where IEEE 754 says so. "underflow": only where a negative sum
            rounds to zero or is flushed; an exact zero is +0. False: a sum is never -0.
        table: For logarithmic formats: a `lowp.GaussTable` by which additions look up their sums, of products rounded
            to the format (to `product` first, if that is given); None: exact sums.
        seed: For a random order and stochastic rounding.

    Raises:
        ArgumentError: A value that is not allowed, or two that do not go together.

    Example:
        >>> import lowp
        >>> hopper = lowp.Accumulator(format="e8m13", group=32, rounding="toward_zero", overflow="infinity",
        ...                           alignment=lowp.Alignment(fraction_bits=13, zero_exponent=-133))
        >>> a, b = [1.0] + [2.0**-7] * 31, [1.0] + [2.0**-7] * 31
        >>> lowp.matmul([a], [[x] for x in b], accumulator=hopper, fmt="float32").tolist()
        [[1.0]]
    """

    format: str | Format = "float32"
    rounding: str = "ties_to_even"
    overflow: str = "infinity_or_nan"
    product: str | Format = "exact"
    group: int = 1
    group_sum: str = "fused"
    alignment: Alignment | None = None
    order: str | tuple[int, ...] = "sequential"
    chunk: int | None = None
    lanes: int = 1
    lane_width: int = 1
    splits: int = 1
    split_tile: int = 1
    outer: Accumulator | None = None
    compensation: str | None = None
    subnormal_inputs: str = "keep"
    subnormal_results: str = "keep"
    signed_zero: bool | str = True
    table: GaussTable | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value in check_accumulator(self).items():
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        return f"Accumulator({', '.join(f'{k}={_shown(v)}' for k, v in self._given().items())})"

    def __str__(self) -> str:
        """Return the diagram."""
        return self.diagram()

    def diagram(self) -> str:
        """Return the steps of the sum, one a line, in the order in which they happen."""
        from lowp.emulation.accumulator_diagram import diagram

        return diagram(self)

    def _given(self) -> dict[str, Any]:
        """Return the fields that are not at their defaults; the format always."""
        fields = type(self).__dataclass_fields__
        return {k: v for k in fields if (v := getattr(self, k)) != fields[k].default or k == "format"}


def _shown(value: Any) -> str:
    name = getattr(value, "name", None)
    return repr(name) if isinstance(value, Format) and name else repr(value)
