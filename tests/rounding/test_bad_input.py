"""Wrong arguments: each raises at once an error that names the argument, shows what came and says what is allowed."""

import re
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import lowp

X = np.ones((2, 64), np.float32)


def refused(kind: type[Exception], message: str) -> Any:
    """Expect an error of `lowp` whose message contains `message`."""
    assert issubclass(kind, lowp.Error)
    return pytest.raises(kind, match=re.escape(message))


@pytest.mark.parametrize("verb", [lowp.quantize, lowp.encode])
class TestBothVerbs:
    @pytest.mark.parametrize(
        ("fmt", "kind", "message"),
        [
            ("float8_e4m3nf", lowp.FormatError, "format='float8_e4m3nf' is not known. Did you mean 'float8_e4m3fn'"),
            ("int0", lowp.FormatError, "bits=0 is out of range; allowed: 1 to 32"),
            ("e1m3_nosub", lowp.FormatError, "has no finite value besides zero"),
            ("e8m3b3000", lowp.FormatError, "outside that of float64 (2^-1022 to 2^1023); allowed here: -769 to 1023"),
            (None, lowp.ArgumentTypeError, "format=None must be a name or a Format, not NoneType"),
            (np.float16, lowp.ArgumentTypeError, "format=<class 'numpy.float16'> must be a name or a Format"),
        ],
    )
    def test_formats(self, verb: Any, fmt: Any, kind: Any, message: str) -> None:
        with refused(kind, message):
            verb(X, fmt)

    @pytest.mark.parametrize(
        ("x", "message"),
        [
            (np.array([True]), "x has dtype bool; allowed: float16, bfloat16, float32, float64, integers"),
            (True, "x has dtype bool"),
            (np.array([1j]), "x has dtype complex128"),
            (1j, "x has dtype complex128"),
            (np.array(["1.0"]), "x has dtype str"),
            ("1.0", "x has dtype str"),
            (None, "x has dtype object"),
            ([1, None], "x has dtype object"),
            (np.array([1.0, 2.0], object), "x has dtype object"),
            (Decimal("1.5"), "x has dtype object"),
            ([Fraction(1, 3)], "x has dtype object"),
            (np.array(["2020-01-01"], "datetime64[D]"), "x has dtype datetime64"),
            (np.zeros(3, [("a", "f4")]), "x has dtype void"),
            ([[1.0, 2.0], [3.0]], "x of type list is not an array of numbers"),
            ((i for i in range(3)), "x has dtype object"),
            ({1.0, 2.0}, "x has dtype object"),
        ],
    )
    def test_things_that_are_not_numbers(self, verb: Any, x: Any, message: str) -> None:
        with refused(lowp.ArgumentTypeError, message):
            verb(x, "fp8")

    def test_floats_wider_than_float64(self, verb: Any) -> None:
        wide = np.ones(3, np.longdouble)
        if wide.dtype.itemsize > 8:
            with refused(lowp.ArgumentTypeError, f"x has dtype {wide.dtype.name}; allowed: float16"):
                verb(wide, "fp8")

    def test_python_integers_beyond_64_bits(self, verb: Any) -> None:
        for x in (2**64, -(2**63) - 1, [1, 2**100]):
            with refused(lowp.RangeError, "x holds an integer beyond 64 bits; pass it as a float, or use lowp.exact"):
                verb(x, "fp8")

    @pytest.mark.parametrize(
        ("how", "kind", "message"),
        [
            (
                {"rounding": "ties_to_evn"},
                lowp.ArgumentError,
                "rounding='ties_to_evn' is not known. Did you mean 'ties_to_even'",
            ),
            ({"rounding": 3}, lowp.ArgumentTypeError, "rounding=3 must be a name, one of: ties_to_even"),
            ({"rounding": None}, lowp.ArgumentTypeError, "rounding=None must be a name"),
            ({"overflow": "saturat"}, lowp.ArgumentError, "overflow='saturat' is not known. Did you mean 'saturate'"),
            ({"overflow": None}, lowp.ArgumentTypeError, "overflow=None must be a name, one of: saturate"),
            (
                {"overflow": "wrap"},
                lowp.ArgumentError,
                "overflow='wrap' is for integers and fixed point, not for 'float8_e4m3fn'",
            ),
            (
                {"overflow": "AP_SAT_SYM"},
                lowp.ArgumentError,
                "is for integers and fixed point, not for 'float8_e4m3fn'",
            ),
            ({"seed": -1}, lowp.ArgumentError, "seed=-1 must be an integer from 0 to 2^64 - 1"),
            ({"seed": 2**64}, lowp.ArgumentError, "must be an integer from 0 to 2^64 - 1"),
            ({"seed": 1.0}, lowp.ArgumentError, "seed=1.0 must be an integer"),
            ({"seed": True}, lowp.ArgumentError, "seed=True must be an integer"),
            ({"seed": None}, lowp.ArgumentError, "seed=None must be an integer"),
            (
                {"rounding": "stochastic", "random_bits": 0},
                lowp.ArgumentError,
                "random_bits=0 must be an integer from 1 to 32",
            ),
            (
                {"rounding": "stochastic", "random_bits": 33},
                lowp.ArgumentError,
                "random_bits=33 must be an integer from 1 to 32",
            ),
            ({"rounding": "stochastic", "random_bits": 2.0}, lowp.ArgumentError, "random_bits=2.0 must be an integer"),
            ({"nan": "zeros"}, lowp.ArgumentError, "nan='zeros' is not known. Did you mean 'zero'"),
            (
                {"saturation_bits": 1},
                lowp.ArgumentError,
                "saturation_bits=1 goes with overflow 'wrap' or 'wrap_sign_magnitude' only",
            ),
        ],
    )
    def test_modes_and_numbers(self, verb: Any, how: dict[str, Any], kind: Any, message: str) -> None:
        with refused(kind, message):
            verb(X, "fp8", **how)

    @pytest.mark.parametrize(
        ("bits", "shown"), [(-1, "-1"), (9, "9"), (1.0, "1.0"), ("2", "'2'"), (True, "True"), (None, "None")]
    )
    def test_saturation_bits(self, verb: Any, bits: Any, shown: str) -> None:
        with refused(lowp.ArgumentError, f"saturation_bits={shown} must be an integer from 0 to 8"):
            verb(X, "int8", overflow="wrap", saturation_bits=bits)

    def test_sign_magnitude_wrap_of_unsigned_formats(self, verb: Any) -> None:
        with refused(lowp.ArgumentError, "overflow='wrap_sign_magnitude' needs a signed format, 'uint4' is unsigned"):
            verb(X, "uint4", overflow="wrap_sign_magnitude")

    def test_overflow_modes_that_offset_integers_do_not_have(self, verb: Any) -> None:
        with refused(lowp.ArgumentError, "overflow='wrap' is not defined for 'int4_g128_asym'"):
            verb(X, "int4_g128_asym", overflow="wrap")

    def test_a_single_number_has_no_blocks(self, verb: Any) -> None:
        for x in (1.0, np.float32(1), np.ones(())):
            with refused(
                lowp.ArgumentError,
                "x is a single number; the block format 'mxfp4' needs an array of at least one dimension",
            ):
                verb(x, "mxfp4")

    @pytest.mark.parametrize(
        ("fmt", "axis", "kind", "message"),
        [
            ("mxfp4", 2, lowp.ArgumentError, "axis=2 does not exist in an array of 2 dimensions; allowed: -2 to 1"),
            ("mxfp4", -3, lowp.ArgumentError, "axis=-3 does not exist in an array of 2 dimensions"),
            ("mxfp4", (0, 1), lowp.ArgumentError, "axis=(0, 1): 'mxfp4' needs one axis"),
            ("mxfp4", 1.0, lowp.ArgumentTypeError, "axis=1.0 must be an integer, or a pair of integers"),
            ("mxfp4", None, lowp.ArgumentTypeError, "axis=None must be an integer"),
            ("mxfp4", True, lowp.ArgumentTypeError, "axis=True must be an integer"),
            ("mxfp4", "rows", lowp.ArgumentTypeError, "axis='rows' must be an integer"),
            ("int8_row", 5, lowp.ArgumentError, "axis=5 does not exist"),
            ("fp8_tile128", 0, lowp.ArgumentError, "axis=0: 'fp8_tile128' needs a pair of axes"),
            ("fp8_tile128", (0, 0), lowp.ArgumentError, "axis=(0, 0) names one axis twice"),
            ("fp8_tile128", (1, -1), lowp.ArgumentError, "axis=(1, -1) names one axis twice"),
            ("fp8_tile128", (0, 2), lowp.ArgumentError, "axis=(0, 2) does not exist in an array of 2 dimensions"),
            ("fp8_tile128", (0, 1, 2), lowp.ArgumentError, "axis=(0, 1, 2): 'fp8_tile128' needs a pair of axes"),
        ],
    )
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_axes(self, verb: Any, fmt: str, axis: Any, kind: Any, message: str, dtype: Any) -> None:
        with refused(kind, message):
            verb(X.astype(dtype), fmt, axis=axis)

    def test_tiles_need_two_dimensions(self, verb: Any) -> None:
        with refused(lowp.ArgumentError, "axis=(-2, -1) does not exist in an array of 1 dimensions"):
            verb(np.ones(8), "fp8_tile128")

    def test_nan_where_no_scale_can_say_so(self, verb: Any) -> None:
        fmt = lowp.Block("int4", 4, "ue4m3f")
        with refused(
            lowp.RangeError,
            "scales in 'float7_ue4m3f' cannot mark a block as NaN; use a Block with nonfinite='element'",
        ):
            verb([1.0, float("nan")], fmt)

    def test_nan_and_infinity_where_the_block_refuses_them(self, verb: Any) -> None:
        fmt = lowp.Block("fp4", 4, nonfinite="error")
        for bad in ("nan", "inf", "-inf"):
            with refused(lowp.RangeError, "x holds NaN or infinity, which"):
                verb([1.0, float(bad)], fmt)


@pytest.mark.parametrize("name", ["float4_e2m1fn", "int8", "nf4", "fixed8_4", "ternary"])
def test_nan_where_there_is_no_nan(name: str) -> None:
    x = np.array([1.0, np.nan])
    with refused(
        lowp.RangeError, f"x holds NaN, and '{name}' has no code for it; pass nan='zero' or nan='max', or remove it"
    ):
        lowp.encode(x, name)
    with refused(lowp.RangeError, "has no code for it"):
        lowp.quantize(x, name, nan="error")
    with refused(lowp.ArgumentError, "nan='keep' is not known. Allowed: error, zero, max"):
        lowp.encode(x, name, nan="keep")
    assert np.isnan(lowp.quantize(x, name)[1])


@pytest.mark.parametrize("x", [[], np.zeros((0, 3), np.float16), np.zeros((2, 0))])
@pytest.mark.parametrize("fmt", ["fp8", "int8", "nf4", "mxfp4", "nvfp4", "int8_tensor"])
def test_empty_arrays_are_no_error(x: Any, fmt: str) -> None:
    shape = np.shape(x)
    assert (
        lowp.quantize(x, fmt).shape
        == lowp.encode(x, fmt).codes.shape
        == lowp.decode(lowp.encode(x, fmt)).shape
        == shape
    )


def test_arguments_are_checked_before_any_work_and_out_stays() -> None:
    out = np.full((2, 64), 7, np.float32)
    for how in ({"rounding": "x"}, {"overflow": "wrap"}, {"seed": -1}, {"axis": 9, "fmt": "mxfp4"}):
        with pytest.raises(lowp.Error):
            lowp.quantize(X, **{"fmt": "fp8", "out": out, **how})  # type: ignore[arg-type]
    assert (out == 7).all()


class TestDecode:
    @pytest.mark.parametrize(
        ("codes", "kind", "message"),
        [
            ([256], lowp.RangeError, "codes range from 256 to 256; 'float8_e4m3fn' has codes 0 to 255"),
            ([3, -1], lowp.RangeError, "codes range from -1 to 3"),
            (-1, lowp.RangeError, "codes range from -1 to -1"),
            ([1.0], lowp.ArgumentTypeError, "codes have dtype float64; allowed: integers"),
            ([True], lowp.ArgumentTypeError, "codes have dtype bool; allowed: integers"),
            (["a"], lowp.ArgumentTypeError, "codes have dtype <U1; allowed: integers"),
        ],
    )
    def test_codes(self, codes: Any, kind: Any, message: str) -> None:
        with refused(kind, message):
            lowp.decode(codes, "fp8")

    def test_formats(self) -> None:
        with refused(lowp.ArgumentError, "fmt is missing: plain codes need the format that they are codes of"):
            lowp.decode([1, 2])
        with refused(lowp.ArgumentError, "fmt='int8' differs from the format of the encoded array, 'float8_e4m3fn'"):
            lowp.decode(lowp.encode(X, "fp8"), "int8")
        with refused(lowp.FormatError, "'mxfp4' is a block format, its codes need scales"):
            lowp.decode([1, 2], "mxfp4")
        with refused(lowp.FormatError, "format='fp9' is not known"):
            lowp.decode([1, 2], "fp9")
        assert lowp.decode(lowp.encode(X, "fp8"), "e4m3fn").shape == X.shape

    @pytest.mark.parametrize("dtype", ["floof", np.int32, "complex64", bool, np.longdouble, "U3", 7])
    def test_dtypes(self, dtype: Any) -> None:
        if dtype is np.longdouble and np.dtype(dtype).itemsize == 8:
            return
        for codes, fmt in (([1], "int8"), (lowp.encode(X, "int8"), None), (lowp.encode(X, "mxfp4"), None)):
            with refused(
                lowp.ArgumentTypeError, f"dtype={dtype!r} is not allowed: float16, bfloat16, float32 or float64"
            ):
                lowp.decode(codes, fmt, dtype=dtype)

    def test_values_that_the_dtype_cannot_hold(self) -> None:
        with refused(lowp.RangeError, "a value of 'float8_e8m0fnu' does not fit dtype float16"):
            lowp.decode([254], "e8m0", dtype=np.float16)

    def test_empty_codes_are_no_error(self) -> None:
        assert lowp.decode([], "fp8").tolist() == []


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: lowp.values("int32"), "format='int32' has 2^32 codes; values lists formats of at most 16 bits"),
        (lambda: lowp.values("mxfp4"), "values needs a scalar format; 'mxfp4' is a block format"),
        (lambda: lowp.exact.encode(1.0, "mxfp4"), "fmt='mxfp4' is a block format; here it must be a scalar format"),
    ],
)
def test_formats_that_do_not_fit_the_operation(call: Any, message: str) -> None:
    with refused(lowp.FormatError, message):
        call()


class TestSmallThings:
    def test_an_axis_that_does_not_exist_is_refused_for_scalar_formats_too(self) -> None:
        for verb in (lowp.quantize, lowp.encode):
            with pytest.raises(lowp.ArgumentError, match="axis=7 does not exist in an array of 2 dimensions"):
                verb(np.ones((2, 2)), "fp8", axis=7)

    @pytest.mark.parametrize(
        ("data", "shape", "message"),
        [
            (b"a", 1, "shape=1 must be a tuple"),
            (b"", (-1,), "must be a tuple of sizes"),
            ([300], (1,), "must be bytes"),
        ],
    )
    def test_unpack(self, data: object, shape: object, message: str) -> None:
        with pytest.raises(lowp.ArgumentError, match=message):
            lowp.Encoded.unpack(data, "fp8", shape)  # type: ignore[arg-type]

    @pytest.mark.parametrize("flag", ["signed", "subnormals", "zero"])
    def test_flags_are_booleans(self, flag: str) -> None:
        with pytest.raises(lowp.FormatError, match=f"{flag}='no' must be True or False"):
            lowp.Float(5, 7, **{flag: "no"})  # type: ignore[arg-type]

    def test_a_list_that_numpy_cannot_read_exactly_is_refused(self) -> None:
        for x in ([2**60 + 1, 1.5], [2**63 + 1, -1]):
            with pytest.raises(lowp.RangeError, match=f"x holds the integer {x[0]} in a list"):
                lowp.quantize(x, "float32")
        assert lowp.quantize([2**60, 1.5], "float32").tolist() == [2.0**60, 1.5]
