"""DFloat11: every bfloat16 comes back, the code is as short as Huffman's can be, broken bytes are refused."""

import heapq

import ml_dtypes
import numpy as np
import pytest

import lowp
from lowp.rounding.encoded import Encoded
from lowp.rounding.schemes import lossless

EVERY = np.arange(1 << 16, dtype=np.uint16)


def normal(sigma: float, count: int = 1 << 18) -> np.ndarray:
    return (np.random.default_rng(0).standard_normal(count) * sigma).astype(ml_dtypes.bfloat16)


def huffman_cost(frequencies: np.ndarray) -> int:
    """Bits of an optimal prefix code: the sum of the weights of all inner nodes."""
    heap = [int(f) for f in frequencies if f]
    heapq.heapify(heap)
    cost = 0
    while len(heap) > 1:
        merged = heapq.heappop(heap) + heapq.heappop(heap)
        cost += merged
        heapq.heappush(heap, merged)
    return cost


def test_every_bfloat16_comes_back_payloads_too() -> None:
    x = np.random.default_rng(0).permutation(EVERY).view(ml_dtypes.bfloat16).reshape(256, 256)
    encoded = lowp.encode(x, "dfloat11")
    again = Encoded.unpack(encoded.pack(), "dfloat11", x.shape, dtype=x.dtype)
    for y in (lowp.decode(encoded), lowp.decode(again), lowp.quantize(x, "dfloat11")):
        assert y.dtype == x.dtype
        assert np.array_equal(y.view(np.uint16), x.view(np.uint16))


def test_float32_that_is_bfloat16_comes_back() -> None:
    x = (EVERY.astype(np.uint32) << 16).view(np.float32)
    assert np.array_equal(lowp.quantize(x, "dfloat11").view(np.uint32), x.view(np.uint32))
    finite = x[np.isfinite(x)].astype(np.float64)
    assert np.array_equal(lowp.quantize(finite, "dfloat11").view(np.uint64), finite.view(np.uint64))


@pytest.mark.parametrize("value", [0.1, 1 + 2**-8, 1e300, 1e-300])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_other_numbers_are_refused(value: float, dtype: type) -> None:
    with np.errstate(over="ignore"):
        x = np.array([1.0, value], dtype)
    if not np.isin(x[1], [0, np.inf]):
        with pytest.raises(lowp.RangeError, match="no bfloat16 number"):
            lowp.quantize(x, "dfloat11")


@pytest.mark.parametrize("shape", [(0,), (3, 0), (1,), (7,), (2, 3, 5)])
@pytest.mark.parametrize("value", [0.0, -1.0, np.nan])
def test_small_and_constant_arrays(shape: tuple[int, ...], value: float) -> None:
    x = np.full(shape, value, np.float32)
    encoded = lowp.encode(x, "dfloat11")
    again = Encoded.unpack(encoded.pack(), "dfloat11", shape, dtype=np.float32)
    assert lowp.decode(again).tobytes() == x.tobytes()
    assert encoded.nbytes == (1 + 2 + x.size + -(-x.size // 8) if x.size else 0)


@pytest.mark.parametrize("seed", range(5))
def test_the_code_is_optimal_and_complete(seed: int) -> None:
    frequencies = np.random.default_rng(seed).zipf(1.5, 256) % 1000
    lengths = lossless.code_lengths(frequencies).astype(int)
    assert lengths @ frequencies == huffman_cost(frequencies)
    assert (2.0 ** -lengths[lengths > 0]).sum() == 1
    assert np.array_equal(lengths > 0, frequencies > 0)


def test_codes_have_at_most_32_bits() -> None:
    """DFloat11, `dfloat11_utils.py`: the rarest frequencies become 1 until the longest code fits."""
    fibonacci = [1, 1]
    while len(fibonacci) < 45:
        fibonacci.append(sum(fibonacci[-2:]))
    frequencies = np.array(fibonacci)
    lengths = lossless.code_lengths(frequencies).astype(int)
    assert lengths.max() <= 32
    assert (2.0**-lengths).sum() == 1
    assert lengths @ frequencies < 1.001 * huffman_cost(frequencies)


def test_no_code_starts_another() -> None:
    lengths = lossless.code_lengths(np.array([50, 1, 7, 0, 20, 3, 3, 100, 1]))
    codes = lossless._codes(lengths)
    texts = [f"{c:0{n}b}" for c, n in zip(codes, lengths, strict=True) if n]
    assert not any(a != b and b.startswith(a) for a in texts for b in texts)


@pytest.mark.parametrize(("sigma", "bits"), [(1.0, 2.583), (0.02, 2.591)])
def test_published_entropy_and_size(sigma: float, bits: float) -> None:
    """DFloat11, arXiv:2504.11651: about 11 bits; exponents of normal values have 2.545 bits of entropy."""
    x = normal(sigma)
    exponents = x.view(np.uint16) >> 7 & 0xFF
    share = np.bincount(exponents) / x.size
    assert -(share[share > 0] * np.log2(share[share > 0])).sum() == pytest.approx(2.545, abs=0.006)
    coded = lossless.code_lengths(np.bincount(exponents, minlength=256))[exponents].mean()
    assert coded == pytest.approx(bits, abs=0.006)
    assert lowp.encode(x, "dfloat11").bits_per_value == pytest.approx(8 + coded, abs=0.002)


@pytest.mark.parametrize("change", ["short", "long", "length", "none"])
def test_broken_bytes_are_refused(change: str) -> None:
    data = lowp.encode(normal(1.0, 500), "dfloat11").pack()
    if change == "length":
        data = data.copy()
        data[1 + 1 + data[0] : 3 + data[0] + data[0]] = 0  # no symbol has a code
    broken = {"short": data[:-1], "long": np.append(data, data[:1]), "length": data, "none": data[:0]}[change]
    with pytest.raises(lowp.ArgumentError, match="dfloat11"):
        Encoded.unpack(broken, "dfloat11", (500,))


def test_bytes_begin_with_the_code() -> None:
    data = lowp.encode(np.float32([1.0, -1.5, 1.0, 4.0]), "dfloat11").pack().tolist()
    assert data == [1, 127, 129, 1, 1, 0, 0xC0, 0, 0, 0b00010000]
