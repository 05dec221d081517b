"""Packed formats as array code on NumPy, torch and JAX, against the NumPy path."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import lowp
from lowp.formats import Packed
from lowp.rounding import _packed
from lowp.rounding import _portable_packed as portable
from lowp.rounding._namespaces import namespace_of
from tests.covering import slow, usual
from tests.rounding.test_portable_blocks import WORLDS, numbers, request, same

pytestmark = pytest.mark.filterwarnings("ignore::lowp.PrecisionWarning")

FORMATS = {name: fmt for name in lowp.formats.names() if isinstance(fmt := lowp.parse(name), Packed)}
#: These need whole tiles, or bfloat16 numbers; see `test_portable_ternary.py`.
OTHERS = ("bitnet_i2_s_rows4", "dfloat11")
USUAL = [name for name in FORMATS if name not in OTHERS]
#: One of each scheme.
KINDS = list({FORMATS[name].scheme: name for name in USUAL}.values())
#: Schemes that are another's with other numbers of bits.
ALIKE = ("ggml_q2_0", "ggml_q4_0", "ggml_q4_1", "ggml_q5_0", "ggml_q8_1")
#: Schemes, or their first words, that take no rounding mode.
OWN_ROUNDING = ("bitnet", "codebooks.any4", "complex", "eden", "ggml", "hlq", "outliers", "pyramid", "razor",
                "shared_exponents.hif4_bf16", "ternary")  # fmt: skip
#: ggml's minimum of zeros of both signs is the first one, and so is the maximum.
MINIMUM = ("ggml_q4_1", "ggml_q5_1")


def modes(fmt: Packed) -> tuple[str, ...]:
    return ("ties_to_even",) if fmt.scheme.startswith(OWN_ROUNDING) else ("ties_to_even", "stochastic", "toward_zero")


def run(world: str, function: Callable[..., Any], x: np.ndarray) -> Any:
    """Return what a function gives, its tensors as arrays."""
    return as_arrays(WORLDS[world](function, x))


def as_arrays(found: Any) -> Any:
    if isinstance(found, list):
        return [as_arrays(part) for part in found]
    return {k: np.asarray(v) for k, v in found["fields"].items()} if isinstance(found, dict) else np.asarray(found)


def by_array_code(fmt: Packed) -> Callable[..., Any]:
    return lambda xp, v: portable.quantize_packed(xp, v, fmt, request(), -1)


def check(world: str, fmt: Packed, x: np.ndarray, mode: str = "ties_to_even", axis: int = -1) -> None:
    how = request(mode)
    coded = how._replace(nan="zero")

    def both(xp: Any, v: Any) -> list[Any]:  # one program to compile
        return [portable.quantize_packed(xp, v, fmt, how, axis), portable.encode_packed(xp, v, fmt, coded, axis)]

    want = lowp.quantize(x, fmt, rounding=mode, seed=7, axis=axis)
    values, fields = run(world, both, x)
    same(values, want, "values")
    parts = _packed.encode_packed(x, fmt, coded, axis).fields
    assert parts is not None
    assert set(fields) == set(parts)  # a compiled function sorts them
    for name, part in parts.items():
        same(fields[name], part, name)
    if world == "numpy":
        values = portable.decode_packed(namespace_of(x), None, fields, fmt, axis, x.shape, x.dtype.name)
        same(values, want, "decoded")


@pytest.mark.parametrize(
    ("world", "name"),
    [
        *(("numpy", name) for name in USUAL),
        *((usual if name in KINDS else slow)("torch", name) for name in USUAL),
    ],
)
def test_formats(world: str, name: str) -> None:
    fmt = FORMATS[name]
    for kind in ("normal", "spread", "ties", "small", "zeros", "spoilt"):
        for dtype in (np.float32, np.float64):
            x = numbers(kind, (3, 150), dtype)
            if kind == "spoilt" and fmt.scheme.startswith("codebooks"):  # which store neither NaN nor infinity
                for quantized in (lowp.quantize, lambda v, f: run(world, by_array_code(f), v)):
                    with pytest.raises(lowp.RangeError, match="x holds NaN or an infinity"):
                        quantized(x, fmt)
                continue
            for mode in modes(fmt):
                check(world, fmt, x, mode)
    if not fmt.flat:
        check(world, fmt, numbers("normal", (20, 2, 3), np.float32), axis=0)


@pytest.mark.parametrize("name", MINIMUM)
def test_signs_of_zeros(name: str) -> None:
    x = np.zeros((1, 32), np.float32)
    x[0, 1] = -0.0
    found = run("numpy", lambda xp, v: portable.encode_packed(xp, v, FORMATS[name], request(), -1), x)
    assert found["d"].tolist() == [[[0]]]
    assert found["m"].tolist() == [[[0]]]


def test_empty_arrays() -> None:
    for name in ("bnb_nf4", "ggml_q8_0"):
        x = np.zeros((0, 32), np.float32)
        assert portable.quantize_packed(namespace_of(x), x, FORMATS[name], request(), -1).shape == (0, 32)
        check("numpy", FORMATS[name], x)


def test_shards_are_refused_where_their_random_bits_would_differ() -> None:
    x = numbers("normal", (2, 64), np.float32)
    xp, positions = namespace_of(x), np.arange(x.size).reshape(x.shape)
    with pytest.raises(lowp.ArgumentError, match="shard"):
        portable.quantize_packed(xp, x, FORMATS["mx9"], request("stochastic"), -1, positions)
    same(portable.quantize_packed(xp, x, FORMATS["mx9"], request(), -1, positions), lowp.quantize(x, "mx9"), "values")


@pytest.mark.parametrize("name", ["bnb_nf4", "ggml_q4_0"])
def test_axes_of_empty_arrays_are_checked_too(name: str) -> None:
    fmt, x = FORMATS[name], np.zeros((0, 32), np.float32)
    bad = 0 if fmt.flat else 2
    with pytest.raises(lowp.ArgumentError) as wanted:
        _packed.quantize_packed(x, fmt, request(), bad)
    for world in WORLDS:
        with pytest.raises(lowp.ArgumentError) as found:
            run(world, lambda xp, v: portable.quantize_packed(xp, v, fmt, request(), bad), x)
        assert str(found.value) == str(wanted.value)
