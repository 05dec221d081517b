"""Arithmetic against other programs and against hardware, every entry of every file that holds operations.

Entries that the makers of the vectors found to be mistakes of the other program (masks named `*_suspect`) are left out.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import lowp
from tests.conftest import Vectors

BINARY: dict[str, Callable[..., Any]] = {
    "add": lowp.add,
    "sub": lowp.subtract,
    "mul": lowp.multiply,
    "div": lowp.divide,
}
POSITS = [
    *(f"softposit/posit{n}" for n in ("8_es0", "16_es1", "32_es2")),
    *(f"softposit/posit{n}_es2_pX2" for n in (3, 4, 5, 6, 8, 12, 16, 20, 32)),
    *(f"universal_posit/posit{n}" for n in ("5_es1", "6_es2", "8_es0", "8_es1", "8_es2", "9_es3", "10_es0", "12_es1")),
    *(f"universal_posit/posit{n}" for n in ("16_es1", "16_es2", "16_es3", "24_es1", "32_es2")),
]
X86_MODES = {"rn": "ties_to_even", "rd": "toward_negative", "ru": "toward_positive", "rz": "toward_zero"}
CPFLOAT_MODES = {"NE": "ties_to_even", "TZ": "toward_zero"}


def check(case: str, got: lowp.array, arrays: Any, key: str, suspect: str) -> None:
    """Compare codes, except where the other program is known to be wrong."""
    wanted = arrays[key]
    skip = arrays.get(suspect, np.zeros(wanted.shape, bool))
    different = (got.codes != wanted) & ~skip
    assert not different.any(), f"{case} {key}: {different.sum()} of {wanted.size} differ"
    assert (~skip).sum() >= 30, case


def numbers_agree(got: lowp.array, wanted: np.ndarray) -> np.ndarray:
    """Return where codes agree, every NaN being equal."""
    other = lowp.array.from_codes(wanted, got.format)
    return (got.codes == wanted) | (np.isnan(got.values) & np.isnan(other.values))


@pytest.mark.parametrize("name", POSITS)
def test_posits(vectors: Vectors, name: str) -> None:
    arrays = vectors(name)
    fmt = name.split("/")[1].removesuffix("_pX2")

    def read(key: str) -> lowp.array:
        return lowp.array.from_codes(arrays[key], fmt)

    a, b = read("bin_a"), read("bin_b")
    for op, function in BINARY.items():
        check(name, function(a, b), arrays, f"bin_{op}", f"bin_{op}_suspect")
    check(name, lowp.sqrt(read("sqrt_in")), arrays, "sqrt_out", "sqrt_suspect")
    first, second = (read("fma_a"), read("fma_b")) if "fma_a" in arrays else (a, b)
    check(name, lowp.fma(first, second, read("fma_c")), arrays, "fma_out", "fma_suspect")


@pytest.mark.parametrize("name", POSITS)
def test_dot_products_in_a_quire(vectors: Vectors, name: str) -> None:
    arrays = vectors(name)
    fmt = name.split("/")[1].removesuffix("_pX2")
    keys = [key.removesuffix("_a") for key in arrays if key.startswith("qdot") and key.endswith("_a")]
    assert keys
    for key in keys:
        a, b = (lowp.array.from_codes(arrays[f"{key}_{side}"], fmt) for side in "ab")
        got = [lowp.dot(x, y, accumulator="quire").codes for x, y in zip(a, b, strict=True)]
        check(name, lowp.array.from_codes(np.array(got), fmt), arrays, f"{key}_out", f"{key}_suspect")


@pytest.mark.parametrize("library", ["libtakum", "universal_takum"])
@pytest.mark.parametrize("name", ["takum_linear8", "takum_linear16", "takum_linear32", "takum_linear12"])
def test_linear_takums(vectors: Vectors, library: str, name: str) -> None:
    if library == "libtakum" and name.endswith("12"):
        pytest.skip("libtakum has no 12-bit takum")
    arrays = vectors(f"{library}/{name}")
    a, b = (lowp.array.from_codes(arrays[key], name) for key in ("bin_a", "bin_b"))
    for op, function in BINARY.items():
        check(f"{library} {name}", function(a, b), arrays, f"bin_{op}", f"bin_{op}_suspect")
    if "bin_sqrt" in arrays:
        check(f"{library} {name}", lowp.sqrt(a), arrays, "bin_sqrt", "bin_sqrt_suspect")


@pytest.mark.parametrize("bits", [8, 16])
def test_logarithmic_takums(vectors: Vectors, bits: int) -> None:
    arrays = vectors(f"libtakum/takum_log{bits}")
    a, b = (lowp.array.from_codes(arrays[key], f"takum{bits}_log") for key in ("bin_a", "bin_b"))
    for op, function in BINARY.items():
        check(f"takum{bits}_log", function(a, b), arrays, f"bin_{op}", f"bin_{op}_suspect")
    check(f"takum{bits}_log", lowp.sqrt(a), arrays, "bin_sqrt", "bin_sqrt_suspect")


@pytest.mark.parametrize("file", ["linear8_16", "linear16_8", "linear32_8", "log8_16", "log16_8", "log32_8"])
def test_conversions_between_takums(vectors: Vectors, file: str) -> None:
    source, target = file.split("_")
    kind = source.rstrip("0123456789")
    arrays = vectors(f"libtakum/takum_{source}")
    x = lowp.array.from_codes(arrays[f"to_takum{target}_in"], f"takum_{source}")
    check(file, x.astype(f"takum_{kind}{target}"), arrays, f"to_takum{target}_out", f"to_takum{target}_suspect")


@pytest.mark.parametrize(("file", "fmt"), [("avx512_fp16_arith", "float16"), ("avx512_fp32_arith", "float32")])
@pytest.mark.parametrize("mode", X86_MODES)
def test_x86_instructions(vectors: Vectors, file: str, fmt: str, mode: str) -> None:
    arrays = vectors(f"x86/{file}")
    a, b, c = (lowp.array.from_codes(arrays[key], fmt) for key in "abc")
    how = {"rounding": X86_MODES[mode]}
    results = {op: function(a, b, **how) for op, function in BINARY.items()}
    results["sqrt"] = lowp.sqrt(a, **how)
    results["fmadd"] = lowp.fma(a, b, c, **how)
    if f"fnmadd_{mode}" in arrays:
        results["fnmadd"] = lowp.fma(-a, b, c, **how)
    for op, got in results.items():
        agree = numbers_agree(got, arrays[f"{op}_{mode}"])
        assert agree.all(), f"{fmt} {op}_{mode}: {(~agree).sum()} of {agree.size} differ"


def test_x86_minimum_and_maximum(vectors: Vectors) -> None:
    """The instructions return the second operand of two zeros and of anything with NaN; those are left out."""
    arrays = vectors("x86/avx512_fp16_arith")
    a, b = (lowp.array.from_codes(arrays[key], "float16") for key in "ab")
    kept = ~(np.isnan(a.values) | np.isnan(b.values) | ((a == 0) & (b == 0)))
    assert kept.sum() > 1000
    assert (lowp.minimum(a, b).codes == arrays["min"])[kept].all()
    assert (lowp.maximum(a, b).codes == arrays["max"])[kept].all()


@pytest.mark.parametrize("name", ["bfloat16", "binary16", "e4m3", "e5m2", "e8m23", "p2e3", "p5e6", "tf32"])
@pytest.mark.parametrize("mode", CPFLOAT_MODES)
def test_cpfloat(vectors: Vectors, name: str, mode: str) -> None:
    """CPFloat rounds a binary64 result, which shows where that is inexact and near where the format changes over."""
    arrays = vectors(f"cpfloat/{name}")
    precision, emin, emax = (int(n) for n in arrays["params"])
    fmt = lowp.Float(int(emax).bit_length() + 1, precision - 1, bias=1 - emin)
    assert fmt.emax == emax
    a, b, c = (lowp.array(arrays[f"op_{key}"], fmt) for key in "abc")
    how = {"rounding": CPFLOAT_MODES[mode]}
    results = {op: function(a, b, **how) for op, function in BINARY.items()}
    results |= {"sqrt": lowp.sqrt(a, **how), "fma": lowp.fma(a, b, c, **how)}
    for op, got in results.items():
        wanted = arrays[f"op_{op}_{mode}"]
        same = (got.values == wanted) | (np.isnan(got.values) & np.isnan(wanted))
        plain = same | twice_rounded(op, a.values, b.values, c.values, fmt, how)
        assert plain.all(), f"{op}: {(~plain).sum()} of {same.size} differ"
        assert same.sum() > 0.6 * same.size


def twice_rounded(op: str, a: Any, b: Any, c: Any, fmt: lowp.Format, how: Any) -> np.ndarray:
    """Return where the neighbours of the binary64 result round differently; products of 24 bits are exact in it."""
    operation = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide}
    with np.errstate(all="ignore"):
        double = np.sqrt(a) if op == "sqrt" else a * b + c if op == "fma" else operation[op](a, b)
        around = [lowp.quantize(np.nextafter(double, end), fmt, **how) for end in (-np.inf, np.inf)]
    return np.asarray(around[0] != around[1])
