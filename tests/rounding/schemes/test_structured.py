"""What every structured format keeps: bytes and back, its bits per value, tails, degenerate input, NaN."""

from itertools import product

import numpy as np
import pytest

import lowp
from lowp import ArgumentError, FormatError, RangeError
from lowp.rounding.encoded import Encoded

#: Format -> (shape that fills its blocks, bits per value).
FORMATS = {
    "ptqtp1_g128": ((3, 256), 2 * 26 * 8 / 256 + 16 / 128),
    "ptqtp2_g128": ((3, 256), 3.5),
    "ptqtp3_g10": ((3, 20), 3 * 1.6 + 4.8),
    "twn_g160": ((2, 320), 1.7),
    "sherry_g128": ((3, 256), 1.25 + 16 / 128),
    "sherry_row": ((3, 64), 1.25),
    "sherry_tensor": ((3, 64), 1.25),
    "stq1_0": ((2, 512), 1.3125),
    "pvq_n8_k4": ((3, 32), (12 + 16) / 8),
    "pvq_n16_k8": ((3, 32), (25 + 16) / 16),
    "pvq_n16_k16_fp32": ((3, 32), (38 + 32) / 16),
    "pvq_n25_k28_bf16": ((2, 50), (64 + 16) / 25),
    "olive4": ((3, 64), 4.0),
    "olive4_tensor": ((3, 64), 4.0),
    "ifairy": ((3, 64), 1.0),
    "bitnet_i2_s": ((3, 256), 2.0),
    "bitnet_i2_s_arm": ((3, 128), 2.0),
    "bitnet_i2_s_rows4": ((8, 5), 2.0),
    "bitnet_tl1": ((3, 64), 2.0),
    "bitnet_tl2": ((3, 96), 5 / 3),
    "bitnet_tl1_64x16_bm32": ((128, 32), 2.0),
    "bitnet_tl2_32x24": ((64, 48), 5 / 3),
}
WHOLE_ONLY = ("ifairy", "bitnet_i2_s_rows4", "bitnet_tl1_64x16_bm32", "bitnet_tl2_32x24")
TAILED = [name for name in FORMATS if name not in WHOLE_ONLY]


def sample(name: str, seed: int = 0, dtype: type = np.float32) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(FORMATS[name][0]).astype(dtype)


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


@pytest.mark.parametrize("name", FORMATS)
def test_bytes_hold_everything(name: str) -> None:
    x = sample(name)
    encoded = lowp.encode(x, name)
    data = encoded.pack()
    again = Encoded.unpack(data, name, x.shape, dtype=x.dtype)
    assert same_bits(lowp.decode(again), lowp.decode(encoded))
    assert same_bits(lowp.decode(again), lowp.quantize(x, name))
    assert same_bits(again.pack(), data)
    assert data.size == encoded.nbytes


@pytest.mark.parametrize("name", FORMATS)
def test_bits_per_value_are_those_of_the_bytes(name: str) -> None:
    shape, bits = FORMATS[name]
    fmt = lowp.parse(name)
    assert fmt.bits_per_value == pytest.approx(bits, rel=1e-12)
    shared = sum(
        f.count * f.bits * {"row": shape[0], "tensor": 1}[f.per] for f in fmt.fields if f.per in ("row", "tensor")
    )
    needed = 8 * lowp.encode(np.zeros(shape), name).nbytes - shared
    assert -1e-9 < needed - bits * np.prod(shape) < 8 * len(fmt.fields)


@pytest.mark.parametrize("name", FORMATS)
def test_names_read_back(name: str) -> None:
    assert lowp.parse(name).name == name
    assert lowp.parse(lowp.parse(name).generated_name()) == lowp.parse(name)


@pytest.mark.parametrize("name", FORMATS)
def test_values_survive_a_second_rounding_or_their_error_shrinks(name: str) -> None:
    x = sample(name).astype(np.float64)
    y = lowp.quantize(x, name)
    assert np.isfinite(y).all()
    if name != "stq1_0":  # its scale is the largest magnitude, made for weights that are ternary already
        assert ((y - x) ** 2).sum() < (x**2).sum()


@pytest.mark.parametrize("name", FORMATS)
def test_zeros_stay_zero(name: str) -> None:
    y = lowp.quantize(np.zeros(FORMATS[name][0]), name)
    floor = 1e-5 if name == "ifairy" else 0  # the least scale of its code
    assert (np.abs(y) <= np.float32(floor)).all()


@pytest.mark.parametrize("name", TAILED)
def test_a_single_value_and_a_constant(name: str) -> None:
    assert lowp.quantize(np.array([-3.0]), name).shape == (1,)
    y = lowp.quantize(np.full(FORMATS[name][0], 0.5), name)
    assert np.isin(y, [0.0, 0.5]).all() or name.startswith(("pvq", "olive"))
    if name in ("ptqtp2_g128", "bitnet_i2_s", "bitnet_tl2", "olive4", "twn_g160"):
        assert lowp.quantize(np.array([-0.75]), name) == pytest.approx(-0.75, rel=1e-2)


@pytest.mark.parametrize("name", TAILED)
def test_zeros_that_fill_a_block_count_nowhere(name: str) -> None:
    """A short row equals a row of its own length, and scales see its values alone."""
    x = np.abs(sample(name)) + 0.5
    short = np.ascontiguousarray(x[:1, : x.shape[1] - 3])
    encoded = lowp.encode(short, name)
    assert same_bits(
        lowp.decode(Encoded.unpack(encoded.pack(), name, short.shape, dtype=np.float32)), lowp.decode(encoded)
    )
    y = lowp.quantize(np.full_like(short, 0.75), name)
    kept = y[y != 0]
    if not name.startswith(("pvq", "olive", "stq")):
        assert kept == pytest.approx(np.float16(0.75), rel=1e-6)


@pytest.mark.parametrize("name", TAILED)
def test_axis_and_dtypes(name: str) -> None:
    x = sample(name)
    assert same_bits(
        np.ascontiguousarray(lowp.quantize(np.ascontiguousarray(x.T), name, axis=0).T), lowp.quantize(x, name)
    )
    half = x.astype(np.float16)
    assert lowp.quantize(half, name).dtype == np.float16


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("shape", [(0, 8), (3, 0)])
def test_empty_arrays(name: str, shape: tuple[int, int]) -> None:
    encoded = lowp.encode(np.zeros(shape), name)
    again = Encoded.unpack(encoded.pack(), name, shape)
    assert lowp.quantize(np.zeros(shape), name).shape == lowp.decode(again).shape == shape


@pytest.mark.parametrize("name", [n for n in FORMATS if n != "stq1_0"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_bad_number_makes_what_shares_its_scale_nan(name: str, bad: float) -> None:
    x = sample(name)
    x[0, 1] = bad
    y = lowp.quantize(x, name)
    spoiled = np.isnan(y)
    fmt = lowp.parse(name)
    scale = next(f for f in fmt.fields if "scale" in f.name or f.name == "gain")
    if scale.per == "tensor":
        assert spoiled.all()
    else:
        size = x.shape[1] if scale.per == "row" else fmt.block_size
        assert spoiled[0, :size].all()
        assert spoiled.sum() == size
    assert same_bits(lowp.decode(lowp.encode(x, name)), y)


@pytest.mark.parametrize("name", FORMATS)
def test_other_roundings_are_refused(name: str) -> None:
    with pytest.raises(ArgumentError, match="rounding of its own"):
        lowp.quantize(sample(name), name, rounding="toward_zero")


@pytest.mark.parametrize(
    ("name", "shape"), [("ifairy", (2, 3)), ("bitnet_i2_s_rows4", (6, 4)), ("bitnet_tl2_32x24", (32, 25))]
)
def test_formats_of_whole_blocks_refuse_others(name: str, shape: tuple[int, int]) -> None:
    with pytest.raises(ArgumentError, match="whole blocks"):
        lowp.encode(np.ones(shape), name)


@pytest.mark.parametrize(
    "name",
    ["ptqtp0_g8", "ptqtp5_g8", "sherry_g6", "pvq_n32_k32", "pvq_n0_k1", "bipolar0", "bipolar17",
     "bitnet_tl1_48x16_bm32", "bitnet_tl1_64x8_bm16", "bitnet_tl2_32x30"],
)  # fmt: skip
def test_impossible_sizes_are_refused(name: str) -> None:
    with pytest.raises(FormatError):
        lowp.parse(name)


def test_indices_that_no_vector_has_are_refused() -> None:
    data = np.full(3 + 2, 0xFF, np.uint8)
    with pytest.raises(RangeError, match="beyond the 2816 vectors"):
        lowp.decode(Encoded.unpack(data[: lowp.encode(np.ones(8), "pvq_n8_k4").nbytes], "pvq_n8_k4", (8,)))


@pytest.mark.parametrize("bits", range(1, 9))
def test_bipolar_codes_are_sums_of_signed_powers_of_two(bits: int) -> None:
    """Bipolar integers of APT-LLM: bit b_i is worth (2 b_i - 1) 2^i."""
    fmt = lowp.parse(f"bipolar{bits}")
    for code in range(1 << bits):
        assert fmt.meaning(code) == sum((2 * (code >> i & 1) - 1) * 2**i for i in range(bits))
    assert fmt.bits == bits
    assert lowp.parse(fmt.name) == fmt


@pytest.mark.parametrize(("p", "q"), list(product((1, 2, 3, 5, 8), (1, 4, 8))))
def test_products_of_bit_planes_make_the_integer_product(p: int, q: int) -> None:
    """APT-LLM and ABQ-LLM: a matrix product of p and q bits is a sum of 2^(i+j) times one-bit products, exactly.

    With signs a one-bit dot product is K - 2 popcount(a xor b), with 0 and 1 it is popcount(a and b).
    """
    rng = np.random.default_rng(p * 10 + q)
    inner = 37
    a, b = rng.integers(0, 1 << p, (5, inner)), rng.integers(0, 1 << q, (4, inner))
    signed, unsigned = np.zeros((5, 4), np.int64), np.zeros((5, 4), np.int64)
    for i, j in product(range(p), range(q)):
        left, right = (a >> i & 1)[:, None], (b >> j & 1)[None]
        signed += (inner - 2 * (left ^ right).sum(axis=-1)) << (i + j)
        unsigned += (left & right).sum(axis=-1) << (i + j)
    values = [lowp.decode(codes, f"bipolar{n}").astype(np.int64) for codes, n in ((a, p), (b, q))]
    assert np.array_equal(signed, values[0] @ values[1].T)
    assert np.array_equal(unsigned, a @ b.T)
