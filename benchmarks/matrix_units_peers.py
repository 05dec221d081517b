"""The products of `benchmarks.matrix_units`, and the ways of lowp and of other packages to do them."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from benchmarks.timing import Call

import lowp

Build = Callable[[np.ndarray, np.ndarray], Call]
FULL = 1 << 40  # terms of a step: whole products, so that they are summed exactly


@dataclass(frozen=True)
class Way:
    """A way to do a product.

    Attributes:
        build: Prepares operands of shape (m, k) and (k, n), in float32, and returns the call to be timed.
        least: Smallest m and n that it takes.
        other: What its definition has that the product's has not; empty if both agree, and so must every bit.
        inputs: "normal", or "wide": operands of many magnitudes, zeros and subnormals among them.
        no_minus_zero: It has no zero of negative sign, by its own definition.
    """

    owner: str
    label: str
    build: Build
    least: tuple[int, int] = (8, 8)
    other: str = ""
    inputs: str = "normal"
    no_minus_zero: bool = False


@dataclass(frozen=True)
class Product:
    """A matrix product with a definition of its sums, and who can do it."""

    name: str
    format: str
    how: dict[str, Any]
    peers: tuple[Way, ...] = ()

    @property
    def ways(self) -> list[Way]:
        """The ways of lowp, on values and on codes, then the peers."""
        return [
            Way("lowp", "values", self.lowp),
            Way("lowp", "codes", self.lowp_codes),
            Way("lowp", "values of many magnitudes", self.lowp, inputs="wide"),
            *self.peers,
        ]

    def lowp(self, a: np.ndarray, b: np.ndarray) -> Call:
        return lambda: lowp.matmul(a, b, **self.how)

    def lowp_codes(self, a: np.ndarray, b: np.ndarray) -> Call:
        left, right = lowp.encode(a, self.format), lowp.encode(b, self.format)
        return lambda: lowp.matmul(left, right, **self.how)


# MMA-Sim


def mmasim(module: str, *name: str) -> tuple[Way, ...]:
    """Return the three ways to call a model of MMA-Sim: for one output, for one tile, and for many outputs at once."""

    def model() -> Any:
        family, kind = module.split(".")
        return getattr(import_module(f"mmasim.{family}"), kind)(*name)

    def prepared(a: np.ndarray, b: np.ndarray) -> tuple[Any, Any, Any, Any]:
        import torch

        op = model()
        return op, torch.from_numpy(a).to(op.a_type), torch.from_numpy(b).to(op.b_type), op.c_type

    def outputs(a: np.ndarray, b: np.ndarray) -> Call:
        op, left, right, dtype = prepared(a, b)
        return lambda: chained(op, left, right.T.contiguous(), dtype, one_by_one)

    def batch(a: np.ndarray, b: np.ndarray) -> Call:
        op, left, right, dtype = prepared(a, b)
        return lambda: chained(op, left, right.T.contiguous(), dtype, all_at_once)

    def tiles(a: np.ndarray, b: np.ndarray) -> Call:
        op, left, right, dtype = prepared(a, b)
        return lambda: tiled(op, left, right, dtype)

    case = ", ".join(name)
    return (
        Way("mmasim", f"{case}: one output a call", outputs, (1, 1)),
        Way("mmasim", f"{case}: one tile a call", tiles, (64, 16)),
        Way("mmasim", f"{case}: all outputs a call", batch),
    )


def chained(op: Any, a: Any, b: Any, dtype: Any, step: Callable[..., Any]) -> Any:
    """Return `a @ b.T`, the instruction's k terms at a time."""
    import torch

    c = torch.zeros(len(a), len(b), dtype=dtype)
    for start in range(0, a.shape[1], op.k):
        part = slice(start, start + op.k)
        c = step(op, a[:, part], b[:, part], c)
    return c


def one_by_one(op: Any, a: Any, b: Any, c: Any) -> Any:
    for row in range(len(a)):
        for column in range(len(b)):
            c[row, column] = op.dpa(a[row], b[column], c[row, column])
    return c


def all_at_once(op: Any, a: Any, b: Any, c: Any) -> Any:
    shape = (*c.shape, op.k)
    return op.dpa(a[:, None].expand(shape), b[None].expand(shape), c)


def tiled(op: Any, a: Any, b: Any, dtype: Any) -> Any:
    """Return `a @ b`, one instruction a call."""
    import torch

    result = torch.zeros(len(a), b.shape[1], dtype=dtype)
    for i in range(0, len(a), op.m):
        for j in range(0, b.shape[1], op.n):
            c = result[i : i + op.m, j : j + op.n]
            for k in range(0, len(b), op.k):
                c = op(a[i : i + op.m, k : k + op.k], b[k : k + op.k, j : j + op.n], c)
            result[i : i + op.m, j : j + op.n] = c
    return result


# A loop over k that adds rounded outer products, as emulators without a matrix product of their own have it


def numpy_float16(a: np.ndarray, b: np.ndarray) -> Call:
    left, right = a.astype(np.float16), b.astype(np.float16)

    def call() -> np.ndarray:
        c = np.zeros((len(a), b.shape[1]), np.float16)
        for k in range(a.shape[1]):
            c += left[:, k : k + 1] * right[k]
        return c

    return call


def torch_float16(a: np.ndarray, b: np.ndarray) -> Call:
    import torch

    left, right = torch.from_numpy(a).half(), torch.from_numpy(b).half()

    def call() -> Any:
        c = torch.zeros(len(a), b.shape[1], dtype=torch.float16)
        for k in range(a.shape[1]):
            c += left[:, k : k + 1] * right[k]
        return c

    return call


def torch_loop(quantizer: Callable[[], Callable[[Any], Any]], dtype: str = "float32") -> Build:
    """Return a loop on torch: each product and each sum is computed in `dtype`, then passed to a fake quantizer."""

    def build(a: np.ndarray, b: np.ndarray) -> Call:
        import torch

        rounded, kind = quantizer(), getattr(torch, dtype)
        left, right = torch.from_numpy(a).to(kind), torch.from_numpy(b).to(kind)

        def call() -> Any:
            c = torch.zeros(len(a), b.shape[1], dtype=kind)
            for k in range(a.shape[1]):
                c = rounded(c + rounded(left[:, k : k + 1] * right[k]))
            return c

        return call

    return build


def cast() -> Callable[[Any], Any]:
    return lambda x: x.half().float()


def masked() -> Callable[[Any], Any]:
    """Return a quantizer to float32 with 13 fraction bits, toward zero."""
    import torch

    return lambda x: (x.view(torch.int32) & -1024).view(torch.float32)


def qtorch() -> Callable[[Any], Any]:
    quantize = import_module("qtorch.quant").float_quantize
    return lambda x: quantize(x, exp=5, man=10, rounding="nearest")


def pychop(exponent: int, mantissa: int, rmode: int = 1) -> Callable[[], Callable[[Any], Any]]:
    def quantizer() -> Any:
        module = import_module("pychop")
        module.backend("torch")
        return module.Chop(exponent, mantissa, rmode=rmode)

    return quantizer


# The rest


def apytypes(exponent: int, mantissa: int, operand: tuple[int, int], mode: str = "TIES_EVEN") -> Build:
    def build(a: np.ndarray, b: np.ndarray) -> Call:
        module = import_module("apytypes")
        left, right = (module.APyFloatArray.from_float(x, exp_bits=operand[0], man_bits=operand[1]) for x in (a, b))
        quantization = getattr(module.QuantizationMode, mode)

        def call() -> Any:
            with module.APyFloatAccumulatorContext(exp_bits=exponent, man_bits=mantissa, quantization=quantization):
                return left @ right

        return call

    return build


def apytypes_fixed(integer: int, fraction: int) -> Build:
    """Return a product in fixed point that keeps every bit."""

    def build(a: np.ndarray, b: np.ndarray) -> Call:
        array = import_module("apytypes").APyFixedArray
        left, right = (array.from_float(x, int_bits=integer, frac_bits=fraction) for x in (a, b))
        return lambda: left @ right

    return build


def exact_python(a: np.ndarray, b: np.ndarray) -> Call:
    """Return math.fsum of exact products, which rounds to float64 before float32."""
    left, right = a.astype(np.float64), b.T.astype(np.float64).copy()

    def call() -> np.ndarray:
        return np.array([[math.fsum((row * column).tolist()) for column in right] for row in left], np.float32)

    return call


def softposit(a: np.ndarray, b: np.ndarray) -> Call:
    module = import_module("softposit")
    left = [[module.posit16(float(x)) for x in row] for row in a]
    right = [[module.posit16(float(x)) for x in column] for column in b.T]

    def dot(row: list[Any], column: list[Any]) -> float:
        quire = module.quire16()
        quire.clr()
        for x, y in zip(row, column, strict=True):
            quire.qma(x, y)
        return float(quire.toPosit())

    return lambda: np.array([[dot(row, column) for column in right] for row in left])


def numpy_int32(a: np.ndarray, b: np.ndarray) -> Call:
    left, right = a.astype(np.int32), b.astype(np.int32)
    return lambda: left @ right


def torch_int_mm(a: np.ndarray, b: np.ndarray) -> Call:
    import torch

    left, right = (torch.from_numpy(x.astype(np.int8)) for x in (a, b))
    return lambda: torch._int_mm(left, right)


def rounded_sums(fmt: str, rounding: str = "ties_to_even") -> dict[str, Any]:
    """Return an accumulator that rounds every product and every sum."""
    how = lowp.Accumulator(format=fmt, product=fmt, rounding=rounding, group_sum="sequential")
    return {"accumulator": how}


EXACT = {"accumulator": lowp.Accumulator(format="float32", group=FULL)}
FSUM = Way("Python", "math.fsum", exact_python, other="rounds to float64 first")
LOOP = "mptorch-style loop"  # what its CPU code does; the package itself needs CUDA
FLOAT32_FIRST = "sums rounded to float32 first"

PRODUCTS = [
    Product(
        "hopper_fp8", "float8_e4m3fn", {"unit": "hopper/wgmma_m64n8k32/e4m3_e4m3/f32"},
        mmasim("nv_ptx.WGMMA", "Hopper", "m64n8k32.f32.e4m3.e4m3"),
    ),
    Product(
        "blackwell_fp8", "float8_e4m3fn", {"unit": "blackwell/tcgen05_m64n8k32_f8f6f4/e4m3_e4m3/f32"},
        mmasim("nv_ptx.TCGen05MMA", "Blackwell", "m64n8k32.kind::f8f6f4.f32.e4m3.e4m3"),
    ),
    Product(
        "ampere_f16", "float16", {"unit": "ampere/mma_m16n8k16/f16_f16/f32"},
        mmasim("nv_ptx.MMA", "Ampere", "m16n8k16.f32.f16.f16.f32"),
    ),
    Product(
        "ampere_f16_into_f16", "float16", {"unit": "ampere/mma_m16n8k16/f16_f16/f16"},
        mmasim("nv_ptx.MMA", "Ampere", "m16n8k16.f16.f16.f16.f16"),
    ),
    Product(
        "cdna3_f16", "float16", {"unit": "cdna3/mfma_16x16x16/f16_f16/f32"},
        mmasim("amd.MFMA", "CDNA3", "f32_16x16x16_f16"),
    ),
    Product(
        "float16_sums", "float16", rounded_sums("float16"),
        (
            Way("torch", "float16 outer products", torch_float16),
            Way("NumPy", "float16 outer products", numpy_float16),
            Way(LOOP, "torch's casts", torch_loop(cast)),
            Way(LOOP, "qtorch's float_quantize", torch_loop(qtorch), other="no infinity, other ties, other subnormals"),
            Way("apytypes", "APyFloatAccumulatorContext", apytypes(5, 10, (5, 10))),
            Way(
                "pychop", "outer products, Chop(5, 10)", torch_loop(pychop(5, 10)), no_minus_zero=True,
                other="overflow found before rounding, subnormals rounded twice",
            ),
        ),
    ),
    Product(
        "e8m13_sums_toward_zero", "float8_e4m3fn", rounded_sums("e8m13", "toward_zero"),
        (
            Way(LOOP, "bit mask", torch_loop(masked), other=FLOAT32_FIRST),
            Way("apytypes", "APyFloatAccumulatorContext", apytypes(8, 13, (4, 3), "TO_ZERO")),
            Way("pychop", "outer products, Chop(8, 13)", torch_loop(pychop(8, 13, 4), "float64"), no_minus_zero=True),
        ),
    ),
    Product(
        "posit16_quire", "posit16_es2", {"unit": "posit/quire/posit16_posit16/posit16"},
    ),
    Product(
        "posit16es1_quire", "posit16_es1", {"unit": "posit/quire/posit16es1_posit16es1/posit16es1"},
        (Way("softposit", "quire16", softposit, (1, 1)),),
    ),
    Product(
        "float16_exact", "float16", EXACT,
        (FSUM, Way("apytypes", "fixed point, every bit kept", apytypes_fixed(17, 24), no_minus_zero=True)),
    ),
    Product("bfloat16_exact", "bfloat16", EXACT, (FSUM,)),
    Product(
        "int8", "int8", {"unit": "turing/mma_m16n8k16/s8_s8/s32"},
        (Way("NumPy", "int32 @", numpy_int32), Way("torch", "_int_mm", torch_int_mm, (32, 32))),
    ),
]  # fmt: skip
