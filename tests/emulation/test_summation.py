"""Sums as any accumulator makes them, against the exact oracle, on random descriptions."""

from typing import Any

import numpy as np
import pytest

import lowp
from lowp.emulation._side import Side
from lowp.emulation._summation import summed
from lowp.emulation.accumulator import Accumulator, Alignment
from lowp.emulation.exact_accumulators import dot
from tests.covering import slow, usual

OPERANDS = ("float8_e4m3fn", "float8_e5m2", "float16", "bfloat16")
FORMATS = ("float16", "bfloat16", "float32", "float8_e5m2", "float8_e4m3fn", "e8m13")
MODES = ("ties_to_even", "toward_zero", "toward_negative", "to_odd", "ties_to_away")
SPECIAL = {"nan": np.nan, "inf": np.inf, "-inf": -np.inf, "-0": -0.0}


class Draw:
    """Random descriptions and operands."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def one(self, *choices: Any) -> Any:
        return choices[self.rng.integers(len(choices))]

    def sometimes(self, chance: float) -> bool:
        return bool(self.rng.random() < chance)

    def alignment(self) -> Alignment:
        more: dict[str, Any] = {}
        if self.sometimes(0.5):
            more = {
                "running_sum": "after",
                "sum_fraction_bits": int(self.rng.integers(5, 33)),
                "running_fraction_bits": int(self.rng.integers(5, 33)),
                "lanes": self.one(1, 2),
                "running_reach": self.one(None, 5, 25),
                "result_fraction_bits": self.one(None, 31),
                "product_limit": self.one(None, 5),
            }
        cut = self.one("toward_zero", "toward_negative", "to_odd", "ties_to_even")
        zero = self.one(None, -20, -133)
        return Alignment(fraction_bits=int(self.rng.integers(3, 30)), cut=cut, zero_exponent=zero, **more)

    def accumulator(self) -> Accumulator | None:
        """Return a description, or None where the parts do not go together."""
        fmt: Any = lowp.parse(self.one(*FORMATS))
        overflows = ("infinity_or_nan", "saturate", *(["infinity"] if fmt.has_infinity else []))
        given: dict[str, Any] = {
            "format": fmt,
            "rounding": self.one(*MODES),
            "overflow": self.one(*overflows),
            "group": self.one(1, 1, 2, 4, 64),
            "group_sum": self.one("fused", "fused", "pairwise", "sequential"),
            "order": self.one("sequential", "sequential", "pairwise", "random", (1, 0), (2, 0, 1)),
            "signed_zero": self.one(True, True, False, "underflow"),
        }
        if self.sometimes(0.3):
            given["product"] = self.one("float16", "bfloat16", "float32")
        elif self.sometimes(0.5):
            given["alignment"] = self.alignment()
        parts: list[dict[str, Any]] = [
            {"chunk": self.one(1, 2, 4, 7)},
            {"lanes": self.one(2, 3), "lane_width": self.one(1, 2)},
            {"splits": self.one(2, 3), "split_tile": self.one(1, 2, 4)},
        ]
        chosen = [part for part in parts if self.sometimes(0.3)]
        for part in chosen:
            given.update(part)
        if chosen and self.sometimes(0.5):
            order, chunk = self.one("sequential", "pairwise"), self.one(None, 2)
            given["outer"] = Accumulator(format=self.one(*FORMATS), order=order, chunk=chunk)
        others: dict[str, Any] = {
            "compensation": self.one("kahan", "neumaier", "two_sum"),
            "subnormal_inputs": self.one("zero", "positive_zero"),
            "subnormal_results": "zero",
        }
        given.update({name: value for name, value in others.items() if self.sometimes(0.2)})
        try:
            return Accumulator(**given)
        except lowp.ArgumentError:
            return None

    def numbers(self, fmt: Any, shape: tuple[int, ...], finite: bool) -> np.ndarray:
        codes = self.rng.integers(0, 1 << fmt.bits, shape).astype(np.uint16 if fmt.bits > 8 else np.uint8)
        values = np.asarray(lowp.decode(codes, fmt), np.float64)
        return np.where(np.isfinite(values), values, 1.0) if finite else values


def as_float(exact: Any) -> float:
    return SPECIAL[exact] if isinstance(exact, str) else float(exact)


@pytest.mark.parametrize("seed", [usual(0), usual(1), *map(slow, range(2, 40))])
def test_random_descriptions(seed: int) -> None:
    draw, served = Draw(seed), 0
    while served < 60:
        accumulator = draw.accumulator()
        if accumulator is None:
            continue
        fmt, terms = lowp.parse(draw.one(*OPERANDS)), draw.one(1, 2, 3, 5, 8, 13, 20)
        finite = draw.sometimes(0.8)
        a, b = draw.numbers(fmt, (1, 2, terms), finite), draw.numbers(fmt, (1, terms, 2), finite)
        c = draw.rng.choice([0.0, 1.0, -0.5, 0.0, 3.0], (1, 2, 2))
        last = (accumulator.outer or accumulator).format
        with np.errstate(all="ignore"):
            found = summed(Side(a, fmt), Side(b, fmt), c.copy(), accumulator, last)  # type: ignore[arg-type]
        for i, j in np.ndindex(2, 2):
            exact = dot(
                accumulator, a[0, i].tolist(), b[0, :, j].tolist(), float(c[0, i, j]), a_format=fmt, b_format=fmt
            )
            wanted = as_float(exact)
            equal = np.float64(wanted).tobytes() == found[0, i, j].tobytes()
            assert equal or (np.isnan(wanted) and np.isnan(found[0, i, j])), (accumulator, terms, fmt.name)
        served += 1


@pytest.mark.parametrize("rounding", ["stochastic_a", "stochastic_equal"])
@pytest.mark.parametrize(
    "parts",
    [{}, {"chunk": 3}, {"lanes": 2}, {"splits": 2}, {"chunk": 2, "splits": 2}, {"order": "pairwise"}, {"group": 4}],
    ids=str,
)
def test_random_bits_count_on_from_partial_sum_to_partial_sum(parts: dict[str, Any], rounding: str) -> None:
    rng, fmt = np.random.default_rng(3), lowp.parse("float8_e4m3fn")
    accumulator = Accumulator(format="float8_e5m2", rounding=rounding, seed=11, **parts)
    codes = [rng.integers(0, 0x70, shape).astype(np.uint8) for shape in ((1, 3, 10), (1, 10, 2))]
    a, b = (np.asarray(lowp.decode(x, fmt), np.float64) for x in codes)
    found = summed(Side(a, fmt), Side(b, fmt), np.zeros((1, 3, 2)), accumulator, accumulator.format)  # type: ignore[arg-type]
    for i, j in np.ndindex(3, 2):
        wanted = dot(
            accumulator, a[0, i].tolist(), b[0, :, j].tolist(), a_format=fmt, b_format=fmt, position=2 * i + j, count=6
        )
        assert as_float(wanted) == found[0, i, j]


@pytest.mark.parametrize("name", ["posit8_es2", "takum8", "lns8_f3", "nf4", "int8", "fixed8_4", "float8_e4m3fnuz"])
@pytest.mark.parametrize(
    "more", [{}, {"group": 4}, {"chunk": 3}, {"order": "pairwise"}, {"compensation": "kahan"}], ids=str
)
def test_formats_of_every_family(name: str, more: dict[str, Any]) -> None:
    rng, fmt = np.random.default_rng(4), lowp.parse("float8_e4m3fn")
    accumulator = Accumulator(format=name, overflow="saturate", **more)
    a, b = (np.asarray(lowp.quantize(rng.standard_normal(s) * 0.5, fmt)) for s in ((1, 2, 9), (1, 9, 2)))
    found = summed(Side(a, fmt), Side(b, fmt), np.zeros((1, 2, 2)), accumulator, accumulator.format)  # type: ignore[arg-type]
    for i, j in np.ndindex(2, 2):
        exact = dot(accumulator, a[0, i].tolist(), b[0, :, j].tolist(), a_format=fmt, b_format=fmt)
        wanted = float(exact) if not isinstance(exact, str) else SPECIAL[exact]
        assert found[0, i, j] == wanted or np.isclose(found[0, i, j], wanted, rtol=1e-15, atol=0)


class Coded(Draw):
    """Descriptions of sums that are made by codes."""

    def accumulator(self) -> Accumulator:
        name = self.one("posit8_es2", "posit6_es1", "takum12", "lns8_f3", "lns16_f8", "nf4")
        fields = {
            "group": (1, 2, 3), "group_sum": ("fused", "pairwise", "sequential"), "order": ("pairwise", "random"),
            "product": ("float8_e5m2", "posit8_es2", "bfloat16", name), "chunk": (2,), "lanes": (2,), "splits": (2,),
            "compensation": ("kahan", "neumaier", "two_sum"),
        }  # fmt: skip
        chosen: dict[str, Any] = {k: self.one(*values) for k, values in fields.items() if self.sometimes(0.3)}
        modes = (*MODES, "toward_positive", "away_from_zero", "stochastic_a")
        try:
            return Accumulator(format=name, rounding=self.one(*modes), seed=5, **chosen)
        except lowp.ArgumentError:
            return self.accumulator()


@pytest.mark.parametrize("seed", [usual(0), usual(1), *map(slow, range(2, 12))])
def test_sums_by_codes_are_the_oracles(seed: int) -> None:
    """Products and partial sums keep the format that they were stored in, and draw their own random bits."""
    draw = Coded(100 + seed)
    served = 0
    while served < 60:
        accumulator, terms = draw.accumulator(), int(draw.one(0, 1, 2, 7))
        a, b = (
            np.asarray(lowp.quantize(draw.rng.standard_normal(shape) * draw.one(1, 4), "float8_e4m3fn"), np.float64)
            for shape in ((2, terms), (terms, 2))
        )
        try:
            found = lowp.matmul(a, b, accumulator=accumulator)
        except lowp.ArgumentError:
            continue  # fused groups of random roundings, or of logarithmic products
        logarithmic = str(accumulator.format.name).startswith("lns")  # type: ignore[union-attr]
        if logarithmic and accumulator.group > 1 and accumulator.group_sum == "fused":
            continue  # an exact sum starts from what float64 has of the running sum
        for i, j in np.ndindex(2, 2):
            wanted = as_float(dot(accumulator, a[i].tolist(), b[:, j].tolist(), position=2 * i + j, count=4))
            assert np.float32(wanted) == np.float32(found[i, j]), (accumulator._given(), terms)
        served += 1
