"""The portable array code gives the bits of the NumPy path: every scalar format, all modes, on NumPy and torch.

JAX, compiled, is in test_jax.py.
"""

import itertools
from typing import Any
from zlib import crc32

import numpy as np
import pytest

import lowp
from lowp.formats.logarithms import is_logarithmic
from lowp.formats.spec import ScalarFormat
from lowp.rounding import _portable
from lowp.rounding._portable_room import check_saturation, inside_range
from lowp.rounding.modes import OVERFLOW_MODES, ROUNDING_MODES
from lowp.rounding.random_bits import keys, word
from lowp.rounding.request import ENCODE_NAN, QUANTIZE_NAN, Request, check_format, make_request
from lowp.rounding.shard import Shard
from tests.rounding import inputs
from tests.rounding.oracle import Oracle
from tests.rounding.samples import SLOW
from tests.rounding.vector_formats import cast

ml_dtypes = pytest.importorskip("ml_dtypes")

NAMES = [n for n in lowp.formats.names() if isinstance(lowp.parse(n), ScalarFormat) and n not in SLOW]
#: Formats without a name that take paths of their own.
UNNAMED: dict[str, Any] = {
    "wide p3109": lowp.Float(13, 2, specials="p3109"),
    "many exponents": lowp.Float(11, 20),
    "no zero": lowp.Float(8, 3, signed=False, subnormals=False, zero=False, specials="fn"),
    "no subnormals": lowp.Float(4, 3, subnormals=False),
    "fixed, 40 bits": lowp.Fixed(40, 17),
    "fixed, 53 bits": lowp.Fixed(53, 60, symmetric=True),
    "whole tens of bits": lowp.Fixed(12, -9, signed=False),
    "codebook": lowp.Codebook(np.random.default_rng(3).standard_normal(300).tolist(), bits=9),
    "codebook of float64": lowp.Codebook([-7.5, -1 / 3, 1e-5, 1.5e-5, 1 / 3, 0.7, 3.0000001, 9e8]),
    "short posit": lowp.Posit(5, 3),
    "posit of wide regimes": lowp.Posit(10, 5),
    "posit, 24 bits": lowp.Posit(24, 1),
    "short takum": lowp.Takum(7),
}
DETERMINISTIC = [m for m in ROUNDING_MODES if not m.startswith("stochastic")]
#: A few of the modes, others for every format, in the usual run; many of them in the slow one.
FEW_OR_MANY = pytest.mark.parametrize("count", [6, pytest.param(24, marks=pytest.mark.slow)])


def format_of(name: str) -> ScalarFormat:
    fmt = UNNAMED[name] if name in UNNAMED else lowp.parse(name)
    assert isinstance(fmt, ScalarFormat)
    return fmt


def numbers(name: str, dtype: Any, count: int = 900) -> np.ndarray:
    """Values, ties and their neighbours where these are quickly found, random bits, subnormals, infinities, NaN."""
    fmt = format_of(name)
    near = fmt if fmt.bits <= (8 if is_logarithmic(fmt) else 12) else lowp.parse("float8_e5m2")
    assert isinstance(near, ScalarFormat)
    rng = np.random.default_rng(7)
    usual = rng.standard_normal(count // 3) * np.exp2(rng.uniform(-12, 12, count // 3))
    with np.errstate(over="ignore", under="ignore"):
        least = fmt.smallest_subnormal * rng.uniform(-2.2, 2.2, 60)
        ties = fmt.smallest_subnormal * np.array([0.5, 1.0, 1.5])
        usual = np.concatenate([usual, fmt.max * rng.uniform(-1.1, 1.1, 30), least, ties, -ties]).astype(dtype)
        usual = np.concatenate([usual, *(np.nextafter(usual[-6:], dtype(end)) for end in (-np.inf, np.inf))])
    return np.concatenate([inputs.mixed(dtype, count, near), usual, np.array([np.nan, -np.nan], dtype)])


def calls(fmt: ScalarFormat) -> list[tuple[str, str, int | None]]:
    """Every rounding and overflow mode that portable code offers for a format."""
    rounding = [(m, None) for m in DETERMINISTIC]
    if not is_logarithmic(fmt):
        rounding += [(m, n) for m in ROUNDING_MODES if m.startswith("stochastic") for n in (None, 1, 9)]
    overflow = [o for o in OVERFLOW_MODES if allowed(fmt, o)]
    return [(m, o, n) for (m, n), o in itertools.product(rounding, overflow)]


def some_calls(fmt: ScalarFormat, count: int, overflow: str = "") -> list[tuple[str, str, int | None]]:
    """Return `count` of the calls, others for every format; few where the kernels' tables take seconds to make."""
    found = [c for c in calls(fmt) if overflow in c[1]]
    count = min(len(found), 3 if is_logarithmic(fmt) and fmt.bits > 8 else count)
    picked = np.random.default_rng(crc32(fmt.name.encode())).choice(len(found), count, replace=False)
    return [found[i] for i in picked]


def allowed(fmt: ScalarFormat, overflow: str) -> bool:
    try:
        check_format(fmt, make_request("rne", overflow, 0, None, 0, "keep", QUANTIZE_NAN))
    except lowp.ArgumentError:
        return False
    return True


def request(call: tuple[str, str, int | None], nan: str, bits: int = 0) -> Request:
    policies = ENCODE_NAN if nan in ("zero", "max") else QUANTIZE_NAN
    return make_request(call[0], call[1], 5, call[2], bits, nan, policies)


def outcome(work: Any) -> Any:
    """Return what a function returns as bits, NaN being one, or the type of its error."""
    try:
        found = np.asarray(work())
    except lowp.Error as error:
        return type(error)
    if found.dtype.kind != "u":
        wide = cast(found) if found.dtype.itemsize == 2 else found
        bits = found.view(f"u{found.dtype.itemsize}")
        return np.where(np.isnan(wide), bits.dtype.type(0x7FFF), bits)
    return found


def agree(got: Any, wanted: Any) -> bool:
    if isinstance(got, type) or isinstance(wanted, type):
        return bool(got is wanted)
    return got.dtype == wanted.dtype and np.array_equal(got, wanted)


def check(x: np.ndarray, array: Any, fmt: ScalarFormat, call: tuple[str, str, int | None], bits: int = 0) -> None:
    xp = _portable.namespace_of(array)
    how = {"random_bits": call[2], "saturation_bits": bits, "seed": 5}
    wanted = outcome(lambda: lowp.quantize(x, fmt, call[0], call[1], **how))
    got = outcome(lambda: as_numpy(_portable.quantize_values(xp, array, fmt, request(call, "keep", bits)), x.dtype))
    assert agree(got, wanted), (fmt.name, x.dtype, call)
    for nan in ("zero", "max"):
        wanted = outcome(lambda nan=nan: lowp.encode(x, fmt, call[0], call[1], nan=nan, **how).codes)
        got = outcome(lambda nan=nan: as_numpy(_portable.encode_values(xp, array, fmt, request(call, nan, bits))))
        assert agree(got, wanted), (fmt.name, x.dtype, call, nan)


def as_numpy(x: Any, dtype: Any = None) -> np.ndarray:
    if isinstance(x, np.ndarray):
        return x
    torch = pytest.importorskip("torch")
    if x.dtype == torch.bfloat16:
        return x.view(torch.int16).numpy().view(dtype)
    return x.numpy()


@FEW_OR_MANY
@pytest.mark.parametrize("name", [*NAMES, *UNNAMED])
def test_numpy_arrays_get_the_bits_of_the_kernels(name: str, count: int) -> None:
    fmt = format_of(name)
    every = name in UNNAMED and count > 6
    for dtype in (np.float32, np.float64):
        x = numbers(name, dtype)
        for call in calls(fmt) if every else some_calls(fmt, count):
            check(x, x, fmt, call)


@FEW_OR_MANY
@pytest.mark.parametrize("name", [*NAMES, *UNNAMED])
def test_tensors_get_the_bits_of_the_kernels(name: str, count: int) -> None:
    torch = pytest.importorskip("torch")
    fmt = format_of(name)
    for dtype in (np.float32, np.float64):
        x = numbers(name, dtype, 300)
        for call in some_calls(fmt, count // 2):
            check(x, torch.from_numpy(x), fmt, call)


@FEW_OR_MANY
@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize(
    "name", ["float8_e4m3fn", "float16", "bfloat16", "float8_e8m0fnu", "int8", "int16", "nf4", "posit16_es1", "lns8_f3"]
)
def test_all_numbers_of_16_bits(name: str, dtype: Any, count: int) -> None:
    fmt, x = format_of(name), np.arange(1 << 16, dtype=np.uint16).view(dtype)
    chosen = some_calls(fmt, count // 4, "saturate")
    for call in [("ties_to_even", "saturate", None), ("ties_to_even", "infinity_or_nan", None), *chosen]:
        check(x, x, fmt, call)
        size = np.abs(cast(x))
        usual = x[(size <= 16384) & (size > 1e-3)]  # so that results have room
        check(usual, usual, fmt, call)


def test_all_bfloat16_tensors() -> None:
    torch = pytest.importorskip("torch")
    x = np.arange(1 << 16, dtype=np.uint16).view(ml_dtypes.bfloat16)
    tensor = torch.from_numpy(x.view(np.int16)).view(torch.bfloat16)
    for call in (("ties_to_even", "saturate", None), ("stochastic_c", "propagate", 12)):
        check(x, tensor, format_of("float8_e5m2"), call)


@pytest.mark.parametrize("bits", [1, 2, 3])
@pytest.mark.parametrize("overflow", ["wrap", "wrap_sign_magnitude"])
def test_wrapping_with_saturated_bits(overflow: str, bits: int) -> None:
    for fmt in (lowp.Integer(4), lowp.Fixed(9, 4), lowp.Fixed(24, 3), lowp.Integer(5, signed=False)):
        if allowed(fmt, overflow):
            x = np.random.default_rng(1).uniform(-fmt.max * 5, fmt.max * 5, 2000)
            for dtype in (np.float32, np.float64):
                check(x.astype(dtype), x.astype(dtype), fmt, ("ties_to_even", overflow, None), bits)


@pytest.mark.parametrize("name", ["float8_e4m3fn", "float4_e2m1fn", "int4", "nf4", "float5_e3m1f"])
def test_the_oracle_agrees(name: str) -> None:
    fmt = format_of(name)
    x = inputs.mixed(np.float32, 900, fmt)
    oracle, xp = Oracle(x, fmt), _portable.namespace_of(x)
    for mode, overflow in itertools.product(DETERMINISTIC, ("saturate", "infinity_or_nan")):
        got = _portable.encode_values(xp, x, fmt, request((mode, overflow, None), "max"))
        assert np.array_equal(got, oracle.codes(mode, overflow)), (mode, overflow)


@pytest.mark.parametrize("name", [*NAMES, *(n for n in UNNAMED if n != "wide p3109")])
def test_codes_decode_alike(name: str) -> None:
    torch, fmt = pytest.importorskip("torch"), format_of(name)
    kind = lowp.formats.tables.code_dtype(fmt.bits)
    rng = np.random.default_rng(0)
    count = 1 << fmt.bits if fmt.bits <= 16 else 4096
    codes = np.arange(count) if fmt.bits <= 16 else rng.integers(0, (1 << fmt.bits) - 1, count, np.uint64, True)
    codes = codes.astype(kind)
    for dtype in ("float64", "float32"):
        wanted = outcome(lambda d=dtype: lowp.decode(codes, fmt, dtype=d))
        assert agree(outcome(lambda d=dtype: decoded(codes, fmt, d)), wanted)
        assert agree(outcome(lambda d=dtype: as_numpy(decoded(torch.from_numpy(codes), fmt, d))), wanted)


def decoded(codes: Any, fmt: ScalarFormat, dtype: str) -> Any:
    return _portable.decode_values(_portable.namespace_of(codes), codes, fmt, dtype)


def test_a_number_that_is_no_code_is_refused() -> None:
    codes = np.array([3, 16], np.int32)
    with pytest.raises(lowp.RangeError, match="has codes 0 to 15"):
        decoded(codes, lowp.Integer(4), "float32")


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize("seed", [0, 7, (1 << 63) + 12345])
def test_words_are_those_of_positions(library: str, seed: int) -> None:
    x: Any = np.zeros((3, 5), np.float32)
    if library == "torch":
        x = pytest.importorskip("torch").from_numpy(x)
    xp = _portable.namespace_of(x)
    for shard, first, stride in (
        (None, 0, 5),
        (Shard((1 << 20, 3), (1 << 21, 1 << 15)), (1 << 35) + 3, 1 << 15),
        (Shard((2, 3), (5, 9)), 21, 9),
    ):
        with xp.wide():
            found = as_numpy(_portable.words(xp, keys(seed), _portable.c_positions(xp, x, shard)))
        wanted = [[word(seed, first + i * stride + j) for j in range(5)] for i in range(3)]
        assert found.view(np.uint32).tolist() == wanted


def test_positions_can_be_given() -> None:
    x, fmt = np.linspace(-3, 3, 96, dtype=np.float32), format_of("float4_e2m1fn")
    xp, how = _portable.namespace_of(x), request(("stochastic_a", "saturate", None), "keep")
    whole = _portable.quantize_values(xp, x, fmt, how)
    places = np.arange(32, 64, dtype=np.int64)
    for positions in (places, places.astype(np.int32), (places.astype(np.uint32), 0)):
        assert np.array_equal(_portable.quantize_values(xp, x[32:64], fmt, how, positions), whole[32:64])


class TestHonestErrors:
    """What 64-bit integers cannot decide is refused, not guessed."""

    def refused(self, fmt: Any, call: tuple[str, str, int | None]) -> str:
        x = np.linspace(0.1, 2, 9, dtype=np.float32)
        with pytest.raises(lowp.ArgumentError) as error:
            _portable.quantize_values(_portable.namespace_of(x), x, fmt, request(call, "keep"))
        return str(error.value)

    def test_fixed_point_beyond_float64(self) -> None:
        assert "more than 53 bits" in self.refused(lowp.Fixed(60, 3), ("rne", "saturate", None))

    def test_neighbours_of_very_different_sizes(self) -> None:
        call = ("stochastic_a", "saturate", None)
        assert "too far apart" in self.refused(lowp.Codebook([1e-40, 1.1]), call)
        assert "too far apart" in self.refused(lowp.Posit(6, 8), call)


@pytest.mark.parametrize(
    ("fmt", "dtype", "fits"),
    [
        ("int32", "float32", False),
        ("float64", "float32", False),
        ("float16", "bfloat16", False),
        ("bfloat16", "float16", False),
        ("int8", "bfloat16", True),
        ("float8_e5m2", "float16", True),
        ("posit64_es2", "float32", True),
        ("int32", "float64", True),
    ],
)
def test_whether_the_largest_number_has_room(fmt: str, dtype: str, fits: bool) -> None:
    how = request(("rne", "saturate", None), "keep")
    if fits:
        check_saturation(format_of(fmt), how, dtype)
    else:
        with pytest.raises(lowp.ArgumentError, match=r"cannot hold.*jax_enable_x64"):
            check_saturation(format_of(fmt), how, dtype)


def test_a_range_is_compared_exactly() -> None:
    x = np.array([-448.0, -448.00003, 448.0, 448.00003, 0.0, -0.0, 1e-45, np.inf, np.nan], np.float32)
    inside = inside_range(_portable.namespace_of(x), x, format_of("float8_e4m3fn"))
    assert inside.tolist() == [True, False, True, False, True, True, True, False, False]
