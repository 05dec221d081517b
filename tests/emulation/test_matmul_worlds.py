"""`lowp.matmul` on tensors and JAX arrays: the bits of NumPy, compiled or not, and the plain product's gradient."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

import lowp
from lowp import Accumulator, Alignment
from lowp.emulation import _portable_sums, exact_accumulators
from lowp.emulation._side import Side
from lowp.emulation._unit_product import Arrays, Given, Kind, Product, as_array_code, lacks, product_of, text_of
from lowp.formats.spec import to_float
from lowp.rounding._namespaces import namespace_of
from tests.emulation.unit_operands import HOPPER, KINDS, MXFP8, NVFP4, QUIRE, as_float32, numbers, operands, same, tamed


@pytest.fixture
def rng():
    return np.random.default_rng(11)


class TestArrayCode:
    """The array code gives the bits of the kernels, and of the oracle that knows neither."""

    @pytest.mark.parametrize("name", KINDS)
    @pytest.mark.parametrize("k", [1, 40, 70])
    def test_units(self, rng, name, k):
        unit = lowp.matrix_unit(name)
        a, b, c = operands(rng, unit, k)
        given = Product(unit, Kind(unit.formats["a"]), Kind(unit.formats["b"]))
        assert lacks(given) is None
        wanted = unit.run(a, b, c)
        assert same(as_array_code(namespace_of(a), given, Arrays(a, b, c)), wanted)

    @pytest.mark.parametrize("name", [NVFP4, MXFP8, NVFP4.replace("ue4m3", "ue8m0")])
    def test_units_with_block_scales(self, rng, name):
        unit = lowp.matrix_unit(name)
        a, b, c = operands(rng, unit, 5 * unit.block)
        scales = numbers(rng, unit.formats["scale"], 2, 4, 5), numbers(rng, unit.formats["scale"], 2, 5, 5)
        given = Product(unit, *(Kind(unit.formats[x], unit.formats["scale"], unit.block) for x in "ab"))
        wanted = unit.run(a, b, c, *scales)
        assert same(as_array_code(namespace_of(a), given, Arrays(a, b, c, *scales)), wanted)

    @pytest.mark.parametrize(
        "accumulator",
        [
            Accumulator(format="float16"),
            Accumulator(format="bfloat16", rounding="to_odd", overflow="infinity", chunk=3),
            Accumulator(format="float8_e5m2", rounding="toward_negative", group=4),
            Accumulator(
                format="bfloat16", rounding="stochastic_a", seed=5, chunk=4, outer=Accumulator(format="float16")
            ),
            Accumulator(format="float16", rounding="stochastic_b", group=3, group_sum="pairwise", product="bfloat16"),
            Accumulator(format="posit8_es2", lanes=3, order="pairwise"),
            Accumulator(format="int8", overflow="wrap", order=(1, 0, 2), splits=2),
            Accumulator(format="bfloat16", order="pairwise", group=2, group_sum="sequential", subnormal_inputs="zero"),
            Accumulator(format="float16", subnormal_results="zero", rounding="ties_to_away", signed_zero="underflow"),
            Accumulator(format="bfloat16", compensation="kahan"),
            Accumulator(format="bfloat16", compensation="neumaier"),
            Accumulator(format="bfloat16", compensation="two_sum"),
            Accumulator(format="float32", group=4, alignment=Alignment(fraction_bits=5, zero_exponent=4)),
            Accumulator(
                format="e8m13", rounding="to_odd", group=4, alignment=Alignment(fraction_bits=9, cut="toward_negative")
            ),
        ],
        ids=str,
    )
    @pytest.mark.parametrize("k", [1, 7, 13])
    def test_accumulators(self, rng, accumulator, k):
        fmt = lowp.parse("int4" if accumulator.format.name == "int8" else "float8_e4m3fn")
        a, b = (np.where(np.isfinite(x), x, 1.0) for x in (numbers(rng, fmt, 1, 3, k), numbers(rng, fmt, 1, k, 4)))
        a = a * (rng.random(a.shape) < 0.8)
        c = tamed(rng, accumulator.format, 1, 3, 4).astype(np.float64)
        last = accumulator.format if accumulator.outer is None else accumulator.outer.format
        c = np.asarray(lowp.quantize(c, last))
        found = _portable_sums.sums(Side(a, fmt), Side(b, fmt), c, accumulator, last)
        wanted = [
            to_float(
                exact_accumulators.dot(
                    accumulator, a[0, i], b[0, :, j], c[0, i, j], a_format=fmt, b_format=fmt, c_format=last,
                    position=i * 4 + j, count=12,
                )
            )
            for i in range(3)
            for j in range(4)
        ]  # fmt: skip
        assert same(found.reshape(-1), wanted)

    @pytest.mark.parametrize("rounding", ["toward_positive", "toward_negative", "away_from_zero", "ties_to_even"])
    def test_terms_far_below_the_sum(self, rng, rounding):
        """Float64 does not hold the sums: what it loses decides the rounding."""
        accumulator, fmt = Accumulator(format="float16", rounding=rounding), lowp.parse("bfloat16")
        a = np.asarray(lowp.quantize(rng.normal(size=(1, 8, 6)) * 2.0 ** rng.integers(-70, 3, (1, 8, 6)), fmt))
        b = np.asarray(lowp.quantize(rng.normal(size=(1, 6, 8)), fmt))
        c = tamed(rng, "float16", 1, 8, 8).astype(np.float64)
        found = _portable_sums.sums(Side(a, fmt), Side(b, fmt), c, accumulator, accumulator.format)
        wanted = [
            to_float(exact_accumulators.dot(accumulator, a[0, i], b[0, :, j], c[0, i, j], a_format=fmt, b_format=fmt))
            for i in range(8)
            for j in range(8)
        ]
        assert same(found.reshape(-1), wanted)

    @pytest.mark.parametrize(
        ("name", "missing"),
        [
            (QUIRE, "too wide for float64"),
            ("ampere/mma_m8n8k4/f64_f64/f64", "exact products"),
            ("cdna3/mfma_16x16x16/f16_f16/f32", "aligned after the products"),
        ],
    )
    def test_what_it_lacks_is_said(self, name, missing):
        unit = lowp.matrix_unit(name)
        assert missing in lacks(Product(unit, Kind(unit.formats["a"]), Kind(unit.formats["b"])))

    @pytest.mark.parametrize("name", [*KINDS, NVFP4])
    def test_a_product_is_text_and_back(self, name):
        unit = lowp.matrix_unit(name)
        given = Product(
            unit, Kind(unit.formats["a"]), Kind(lowp.Fixed(12, 5), lowp.parse("e8m0"), 32), lowp.parse("bf16")
        )
        assert product_of(text_of(given)) == given

    def test_what_arrays_are_given_as(self):
        assert Given.of(np.zeros(2, np.float32)).kind("a", -1) == Kind(lowp.parse("float32"))
        encoded = lowp.encode(np.ones((2, 32)), "mxfp8")
        assert Given.of(encoded).kind("a", -1) == Kind(lowp.parse("e4m3fn"), lowp.parse("e8m0"), 32)
        with pytest.raises(lowp.ArgumentError, match="b has blocks along axis 1"):
            Given.of(encoded).kind("b", -2)


class TestTorch:
    torch = None

    @pytest.fixture(autouse=True)
    def _torch(self):
        self.torch = pytest.importorskip("torch")

    def tensors(self, *arrays):
        return [self.torch.from_numpy(np.ascontiguousarray(x)) for x in arrays]

    @pytest.mark.parametrize("name", [HOPPER, "cdna3/mfma_16x16x16/f16_f16/f32", QUIRE, KINDS[4]])
    def test_the_bits_of_numpy(self, rng, name):
        unit = lowp.matrix_unit(name)
        a, b, c = as_float32(*(tamed(rng, unit.formats[x], 4, 4) for x in "abc"))
        y = lowp.matmul(*self.tensors(a, b, c), unit=name)
        wanted = lowp.matmul(a, b, c, unit=name)
        assert y.numpy().dtype == wanted.dtype
        assert same(y.numpy(), wanted)

    @pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float8_e4m3fn", "float64"])
    def test_dtypes(self, rng, dtype):
        a, b = tamed(rng, "e4m3fn", 3, 5, 40), tamed(rng, "e4m3fn", 40, 6)
        given = [t.to(getattr(self.torch, dtype)) for t in self.tensors(a, b)]
        assert same(lowp.matmul(*given, unit=HOPPER).numpy(), lowp.matmul(a, b, unit=HOPPER))

    @pytest.mark.parametrize(("fmt", "unit"), [("nvfp4", NVFP4), ("mxfp8", MXFP8)])
    def test_encoded_operands(self, rng, fmt, unit):
        a, b = rng.normal(size=(5, 64)).astype(np.float32), rng.normal(size=(64, 6)).astype(np.float32)
        wanted = lowp.matmul(lowp.encode(a, fmt), lowp.encode(b, fmt, axis=0), unit=unit)
        a, b = self.tensors(a, b)
        multiply = lambda a, b: lowp.matmul(lowp.encode(a, fmt), lowp.encode(b, fmt, axis=0), unit=unit)  # noqa: E731
        assert same(multiply(a, b).numpy(), wanted)

    def test_vectors_and_report(self, rng):
        a, b = self.tensors(tamed(rng, "e4m3fn", 40), tamed(rng, "e4m3fn", 40, 6))
        assert lowp.matmul(a, b, unit=HOPPER).shape == (6,)
        assert lowp.matmul(a, b[:, 0], unit=HOPPER).shape == ()
        result, report = lowp.matmul(a[None], b, unit=HOPPER, trace=True)
        assert self.torch.equal(result[0], lowp.matmul(a, b, unit=HOPPER))
        assert report is not None

    @pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, of jvp
    def test_the_gradient_is_that_of_the_plain_product(self, rng):
        a, b, c = self.tensors(*(tamed(rng, "e4m3fn", *shape) for shape in ((3, 4, 40), (40, 5), (4, 5))))
        g = self.torch.randn(3, 4, 5)
        for x in (a, b, c):
            x.requires_grad_()
        lowp.matmul(a, b, c, unit=HOPPER).backward(g)
        assert self.torch.equal(a.grad, g @ b.detach().T)
        assert self.torch.allclose(b.grad, (a.detach().mT @ g).sum(0), rtol=1e-5)
        assert self.torch.equal(c.grad, g.sum(0))
        grad = self.torch.func.grad(lambda a: (lowp.matmul(a, b.detach(), unit=HOPPER) * g).sum())(a.detach())
        assert self.torch.equal(grad, a.grad)
        moved = self.torch.func.jvp(
            lambda a: lowp.matmul(a, b.detach(), unit=HOPPER), (a.detach(),), (g @ b.detach().T,)
        )
        assert self.torch.allclose(moved[1], (g @ b.detach().T) @ b.detach(), rtol=1e-5)

    def test_under_vmap_every_example_is_summed_as_alone(self, rng):
        a, b = self.tensors(tamed(rng, "bfloat16", 3, 4, 40), tamed(rng, "bfloat16", 40, 5))
        how = Accumulator(format="bfloat16", rounding="stochastic_a", seed=3)
        each = self.torch.stack([lowp.matmul(x, b, accumulator=how) for x in a])
        assert self.torch.equal(self.torch.func.vmap(lambda x: lowp.matmul(x, b, accumulator=how))(a), each)
        plain = self.torch.func.vmap(lambda x, c: lowp.matmul(x, b, c, accumulator="float16"))(a, a[:, :, :5])
        assert self.torch.equal(plain, lowp.matmul(a, b, a[:, :, :5], accumulator="float16"))
        shared = self.torch.func.vmap(lambda c: lowp.matmul(a[0], b, c, accumulator="float16"))(a[:, :, :5])
        each = [lowp.matmul(a[0], b, c, accumulator="float16") for c in a[:, :, :5]]
        assert self.torch.equal(shared, self.torch.stack(each))

    def test_the_operator_is_well_made(self, rng):
        a, b, c = self.tensors(*(tamed(rng, "e4m3fn", *shape) for shape in ((3, 4, 40), (40, 5), (4, 5))))
        text = text_of(Product(lowp.matrix_unit(HOPPER), Kind(lowp.parse("float32")), Kind(lowp.parse("float32"))))
        given = (a.requires_grad_(), b.requires_grad_(), c, None, None, None, text)
        checks = self.torch.library.opcheck(self.torch.ops.lowp.matmul.default, given)
        assert set(checks.values()) == {"SUCCESS"}

    @pytest.mark.filterwarnings("ignore::DeprecationWarning")
    def test_a_compiler_keeps_one_graph(self, rng):
        a, b = self.tensors(tamed(rng, "e4m3fn", 4, 40), tamed(rng, "e4m3fn", 40, 5))
        p, q = self.tensors(rng.normal(size=(5, 64)).astype(np.float32), rng.normal(size=(64, 6)).astype(np.float32))

        def program(a, b, p, q):
            scaled = lowp.matmul(lowp.encode(p, "nvfp4"), lowp.encode(q, "nvfp4", axis=0), unit=NVFP4)
            return lowp.matmul(a, b, unit=HOPPER), lowp.matmul(a, b, accumulator="bfloat16"), scaled

        compiled = self.torch.compile(program, fullgraph=True, backend="aot_eager")
        a.requires_grad_()
        for x, y in zip(compiled(a, b, p, q), program(a, b, p, q), strict=True):
            assert self.torch.equal(x, y)
        compiled(a, b, p, q)[0].sum().backward()
        assert self.torch.equal(a.grad, self.torch.ones(4, 5) @ b.T)

    @pytest.mark.filterwarnings("ignore")
    @pytest.mark.parametrize("role", ["accumulator", "unit"])
    def test_what_a_compiler_has_not_filled_in_is_refused(self, rng, role):
        a, b = self.tensors(tamed(rng, "e4m3fn", 4, 40), tamed(rng, "e4m3fn", 40, 5))
        given = {"accumulator": lowp.Accumulator(), "unit": lowp.matrix_unit(HOPPER)}[role]
        made = {"format": "float16"} if role == "accumulator" else {"name": "mine"}
        program = self.torch.compile(lambda a, b: lowp.matmul(a, b, **{role: replace(given, **made)}), backend="eager")
        with pytest.raises(Exception, match=f"{role} is made inside of a function that torch compiles"):
            program(a, b)

    def test_the_portable_code_takes_tensors(self, rng):
        unit = lowp.matrix_unit(HOPPER)
        a, b, c = operands(rng, unit, 70)
        given = Product(unit, Kind(unit.formats["a"]), Kind(unit.formats["b"]))
        ta, tb, tc = self.tensors(a, b, c)
        assert same(as_array_code(namespace_of(ta), given, Arrays(ta, tb, tc)).numpy(), unit.run(a, b, c))

    @pytest.mark.filterwarnings("ignore::DeprecationWarning")
    @pytest.mark.skipif(shutil.which("g++") is None, reason="torch compiles for CPUs by g++")
    def test_compiled_steps_give_the_same_bits(self, rng):
        from lowp.emulation._torch_steps import CompiledSteps

        unit, xp = lowp.matrix_unit(HOPPER), CompiledSteps()
        a, b, c = operands(rng, unit, 200)
        given = Product(unit, Kind(unit.formats["a"]), Kind(unit.formats["b"]))
        for _ in range(2):
            found = as_array_code(xp.restarted(), given, Arrays(*self.tensors(a, b, c)))
            assert same(found.numpy(), unit.run(a, b, c))
        assert len(xp._known) == 1

    @pytest.mark.parametrize("name", [*KINDS, QUIRE, "cdna3/mfma_16x16x16/f16_f16/f32"])
    def test_on_cuda(self, rng, name):
        if not self.torch.cuda.is_available():
            pytest.skip("no CUDA device")
        unit = lowp.matrix_unit(name)
        for k in (8, 200):
            a, b, c = as_float32(
                *(tamed(rng, unit.formats[x], *shape) for x, shape in zip("abc", ((9, k), (k, 7), (9, 7)), strict=True))
            )
            given = [t.cuda() for t in self.tensors(a, b, c)]
            assert same(lowp.matmul(*given, unit=name).cpu().numpy(), lowp.matmul(a, b, c, unit=name))

    def test_errors(self, rng):
        a, b = self.tensors(tamed(rng, "e4m3fn", 4, 40), tamed(rng, "e4m3fn", 40, 5))
        with pytest.raises(lowp.ArgumentError, match="Did you mean"):
            lowp.matmul(a, b, unit=HOPPER + "x")
        with pytest.raises(lowp.ArgumentError, match="do not fit"):
            lowp.matmul(a, b[:3], unit=HOPPER)
        with pytest.raises(lowp.ArgumentError, match="which 'float8_e4m3fn' does not have"):
            lowp.matmul(a * 1.01, b, unit=HOPPER)
        with pytest.raises(lowp.ArgumentTypeError, match="b of type ndarray"):
            lowp.matmul(a, b.numpy(), unit=HOPPER)
        with pytest.raises(lowp.ArgumentError, match="has no block scales"):
            lowp.matmul(lowp.encode(a, "mxfp8"), b, unit=HOPPER)


class TestJax:
    jax = None

    @pytest.fixture(autouse=True)
    def _jax(self):
        self.jax = pytest.importorskip("jax")

    def arrays(self, *arrays):
        return [self.jax.numpy.asarray(x) for x in arrays]

    @pytest.mark.parametrize("name", [HOPPER, KINDS[1], KINDS[2], KINDS[3], "arm/bfdot/bf16_bf16/f32", KINDS[-2]])
    def test_the_bits_of_numpy(self, rng, name):
        unit = lowp.matrix_unit(name)
        a, b, c = as_float32(*(np.where(np.isfinite(x), x, 0.5) for x in operands(rng, unit, 40)))
        multiply = lambda a, b, c: lowp.matmul(a, b, c, unit=name)  # noqa: E731
        given, wanted = self.arrays(a, b, c), lowp.matmul(a, b, c, unit=name)
        assert same(multiply(*given), wanted)
        assert same(self.jax.jit(multiply)(*given), wanted)

    @pytest.mark.parametrize(("fmt", "unit"), [("nvfp4", NVFP4), ("mxfp8", MXFP8)])
    def test_encoded_operands(self, rng, fmt, unit):
        a, b = rng.normal(size=(5, 64)).astype(np.float32), rng.normal(size=(64, 6)).astype(np.float32)
        multiply = lambda a, b: lowp.matmul(lowp.encode(a, fmt), lowp.encode(b, fmt, axis=0), unit=unit)  # noqa: E731
        wanted, given = multiply(a, b), self.arrays(a, b)
        assert same(multiply(*given), wanted)
        assert same(self.jax.jit(multiply)(*given), wanted)

    def test_under_vmap_and_in_dtypes(self, rng):
        a, b = tamed(rng, "e4m3fn", 3, 4, 40), tamed(rng, "e4m3fn", 40, 5)
        multiply = lambda a, b: lowp.matmul(a, b, unit=HOPPER)  # noqa: E731
        given, wanted = self.arrays(a, b), lowp.matmul(a, b, unit=HOPPER)
        assert same(self.jax.vmap(multiply, (0, None))(*given), wanted)
        short = [x.astype("bfloat16") for x in given]
        assert same(self.jax.jit(multiply)(*short), wanted)
        how = Accumulator(format="bfloat16", rounding="stochastic_a", seed=3)
        each = [lowp.matmul(x, b, accumulator=how) for x in a]
        assert same(self.jax.vmap(lambda a, b: lowp.matmul(a, b, accumulator=how), (0, None))(*given), np.stack(each))

    def test_the_gradient_is_that_of_the_plain_product(self, rng):
        a, b, c = self.arrays(*(tamed(rng, "e4m3fn", *shape) for shape in ((3, 4, 40), (40, 5), (4, 5))))
        loss = lambda a, b, c: lowp.matmul(a, b, c, unit=HOPPER).sum()  # noqa: E731
        for grad in (self.jax.grad(loss, (0, 1, 2)), self.jax.jit(self.jax.grad(loss, (0, 1, 2)))):
            da, db, dc = grad(a, b, c)
            np.testing.assert_allclose(da, np.ones((3, 4, 5)) @ np.asarray(b).T, rtol=1e-5)
            np.testing.assert_allclose(db, np.asarray(a).sum((0, 1))[:, None] * np.ones(5), rtol=1e-5, atol=1e-5)
            np.testing.assert_array_equal(dc, np.full((4, 5), 3.0))

    def test_subnormal_results_are_kept(self):
        x = np.full((1, 1), 2.0**-70, np.float32)
        found = self.jax.jit(lambda a: lowp.matmul(a, a, accumulator="float32"))(x)
        assert np.asarray(found).view(np.int32).item() == 1 << 9

    def test_what_array_code_lacks(self, rng):
        z = tamed(rng, "posit16", 4, 8)
        wanted, given = lowp.matmul(z, z.T, unit=QUIRE), self.jax.numpy.asarray(z)
        from lowp.jax import matmul

        assert same(matmul(given, given.T, unit=QUIRE), wanted)
        with pytest.raises(
            lowp.ArgumentError, match=r"too wide for float64; call lowp\.jax\.matmul with callback=True"
        ):
            self.jax.jit(lambda z: matmul(z, z.T, unit=QUIRE))(given)
        assert same(self.jax.jit(lambda z: matmul(z, z.T, unit=QUIRE, callback=True))(given), wanted)

    def test_a_value_without_place_becomes_nan_under_jit(self):
        a = self.jax.numpy.asarray(np.float32([[1.01, 1.0]]))
        with pytest.raises(lowp.ArgumentError, match="which 'float8_e4m3fn' does not have"):
            lowp.matmul(a, a.T, unit=HOPPER)
        assert np.isnan(self.jax.jit(lambda a: lowp.matmul(a, a.T, unit=HOPPER))(a)).all()

    def test_integers(self):
        a = self.jax.numpy.asarray(np.full((1, 40), 127, np.int8))
        name = "hopper/wgmma_m64n8k32/s8_s8/s32"
        if self.jax.config.jax_enable_x64:
            pytest.skip("float64 is there")
        with pytest.raises(lowp.ArgumentError, match="need float64"):
            lowp.matmul(a, a.T, unit=name)
        assert self.jax.jit(lambda a: lowp.matmul(a, a.T, unit=name, fmt="float32"))(a).item() == 127 * 127 * 40


def test_block_scales_follow_their_elements_in_any_order(rng):
    """Encoded operands, taken apart in chunks and permuted, keep each element's scale."""
    a, b = (lowp.encode(rng.normal(size=(3, 64)) * 2.0 ** rng.integers(-9, 9, (3, 64)), "mxfp8") for _ in range(2))
    b = replace(b, codes=b.codes.T, scales=b.scales.T, axis=0)
    for how in (Accumulator(format="float32", chunk=8), Accumulator(format="float32", order="random", seed=2)):
        plain = lowp.matmul(np.asarray(lowp.decode(a)), np.asarray(lowp.decode(b)), accumulator=how)
        assert same(lowp.matmul(a, b, accumulator=how), plain)


def test_arrays_in_formats_give_one_in_the_results_format() -> None:
    a = lowp.array(np.arange(6.0).reshape(2, 3) / 4, "float8_e4m3fn")
    for given in (
        {"accumulator": "float16"},
        {"accumulator": "posit16"},
        {"accumulator": "float32", "fmt": "bfloat16"},
    ):
        found = lowp.matmul(a, a.T, **given)
        assert isinstance(found, lowp.array)
        assert found.format.name == lowp.parse(given.get("fmt", given["accumulator"])).name
        assert np.array_equal(found.values, lowp.matmul(a.values, a.T.values, **given))
    assert isinstance(lowp.matmul(a, a.T.values, accumulator="float16"), np.ndarray)
