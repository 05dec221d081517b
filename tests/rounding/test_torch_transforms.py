"""Tensors under autograd, `torch.func`, autocast and memory formats; learned scales."""

import math
from typing import Any

import pytest

import lowp

torch = pytest.importorskip("torch")

import lowp.torch as lt  # noqa: E402  (only where torch is)

FORMATS = ["float8_e4m3fn", "mxfp4", "nvfp4", "int8_tensor", "nf4", "ggml_q4_0", "int4_g32"]
#: torch loads its own deprecated compiler when forward-mode differentiation is first used.
FORWARD_MODE = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")


def numbers(*shape: int, scale: float = 1.0) -> Any:
    return torch.randn(shape, generator=torch.Generator().manual_seed(3)) * scale


@pytest.fixture
def squared() -> str:
    """A user's rule: the gradient times the square of the input."""
    lt.register_gradient("test_squared", lambda x, y, g: g * x * x)
    return "test_squared"


class TestVmap:
    @pytest.mark.parametrize("fmt", FORMATS)
    @pytest.mark.parametrize("dim", [0, 1])
    def test_each_example_is_rounded_as_it_would_be_alone(self, fmt: str, dim: int) -> None:
        x = numbers(3, 64) * torch.tensor([[1.0], [100.0], [0.01]])
        batch = x if dim == 0 else x.T.contiguous()
        got = torch.func.vmap(lambda v: lt.quantize(v, fmt), in_dims=dim)(batch)
        assert torch.equal(got, torch.stack([lt.quantize(row, fmt) for row in x]))

    @pytest.mark.parametrize("fmt", ["float8_e4m3fn", "mxfp4", "nvfp4", "nf4"])
    def test_random_bits_follow_positions_in_the_example(self, fmt: str) -> None:
        x = numbers(64).expand(4, 64)
        got = torch.func.vmap(lambda v: lt.quantize(v, fmt, "stochastic_a", seed=9))(x)
        assert torch.equal(got, lt.quantize(x[0], fmt, "stochastic_a", seed=9).expand(4, 64))

    @pytest.mark.parametrize("axis", [0, 1, -1, -2])
    def test_axes_are_those_of_the_example(self, axis: int) -> None:
        x = numbers(3, 32, 64)
        got = torch.func.vmap(lambda v: lt.quantize(v, "mxfp4", axis=axis))(x)
        assert torch.equal(got, torch.stack([lt.quantize(v, "mxfp4", axis=axis) for v in x]))
        nested = torch.func.vmap(torch.func.vmap(lambda v: lt.quantize(v, "mxfp4")))(x)
        assert torch.equal(nested, lt.quantize(x, "mxfp4"))

    def test_tiles_and_errors(self) -> None:
        x = numbers(2, 32, 32)
        tile = lowp.Block("float8_e4m3fn", (16, 16), "float32")
        for axis in (-1, (0, 1), (1, 0), (-2, -1)):
            got = torch.func.vmap(lambda v, axis=axis: lt.quantize(v, tile, axis=axis))(x)
            assert torch.equal(got, torch.stack([lt.quantize(v, tile, axis=axis) for v in x]))
        with pytest.raises(lowp.ArgumentError, match="a single number"):
            torch.func.vmap(lambda v: lt.quantize(v, "mxfp4"))(numbers(8))
        with pytest.raises(lowp.ArgumentError, match="axis=1 does not exist in an array of 1 dimensions"):
            torch.func.vmap(lambda v: lt.quantize(v, "mxfp4", axis=1))(numbers(8, 32))

    def test_encode_and_decode(self) -> None:
        x = numbers(3, 64)
        codes = torch.func.vmap(lambda v: lt.encode(v, "mxfp4").codes)(x)
        assert torch.equal(codes, torch.stack([lt.encode(v, "mxfp4").codes for v in x]))
        values = torch.func.vmap(lambda v: lt.decode(lt.encode(v, "nvfp4")))(x)
        assert torch.equal(values, torch.stack([lt.quantize(v, "nvfp4") for v in x]))


class TestDerivatives:
    @pytest.mark.parametrize("fmt", FORMATS)
    def test_straight_through_in_every_transform(self, fmt: str) -> None:
        x, two = numbers(3, 64), torch.full((3, 64), 2.0)

        def total(v: Any) -> Any:
            return (lt.quantize(v, fmt) * 2).sum()

        assert torch.equal(torch.func.grad(total)(x), two)
        assert torch.equal(torch.func.vmap(torch.func.grad(total))(x), two)
        assert torch.equal(torch.func.grad(lambda v: torch.func.vmap(total)(v).sum())(x), two)
        assert torch.equal(torch.func.jacrev(lambda v: lt.quantize(v, fmt))(x[0]), torch.eye(64))

    @FORWARD_MODE
    @pytest.mark.parametrize("fmt", FORMATS)
    def test_tangents_pass_as_gradients_do(self, fmt: str) -> None:
        x, t = numbers(3, 64), numbers(3, 64, scale=5)
        value, tangent = torch.func.jvp(lambda v: lt.quantize(v, fmt), (x,), (t,))
        assert torch.equal(value, lt.quantize(x, fmt))
        assert torch.equal(tangent, t)
        assert torch.equal(torch.func.jacfwd(lambda v: lt.quantize(v, fmt))(x[0]), torch.eye(64))
        with torch.autograd.forward_ad.dual_level():
            dual = torch.autograd.forward_ad.make_dual(x, t)
            assert torch.equal(torch.autograd.forward_ad.unpack_dual(lt.quantize(dual, fmt)).tangent, t)

    @FORWARD_MODE
    def test_second_derivatives_of_straight_through(self) -> None:
        x = numbers(8)
        wanted = 2 * torch.eye(8)
        assert torch.equal(torch.func.hessian(lambda v: lt.quantize(v, "fp8").pow(2).sum())(x), wanted)
        leaf = x.clone().requires_grad_()
        (first,) = torch.autograd.grad(lt.quantize(leaf, "fp8").pow(2).sum(), leaf, create_graph=True)
        (second,) = torch.autograd.grad(first.sum(), leaf)
        assert torch.equal(second, torch.full((8,), 2.0))
        assert torch.equal(first, 2 * lt.quantize(x, "fp8"))

    @FORWARD_MODE
    @pytest.mark.parametrize("gradient", ["clipped", "learned_scale"])
    def test_clipped_gradients_and_tangents(self, gradient: str) -> None:
        x, t = numbers(2, 64, scale=300), numbers(2, 64)
        wanted = torch.where(x.abs() <= 448, t, 0)
        assert 0 < (x.abs() > 448).sum() < x.numel()

        def rounded(v: Any) -> Any:
            return lt.quantize(v, "fp8", gradient=gradient)

        assert torch.equal(torch.func.jvp(rounded, (x,), (t,))[1], wanted)
        assert torch.equal(torch.func.vmap(torch.func.vjp(rounded, x)[1])(t[None])[0][0], wanted)
        leaf = x.clone().requires_grad_()
        rounded(leaf).backward(t)
        assert torch.equal(leaf.grad, wanted)
        blocks = torch.func.vmap(torch.func.grad(lambda v: lt.quantize(v, "mxfp4", gradient=gradient).sum()))(x)
        leaf = x.clone().requires_grad_()
        lt.quantize(leaf, "mxfp4", gradient=gradient).sum().backward()
        assert torch.equal(blocks, leaf.grad)
        assert 0 < leaf.grad.sum() < x.numel()

    @FORWARD_MODE
    def test_a_rule_of_ones_own(self, squared: str) -> None:
        x = numbers(3, 32)
        leaf = x.clone().requires_grad_()
        lt.quantize(leaf, "mxfp4", gradient=squared).sum().backward()
        assert torch.equal(leaf.grad, x * x)
        per_example = torch.func.vmap(torch.func.grad(lambda v: lt.quantize(v, "fp8", gradient=squared).sum()))
        assert torch.equal(per_example(x), x * x)
        assert torch.equal(torch.func.jvp(lambda v: lt.quantize(v, "fp8", gradient=squared), (x,), (x,))[1], x**3)

    def test_none_gives_no_gradient_anywhere(self) -> None:
        x = numbers(4)
        assert torch.equal(
            torch.func.grad(lambda v: (v + lt.quantize(v, "fp8", gradient="none")).sum())(x), torch.ones(4)
        )

    def test_gradients_survive_integers_and_complex_views(self) -> None:
        assert lt.quantize(torch.arange(4), "fp8", gradient="clipped").dtype == torch.float64
        z = torch.tensor([1 + 500j], requires_grad=True)
        lt.quantize(z.conj().imag, "fp8", gradient="clipped").sum().backward()
        assert z.grad.imag.tolist() == [0.0]


class TestMemory:
    def test_results_are_contiguous_in_every_memory_format(self) -> None:
        x = numbers(2, 8, 4, 4).to(memory_format=torch.channels_last)
        for fmt in ("fp8", "mxfp4", "nf4"):
            y = lt.quantize(x, fmt, "stochastic_b", axis=1)
            assert y.is_contiguous()
            assert torch.equal(y, lt.quantize(x.contiguous(), fmt, "stochastic_b", axis=1))

    def test_writing_into_a_tensor_that_backward_needs_is_noticed(self) -> None:
        x = numbers(8).requires_grad_()
        hidden = x * 1.0
        y = hidden.pow(2).sum()
        lt.quantize(hidden.detach(), "fp8", out=hidden.detach())
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.backward()

    def test_a_leaf_may_take_the_result(self) -> None:
        weight = torch.nn.Parameter(numbers(4, 32))
        wanted = lt.quantize(weight.detach(), "mxfp4")
        assert lt.quantize(weight, "mxfp4", out=weight) is weight
        assert torch.equal(weight, wanted)
        assert weight.grad_fn is None

    def test_out_on_another_device(self) -> None:
        with pytest.raises(lowp.ArgumentError, match="out is on device meta, x on cpu; both must be on one device"):
            lt.quantize(numbers(3), "fp8", out=torch.empty(3, device="meta"))

    def test_storages_stay_resizable(self) -> None:
        """`Tensor.numpy` would forbid it, and FSDP frees its parameters so."""
        for x in (numbers(64), numbers(64).double()):
            lt.quantize(x, "fp8")
            lt.encode(x, "mxfp4")
            lt.quantize(x, "fp8", out=x)
            x.untyped_storage().resize_(0)

    def test_nothing_aliases_the_input(self) -> None:
        for fmt, shape in (("ggml_q4_0", (3, 0)), ("dfloat11", (64,)), ("float32", (64,)), ("mxfp4", (0, 32))):
            x = numbers(*shape)
            if fmt == "dfloat11":
                x = x.bfloat16()
            y = lt.quantize(x, fmt)
            assert x.numel() == 0 or y.data_ptr() != x.data_ptr()
            codes = lt.encode(x, fmt).codes
            assert codes.numel() == 0 or codes.data_ptr() != x.data_ptr()

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_short_block_results_are_rounded_once(self, dtype: Any) -> None:
        """Blocks whose values fill the dtype's subnormal range, and beyond."""
        for power in (-133, -126, -24, -14, 0, 10):
            x = (numbers(16, 64) * 2.0**power).to(dtype)
            for fmt in ("mxfp4", "mxfp8_e5m2", "mxint8"):
                got, wide = lt.quantize(x, fmt), lt.quantize(x.double(), fmt)
                assert torch.equal(got, wide.to(dtype))


class TestAutocast:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_results_keep_the_dtype_of_the_input(self, dtype: Any) -> None:
        x = numbers(4, 32).to(dtype)
        wanted = lt.quantize(x, "mxfp4")
        with torch.autocast("cpu", dtype=torch.bfloat16):
            got = lt.quantize(x, "mxfp4")
            by_operator = torch.func.vmap(lambda v: lt.quantize(v, "mxfp4"))(x)
        assert got.dtype == by_operator.dtype == dtype
        assert torch.equal(got, wanted)
        assert torch.equal(by_operator, wanted)

    def test_layers_take_rounded_operands(self) -> None:
        layer = torch.nn.Linear(32, 8)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = torch.nn.functional.linear(lt.quantize(numbers(4, 32), "fp8"), lt.quantize(layer.weight, "mxfp4"))
        y.sum().backward()
        assert y.dtype == torch.bfloat16
        assert layer.weight.grad.dtype == torch.float32


class TestShards:
    @pytest.mark.parametrize("fmt", ["fp8", "nf4", "posit16", "mxfp4", "int4_g32"])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_random_bits_follow_the_whole(self, fmt: str, dtype: Any) -> None:
        whole = numbers(4, 6, 64).to(dtype)
        wanted = lt.quantize(whole, fmt, "stochastic_b", seed=4)
        for index in (
            (slice(1, 3),),
            (slice(None), slice(2, 5)),
            (slice(0, 4), slice(1, 2), slice(32, 64)),
            (slice(0, 0),),
        ):
            offset = tuple(s.start or 0 for s in index) + (0,) * (3 - len(index))
            got = lt.quantize(whole[index], fmt, "stochastic_b", seed=4, shard=lt.Shard(offset, (4, 6, 64)))
            assert torch.equal(got, wanted[index]), index

    def test_a_piece_that_does_not_fit(self) -> None:
        with pytest.raises(lowp.ArgumentError, match="does not hold an array of shape"):
            lt.quantize(numbers(4), "fp8", shard=lt.Shard((5,), (8,)))
        with pytest.raises(lowp.ArgumentTypeError, match=r"shard=\(0,\) must be a lowp.torch.Shard"):
            lt.quantize(numbers(4), "fp8", shard=(0,))


class TestLearnedScale:
    def by_the_paper(self, x: Any, scale: float, low: float, high: float) -> tuple[Any, Any, float]:
        v = x.double() / scale
        q = lt.quantize(v, "int4")
        inside = (v > low) & (v < high)
        slope = torch.where(inside, q - v, torch.where(v <= low, low, high))
        return q * scale, inside, float(slope.sum()) / math.sqrt(x.numel() * high)

    def test_values_and_gradients_are_those_of_the_paper(self) -> None:
        x = numbers(64, scale=3).requires_grad_()
        scale = torch.tensor(0.5, requires_grad=True)
        y = lt.lsq_quantize(x, scale, "int4")
        values, inside, slope = self.by_the_paper(x.detach(), 0.5, -8, 7)
        y.backward(torch.ones(64))
        assert torch.equal(y.double(), values)
        assert torch.equal(x.grad, inside.float())
        assert 0 < inside.sum() < 64
        assert scale.grad.item() == pytest.approx(slope, rel=1e-5)

    def test_zeros_keep_their_signs_and_bits_do_not_move(self) -> None:
        x = torch.tensor([-0.01, 0.01, -0.0, 0.0, 7e9, math.inf, -math.inf])
        y = lt.lsq_quantize(x, 0.5, "float4_e2m1fn")
        assert torch.signbit(y).tolist() == [True, False, True, False, False, False, True]
        assert y.tolist() == [-0.0, 0.0, -0.0, 0.0, 3.0, 3.0, -3.0]

    def test_one_scale_for_each_channel(self) -> None:
        x = numbers(4, 16)
        scale = lt.lsq_scale(x, "int4", axis=0).requires_grad_()
        assert scale.shape == (4, 1)
        lt.lsq_quantize(x, scale, "int4").sum().backward()
        for row in range(4):
            one = scale.detach()[row].clone().requires_grad_()
            lt.lsq_quantize(x[row], one, "int4").sum().backward()
            assert torch.equal(scale.grad[row], one.grad)

    @FORWARD_MODE
    def test_transforms(self) -> None:
        x, s = numbers(3, 16), torch.tensor(0.3)

        def total(v: Any, scale: Any) -> Any:
            return lt.lsq_quantize(v, scale, "int4").sum()

        each = torch.func.vmap(torch.func.grad(total, argnums=(0, 1)), in_dims=(0, None))(x, s)
        for row in range(3):
            assert torch.equal(each[0][row], torch.func.grad(total)(x[row], s))
            assert torch.allclose(each[1][row], torch.func.grad(total, argnums=1)(x[row], s))

    def test_the_module_learns(self) -> None:
        x = numbers(256)
        module = lt.LearnedScale("int4", lt.lsq_scale(x, "int4") / 16)
        optimizer = torch.optim.SGD(module.parameters(), lr=1.0)
        before = (module(x) - x).pow(2).mean().item()
        for _ in range(60):
            optimizer.zero_grad()
            (module(x) - x).pow(2).mean().backward()
            optimizer.step()
        assert (module(x) - x).pow(2).mean().item() < before / 2
        assert "int4" in repr(module)

    @pytest.mark.parametrize(
        ("x", "scale", "fmt", "options", "kind", "message"),
        [
            (torch.ones(3), 0.0, "int4", {}, lowp.ArgumentError, "scale=0.0 must be positive"),
            (
                torch.ones(3),
                torch.ones(2),
                "int4",
                {},
                lowp.ArgumentError,
                r"scale has shape \(2,\), which does not broa",
            ),
            (torch.ones(3), torch.ones(1, 3), "int4", {}, lowp.ArgumentError, "which does not broadcast"),
            (torch.ones(3, dtype=torch.int32), 1.0, "int4", {}, lowp.ArgumentTypeError, "x is a tensor of torch.int32"),
            ([1.0], 1.0, "int4", {}, lowp.ArgumentTypeError, "x is list; allowed: tensors of floats"),
            (torch.ones(3), 1.0, "mxfp4", {}, lowp.FormatError, "lsq_quantize needs a scalar format"),
            (torch.ones(3), 1.0, "int4", {"out": 1}, lowp.ArgumentTypeError, "lsq_quantize takes no out"),
            (
                torch.ones(3),
                torch.ones(1, device="meta"),
                "int4",
                {},
                lowp.ArgumentError,
                "scale is on device meta",
            ),
        ],
    )
    def test_bad_input(self, x: Any, scale: Any, fmt: str, options: dict[str, Any], kind: Any, message: str) -> None:
        with pytest.raises(kind, match=message):
            lt.lsq_quantize(x, scale, fmt, **options)
