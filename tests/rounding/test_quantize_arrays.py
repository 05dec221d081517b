"""Every kind of array that `quantize` and `encode` take: dtypes, shapes, memory, `out`, threads, random bits."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import lowp
from lowp.formats import Float, names
from lowp.formats.logarithms import is_logarithmic
from lowp.formats.spec import ScalarFormat
from lowp.rounding import exact
from lowp.rounding._threads import SERIAL_BELOW
from lowp.rounding.modes import ROUNDING_MODES
from lowp.rounding.random_bits import keys, word, words
from tests.rounding import inputs
from tests.rounding.samples import SLOW, taken
from tests.rounding.vector_formats import cast, same_numbers

ml_dtypes = pytest.importorskip("ml_dtypes")

SCALARS = [name for name in names() if isinstance(lowp.parse(name), ScalarFormat)]
DETERMINISTIC = [m for m in ROUNDING_MODES if not m.startswith("stochastic")]
few = settings(max_examples=40, deadline=None, derandomize=True, database=None)


def every_kind(count: int = 999, name: str = "float8_e4m3fn", dtype: type = np.float32) -> np.ndarray:
    """Numbers of every kind, NaNs with payloads included."""
    fmt = lowp.parse(name)
    if fmt.bits > (8 if is_logarithmic(fmt) else 16):  # its ties take long to find
        fmt = lowp.parse("float8_e5m2")
    assert isinstance(fmt, ScalarFormat)
    nans = np.array([0x7F800001, 0xFFC00123, 0x7FC00000], np.uint32).view(np.float32)
    return np.concatenate([inputs.mixed(dtype, count, fmt), cast(nans, dtype)])


def exactly(x: list[Any], name: str, mode: str = "ties_to_even", overflow: str = "saturate") -> list[int]:
    """The oracle's codes."""
    return [exact.encode(v, name, mode, overflow, nan="max") for v in x]


class TestDtypes:
    @pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64, ml_dtypes.float8_e5m2])
    def test_floats_keep_their_dtype_and_are_rounded_once(self, dtype: Any) -> None:
        x = cast(every_kind(dtype=np.float64), dtype)
        wide = cast(x)
        got = lowp.quantize(x, "float4_e2m1fn")
        assert got.dtype == x.dtype
        assert same_numbers(cast(got), lowp.quantize(wide, "float4_e2m1fn")).all()
        finite = ~np.isnan(wide)
        codes = lowp.encode(x[finite], "float4_e2m1fn", "toward_positive").codes
        assert codes.tolist() == exactly(wide[finite].tolist(), "float4_e2m1fn", "toward_positive")

    @pytest.mark.parametrize("name", SCALARS)
    def test_float32_and_float64_give_the_same_numbers(self, name: str) -> None:
        x = every_kind(3 if name in SLOW else 999, name)
        if name in ("int32", "uint32"):
            x = x[~(np.abs(x) > 2**23)]
        if name.startswith(("takum", "lns16")):  # values of theirs lie beyond float32
            x = x[(x == 0) | (np.abs(np.log2(np.abs(x), where=x != 0, out=np.zeros_like(x))) < 100)]
        wide, fmt = cast(x), lowp.parse(name)
        assert isinstance(fmt, ScalarFormat)
        offset = ["saturate_zero"] * isinstance(fmt, lowp.Integer | lowp.Fixed)
        for overflow in ("saturate", "propagate", "infinity_or_nan", *offset):
            for mode in DETERMINISTIC[: 2 if is_logarithmic(fmt) and fmt.bits > 8 else None]:
                single, double = (lowp.quantize(v, name, mode, overflow) for v in (x, wide))
                assert single.dtype == np.float32
                assert same_numbers(cast(single), cast(cast(double, np.float32))).all(), (mode, overflow)
                codes = [lowp.encode(v, name, mode, overflow, nan="zero").codes for v in (x, wide)]
                assert np.array_equal(*codes), (mode, overflow)
            assert same_numbers(lowp.decode(codes[1], name)[~np.isnan(wide)], double[~np.isnan(wide)]).all()
        assert codes[0].dtype.itemsize * 8 == max(8, 1 << (fmt.bits - 1).bit_length())

    @pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"])
    def test_integers_of_every_width_are_exact(self, dtype: Any) -> None:
        info = np.iinfo(dtype)
        rng = np.random.default_rng(0)
        x = np.concatenate(
            [rng.integers(info.min, info.max, 60, dtype=dtype, endpoint=True), np.array([info.min, info.max], dtype)]
        )
        for name in ("float8_e5m2", "int4", "bfloat16", "float32"):
            for mode in DETERMINISTIC:
                assert lowp.encode(x, name, mode).codes.tolist() == exactly(x.tolist(), name, mode)
        got = lowp.quantize(x, "bfloat16")
        assert got.dtype == np.float64
        assert got.tolist() == [float(exact.quantize(v, "bfloat16")) for v in x.tolist()]

    @pytest.mark.parametrize("dtype", [np.int64, np.uint64])
    def test_integers_just_beyond_float64_round_as_the_exact_number(self, dtype: Any) -> None:
        start = [2**53, 2**53 + 2**29, 2**54 - 2**30, 2**60 + 2**36, 2**62 - 2**38, 2**63 - 5]
        x = np.array([s + d for s in start for d in (-1, 0, 1, 2, 3)], dtype)
        for name in ("float32", "bfloat16", "float8_e5m2", "fixed8_m50"):
            for mode in DETERMINISTIC:
                assert lowp.encode(x, name, mode, "infinity_or_nan").codes.tolist() == exactly(
                    x.tolist(), name, mode, "infinity_or_nan"
                ), (name, mode)
        signs = -x if dtype == np.int64 else x
        assert lowp.encode(signs, "float32", "toward_negative").codes.tolist() == exactly(
            signs.tolist(), "float32", "toward_negative"
        )

    def test_a_single_integer_one_beyond_float64_is_not_lost(self) -> None:
        assert lowp.quantize(np.array([2**53 + 1]), "float32", "toward_positive").tolist() == [2.0**53 + 2.0**30]
        assert lowp.quantize(2**53 + 1, "float32", "toward_positive") == 2.0**53 + 2.0**30

    def test_integers_that_need_all_their_bits_are_refused_where_they_would_be_lost(self) -> None:
        for how in ({"fmt": "float64"}, {"fmt": "int8", "overflow": "wrap"}, {"fmt": "nf4"}):
            with pytest.raises(lowp.RangeError, match=r"x holds an integer beyond 2\^53.*use lowp\.exact"):
                lowp.encode(np.array([2**53 + 1]), **how)
        assert lowp.encode(np.array([2**53 + 2, 2**62]), "int8", overflow="wrap").codes.tolist() == [2, 0]

    def test_integers_of_ml_dtypes_give_float64(self) -> None:
        got = lowp.quantize(np.array([-8, 3, 7], ml_dtypes.int4), "float4_e2m1fn")
        assert got.dtype == np.float64
        assert got.tolist() == [-6.0, 3.0, 6.0]

    @pytest.mark.parametrize("dtype", [">f2", ">f4", ">f8", ">i2", ">i8", ">u4"])
    def test_big_endian_arrays_are_read_by_value_and_come_back_native(self, dtype: str) -> None:
        x = np.array([1, 3, 9, 17, 250], dtype)
        native = x.astype(x.dtype.newbyteorder("="))
        got = lowp.quantize(x, "float8_e4m3fn")
        assert got.dtype == lowp.quantize(native, "float8_e4m3fn").dtype
        assert got.dtype.isnative
        assert got.tolist() == [1, 3, 9, 16, 256]
        assert lowp.encode(x, "mxfp4").codes.tolist() == lowp.encode(native, "mxfp4").codes.tolist()

    def test_python_numbers_give_floats(self) -> None:
        for x in (1.7, 2, -0.0):
            got = lowp.quantize(x, "float4_e2m1fn")
            assert type(got) is float
        assert np.signbit(lowp.quantize(-0.0, "float4_e2m1fn"))
        assert not np.signbit(lowp.quantize(-0.0, "int4"))
        assert lowp.encode(3, "float4_e2m1fn").codes.shape == ()
        assert lowp.decode(5, "float4_e2m1fn") == 3.0
        assert type(lowp.decode(5, "float4_e2m1fn")) is float

    @pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64, ml_dtypes.bfloat16])
    def test_numpy_scalars_keep_their_type(self, kind: Any) -> None:
        got = lowp.quantize(kind(1.7), "float4_e2m1fn")
        assert type(got) is kind
        assert got == 1.5

    def test_numpy_integer_scalars_give_float64(self) -> None:
        assert type(lowp.quantize(np.int8(5), "float4_e2m1fn")) is np.float64

    @pytest.mark.parametrize("x", [[[1.2, 2.6], [0.3, -7.0]], ((1.2, 2.6), (0.3, -7.0))])
    def test_nested_lists_give_float64_arrays(self, x: Any) -> None:
        got = lowp.quantize(x, "float4_e2m1fn")
        assert got.dtype == np.float64
        assert got.tolist() == [[1.0, 3.0], [0.5, -6.0]]

    @pytest.mark.parametrize("name", ["nf4", "int8", "float4_e2m1fn"])
    @pytest.mark.parametrize("overflow", ["saturate", "wrap"])
    def test_a_single_nan_follows_its_policy(self, name: str, overflow: str) -> None:
        if overflow == "wrap" and name != "int8":
            return
        nan = float("nan")
        assert np.isnan(lowp.quantize(nan, name, overflow=overflow))
        assert lowp.quantize(nan, name, overflow=overflow, nan="zero") == 0
        assert lowp.quantize(np.float32([nan, 1]), name, overflow=overflow, nan="max")[0] == lowp.parse(name).max  # type: ignore[attr-defined]
        assert lowp.encode(nan, name, overflow=overflow, nan="zero").codes == exact.encode(0, name)
        assert lowp.encode(nan, name, overflow=overflow, nan="max").codes == exact.encode("inf", name)
        for verb in (lowp.quantize, lowp.encode):
            with pytest.raises(
                lowp.RangeError, match=f"x holds NaN, and '{name}' has no code for it; pass nan='zero' or nan='max'"
            ):
                verb(nan, name, overflow=overflow, nan="error")

    @pytest.mark.parametrize("dtype", [np.float16, np.float32])
    @pytest.mark.parametrize("name", ["int32", "float64", "float8_e8m0fnu"])
    def test_values_that_the_dtype_cannot_hold_are_refused(self, dtype: Any, name: str) -> None:
        x = np.array([np.inf], dtype)
        if name == "float8_e8m0fnu" and dtype == np.float32:
            assert lowp.quantize(x, name).tolist() == [2.0**127]
            return
        with pytest.raises(lowp.RangeError, match=f"a value of '{name}' does not fit dtype {np.dtype(dtype).name}"):
            lowp.quantize(x, name)
        with pytest.raises(lowp.RangeError, match="does not fit dtype"):
            lowp.decode(lowp.encode(x, name))

    @pytest.mark.parametrize("dtype", [np.float16, np.float32, ml_dtypes.bfloat16])
    def test_the_values_of_a_codebook_are_rounded_to_the_dtype(self, dtype: Any) -> None:
        fmt = lowp.Codebook([0.1, 0.3])
        x = np.array([0.0, 0.22], dtype)
        assert lowp.quantize(x, fmt).tolist() == np.array([0.1, 0.3]).astype(dtype).tolist()
        assert lowp.decode(lowp.encode(x, fmt)).tolist() == lowp.quantize(x, fmt).tolist()
        with pytest.raises(lowp.RangeError, match=r"does not fit dtype float16"):
            lowp.quantize(np.float16([np.inf]), lowp.Codebook([1, 1e6]))

    def test_signalling_nan_raises_no_warning(self) -> None:
        signalling = {np.float16: 0x7C01, np.float32: 0x7F800001, np.float64: 0x7FF0000000000001}
        for dtype, bits in signalling.items():
            x = np.array([bits], f"u{np.dtype(dtype).itemsize}").view(dtype)
            for name in ("float8_e5m2", "float4_e2m1fn", "nf4", "mxfp4", "float64", "int8_row"):
                x2 = np.tile(x, 32)
                if name != "int8_row":
                    lowp.encode(x2, name, nan="zero")
                assert np.isnan(lowp.quantize(x2, name)).all()


class TestShapesAndMemory:
    @pytest.mark.parametrize("name", ["float8_e4m3fn", "nf4", "int8", "mxfp4", "int4_g32"])
    @pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int32])
    def test_layouts_do_not_matter(self, name: str, dtype: Any) -> None:
        base = (np.random.default_rng(1).standard_normal((6, 8, 64)) * 50).astype(dtype)
        wanted = lowp.quantize(base, name, axis=-1)
        codes = lowp.encode(base, name).codes
        step = np.zeros((6, 8, 128), dtype)
        step[..., ::2] = base
        views = {
            "fortran": np.asfortranarray(base),
            "strided": step[..., ::2],
            "negative": base[::-1, ::-1, ::-1].copy()[::-1, ::-1, ::-1],
            "transposed": np.ascontiguousarray(base.transpose(2, 0, 1)).transpose(1, 2, 0),
            "unaligned": _unaligned(base),
            "read-only": base.copy(),
        }
        views["read-only"].flags.writeable = False
        for kind, x in views.items():
            before = x.copy()
            assert np.array_equal(lowp.quantize(x, name), wanted), kind
            assert np.array_equal(lowp.encode(x, name).codes, codes), kind
            assert np.array_equal(x, before), kind

    @given(
        hnp.arrays(
            np.float32,
            hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5),
            elements=st.floats(width=32, allow_nan=False),
        )
    )
    @few
    def test_every_shape_is_kept_and_every_element_rounded_alone(self, x: np.ndarray) -> None:
        got = lowp.quantize(x, "float6_e3m2fn")
        q = lowp.encode(x, "float6_e3m2fn")
        assert got.shape == q.codes.shape == q.shape == lowp.decode(q).shape == x.shape
        assert q.codes.ravel().tolist() == exactly(x.ravel().tolist(), "float6_e3m2fn")
        assert same_numbers(lowp.decode(q), got).all()

    def test_broadcast_inputs_work(self) -> None:
        x = np.broadcast_to(np.float32([1.2, 300.0]), (3, 2))
        assert lowp.quantize(x, "float4_e2m1fn").tolist() == [[1.0, 6.0]] * 3

    @pytest.mark.parametrize("name", names())
    def test_inputs_are_never_modified_nor_returned(self, name: str) -> None:
        x = taken(np.random.default_rng(2).standard_normal((1, 4) if name in SLOW else (64, 128)) * 3, name)
        before = x.copy()
        got, q = lowp.quantize(x, name), lowp.encode(x, name)
        assert np.array_equal(x, before)
        assert not np.shares_memory(got, x)
        codes = q.codes.copy()
        lowp.decode(q)
        assert np.array_equal(q.codes, codes)

    def test_value_tables_are_fresh_copies(self) -> None:
        lowp.values("float4_e2m1fn")[:] = 7
        assert lowp.values("float4_e2m1fn")[1] == 0.5


def _unaligned(x: np.ndarray) -> np.ndarray:
    """A copy of `x` one byte off its alignment."""
    memory = np.zeros(x.nbytes + 1, np.uint8)[1:]
    view = memory.view(x.dtype).reshape(x.shape)
    view[...] = x
    return view


class TestOut:
    @pytest.mark.parametrize(
        "name", ["float8_e4m3fn", "nf4", "int8", "fixed32_16", "float64", "mxfp4", "int4_g32", "nvfp4"]
    )
    @pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
    @pytest.mark.parametrize("mode", ["ties_to_even", "to_odd"])
    def test_out_takes_the_result(self, name: str, dtype: Any, mode: str) -> None:
        x = (np.random.default_rng(3).standard_normal((4, 64)) * 2).astype(dtype)
        if name == "fixed32_16" and dtype == np.float16:
            x = np.round(x * 256) / 256
        wanted, before = lowp.quantize(x, name, mode), x.copy()
        wide = np.zeros((4, 128), dtype)
        for out in (np.empty_like(x), np.asfortranarray(x), wide[:, ::2], wide[::-1, 127::-2]):
            assert lowp.quantize(x, name, mode, out=out) is out
            assert np.array_equal(out, wanted)
            assert np.array_equal(x, before)
        assert lowp.quantize(x, name, mode, out=x) is x
        assert np.array_equal(x, wanted)

    @pytest.mark.parametrize("name", ["float8_e4m3fn", "nf4", "int8", "mxfp4", "int4_g32"])
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    @pytest.mark.parametrize("shift", [1, 32, 33])
    def test_out_that_overlaps_the_input_elsewhere_gets_the_right_result(
        self, name: str, dtype: Any, shift: int
    ) -> None:
        memory = np.linspace(-300, 300, 32 * 40).astype(dtype)
        for source, target in ((slice(None, -shift), slice(shift, None)), (slice(shift, None), slice(None, -shift))):
            for mode in ("ties_to_even", "to_odd"):
                area = memory.copy()
                wanted = lowp.quantize(area[source].copy(), name, mode)
                lowp.quantize(area[source], name, mode, out=area[target])
                assert np.array_equal(area[target], wanted)
        area = memory.copy()
        wanted = lowp.quantize(area.copy(), name)
        assert np.array_equal(lowp.quantize(area, name, out=area[::-1]), wanted)

    def test_out_of_a_python_number_is_an_array_of_no_dimension(self) -> None:
        out = np.empty(())
        assert lowp.quantize(1.7, "float4_e2m1fn", out=out) is out
        assert out == 1.5

    @pytest.mark.parametrize(
        ("out", "message"),
        [
            (np.empty(2, np.float32), r"out has shape \(2,\) and dtype float32; the result has \(3,\) and float32"),
            (np.empty(3, np.float64), r"out has shape \(3,\) and dtype float64; the result has \(3,\) and float32"),
            (np.empty(3, ">f4"), r"out has shape \(3,\) and dtype >f4; the result has"),
            (np.broadcast_to(np.float32(0), 3), r"out is read-only"),
        ],
    )
    def test_out_that_does_not_fit_is_refused(self, out: Any, message: str) -> None:
        with pytest.raises(lowp.ArgumentError, match=message):
            lowp.quantize(np.ones(3, np.float32), "fp8", out=out)

    def test_out_must_be_an_array(self) -> None:
        with pytest.raises(lowp.ArgumentTypeError, match=r"out must be a NumPy array, not list"):
            lowp.quantize(np.ones(3, np.float32), "fp8", out=[0, 0, 0])


class TestThreads:
    @pytest.mark.parametrize("mode", ["ties_to_even", "to_odd", "stochastic_a"])
    @pytest.mark.parametrize("name", ["float8_e4m3fn", "float8_e8m0fnu", "int8", "nf4", "mxfp4", "mxfp8_e5m2_rceil"])
    def test_results_do_not_depend_on_the_number_of_threads(
        self, name: str, mode: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        count = SERIAL_BELOW + 32 * 7
        x = np.random.default_rng(4).standard_normal(count).astype(np.float32)
        results = []
        for threads in ("1", "2", "3", "7"):
            monkeypatch.setenv("LOWP_NUM_THREADS", threads)
            results.append((lowp.quantize(x, name, mode, seed=3), lowp.encode(x, name, mode, seed=3).codes))
        small = 32 * 8
        results.append(
            tuple(
                np.concatenate([r[:small], results[0][i][small:]])
                for i, r in enumerate(
                    (lowp.quantize(x[:small], name, mode, seed=3), lowp.encode(x[:small], name, mode, seed=3).codes)
                )
            )
        )
        for values, codes in results[1:]:
            assert np.array_equal(values, results[0][0])
            assert np.array_equal(codes, results[0][1])

    def test_the_last_part_may_be_short(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LOWP_NUM_THREADS", "5")
        for extra in (-1, 0, 1, 4):
            x = np.full(SERIAL_BELOW + extra, 1.3, np.float32)
            assert (lowp.quantize(x, "float4_e2m1fn") == 1.5).all()


class TestRandomBits:
    def test_words_by_array_and_one_by_one_agree(self) -> None:
        for seed in (0, 1, 2**32, 2**64 - 1):
            for start in (0, 5, 2**32 - 2, 2**40):
                assert words(keys(seed), start, 5).tolist() == [word(seed, start + i) for i in range(5)]

    @given(
        st.integers(0, 2**64 - 1),
        st.integers(1, 32),
        st.sampled_from(["stochastic_a", "stochastic_b", "stochastic_c", "stochastic_equal"]),
    )
    @few
    def test_bits_depend_on_seed_and_position_alone(self, seed: int, bits: int, mode: str) -> None:
        x = np.linspace(-7, 7, 48).reshape(4, 12)
        wanted = [
            exact.encode(v, "float4_e2m1fn", mode, random=word(seed, i), random_bits=bits)
            for i, v in enumerate(x.ravel().tolist())
        ]
        how: dict[str, Any] = {"seed": seed, "random_bits": bits}
        for y in (x, np.asfortranarray(x), x.astype(np.float32) if False else x.reshape(2, 24), x.ravel()):
            assert lowp.encode(y, "float4_e2m1fn", mode, **how).codes.ravel().tolist() == wanted
        assert lowp.encode(x.ravel()[:7], "float4_e2m1fn", mode, **how).codes.tolist() == wanted[:7]

    def test_seeds_differ_and_positions_differ(self) -> None:
        x = np.full(10_000, 1.25)
        ones = [lowp.quantize(x, "float4_e2m1fn", "stochastic", seed=s) for s in (0, 1, 2**32)]
        assert not np.array_equal(ones[0], ones[1])
        assert not np.array_equal(ones[0], ones[2])
        for y in ones:
            assert abs((y == 1.5).mean() - 0.5) < 0.03
            assert abs(np.corrcoef(y[:-1], y[1:])[0, 1]) < 0.05

    @pytest.mark.parametrize("name", ["float8_e4m3fn", "nf4", "int8", "float32"])
    def test_stochastic_rounding_is_unbiased(self, name: str) -> None:
        fmt = lowp.parse(name)
        low = 1.0 if isinstance(fmt, Float) else 0.5626170039176941 if name == "nf4" else 1.0
        high = float(exact.neighbours(np.nextafter(low, 9), fmt)[1] or 0)
        x = np.full(40_000, low + 0.3 * (high - low))
        assert abs((lowp.quantize(x, name, "stochastic") == high).mean() - 0.3) < 0.01
