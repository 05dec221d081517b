"""The packings of bitnet.cpp byte by byte, and the weight quantizer of BitNet b1.58."""

import numpy as np
import pytest

import lowp
from lowp.rounding.encoded import Encoded


def ternary(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-1, 2, shape).astype(np.float32)


def body(x: np.ndarray, name: str) -> np.ndarray:
    return np.concatenate(
        [part for key, part in lowp.encode(x, name).parts().items() if key in ("qs", "indices", "signs")]
    )


@pytest.mark.parametrize(("name", "lanes"), [("bitnet_i2_s", 32), ("bitnet_i2_s_arm", 16)])
def test_i2_s_bytes(name: str, lanes: int) -> None:
    """BitNet, `quantize_i2_s`: byte p is e[p] << 6 | e[p + lanes] << 4 | e[p + 2 lanes] << 2 | e[p + 3 lanes]."""
    x = ternary((2, 8 * lanes))
    e = (x.astype(int) + 1).reshape(-1, 4, lanes)
    expected = [b[0, p] << 6 | b[1, p] << 4 | b[2, p] << 2 | b[3, p] for b in e for p in range(lanes)]
    assert body(x, name).tolist() == expected


def test_i2_s_of_four_rows() -> None:
    """BitNet, `quantize_i2_s` without ACT_PARALLEL: a byte for each column of four rows, the first row on top."""
    x = ternary((8, 5))
    e = x.astype(int) + 1
    expected = [e[r, c] << 6 | e[r + 1, c] << 4 | e[r + 2, c] << 2 | e[r + 3, c] for r in (0, 4) for c in range(5)]
    assert body(x, "bitnet_i2_s_rows4").tolist() == expected


def test_i2_s_ends_in_32_bytes_with_the_scale() -> None:
    x = np.random.default_rng(2).standard_normal((2, 128)).astype(np.float32)
    data = lowp.encode(x, "bitnet_i2_s").pack()
    assert data.size == 64 + 32
    mean = np.abs(x).mean(dtype=np.float64).astype(np.float32)
    assert data[64:68].view(np.float32)[0] == np.float32(1) / (np.float32(1) / mean)
    assert not data[68:].any()


def test_tl1_bytes() -> None:
    """BitNet, `preprocess_weights_tl1`: 3a + b + 4 in four bits, the first pair on top."""
    x = ternary((3, 40))
    a, b, c, d = x.astype(int).reshape(-1, 4).T
    assert body(x, "bitnet_tl1").tolist() == ((3 * a + b + 4) << 4 | (3 * c + d + 4)).tolist()


def test_tl2_bytes() -> None:
    """BitNet, `preprocess_three_weights_tl2`: |9a + 3b + c|, the first on top; signs 16 to a word, the first on top."""
    x = ternary((2, 48))
    a, b, c = x.astype(int).reshape(-1, 3).T
    triple = 9 * a + 3 * b + c
    indices = np.abs(triple)[0::2] << 4 | np.abs(triple)[1::2]
    words = [sum(int(t < 0) << (15 - i) for i, t in enumerate(row)) for row in triple.reshape(-1, 16)]
    parts = lowp.encode(x, "bitnet_tl2").parts()
    assert parts["indices"].tolist() == indices.tolist()
    assert parts["signs"].view("<u2").tolist() == words


def tl1_pairs(rows: int, columns: int, bm: int) -> list[tuple[int, int]]:
    """(row, pair) in stored order: 16 rows and two pairs at a time inside tiles of bm rows and 256 / bm columns."""
    by = 256 // bm
    return [
        (r0 + r1 + r2, (c0 + c1) // 2 + c2)
        for r0 in range(0, rows, bm)
        for c0 in range(0, columns, by)
        for r1 in range(0, bm, 16)
        for c1 in range(0, by, 4)
        for r2 in range(16)
        for c2 in range(2)
    ]


@pytest.mark.parametrize(("rows", "columns", "bm"), [(64, 16, 32), (64, 16, 64), (128, 8, 32)])
def test_tl1_tiles(rows: int, columns: int, bm: int) -> None:
    x = ternary((2 * rows, 3 * columns))
    expected = []
    for top in range(0, 2 * rows, rows):
        for left in range(0, 3 * columns, columns):
            tile = x[top : top + rows, left : left + columns].astype(int)
            numbers = [3 * tile[r, 2 * p] + tile[r, 2 * p + 1] + 4 for r, p in tl1_pairs(rows, columns, bm)]
            expected += [high << 4 | low for high, low in zip(numbers[::2], numbers[1::2], strict=True)]
    assert body(x, f"bitnet_tl1_{rows}x{columns}_bm{bm}").tolist() == expected


def test_tl2_tiles() -> None:
    """Inner tiles of 32 rows: groups of 8 in the order 0, 2, 1, 3; a sign word holds rows r, r + 16 of 8 triples."""
    rows, columns = 64, 48
    x = ternary((2 * rows, columns))
    weights = np.array([9, 3, 1])
    indices, signs = [], []
    for top in range(0, 2 * rows, rows):
        triple = x[top : top + rows].astype(int).reshape(rows, -1, 3) @ weights
        for r0 in range(0, rows, 32):
            for c in range(0, columns // 3, 2):
                for r1 in (0, 16, 8, 24):
                    group = np.abs(triple[r0 + r1 : r0 + r1 + 8, c : c + 2])
                    indices += (group[:, 0] << 4 | group[:, 1]).tolist()
            for c in range(0, columns // 3, 8):
                for r in range(r0, r0 + 16):
                    bits = (triple[[r, r + 16], c : c + 8] < 0).T.reshape(-1)
                    signs.append(sum(int(bit) << (15 - i) for i, bit in enumerate(bits)))
    parts = lowp.encode(x, f"bitnet_tl2_{rows}x{columns}").parts()
    assert parts["indices"].tolist() == indices
    assert parts["signs"].view("<u2").tolist() == signs


@pytest.mark.parametrize("name", ["bitnet_i2_s", "bitnet_tl1", "bitnet_tl2"])
def test_packings_hold_the_same_values(name: str) -> None:
    x = np.random.default_rng(1).standard_normal((4, 384)).astype(np.float32)
    s = np.float32(1) / np.abs(x).mean(dtype=np.float64).astype(np.float32)
    expected = np.clip(np.rint(x * s), -1, 1) * (np.float32(1) / s)
    assert np.array_equal(lowp.quantize(x, name), expected)


TILED = ("bitnet_i2_s_rows4", "bitnet_tl1_64x16_bm32", "bitnet_tl2_64x48")
ALL = ("bitnet_i2_s", "bitnet_i2_s_arm", "bitnet_tl1", "bitnet_tl2", *TILED)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("scale", [1e-30, 3e-7, 0.37, 5.0])
def test_ternary_weights_come_back(name: str, scale: float) -> None:
    """BitNet, `quantize_i2_s`: the weights are ternary, and their largest magnitude is the scale."""
    x = ternary((64, 48)) * np.float32(scale)
    assert np.array_equal(lowp.quantize(x, name), x)
    assert lowp.encode(x, name).fields["scale"].view(np.float32).item() == np.float32(scale)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_a_second_pass_changes_nothing(name: str, dtype: str) -> None:
    once = lowp.quantize(np.random.default_rng(1).standard_normal((64, 48)).astype(dtype), name)
    assert np.array_equal(lowp.quantize(once, name), once)


def test_a_small_mean_is_raised() -> None:
    """BitNet, `weight_quant`: the mean is at least 1e-5."""
    y = lowp.quantize(np.float32([4e-6, -6e-6, 1e-6, -9e-6]), "bitnet_tl1")
    assert y == pytest.approx([0, -1e-5, 0, -1e-5], rel=1e-6)


def test_published_error_of_b158() -> None:
    """BitNet b1.58, scale the mean magnitude: error 0.2636 of the power of normal weights, 0.310 zeros."""
    x = np.random.default_rng(0).standard_normal((256, 4096)).astype(np.float32)
    y = lowp.quantize(x, "bitnet_i2_s")
    assert ((y - x) ** 2).mean() / (x**2).mean() == pytest.approx(0.2636, rel=0.005)
    assert (y == 0).mean() == pytest.approx(0.310, abs=0.002)


def test_wrong_sizes_are_refused() -> None:
    with pytest.raises(lowp.ArgumentError, match="packs to"):
        Encoded.unpack(bytes(63), "bitnet_i2_s", (128,))
