"""Tensors under torch.compile: one graph, the bits of eager mode; and operators that pass torch's own checks."""

import contextlib
import itertools
from typing import Any

import pytest

import lowp

torch = pytest.importorskip("torch")

import lowp.torch as lt  # noqa: E402  (only where torch is)
from lowp.formats.packed import Packed  # noqa: E402
from lowp.rounding import _torch_codes, _torch_plain  # noqa: E402
from lowp.rounding._format_keys import format_of, key_of  # noqa: E402
from lowp.rounding._torch_calls import Call, flat, how, unflat  # noqa: E402
from lowp.rounding._torch_plain import portable_on_cpu  # noqa: E402
from tests.covering import slow, usual  # noqa: E402
from tests.rounding.test_portable_packed import FORMATS as PACKED  # noqa: E402
from tests.rounding.test_portable_packed import KINDS, modes  # noqa: E402
from tests.rounding.test_torch import input_of, same  # noqa: E402

#: torch loads its own deprecated compiler when forward-mode differentiation, or inductor, is first used.
OLD_COMPILER = pytest.mark.filterwarnings("ignore:.torch.jit.script.* is deprecated:DeprecationWarning")
ANONYMOUS = [
    lowp.Codebook([0.0, 1.5, -4.0]),
    lowp.Codebook([0.0, 1.0], label="fp8"),
    lowp.Block(lowp.Codebook([0.0, 1.0, -1.0]), 8, "float16"),
    lowp.Float(5, 3, bias=4, specials="fnuz"),
]
#: Every format in float32, and in bfloat16 every fourth.
UNPACKED = [name for name in lowp.formats.names() if not isinstance(lowp.parse(name), Packed)]
CASES = [
    *((name, torch.float32) for name in UNPACKED),
    *(pytest.param(name, torch.bfloat16, marks=pytest.mark.slow if i % 4 else ()) for i, name in enumerate(UNPACKED)),
]


def numbers(*shape: int, scale: float = 1.0) -> Any:
    return torch.randn(shape, generator=torch.Generator().manual_seed(3)) * scale


def compiled(function: Any, backend: str = "aot_eager", **options: Any) -> Any:
    torch._dynamo.reset()
    return torch.compile(function, backend=backend, fullgraph=True, **options)


def call(fmt: str, rounding: str = "ties_to_even", nan: str = "keep", axis: Any = -1) -> tuple[Any, ...]:
    return flat(Call(lowp.parse(fmt), how(rounding, "saturate", 3, None, 0, nan, (nan,)), axis, None, 3))


class TestKeys:
    @pytest.mark.parametrize("fmt", [*lowp.formats.names(), *ANONYMOUS], ids=str)
    def test_every_format_comes_back(self, fmt: Any) -> None:
        fmt = lowp.parse(fmt)
        assert format_of(key_of(fmt)) == fmt

    def test_keys_tell_formats_apart_and_depend_on_nothing_else(self) -> None:
        assert len({key_of(fmt) for fmt in (*ANONYMOUS, lowp.parse("fp8"))}) == len(ANONYMOUS) + 1
        assert key_of(lowp.Codebook([3.0, 7.0])) == key_of(lowp.Codebook([3.0, 7.0]))

    def test_a_key_of_another_process(self) -> None:
        with pytest.raises(lowp.FormatError, match="is not known in this process: make the format first"):
            format_of("codebook2_00000000@0123456789abcdef01234567")

    @pytest.mark.parametrize("seed", [0, 5, 2**63 - 1, 2**63, 2**64 - 1])
    def test_calls_survive_the_way_through_an_operator(self, seed: int) -> None:
        request = how("stochastic_b", "wrap", seed, 7, 2, "max", ("max",))
        before = Call(lowp.parse("int4"), request, (0, -1), lt.Shard((1, 2), (8, 9)), seed)
        assert unflat(*flat(before)) == before


class TestOperators:
    """`torch.library.opcheck`: schema, autograd registration, fake tensors, and AOT dispatch of both passes."""

    @pytest.mark.parametrize(
        ("fmt", "gradient", "dtype"),
        [
            pytest.param(*case, marks=() if case[2] == torch.float32 or case[0] == "nvfp4" else pytest.mark.slow)
            for case in itertools.product(
                ["float8_e4m3fn", "mxfp4", "nvfp4", "int8_tensor", "ggml_q4_0"],
                ["none", "straight_through", "clipped"],
                [torch.float32, torch.bfloat16, torch.float64],
            )
        ],
    )
    def test_quantize(self, fmt: str, gradient: str, dtype: Any) -> None:
        if gradient == "clipped" and isinstance(lowp.parse(fmt), Packed):
            pytest.skip("such blocks have no range")
        rounding = "ties_to_even" if fmt.startswith("ggml") else "stochastic_b"
        x = numbers(4, 64).to(dtype).requires_grad_(gradient != "none")
        torch.library.opcheck(torch.ops.lowp.quantize, (x, *call(fmt, rounding), gradient, None))

    def test_quantize_of_other_inputs(self) -> None:
        x = numbers(64, 4).T.requires_grad_()
        torch.library.opcheck(torch.ops.lowp.quantize, (x, *call("mxfp4", axis=0), "straight_through", None))
        integers = torch.arange(64, dtype=torch.int32)
        torch.library.opcheck(torch.ops.lowp.quantize, (integers, *call("float8_e4m3fn"), "none", None))
        for shape in ((), (0,), (3, 0)):
            empty = torch.zeros(shape, requires_grad=True)
            torch.library.opcheck(torch.ops.lowp.quantize, (empty, *call("float8_e4m3fn"), "clipped", None))
        amax = torch.tensor(9.0, dtype=torch.float64)
        torch.library.opcheck(torch.ops.lowp.quantize, (numbers(4, 64), *call("nvfp4"), "none", amax))

    @pytest.mark.parametrize(
        "fmt", ["float8_e4m3fn", "float16", "float32", "mxfp4", "nvfp4", "int4_g32_asym", "ggml_q4_k", "bnb_nf4"]
    )
    def test_encode_and_decode(self, fmt: str) -> None:
        x = numbers(4, 256)
        how = (*call(fmt, nan="error")[:-3], "")
        torch.library.opcheck(torch.ops.lowp.encode, (x, *how))
        parts = torch.ops.lowp.encode(x, *how)
        torch.library.opcheck(torch.ops.lowp.decode, (parts, fmt, [-1], [4, 256], torch.float32))

    def test_the_others(self) -> None:
        torch.library.opcheck(torch.ops.lowp.in_range, (numbers(4, 64), "mxfp4", [-1]))
        torch.library.opcheck(torch.ops.lowp.tensor_amax, (numbers(4, 64), "nvfp4", [-1]))

    @pytest.mark.parametrize("name", lowp.formats.names())
    def test_shapes_and_dtypes_of_codes_are_known_beforehand(self, name: str) -> None:
        x = input_of(name, torch.float32)
        how = (*call(name, nan="error")[:-3], "")
        real = torch.ops.lowp.encode(x, *how)
        with torch._subclasses.FakeTensorMode() as mode:
            fake = torch.ops.lowp.encode(mode.from_tensor(x), *how)
        assert [(p.shape, p.dtype) for p in fake] == [(p.shape, p.dtype) for p in real]


class TestCompiled:
    @pytest.mark.parametrize("fmt", ["fp8", "mxfp4", "nvfp4", "posit16", "ggml_q4_0", *ANONYMOUS], ids=str)
    def test_formats(self, fmt: Any) -> None:
        packed = isinstance(lowp.parse(fmt), Packed)

        def f(v: Any) -> Any:
            return lt.quantize(v * 2, fmt, "ties_to_even" if packed else "stochastic_b", seed=5) + 1

        x = numbers(4, 64)
        assert torch.equal(compiled(f)(x), f(x))

    def test_one_function_for_many_formats_and_lowp_quantize(self) -> None:
        f, x = compiled(lowp.quantize), numbers(4, 64)
        for fmt in ("fp8", "mxfp4", lowp.parse("nvfp4"), *ANONYMOUS, "int4", "fp8"):
            assert torch.equal(f(x, fmt), lowp.quantize(x, fmt))

    def test_seeds_are_arguments_of_the_graph(self) -> None:
        counter = torch._dynamo.testing.CompileCounter()
        torch._dynamo.reset()
        f = torch.compile(
            lambda v, seed: lt.quantize(v, "fp8", "stochastic_a", seed=seed), backend=counter, fullgraph=True
        )
        x = numbers(8, 8)
        for seed in (2, 3, 77, 2**40, 2**63 + 5, 2**64 - 1):
            assert torch.equal(f(x, seed), lt.quantize(x, "fp8", "stochastic_a", seed=seed))
        assert counter.frame_count <= 3

    def test_dynamic_shapes(self) -> None:
        f = compiled(lambda v: lt.quantize(v, "mxfp4"), dynamic=True)
        for shape in ((4, 64), (7, 96), (9, 33)):
            assert torch.equal(f(numbers(*shape)), lt.quantize(numbers(*shape), "mxfp4"))

    @pytest.mark.parametrize("gradient", ["straight_through", "clipped", "test_halved"])
    def test_gradients(self, gradient: str) -> None:
        lt.register_gradient("test_halved", lambda x, y, g: g / 2 + (y - x))

        def f(v: Any) -> Any:
            return lt.quantize(v, "fp8", gradient=gradient).pow(2).sum()

        x = numbers(4, 64, scale=300)
        leaves = [x.clone().requires_grad_() for _ in range(2)]
        for function, leaf in zip((compiled(f), f), leaves, strict=True):
            function(leaf).backward()
        assert torch.equal(leaves[0].grad, leaves[1].grad)

    @OLD_COMPILER
    def test_transforms_inside_graphs(self) -> None:
        x = numbers(4, 64)
        programs = {
            "grad": torch.func.grad(lambda v: lt.quantize(v, "fp8").pow(2).sum()),
            "vmap": torch.func.vmap(lambda v: lt.quantize(v, "mxfp4", "stochastic_a", seed=1)),
            "both": torch.func.vmap(torch.func.grad(lambda v: lt.quantize(v, "nvfp4").pow(2).sum())),
            "jvp": lambda v: torch.func.jvp(lambda w: lt.quantize(w, "fp8"), (v,), (v * 3,))[1],
        }
        for name, program in programs.items():
            assert torch.equal(compiled(program)(x), program(x)), name

    def test_encode_decode_out_and_shards(self) -> None:
        x = numbers(4, 64)
        for fmt in ("fp8", "mxfp4", "nvfp4", "int4_g32_asym", "ggml_q4_0"):
            both = compiled(lambda v, fmt=fmt: lt.decode(lt.encode(v, fmt)))(x)
            assert torch.equal(both, lt.decode(lt.encode(x, fmt)))
            got, wanted = compiled(lambda v, fmt=fmt: lt.encode(v, fmt))(x), lt.encode(x, fmt)
            assert got.pack().tolist() == wanted.pack().tolist()
            assert torch.equal(compiled(lt.decode)(wanted), lt.decode(wanted))
        codes = lt.encode(x, "fp8").codes
        decoded = compiled(lambda c: lowp.decode(c, "fp8", dtype=torch.float16))(codes)
        assert torch.equal(decoded, lowp.decode(codes, "fp8", dtype=torch.float16))
        out = torch.empty_like(x)
        compiled(lambda v, o: lt.quantize(v, "fp8", out=o))(x, out)
        assert torch.equal(out, lt.quantize(x, "fp8"))
        whole = lt.quantize(torch.cat([x, x]), "fp8", "stochastic_a", seed=1)
        piece = compiled(lambda v: lt.quantize(v, "fp8", "stochastic_a", seed=1, shard=lt.Shard((4, 0), (8, 64))))(x)
        assert torch.equal(piece, whole[4:])

    def test_learned_scales(self) -> None:
        x = numbers(4, 64, scale=3)

        def gradients(function: Any) -> list[Any]:
            leaves = [x.clone().requires_grad_(), torch.tensor(0.5, requires_grad=True)]
            y = function(*leaves)
            y.sum().backward()
            return [y.detach(), *(leaf.grad for leaf in leaves)]

        def f(v: Any, scale: Any) -> Any:
            return lt.lsq_quantize(v, scale, "int4")

        for got, wanted in zip(gradients(compiled(f)), gradients(f), strict=True):
            assert torch.allclose(got, wanted)

    @pytest.mark.parametrize(
        ("how", "message"),
        [
            ({"fmt": "fp9"}, "format='fp9' is not known"),
            ({"fmt": "fp8", "rounding": "up"}, "rounding='up' is not known"),
            ({"fmt": "fp8", "seed": -1}, "seed must be an integer from 0 to 2"),
            ({"fmt": "mxfp4", "axis": 4}, "axis=4 does not exist"),
            ({"fmt": "fp8", "gradient": "cliped"}, "gradient='cliped' is not known"),
            ({"fmt": "ggml_q4_0", "gradient": "clipped"}, "gradient='clipped' is not defined"),
        ],
    )
    def test_errors_come_while_tracing(self, how: dict[str, Any], message: str) -> None:
        with pytest.raises(Exception, match=message):
            compiled(lambda v: lt.quantize(v, **how))(numbers(64))


@OLD_COMPILER
class TestInductor:
    """The default compiler: it leaves the operator whole on the CPU, and takes it apart elsewhere."""

    def test_casts_that_it_folds_away_do_not_matter(self) -> None:
        """It takes `x.to(bfloat16).to(float32)` for `x`."""
        x = numbers(64)

        def chain(v: Any) -> Any:
            short = lt.quantize(v * 3, "bfloat16")
            return lt.quantize(short.to(torch.bfloat16), "fp8").float(), lt.quantize(short + 1, "mxfp4")

        for got, wanted in zip(compiled(chain, "inductor")(x), chain(x), strict=True):
            assert torch.equal(got, wanted)

    @pytest.mark.parametrize(("rounding", "dtype"), [("ties_to_even", torch.bfloat16), ("stochastic_b", torch.float32)])
    def test_the_operations_that_other_devices_run(self, rounding: str, dtype: Any) -> None:
        """Random bits in float32 only: for bfloat16 the C++ that inductor writes overflows signed integers."""
        x = numbers(8, 64, scale=30)

        def f(v: Any) -> Any:
            return lt.quantize((v * 3).to(dtype), "fp8", rounding, seed=5).float() + 1

        with portable_on_cpu():
            got, code = torch._inductor.utils.run_and_get_code(compiled(f, "inductor"), x)
        assert "lowp.quantize" not in "".join(code)  # it is fused with the product and the sum
        assert torch.equal(got, f(x))
        whole, code = torch._inductor.utils.run_and_get_code(compiled(f, "inductor"), x)
        assert "lowp.quantize" in "".join(code)
        assert torch.equal(whole, got)

    @pytest.mark.parametrize(
        ("name", "rounding"),
        [("ggml_q4_k", "ties_to_even"), ("takum32_log", "ties_to_even"), ("lns8_f3", "stochastic_b")],
    )
    def test_long_code_stays_one_operation(self, name: str, rounding: str) -> None:
        x = numbers(2, 64)

        def f(v: Any) -> Any:
            return lt.quantize(v * 3, name, rounding, seed=5) + 1

        with portable_on_cpu():
            got, code = torch._inductor.utils.run_and_get_code(compiled(f, "inductor"), x)
        assert "lowp.quantize" in "".join(code)
        assert torch.equal(got, f(x))


class TestPortable:
    """What runs on other devices, on this one."""

    @pytest.mark.parametrize(("name", "dtype"), CASES)
    def test_same_bits(self, name: str, dtype: Any) -> None:
        x = input_of(name, dtype)
        for rounding in ("ties_to_even", "stochastic_b"):
            wanted, codes = lt.quantize(x, name, rounding, seed=3), lt.encode(x, name, rounding, seed=3)
            with portable_on_cpu():
                assert same(lt.quantize(x, name, rounding, seed=3), wanted)
                found = lt.encode(x, name, rounding, seed=3)
                assert torch.equal(found.codes, codes.codes)
                assert found.pack().tolist() == codes.pack().tolist()
                assert same(lt.decode(found), wanted)

    @pytest.mark.parametrize("name", [(usual if name in KINDS else slow)(name) for name in PACKED])
    def test_packed_formats(self, name: str) -> None:
        x = numbers(8, 160, scale=30).to(torch.bfloat16 if name == "dfloat11" else torch.float32)
        for rounding in modes(PACKED[name])[:2]:
            wanted, codes = lt.quantize(x, name, rounding, seed=3), lt.encode(x, name, rounding, seed=3)
            with portable_on_cpu():
                assert same(lt.quantize(x, name, rounding, seed=3), wanted)
                found = lt.encode(x, name, rounding, seed=3)
                assert found.pack().tolist() == codes.pack().tolist()
                assert same(lt.decode(found), lt.decode(codes))

    def test_it_is_what_runs(self, monkeypatch: pytest.MonkeyPatch) -> None:
        x, formats = numbers(2, 64), ("takum32_log", "ggml_q4_k", "hif4")
        wanted = [lt.quantize(x, name) for name in formats]
        codes = [lt.encode(x, name) for name in formats]
        monkeypatch.setattr(_torch_plain, "quantize_on_cpu", None)
        monkeypatch.setattr(_torch_codes, "numbers", None)
        with portable_on_cpu():
            assert lt.quantize(torch.tensor([464.0, -0.1]), "fp8").tolist() == [448.0, -0.1015625]
            for name, values, encoded in zip(formats, wanted, codes, strict=True):
                assert same(lt.quantize(x, name), values)
                assert torch.equal(lt.encode(x, name).codes, encoded.codes)
                assert same(lt.decode(encoded), values)
                assert lt.quantize(x.to(torch.float8_e5m2), name).dtype == torch.float8_e5m2

    def test_packed_formats_refuse_what_they_refuse_on_the_cpu(self) -> None:
        x = numbers(2, 64)
        x[0, 0] = float("nan")
        for place in (contextlib.nullcontext, portable_on_cpu):
            with place():
                with pytest.raises(lowp.RangeError, match="x holds NaN"):
                    lt.quantize(x, "ggml_q4_k", nan="error")
                with pytest.raises(lowp.ArgumentError, match="nan='max' needs a format"):
                    lt.quantize(x, "ggml_q4_k", nan="max")
                with pytest.raises(lowp.ArgumentError, match="rounds as ggml does"):
                    lt.quantize(x, "ggml_q4_k", "stochastic")
                assert bool(lt.quantize(x, "ggml_q8_0", nan="zero").isfinite().all())

    def test_policies_shapes_and_masks(self) -> None:
        x = numbers(6, 70, scale=200)
        x[0, 0], x[3, 5] = float("nan"), float("inf")
        for options in ({"nan": "zero"}, {"nan": "max"}, {"overflow": "infinity_or_nan"}):
            wanted = lt.quantize(x.T, "fp8", **options)
            with portable_on_cpu():
                assert same(lt.quantize(x.T, "fp8", **options), wanted)
        for fmt in ("mxfp4", "nvfp4", "int8_tensor", "int4_g32_asym"):
            leaves = [numbers(6, 70).requires_grad_() for _ in range(2)]
            lt.quantize(leaves[0], fmt, axis=0, gradient="clipped").sum().backward()
            with portable_on_cpu():
                y = lt.quantize(leaves[1], fmt, axis=0, gradient="clipped")
                assert y.is_contiguous()
                y.sum().backward()
            assert torch.equal(leaves[0].grad, leaves[1].grad)
        with portable_on_cpu():
            assert lt.quantize(torch.arange(4), "fp8").dtype == torch.float64
            assert lt.quantize(torch.tensor([2**62 + 1]), "bfloat16").tolist() == [2.0**62]
            with pytest.raises(lowp.RangeError, match="x holds NaN"):
                lt.quantize(x, "mxfp4", nan="error")
