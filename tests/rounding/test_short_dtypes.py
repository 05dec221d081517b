"""Values that come as float16 or bfloat16: rounded once, whatever the library, and NaN bit for bit."""

from typing import Any

import ml_dtypes
import numpy as np
import pytest

import lowp
from lowp.rounding._arrays import to_odd_float32

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.filterwarnings("ignore::lowp.PrecisionWarning")
DTYPES = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


def short_bits(t: Any) -> Any:
    return t.contiguous().view(torch.int16).numpy().view(np.uint16)


def near_ties(name: str) -> np.ndarray[Any, Any]:
    """float64 numbers closer to a tie between numbers of a 16-bit dtype than float32 can tell."""
    kept = {"float16": 10, "bfloat16": 7}[name]
    halves = 1 + (2 * np.arange(64) + 1) * 2.0 ** -(kept + 1)
    return np.concatenate([(halves + way * 2.0**-40) * sign for way in (-1, 0, 1) for sign in (-1, 1)])


@pytest.mark.parametrize("name", DTYPES)
def test_odd_numbers_round_as_the_numbers_themselves(name: str) -> None:
    x = np.concatenate([near_ties(name), [0.0, -0.0, 1e-60, -5e-324, 1e300, -1e39, 3.4028235e38, np.inf]])
    want = [float(lowp.exact.quantize(v, name, overflow="infinity_or_nan")) for v in x.tolist()]
    with np.errstate(over="ignore"):
        got = to_odd_float32(x).astype(DTYPES[name]).astype(np.float64)
    assert np.array_equal(got, want)
    assert np.array_equal(np.signbit(got), np.signbit(x))


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("fmt", ["lns24_f20", "takum20_log"])
def test_wide_logarithms_are_rounded_once(fmt: str, name: str) -> None:
    """Codes whose values lie next to ties: through float32 they are ties, and go astray."""
    nearby = np.asarray(lowp.encode(near_ties(name), fmt).codes).astype(np.int64)
    codes = np.unique(nearby[:, None] + np.arange(-3, 4)).astype(np.uint32)
    everywhere = np.random.default_rng(0).integers(0, 1 << lowp.parse(fmt).bits, 1 << 18).astype(np.uint32)
    values = np.asarray(lowp.decode(everywhere, fmt))
    codes = np.concatenate([codes, everywhere[(np.abs(values) < 6e4) & (np.abs(values) > 1e-4)]])
    exact = np.asarray(lowp.decode(codes, fmt))
    want = np.asarray(lowp.quantize(exact, name))
    got = np.asarray(lowp.decode(codes, fmt, dtype=DTYPES[name]))
    assert np.array_equal(got.astype(np.float64), want)
    given = torch.from_numpy(codes.astype(np.int64)).to(torch.uint32)
    assert np.array_equal(short_bits(lowp.decode(given, fmt, dtype=getattr(torch, name))), got.view(np.uint16))


@pytest.mark.parametrize("shape", [(1,), (4, 33), (64,)])
@pytest.mark.parametrize("verb", ["quantize", "encode"])
def test_nan_of_float16_keep_their_payloads(verb: str, shape: tuple[int, ...]) -> None:
    """In vectors and in what is left of them: torch converts those in other ways."""
    for code in (0x7C08, 0x7E10, 0xFE00, 0xFDF8):
        x = np.full(shape, code, np.uint16).view(np.float16)
        t = torch.from_numpy(x.copy())
        if verb == "quantize":
            want, got = lowp.quantize(x, "dfloat11"), lowp.quantize(t, "dfloat11")
        else:
            want, got = (lowp.decode(lowp.encode(v, "dfloat11")) for v in (x, t))
        assert np.array_equal(np.asarray(want).view(np.uint16), x.view(np.uint16))
        assert np.array_equal(short_bits(got), x.view(np.uint16))
