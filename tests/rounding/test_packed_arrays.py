"""Every registered packed format on arrays of many shapes: its fields, its bytes, and what it refuses."""

import contextlib
import math
import re
import warnings
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import lowp
from lowp.formats import Packed
from lowp.formats.cards import CODED_SCHEMES, nonfinite_rule
from lowp.formats.tables import code_dtype
from tests.rounding.samples import LOSSLESS, PACKED, WHOLE_BLOCKS, taken
from tests.rounding.vector_formats import cast, same_numbers

SHAPES = [(5, 37), (1, 1), (3,), (2, 3, 40), (8, 300), (0, 8), (2, 0), (8, 256)]
#: Schemes, or modules of them, that round by the caller's mode; the others have a rounding of their own.
FOLLOWING = (
    "bitsandbytes", "codebooks.choice", "codebooks.mulaw", "shared_exponents.microexponents", "shared_exponents.hif4",
    "sq", "fouroversix", "lossless",
)  # fmt: skip
#: One of each scheme.
SAMPLE = list({lowp.parse(name).scheme: name for name in PACKED}.values())  # type: ignore[attr-defined]


def packed(name: str) -> Packed:
    fmt = lowp.parse(name)
    assert isinstance(fmt, Packed)
    return fmt


def numbers(name: str, shape: tuple[int, ...] = (8, 512), dtype: Any = np.float32) -> np.ndarray:
    """Normal numbers with zeros, halves and outliers."""
    rng = np.random.default_rng(3)
    x = rng.standard_normal(shape) * np.where(rng.random(shape) < 0.01, 20, 1)
    x = np.where(rng.random(shape) < 0.2, rng.integers(-8, 9, shape) / 2.0, x)
    return taken(x, name, dtype)


def fits(name: str, shape: tuple[int, ...]) -> bool:
    """Whether a shape has whole blocks in a format that needs them."""
    size = packed(name).block_size
    rows = shape[-2] if len(shape) > 1 else 1
    count, block = (rows, size[0]) if isinstance(size, tuple) else (shape[-1], size)
    return name not in WHOLE_BLOCKS or count % block == 0 or 0 in shape


def check(x: np.ndarray, name: str, **how: Any) -> lowp.Encoded:
    """Check fields, values, sizes and the round trip through bytes of one array."""
    fmt, axis = packed(name), how.get("axis", -1)
    before = x.copy()
    q, got = lowp.encode(x, name, **how), lowp.quantize(x, name, **how)
    decoded = lowp.decode(q)
    assert same_numbers(cast(before), cast(x)).all()
    assert got.shape == decoded.shape == q.shape == x.shape
    assert got.dtype == decoded.dtype == x.dtype
    assert same_numbers(cast(decoded), cast(got)).all()
    assert q.fields is not None
    assert list(q.fields) == [field.name for field in fmt.fields]
    for field in fmt.fields:
        part = q.fields[field.name]
        assert part.dtype == code_dtype(field.bits)
        assert part.ndim == {"row": 2, "tensor": 1}.get(field.per, 3)
        assert part.shape[-1] == field.count
        assert not part.size or int(part.max()) < 1 << field.bits
    data = q.pack()
    assert data.dtype == np.uint8
    assert data.size == q.nbytes == sum(part.size for part in q.parts().values())
    back = lowp.Encoded.unpack(data.tobytes(), name, x.shape, axis, q.dtype)
    assert back.fields is not None
    for key, part in q.fields.items():
        assert np.array_equal(back.fields[key], part), key
        assert back.fields[key].dtype == part.dtype
    assert same_numbers(cast(lowp.decode(back)), cast(got)).all()
    assert np.array_equal(back.pack(), data)
    return q


@pytest.mark.parametrize("name", PACKED)
def test_arrays_of_every_shape(name: str) -> None:
    for shape in SHAPES:
        if isinstance(packed(name).block_size, tuple) and len(shape) < 2:
            continue
        if fits(name, shape):
            check(numbers(name, shape), name)
            continue
        with pytest.raises(lowp.ArgumentError, match=f"x does not fill whole blocks of .*, which '{name}' needs"):
            lowp.encode(numbers(name, shape), name)


@pytest.mark.parametrize("name", PACKED)
def test_blocks_run_along_any_axis(name: str) -> None:
    fmt, x = packed(name), numbers(name, (8, 20, 12))
    tile = isinstance(fmt.block_size, tuple)
    for axis in ((0, 1), (1, 2), (2, 0)) if tile else (0, 1, 2, -2, -3):
        if fmt.flat:
            with pytest.raises(lowp.ArgumentError, match=r"run over the flattened array; leave axis out"):
                lowp.encode(x, name, axis=axis)
            continue
        q = check(x, name, axis=axis)
        axes = axis if isinstance(axis, tuple) else (axis,)
        moved = np.ascontiguousarray(np.moveaxis(x, axes, range(-len(axes), 0)))
        assert np.array_equal(q.pack(), lowp.encode(moved, name).pack()), axis
    wrong: Any = -1 if fmt.flat else 0 if tile else (0, 1)
    if not fmt.flat:
        with pytest.raises(lowp.ArgumentError, match="needs a pair of axes" if tile else "needs one axis"):
            lowp.encode(x, name, axis=wrong)


@pytest.mark.parametrize("name", SAMPLE)
@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_dtypes_are_kept(name: str, dtype: Any) -> None:
    x = numbers(name, dtype=dtype)
    q = check(x, name)
    if dtype != np.float64:  # narrow numbers are those of float32
        assert np.array_equal(q.pack(), lowp.encode(cast(x, np.float32), name).pack())


@pytest.mark.parametrize("name", SAMPLE)
def test_memory_layout_does_not_matter(name: str) -> None:
    x = numbers(name)
    wanted = lowp.encode(x, name).pack()
    wide = np.zeros((8, 1024), np.float32)
    wide[:, ::2] = x
    for y in (wide[:, ::2], np.asfortranarray(x), x[::-1].copy()[::-1]):
        assert np.array_equal(lowp.encode(y, name).pack(), wanted)
        assert np.array_equal(lowp.quantize(y, name), lowp.quantize(x, name))
    out = np.empty_like(x)
    assert lowp.quantize(x, name, out=out) is out
    assert np.array_equal(out, lowp.quantize(x, name))


@pytest.mark.parametrize("name", PACKED)
def test_bits_per_value_are_those_of_the_stored_bytes(name: str) -> None:
    fmt = packed(name)
    if fmt.scheme in CODED_SCHEMES:
        assert lowp.encode(numbers(name, (64, 512)), name).bits_per_value < fmt.bits_per_value
        return
    rows, length = 8, math.lcm(768, fmt.block_elements)
    while (rows * length) % (256 * fmt.block_elements):  # fields of 256 blocks
        length *= 2
    q = lowp.encode(np.ones((rows, length), np.float32), name)
    shared = [{"row": rows, "tensor": 1}.get(f.per, 0) * f.count * f.bits for f in fmt.fields]
    extra = sum(-(-bits // 8) * 8 for bits in shared)  # each begins a byte of its own
    assert q.nbytes * 8 == fmt.bits_per_value * rows * length + extra


@pytest.mark.parametrize("name", PACKED)
def test_bytes_of_another_number_are_refused(name: str) -> None:
    q = lowp.encode(numbers(name, (4, 256)), name)
    for data in (q.pack().tobytes() + b"0", q.pack().tobytes()[:-1], b""):
        with pytest.raises(lowp.ArgumentError, match=f"data has {len(data)} bytes.*{name!r}"):
            lowp.Encoded.unpack(data, name, q.shape)


@pytest.mark.parametrize("name", PACKED)
@pytest.mark.parametrize("mode", ["ties_to_away", "toward_negative", "stochastic_a"])
def test_rounding_modes_are_followed_or_refused(name: str, mode: str) -> None:
    fmt, x = packed(name), numbers(name, (4, 256))
    if not {fmt.scheme, fmt.scheme.partition(".")[0]} & set(FOLLOWING):
        for verb in (lowp.quantize, lowp.encode):
            with pytest.raises(lowp.ArgumentError, match=f"rounding={mode!r}: {name!r} .* leave it out"):
                verb(x, name, mode)
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lowp.PrecisionWarning)  # choosing between two random results is biased
        got = lowp.decode(check(x, name, rounding=mode, seed=5))
        assert np.array_equal(got, lowp.quantize(x, name, mode, seed=5))
        if name not in LOSSLESS and mode.startswith("stochastic"):
            assert not np.array_equal(got, lowp.quantize(x, name, mode, seed=6))
    if name not in LOSSLESS and mode == "toward_negative":
        assert np.mean(got - x) < np.mean(lowp.quantize(x, name) - x)


@pytest.mark.parametrize("name", PACKED)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_nan_and_infinity_follow_the_rule_on_the_card(name: str, bad: float) -> None:
    rule, x = nonfinite_rule(packed(name)), numbers(name)
    x[4, 3] = bad
    if rule == "error":
        with pytest.raises(lowp.RangeError, match=f"{name!r} cannot store it"):
            lowp.quantize(x, name)
        return
    got = lowp.decode(check(x, name))
    if rule == "kept":
        assert np.array_equal(got, x, equal_nan=True)
    elif rule == "nan_scale":
        assert np.array_equal(np.isnan(got), same_scale(name, x.shape, (4, 3)))
        assert not np.isinf(got).any()
    clean = lowp.quantize(np.nan_to_num(x, posinf=0, neginf=0), name)
    if all(field.per == "block" for field in packed(name).fields):  # other blocks do not notice
        others = ~same_scale(name, x.shape, (4, 3))
        assert np.array_equal(got[others], clean[others])


def same_scale(name: str, shape: tuple[int, int], place: tuple[int, int]) -> np.ndarray:
    """Where values share a block, a row or the tensor's fields with one place."""
    fmt = packed(name)
    per = {f.per for f in fmt.fields if f.name not in ("signs", "tensor_scale")}  # these of MS-EDEN stay finite
    reached = np.zeros(shape, bool)
    if "tensor" in per:
        return ~reached
    if "row" in per:
        reached[place[0]] = True
    assert not isinstance(fmt.block_size, tuple)
    first = place[1] // fmt.block_size * fmt.block_size
    reached[place[0], first : first + fmt.block_size] = True
    return reached


@pytest.mark.parametrize("name", PACKED)
def test_nan_policies_that_were_asked_for_hold(name: str) -> None:
    x = numbers(name, (4, 256))
    x[1, 1] = math.nan
    for verb in (lowp.quantize, lowp.encode):
        with pytest.raises(lowp.RangeError, match="x holds NaN, which nan='error' refuses"):
            verb(x, name, nan="error")
        with pytest.raises(lowp.ArgumentError, match="nan='max' needs a format with nonfinite='element'"):
            verb(x, name, nan="max")
    assert np.array_equal(lowp.quantize(x, name, nan="zero"), lowp.quantize(np.nan_to_num(x), name))


@pytest.mark.parametrize("name", PACKED)
@pytest.mark.parametrize("size", [0.0, -0.0, 1e-45, 1e-38, 3e38])
def test_extreme_numbers_give_no_warning_of_numpy(name: str, size: float) -> None:
    x = np.sign(numbers(name, (4, 256))) * np.float32(size)
    x = lowp.quantize(x, "bfloat16") if name in LOSSLESS else x
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", lowp.PrecisionWarning)  # a scale that clips is told
        got = lowp.decode(check(x, name))
    if size == 0 and name not in ("ifairy",):
        assert not got.any()


@pytest.mark.parametrize("name", SAMPLE)
def test_single_numbers_integers_and_overflow_modes(name: str) -> None:
    assert lowp.quantize(np.full((4, 64), 3), name).dtype == np.float64
    fmt, x = packed(name), numbers(name, (4, 256))
    if not fmt.flat:
        with pytest.raises(lowp.ArgumentError, match=re.escape(f"x is a single number; the block format {name!r}")):
            lowp.quantize(1.0, name)
    with pytest.raises(lowp.ArgumentError, match=f"overflow='infinity_or_nan': {name!r} always saturates"):
        lowp.quantize(x, name, overflow="infinity_or_nan")
    assert repr(lowp.encode(x, name)).startswith(f"Encoded({name}, shape=(4, 256), ")


@pytest.mark.parametrize("name", LOSSLESS)
def test_lossless_formats_take_bfloat16_numbers_alone(name: str) -> None:
    codes = np.arange(1 << 16, dtype=np.uint16)
    every = codes.view(ml_dtypes.bfloat16).reshape(256, 256)
    q = lowp.encode(every, name)
    assert np.array_equal(lowp.decode(q).view(np.uint16), codes.reshape(256, 256))  # payloads of NaN too
    with pytest.raises(lowp.RangeError, match=r"x holds 0\.1.*, which is no bfloat16 number; round x to bfloat16"):
        lowp.quantize(np.float32([[1.0, 0.1]]), name)


@pytest.mark.parametrize("scheme", ["foo.bar", "bitnet.i2s", "bitnet", "", "structured.present", "lossless_kernels.x"])
def test_rules_that_do_not_exist_are_named(scheme: str) -> None:
    with pytest.raises(lowp.FormatError, match=re.escape(f"scheme={scheme!r} is not known.")) as caught:
        lowp.quantize(np.ones(16), Packed(scheme, 16, ()))
    assert ("Did you mean 'bitnet.i2_s'" in str(caught.value)) == (scheme == "bitnet.i2s")


@pytest.mark.parametrize("name", PACKED)
def test_any_bytes_decode_or_raise_an_error_of_the_library(name: str) -> None:
    shape = (4, 256)
    size = lowp.encode(numbers(name, shape), name).nbytes
    data = np.random.default_rng(0).integers(0, 256, size, np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with contextlib.suppress(lowp.Error):
            assert lowp.decode(lowp.Encoded.unpack(data, name, shape)).shape == shape
