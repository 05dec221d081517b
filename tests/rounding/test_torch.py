"""Torch tensors: the bits of NumPy, and gradients."""

import math
import re
import warnings
from typing import Any

import numpy as np
import pytest

import lowp
from lowp.formats import Block, names
from lowp.formats.spec import ScalarFormat
from tests.rounding.samples import SLOW, UNPACKED, taken

torch = pytest.importorskip("torch")

import lowp.torch as lt  # noqa: E402  (only where torch is)

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
#: Every format in float32, some in the other dtypes.
CASES = [(name, torch.float32) for name in names()] + [
    (name, dtype) for i, dtype in enumerate(DTYPES) if dtype != torch.float32 for name in names()[i::4]
]


def same(a: Any, b: Any) -> bool:
    """Whether two tensors hold the same numbers, signs of zero included; NaNs are equal."""
    a, b = a.detach().double(), b.detach().double()
    equal = (a == b) & (torch.signbit(a) == torch.signbit(b))
    return a.shape == b.shape and bool((equal | (a.isnan() & b.isnan())).all())


def tensor(dtype: Any, shape: tuple[int, ...] = (4, 256), limit: float = 3e4) -> Any:
    """Numbers of many sizes, with zeros of both signs and ties."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal(shape) * np.exp2(rng.integers(-12, 10, shape))
    x = np.where(rng.random(shape) < 0.3, rng.integers(-32, 32, shape) / 8, x)
    x.flat[:3] = [0.0, -0.0, 2.5]
    return torch.tensor(np.clip(x, -limit, limit)).to(dtype)


def numpy_of(x: Any) -> Any:
    """The same numbers as a NumPy array of the same dtype."""
    if x.dtype != torch.bfloat16:
        return x.detach().numpy()
    ml_dtypes = pytest.importorskip("ml_dtypes")
    return x.detach().view(torch.int16).numpy().view(ml_dtypes.bfloat16)


def tensor_of(x: Any) -> Any:
    """A NumPy result as float64 tensor."""
    return torch.from_numpy(np.asarray(x).astype(np.float64))


def input_of(name: str, dtype: Any) -> Any:
    """Numbers of a dtype that a format takes and whose rounded values the dtype holds."""
    numbers = tensor(torch.float64, (1, 8) if name in SLOW else (4, 256)).numpy()
    if dtype in (torch.float16, torch.bfloat16) and getattr(lowp.parse(name), "kind", "") in ("integer", "fixed"):
        return torch.from_numpy(np.clip(np.round(numbers), -100, 100)).to(dtype)  # rounding adds digits to others
    narrow = np.float16 if dtype in (torch.float16, torch.bfloat16) else np.float32
    return torch.from_numpy(taken(numbers, name, narrow)).to(dtype)


def fields_of(q: lowp.Encoded) -> dict[str, Any]:
    """The stored integers of a packed format, their shapes and dtypes."""
    parts = {name: np.asarray(part) for name, part in (q.fields or {}).items()}
    return {name: (part.dtype.name, part.shape, part.tolist()) for name, part in parts.items()}


class TestSameBitsAsNumPy:
    @pytest.mark.parametrize(("name", "dtype"), CASES)
    def test_values_and_codes_of_every_format(self, name: str, dtype: Any) -> None:
        x = input_of(name, dtype)
        modes = ["ties_to_even", "toward_positive", "stochastic_b"] if name in UNPACKED else ["ties_to_even"]
        for mode in modes:
            how: dict[str, Any] = {"rounding": mode, "seed": 11}
            got, wanted = lowp.quantize(x, name, **how), lowp.quantize(numpy_of(x), name, **how)
            assert got.dtype == x.dtype
            assert same(got, tensor_of(wanted)), mode
            q, p = lowp.encode(x, name, **how), lowp.encode(numpy_of(x), name, **how)
            assert np.array_equal(q.codes.numpy(), p.codes)
            for part in ("scales", "zero_points"):
                mine, theirs = getattr(q, part), getattr(p, part)
                assert (mine is None) == (theirs is None)
                assert mine is None or np.array_equal(mine.numpy(), theirs)
            assert q.tensor_scale == p.tensor_scale or (
                math.isnan(q.tensor_scale or 0) and math.isnan(p.tensor_scale or 0)
            )
            assert fields_of(q) == fields_of(p)
            assert (q.nbytes, q.shape, q.bits_per_value) == (p.nbytes, p.shape, p.bits_per_value)
            assert np.array_equal(q.pack(), p.pack())
            decoded = lowp.decode(q)
            assert decoded.dtype == x.dtype
            assert same(decoded, got)

    def test_stored_fields_are_tensors(self) -> None:
        q = lowp.encode(tensor(torch.bfloat16), "ggml_q4_k")
        assert q.fields is not None
        assert all(isinstance(part, torch.Tensor) for part in q.fields.values())
        assert lowp.decode(q, dtype=torch.float64).dtype == torch.float64
        back = lowp.Encoded.unpack(q.pack(), "ggml_q4_k", q.shape)
        assert same(tensor_of(lowp.decode(back)), lowp.decode(q, dtype=torch.float64))

    @pytest.mark.parametrize("name", ["float8_e5m2", "float8_e8m0fnu", "int8", "nf4", "mxfp4", "nvfp4"])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_infinities_and_nan(self, name: str, dtype: Any) -> None:
        x = tensor(dtype, limit=100)
        x[0, :4] = torch.tensor([math.inf, -math.inf, math.nan, -math.nan])
        scalar = isinstance(lowp.parse(name), ScalarFormat)
        for overflow in ["saturate", "propagate", "infinity_or_nan"] if scalar else ["saturate"]:
            for nan in ("keep", "zero", "max") if scalar else (None, "keep", "zero"):
                how = {"overflow": overflow, "nan": nan}
                assert same(lowp.quantize(x, name, **how), tensor_of(lowp.quantize(x.numpy(), name, **how))), how

    @pytest.mark.parametrize("name", ["int8", "uint4", "fixed8_4"])
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
    def test_every_overflow_mode_of_integers(self, name: str, dtype: Any) -> None:
        x = torch.tensor([-300.0, -128.0, -127.0, -8.0, -7.9, -0.0, 7.5, 127.0, 128.0, 300.0]).to(dtype)
        wide = x.to(torch.float64).numpy()
        for overflow in ("saturate", "saturate_zero", "saturate_symmetric", "wrap", "wrap_sign_magnitude"):
            if overflow == "wrap_sign_magnitude" and name == "uint4":
                continue
            wanted = torch.from_numpy(lowp.quantize(wide, name, overflow=overflow)).to(dtype)
            assert same(lowp.quantize(x, name, overflow=overflow), wanted), overflow

    @pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64])
    @pytest.mark.parametrize("name", ["float8_e4m3fn", "int4", "nf4", "mxfp4", "int4_g32"])
    def test_integers_give_float64(self, dtype: Any, name: str) -> None:
        x = (torch.arange(4 * 3 * 64) % 100).to(dtype).reshape(4, 3, 64)
        for y in (x, x.transpose(0, 1), x.transpose(1, 2)[..., :2], x.flip(0)[::2]):
            got = lowp.quantize(y, name)
            assert got.dtype == torch.float64
            assert same(got, tensor_of(lowp.quantize(y.numpy(), name)))
            assert np.array_equal(lowp.encode(y, name).codes.numpy(), lowp.encode(y.numpy(), name).codes)

    def test_integers_beyond_float64_are_exact(self) -> None:
        x = torch.tensor([2**53 + 1, 2**62 + 1, -(2**60) - 1])
        got = lowp.quantize(x, "bfloat16", "toward_positive")
        assert got.tolist() == [2.0**53 + 2.0**46, 2.0**62 + 2.0**55, -(2.0**60)]

    @pytest.mark.parametrize("name", ["float8_e4m3fn", "nf4", "mxfp4", "int4_g32"])
    @pytest.mark.parametrize("dtype", DTYPES)
    def test_memory_layout_does_not_matter(self, name: str, dtype: Any) -> None:
        base = tensor(dtype, (6, 8, 64))
        wanted, codes = lowp.quantize(base, name), lowp.encode(base, name).codes
        step = torch.zeros(6, 8, 128, dtype=dtype)
        step[..., ::2] = base
        for x in (step[..., ::2], base.permute(2, 0, 1).contiguous().permute(1, 2, 0), base.flip(0).flip(0)):
            before = x.clone()
            assert same(lowp.quantize(x, name), wanted)
            assert torch.equal(lowp.encode(x, name).codes, codes)
            assert torch.equal(x, before)

    def test_lazy_conjugates_are_read_as_they_are(self) -> None:
        x = torch.tensor([1 + 2.2j, 3 - 4j]).conj().imag
        assert lowp.quantize(x, "float4_e2m1fn").tolist() == [-2.0, 4.0]

    def test_expanded_tensors_work(self) -> None:
        x = torch.tensor([1.2, 300.0]).expand(3, 2)
        assert lowp.quantize(x, "float4_e2m1fn").tolist() == [[1.0, 6.0]] * 3

    @pytest.mark.parametrize("name", ["float8_e4m3fn", "nf4", "int8"])
    @pytest.mark.parametrize("dtype", DTYPES)
    def test_tensors_of_no_dimension(self, name: str, dtype: Any) -> None:
        x = torch.tensor(1.7, dtype=dtype)
        assert (
            lowp.quantize(x, name).shape
            == lowp.encode(x, name).codes.shape
            == lowp.decode(lowp.encode(x, name)).shape
            == ()
        )
        assert same(lowp.quantize(x, name), lowp.quantize(x.reshape(1), name)[0])

    @pytest.mark.parametrize("name", ["ggml_q4_k", "bnb_nf4", "bitnet_tl1", "posit16", "lns8_f3"])
    def test_empty_tensors_of_formats_without_a_clipped_gradient(self, name: str) -> None:
        x = torch.zeros((3, 0), requires_grad=True)
        assert lt.quantize(x, name).shape == lowp.decode(lowp.encode(x, name)).shape == (3, 0)

    @pytest.mark.parametrize("name", ["float8_e4m3fn", "nf4", "mxfp4", "nvfp4", "int8_row", "int4_g128_asym"])
    @pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 5)])
    def test_empty_tensors(self, name: str, shape: tuple[int, ...]) -> None:
        x = torch.zeros(shape, requires_grad=True)
        y = lt.quantize(x, name, gradient="clipped")
        assert y.shape == lowp.decode(lowp.encode(x, name)).shape == shape
        y.sum().backward()
        assert x.grad.shape == shape

    def test_blocks_along_other_axes(self) -> None:
        x = tensor(torch.float32, (6, 10))
        for axis in (0, 1, -2):
            assert same(lowp.quantize(x, "mxfp4", axis=axis), tensor_of(lowp.quantize(x.numpy(), "mxfp4", axis=axis)))
        tile = Block("fp8", (2, 4), "fp32")
        assert same(lowp.quantize(x, tile, axis=(1, 0)), tensor_of(lowp.quantize(x.numpy(), tile, axis=(1, 0))))

    def test_plain_codes_decode_to_tensors(self) -> None:
        codes = torch.arange(256, dtype=torch.uint8).reshape(16, 16)
        assert same(lowp.decode(codes, "fp8"), tensor_of(lowp.values("fp8").reshape(16, 16)))
        assert lowp.decode(codes, "fp8").dtype == torch.float64
        assert lowp.decode(codes, "fp8", dtype=torch.float16).dtype == torch.float16
        assert lt.decode(codes.T, "fp8")[1, 0] == lowp.values("fp8")[1]


class TestGradients:
    @pytest.mark.parametrize(
        "name", ["float8_e4m3fn", "nf4", "int4", "mxfp4", "nvfp4", "int4_g32", "bnb_nf4", "posit8"]
    )
    @pytest.mark.parametrize("dtype", DTYPES)
    def test_straight_through_passes_the_gradient_unchanged(self, name: str, dtype: Any) -> None:
        x = tensor(dtype, (2, 64)).requires_grad_()
        y = lowp.quantize(x, name)
        assert y.requires_grad
        assert same(y, lowp.quantize(x.detach(), name))
        gradient = torch.randn(2, 64, generator=torch.Generator().manual_seed(0)).to(dtype)
        y.backward(gradient)
        assert torch.equal(x.grad, gradient)

    def test_clipped_passes_it_inside_the_range_only(self) -> None:
        x = torch.tensor([-500.0, -448.0, -0.1, 0.0, 448.0, 448.1, math.inf, -math.inf, math.nan], requires_grad=True)
        lt.quantize(x, "fp8", gradient="clipped").backward(torch.full((9,), 3.0))
        assert x.grad.tolist() == [0, 3, 3, 3, 3, 0, 0, 0, 0]

    def test_clipped_makes_no_nan_of_an_infinite_gradient(self) -> None:
        x = torch.tensor([0.3, 500.0], requires_grad=True)
        lt.quantize(x, "fp8", gradient="clipped").backward(torch.tensor([math.inf, math.inf]))
        assert x.grad.tolist() == [math.inf, 0.0]

    def test_clipped_in_unsigned_formats_and_codebooks(self) -> None:
        for fmt, inside in (("uint4", [0, 1, 1, 0]), ("nf4", [1, 1, 0, 0]), ("float8_e8m0fnu", [0, 1, 1, 1])):
            x = torch.tensor([-1.0, 0.5, 15.0, 16.0], requires_grad=True)
            lt.quantize(x, fmt, gradient="clipped").sum().backward()
            assert x.grad.tolist() == inside, fmt

    def test_clipped_in_blocks_looks_at_the_range_of_the_block(self) -> None:
        fmt = Block("float4_e2m1fn", 4)
        x = torch.tensor([[7.0, -6.5, 6.0, 1.0], [3.5, -3.2, 3.0, 0.1], [700.0, 760.0, 769.0, 1.0]], requires_grad=True)
        lt.quantize(x, fmt, gradient="clipped").sum().backward()
        # scales 1, 1/2 and 128: the largest values are 6, 3 and 768
        assert x.grad.tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [1, 1, 0, 1]]

    def test_clipped_in_asymmetric_blocks(self) -> None:
        fmt = Block("uint4", 4, "float32", zero_point=True)
        x = torch.tensor([[0.0, 15.0, 7.2, 3.0], [-5.0, 10.0, 2.0, 3.0]], requires_grad=True)
        lt.quantize(x, fmt, gradient="clipped").sum().backward()
        assert x.grad.tolist() == [[1, 1, 1, 1], [1, 1, 1, 1]]

    def test_clipped_needs_a_range(self) -> None:
        x = torch.ones(2, 32, requires_grad=True)
        with pytest.raises(lowp.ArgumentError, match="gradient='clipped' is not defined for 'ggml_q4_0'"):
            lt.quantize(x, "ggml_q4_0", gradient="clipped")
        lt.quantize(torch.tensor([1.0, 300.0], requires_grad=True), "lns8_f3", gradient="clipped").sum().backward()

    def test_none_detaches(self) -> None:
        x = torch.ones(3, requires_grad=True)
        assert not lt.quantize(x, "fp8", gradient="none").requires_grad
        assert not lowp.encode(x, "fp8").codes.requires_grad

    def test_no_grad_gives_no_graph(self) -> None:
        x = torch.ones(3, requires_grad=True)
        with torch.no_grad():
            assert not lowp.quantize(x, "fp8").requires_grad
        assert not lowp.quantize(torch.ones(3), "fp8").requires_grad

    def test_gradients_flow_through_a_layer(self) -> None:
        layer = torch.nn.Linear(64, 8)
        x = torch.randn(5, 64, generator=torch.Generator().manual_seed(1), requires_grad=True)
        y = torch.nn.functional.linear(lt.quantize(x, "mxfp8"), lt.quantize(layer.weight, "mxfp4"), layer.bias)
        y.sum().backward()
        assert torch.allclose(x.grad, lt.quantize(layer.weight.detach(), "mxfp4").sum(0).expand(5, 64))
        assert torch.allclose(layer.weight.grad, lt.quantize(x.detach(), "mxfp8").sum(0).expand(8, 64))

    def test_non_contiguous_leaves_get_gradients(self) -> None:
        x = torch.randn(8, 32, generator=torch.Generator().manual_seed(2)).T.requires_grad_()
        (lt.quantize(x, "fp8") * 2).sum().backward()
        assert torch.equal(x.grad, torch.full((32, 8), 2.0))


class TestOut:
    @pytest.mark.parametrize("name", ["float8_e4m3fn", "e8m3", "nf4", "posit8", "mxfp4", "int4_g32"])
    @pytest.mark.parametrize("dtype", DTYPES)
    def test_out_takes_the_result(self, name: str, dtype: Any) -> None:
        x = tensor(dtype, (4, 64))
        wanted = lowp.quantize(x, name)
        wide = torch.zeros(4, 128, dtype=dtype)
        for out in (torch.empty_like(x), wide[:, ::2], torch.empty(64, 4, dtype=dtype).T, x):
            assert lowp.quantize(x, name, out=out) is out
            assert same(out, wanted)
            x = tensor(dtype, (4, 64))

    @pytest.mark.parametrize("name", ["fp8", "posit8"])
    @pytest.mark.parametrize("dtype", DTYPES)
    def test_out_that_overlaps_the_input_elsewhere(self, name: str, dtype: Any) -> None:
        area = torch.linspace(-300, 300, 500).to(dtype)
        wanted = lowp.quantize(area[:-1].clone(), name)
        before = area._version
        lowp.quantize(area[:-1], name, out=area[1:])
        assert area._version > before
        assert torch.equal(area[1:], wanted)

    def test_no_gradient_passes_through_out(self) -> None:
        x, out = torch.ones(3, requires_grad=True), torch.empty(3)
        assert not lowp.quantize(x, "fp8", out=out).requires_grad

    @pytest.mark.parametrize(
        "out", [torch.empty(4), torch.empty(3, dtype=torch.float64), [0, 0, 0], np.zeros(3, np.float32)]
    )
    def test_out_that_does_not_fit(self, out: Any) -> None:
        with pytest.raises(
            lowp.ArgumentError, match=r"out must be a tensor of shape \(3,\) and dtype torch.float32, not"
        ):
            lowp.quantize(torch.ones(3), "fp8", out=out)


class TestErrors:
    @pytest.mark.parametrize("verb", [lowp.quantize, lowp.encode, lt.quantize, lt.encode])
    def test_tensors_that_hold_no_plain_numbers(self, verb: Any) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compressed = torch.eye(3).to_sparse_csr()
        bad = {
            "torch.sparse_coo": torch.eye(3).to_sparse(),
            "torch.sparse_csr": compressed,
            "torch.bool": torch.ones(3, dtype=torch.bool),
            "torch.complex64": torch.ones(3, dtype=torch.complex64),
            "device meta": torch.ones(3, device="meta"),
        }
        for what, x in bad.items():
            with pytest.raises(
                lowp.ArgumentTypeError, match=rf"x is a .*{what}.*; allowed: dense tensors of floats or integers"
            ):
                verb(x, "fp8")

    @pytest.mark.parametrize("x", [[1.0], 1.0, np.ones(3), None])
    def test_things_that_are_no_tensors(self, x: Any) -> None:
        for verb in (lt.quantize, lt.encode):
            with pytest.raises(lowp.ArgumentTypeError, match=f"x must be a torch tensor, not {type(x).__name__}"):
                verb(x, "fp8")

    def test_gradient_rules(self) -> None:
        with pytest.raises(lowp.ArgumentError, match=r"gradient='cliped' is not known\. Did you mean 'clipped'\?"):
            lt.quantize(torch.ones(3), "fp8", gradient="cliped")

    @pytest.mark.parametrize(
        ("how", "kind", "message"),
        [
            ({"fmt": "fp9"}, lowp.FormatError, "format='fp9' is not known"),
            ({"fmt": "fp8", "rounding": "up"}, lowp.ArgumentError, "rounding='up' is not known"),
            ({"fmt": "fp8", "overflow": "wrap"}, lowp.ArgumentError, "is for integers and fixed point"),
            ({"fmt": "fp8", "saturation_bits": 2}, lowp.ArgumentError, "saturation_bits=2 goes with overflow"),
            ({"fmt": "fp8", "seed": -1}, lowp.ArgumentError, "seed=-1 must be an integer"),
            ({"fmt": "mxfp4", "axis": 4}, lowp.ArgumentError, "axis=4 does not exist in an array of 1 dimensions"),
            ({"fmt": "mxfp4", "axis": True}, lowp.ArgumentTypeError, "axis=True must be an integer"),
        ],
    )
    def test_messages_are_those_of_numpy(self, how: dict[str, Any], kind: Any, message: str) -> None:
        for x in (torch.ones(64), np.ones(64, np.float32)):
            with pytest.raises(kind, match=re.escape(message)):
                lowp.quantize(x, **how)

    def test_values_that_the_dtype_cannot_hold(self) -> None:
        x = torch.tensor([math.inf], dtype=torch.float16)
        for verb in (lambda: lowp.quantize(x, "float32"), lambda: lowp.decode(lowp.encode(x, "float32"))):
            with pytest.raises(lowp.RangeError, match=r"a value of 'float32' does not fit dtype torch\.float16"):
                verb()
        with pytest.raises(lowp.RangeError, match=r"does not fit dtype torch\.float16"):
            lowp.decode(torch.tensor([254]), "e8m0", dtype=torch.float16)

    def test_nan_where_there_is_none(self) -> None:
        x = torch.tensor([1.0, math.nan])
        with pytest.raises(lowp.RangeError, match="x holds NaN, and 'int8' has no code for it"):
            lowp.encode(x, "int8")
        with pytest.raises(lowp.RangeError, match="x holds NaN"):
            lt.quantize(x, "int8", nan="error")

    @pytest.mark.parametrize("dtype", [np.float32, "float32", torch.int32, torch.complex64])
    def test_dtypes_of_decode(self, dtype: Any) -> None:
        for codes, fmt in (
            (torch.tensor([1]), "int8"),
            (lowp.encode(torch.ones(4), "int8"), None),
            (lowp.encode(torch.ones(4), "mxfp4"), None),
        ):
            with pytest.raises(
                lowp.ArgumentTypeError, match=re.escape(f"dtype={dtype!r} is not allowed: a floating-point torch.dtype")
            ):
                lowp.decode(codes, fmt, dtype=dtype)


@pytest.mark.parametrize("verb", ["encode", "quantize"])
def test_every_bfloat16_code_survives_lossless_coding(verb: str) -> None:
    """Payloads and signs of NaN too, which a cast from float32 drops."""
    codes = np.arange(65536, dtype=np.uint16).view(np.int16)
    x = torch.from_numpy(codes).view(torch.bfloat16)
    y = lowp.quantize(x, "dfloat11") if verb == "quantize" else lowp.decode(lowp.encode(x, "dfloat11"))
    assert y.dtype == torch.bfloat16
    assert np.array_equal(y.view(torch.int16).numpy(), codes)
