"""Who takes part: one small function per contender, which prepares the input and returns the call to be timed.

A contender whose package cannot be imported is "not installed"; one that raises is "failed". Neither stops the run.
Every result is compared with lowp's, bit for bit.
"""

import ctypes
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

import lowp
from benchmarks.expressions import integer_groups, mx, nvfp4
from benchmarks.timing import Call


@dataclass(frozen=True)
class Work:
    """What is to be done to the input: quantize (fake quantization), encode or decode."""

    name: str
    format: str
    verb: str = "quantize"
    rounding: str = "ties_to_even"
    headline: bool = False


WORKS = [
    Work("e4m3fn", "float8_e4m3fn", headline=True),
    Work("mxfp4", "mxfp4", headline=True),
    Work("e4m3fn_sr", "float8_e4m3fn", rounding="stochastic"),
    Work("bf16", "bfloat16"),
    Work("e5m2", "float8_e5m2"),
    Work("mxfp8", "mxfp8_e4m3"),
    Work("nvfp4", "nvfp4"),
    Work("int8_row", "int8_row"),
    Work("int4_g128", "int4_g128"),
    Work("encode_e4m3fn", "float8_e4m3fn", verb="encode"),
    Work("decode_e4m3fn", "float8_e4m3fn", verb="decode"),
]

CASTS = ("e4m3fn", "e5m2", "bf16")
QUANTIZE = tuple(w.name for w in WORKS if w.verb == "quantize")
GROUPS = {"int8_row": (None, 127, np.float32), "int4_g128": (128, 7, np.float16)}
BITS = {"e4m3fn": (4, 3), "e4m3fn_sr": (4, 3), "e5m2": (5, 2), "bf16": (8, 7)}  # exponent, mantissa
MX_ELEMENTS = {"mxfp4": ("float4_e2m1fn", 6.0), "mxfp8": ("float8_e4m3fn", 448.0)}

Build = Callable[[Work, np.ndarray], Call]


@dataclass(frozen=True)
class Contender:
    """One way of doing some of the works.

    Attributes:
        owner: "lowp", "copy" (the machine's own limit) or the peer's name.
        label: What exactly is called.
        build: Takes the work and the input, returns the call; imports what it needs.
        works: Names of the works it can do.
        into: "new" if the call makes a new output array, "existing" if it writes into one that is there.
        whole: Whether it is built for the whole input at once, because every shape costs seconds of compiling.
    """

    owner: str
    label: str
    build: Build
    works: tuple[str, ...]
    into: str = "new"
    whole: bool = False


CONTENDERS: list[Contender] = []


def contender(owner: str, label: str, *works: str, into: str = "new", whole: bool = False) -> Callable[[Build], Build]:
    """Enter the function in the list of contenders."""

    def enter(build: Build) -> Build:
        CONTENDERS.append(Contender(owner, label, build, works, into, whole))
        return build

    return enter


# The machine's own limit: plain copies with the same bytes in and out.


def bytes_moved(work: Work, x: np.ndarray) -> tuple[np.ndarray, np.dtype]:
    """Return a source as large as the work's input, and the dtype of its output."""
    return x.view(np.uint32) if x.dtype == np.float32 else x, np.dtype(np.uint8 if work.verb == "encode" else np.uint32)


def copy_halves(source: np.ndarray, target: np.ndarray, pool: ThreadPoolExecutor) -> np.ndarray:
    parts = np.array_split(np.arange(len(source)), os.cpu_count() or 1)
    spans = [slice(part[0], part[-1] + 1) for part in parts if part.size]
    list(pool.map(lambda s: np.copyto(target[s], source[s], casting="unsafe"), spans))
    return target


@contender("copy", "numpy.copyto", *QUANTIZE, "encode_e4m3fn", "decode_e4m3fn", into="existing")
def copy_existing(work: Work, x: np.ndarray) -> Call:
    source, dtype = bytes_moved(work, x)
    target = np.zeros(source.shape, dtype)
    return lambda: np.copyto(target, source, casting="unsafe")


@contender("copy", "numpy.copyto, all cores", *QUANTIZE, "encode_e4m3fn", "decode_e4m3fn", into="existing")
def copy_existing_threads(work: Work, x: np.ndarray) -> Call:
    source, dtype = bytes_moved(work, x)
    target = np.zeros(source.shape, dtype)
    pool = ThreadPoolExecutor()
    return lambda: copy_halves(source, target, pool)


@contender("copy", "numpy astype", *QUANTIZE, "encode_e4m3fn", "decode_e4m3fn")
def copy_new(work: Work, x: np.ndarray) -> Call:
    source, dtype = bytes_moved(work, x)
    return lambda: source.astype(dtype)


@contender("copy", "numpy.copyto, all cores", *QUANTIZE, "encode_e4m3fn", "decode_e4m3fn")
def copy_new_threads(work: Work, x: np.ndarray) -> Call:
    source, dtype = bytes_moved(work, x)
    pool = ThreadPoolExecutor()
    return lambda: copy_halves(source, np.empty(source.shape, dtype), pool)


# lowp


@contender("lowp", "quantize", *QUANTIZE)
def lowp_new(work: Work, x: np.ndarray) -> Call:
    return lambda: lowp.quantize(x, work.format, work.rounding)


@contender("lowp", "quantize, out=", *QUANTIZE, into="existing")
def lowp_existing(work: Work, x: np.ndarray) -> Call:
    out = np.zeros_like(x)
    return lambda: lowp.quantize(x, work.format, work.rounding, out=out)


@contender("lowp", "encode", "encode_e4m3fn")
def lowp_encode(work: Work, x: np.ndarray) -> Call:
    return lambda: lowp.encode(x, work.format).codes


@contender("lowp", "decode", "decode_e4m3fn")
def lowp_decode(work: Work, x: np.ndarray) -> Call:
    return lambda: lowp.decode(x, work.format, dtype=np.float32)


# NumPy and ml_dtypes


@contender("ml_dtypes", "astype", *CASTS)
def ml_dtypes_cast(work: Work, x: np.ndarray) -> Call:
    dtype = getattr(import_module("ml_dtypes"), work.format)
    return lambda: x.astype(dtype).astype(np.float32)


@contender("ml_dtypes", "assignment, both arrays kept", *CASTS, into="existing")
def ml_dtypes_existing(work: Work, x: np.ndarray) -> Call:
    codes = np.zeros(x.shape, getattr(import_module("ml_dtypes"), work.format))
    out = np.zeros_like(x)

    def run() -> np.ndarray:
        codes[...] = x
        out[...] = codes
        return out

    return run


@contender("ml_dtypes", "astype", "encode_e4m3fn")
def ml_dtypes_encode(work: Work, x: np.ndarray) -> Call:
    dtype = getattr(import_module("ml_dtypes"), work.format)
    return lambda: x.astype(dtype).view(np.uint8)


@contender("ml_dtypes", "astype", "decode_e4m3fn")
def ml_dtypes_decode(work: Work, x: np.ndarray) -> Call:
    codes = x.view(getattr(import_module("ml_dtypes"), work.format))
    return lambda: codes.astype(np.float32)


@contender("ml_dtypes", "and a NumPy expression", "mxfp4", "mxfp8")
def ml_dtypes_mx(work: Work, x: np.ndarray) -> Call:
    name, largest = MX_ELEMENTS[work.name]
    dtype = getattr(import_module("ml_dtypes"), name)
    return lambda: mx(np, x, dtype, largest)


@contender("ml_dtypes", "and a NumPy expression", "nvfp4")
def ml_dtypes_nvfp4(work: Work, x: np.ndarray) -> Call:
    types = import_module("ml_dtypes")
    return lambda: nvfp4(np, x, types.float4_e2m1fn, types.float8_e4m3fn)


@contender("numpy", "expression", *GROUPS)
def numpy_groups(work: Work, x: np.ndarray) -> Call:
    size, largest, scale = GROUPS[work.name]
    return lambda: integer_groups(np, x, size, largest, scale)


# torch, torchao and what builds on tensors


def torch_function(work: Work) -> Callable[[Any], Any]:
    """Return the work as torch operations."""
    import torch

    if work.name in GROUPS:
        size, largest, scale = GROUPS[work.name]
        return lambda t: integer_groups(torch, t, size, largest, getattr(torch, np.dtype(scale).name))
    if work.name in MX_ELEMENTS:
        name, bound = MX_ELEMENTS[work.name]
        return lambda t: mx(torch, t, getattr(torch, name), bound)
    dtype = getattr(torch, work.format)
    if work.verb == "encode":
        return lambda t: t.to(dtype).view(torch.uint8)
    if work.verb == "decode":
        return lambda t: t.view(dtype).to(torch.float32)
    return lambda t: t.to(dtype).to(torch.float32)


@contender("torch", "eager", *CASTS, "mxfp8", *GROUPS, "encode_e4m3fn", "decode_e4m3fn")
def torch_eager(work: Work, x: np.ndarray) -> Call:
    import torch

    function, t = torch_function(work), torch.from_numpy(x)
    return lambda: function(t)


@contender(
    "torch", "torch.compile", *CASTS, "mxfp8", *GROUPS, "encode_e4m3fn", "decode_e4m3fn", whole=True
)
def torch_compiled(work: Work, x: np.ndarray) -> Call:
    import torch

    function, t = torch.compile(torch_function(work), dynamic=False), torch.from_numpy(x)
    return lambda: function(t)


@contender("torch", "torch.compile, copy_ into out", "e4m3fn", into="existing", whole=True)
def torch_compiled_existing(work: Work, x: np.ndarray) -> Call:
    import torch

    function, t = torch_function(work), torch.from_numpy(x)
    compiled, out = torch.compile(lambda t, out: out.copy_(function(t)), dynamic=False), torch.zeros_like(t)
    return lambda: compiled(t, out)


@contender("torchao", "MXTensor.to_mx, dequantize", "mxfp4", "mxfp8")
def torchao_mx(work: Work, x: np.ndarray) -> Call:
    import torch

    module = import_module("torchao.prototype.mx_formats.mx_tensor")
    element = torch.float4_e2m1fn_x2 if work.name == "mxfp4" else torch.float8_e4m3fn
    t = torch.from_numpy(x)
    return lambda: module.MXTensor.to_mx(t, element, 32).dequantize(torch.float32)


def torchao_nvfp4_function() -> Callable[[Any], Any]:
    import torch

    module = import_module("torchao.prototype.mx_formats.nvfp4_tensor")

    def run(t: Any) -> Any:
        scale = module.per_tensor_amax_to_scale(t.abs().max())
        return module.NVFP4Tensor.to_nvfp4(t, 16, per_tensor_scale=scale).dequantize(torch.float32)

    return run


@contender("torchao", "NVFP4Tensor.to_nvfp4, dequantize", "nvfp4")
def torchao_nvfp4(work: Work, x: np.ndarray) -> Call:
    import torch

    function, t = torchao_nvfp4_function(), torch.from_numpy(x)
    return lambda: function(t)


@contender("torchao", "the same with torch.compile", "nvfp4", whole=True)
def torchao_nvfp4_compiled(work: Work, x: np.ndarray) -> Call:
    import torch

    function, t = torch.compile(torchao_nvfp4_function(), dynamic=False), torch.from_numpy(x)
    return lambda: function(t)


def qtorch_quantize(package: str, work: Work, x: np.ndarray) -> Call:
    import torch

    quantize = import_module(f"{package}.quant").float_quantize
    t, (exponent, mantissa) = torch.from_numpy(x), BITS[work.name]
    rounding = "stochastic" if work.rounding == "stochastic" else "nearest"
    return lambda: quantize(t, exponent, mantissa, rounding)


@contender("qtorch", "float_quantize", *CASTS, "e4m3fn_sr")
def qtorch(work: Work, x: np.ndarray) -> Call:
    return qtorch_quantize("qtorch", work, x)


@contender("qtorch_plus", "float_quantize", "e4m3fn", "e4m3fn_sr")
def qtorch_plus(work: Work, x: np.ndarray) -> Call:
    return qtorch_quantize("qtorch_plus", work, x)


@contender("brevitas", "QuantIdentity", "e4m3fn", "e5m2", "mxfp8")
def brevitas(work: Work, x: np.ndarray) -> Call:
    import torch

    where, name = {
        "e4m3fn": ("float_quant_ocp", "Fp8e4m3OCPAct"),
        "e5m2": ("float_quant_ocp", "Fp8e5m2OCPAct"),
        "mxfp8": ("mx_quant_ocp", "MXFloat8e4m3Act"),
    }[work.name]
    identity = import_module("brevitas.nn").QuantIdentity
    quantizer = getattr(import_module(f"brevitas.quant.{where}"), name)
    options = {"group_dim": -1} if work.name == "mxfp8" else {}
    layer, t = identity(act_quant=quantizer, **options).eval(), torch.from_numpy(x)

    def run() -> Any:
        with torch.no_grad():
            return layer(t)

    return run


@contender("microxcaling", "_quantize_elemwise, _quantize_mx", "e4m3fn", "e5m2", "e4m3fn_sr", "mxfp4", "mxfp8")
def microxcaling(work: Work, x: np.ndarray) -> Call:
    """A checkout of microsoft/microxcaling, found by PEERS_PATH or installed."""
    import torch

    if (folder := os.environ.get("PEERS_PATH")) and folder not in sys.path:
        sys.path.append(folder)
    t = torch.from_numpy(x)
    rounding = "dither" if work.rounding == "stochastic" else "even"
    if work.name in MX_ELEMENTS:
        quantize_mx = import_module("mx.mx_ops")._quantize_mx
        element = "fp4_e2m1" if work.name == "mxfp4" else "fp8_e4m3"
        return lambda: quantize_mx(t, 8, element, "max", axes=[-1], block_size=32, round=rounding)
    quantize = import_module("mx.elemwise_ops")._quantize_elemwise
    element = "fp8_e5m2" if work.name == "e5m2" else "fp8_e4m3"
    return lambda: quantize(t, element, round=rounding)


# JAX


@contender("jax", "jax.jit", *CASTS, "mxfp4", "mxfp8", *GROUPS, "encode_e4m3fn", "decode_e4m3fn")
def jax_jit(work: Work, x: np.ndarray) -> Call:
    import jax
    import jax.numpy as jnp

    def function(v: Any) -> Any:
        if work.name in GROUPS:
            return integer_groups(jnp, v, *GROUPS[work.name])
        if work.name in MX_ELEMENTS:
            name, largest = MX_ELEMENTS[work.name]
            return mx(jnp, v, getattr(jnp, name), largest)
        dtype = getattr(jnp, work.format)
        if work.verb == "encode":
            return jax.lax.bitcast_convert_type(v.astype(dtype), jnp.uint8)
        if work.verb == "decode":
            return jax.lax.bitcast_convert_type(v, dtype).astype(jnp.float32)
        if work.name == "bf16":  # jit may drop a cast to bfloat16 and back
            return jax.lax.reduce_precision(v, 8, 7)
        return v.astype(dtype).astype(jnp.float32)

    compiled, v = jax.jit(function), jnp.asarray(x)
    return lambda: compiled(v).block_until_ready()


# Emulators of any format


def gfloat_info(work: Work) -> Any:
    name = {"bf16": "bfloat16", "e5m2": "ocp_e5m2"}.get(work.name, "ocp_e4m3")
    return getattr(import_module("gfloat.formats"), f"format_info_{name}")


@contender("gfloat", "round_ndarray", *CASTS)
def gfloat_numpy(work: Work, x: np.ndarray) -> Call:
    gfloat = import_module("gfloat")
    info = gfloat_info(work)
    return lambda: gfloat.round_ndarray(info, x, sat=True)


@contender("gfloat", "round_ndarray on torch", "e4m3fn")
def gfloat_torch(work: Work, x: np.ndarray) -> Call:
    import torch

    gfloat = import_module("gfloat")
    info, t = gfloat_info(work), torch.from_numpy(x)
    return lambda: gfloat.round_ndarray(info, t, sat=True)


@contender("gfloat", "round_ndarray with jax.jit", "e4m3fn")
def gfloat_jax(work: Work, x: np.ndarray) -> Call:
    import jax

    gfloat = import_module("gfloat")
    info, v = gfloat_info(work), jax.numpy.asarray(x)
    compiled = jax.jit(lambda v: gfloat.round_ndarray(info, v, sat=True))
    return lambda: compiled(v).block_until_ready()


@contender("gfloat", "round_ndarray, stochastic", "e4m3fn_sr")
def gfloat_stochastic(work: Work, x: np.ndarray) -> Call:
    gfloat = import_module("gfloat")
    info, mode = gfloat_info(work), gfloat.RoundMode.Stochastic
    rng = np.random.default_rng(0)

    def run() -> np.ndarray:
        bits = rng.integers(1 << 16, size=x.shape, dtype=np.int64)
        return gfloat.round_ndarray(info, x, mode, sat=True, srbits=bits, srnumbits=16)

    return run


@contender("gfloat", "quantize_block in a loop", "mxfp4", "mxfp8")
def gfloat_mx(work: Work, x: np.ndarray) -> Call:
    gfloat = import_module("gfloat")
    name = "mxfp4_e2m1" if work.name == "mxfp4" else "mxfp8_e4m3"
    info = getattr(import_module("gfloat.formats"), f"format_info_{name}")
    blocks = x.reshape(-1, 32)

    def run() -> np.ndarray:
        rounded = [gfloat.quantize_block(info, b, gfloat.compute_scale_amax) for b in blocks]
        return np.array(rounded, np.float32).reshape(x.shape)

    return run


@contender("pychop", "Chop on torch", *CASTS, "e4m3fn_sr")
def pychop(work: Work, x: np.ndarray) -> Call:
    import torch

    chop = import_module("pychop").Chop(*BITS[work.name], rmode=5 if work.rounding == "stochastic" else 1)
    t = torch.from_numpy(x)
    return lambda: chop(t)


@contender("pychop", "mx_quantize", "mxfp4", "mxfp8")
def pychop_mx(work: Work, x: np.ndarray) -> Call:
    module = import_module("pychop.mx_formats")
    name = "mxfp4_e2m1" if work.name == "mxfp4" else "mxfp8_e4m3"
    return lambda: module.mx_quantize(x, name, 32)


@contender("apytypes", "from_array, to_numpy", "e5m2", "bf16")
def apytypes(work: Work, x: np.ndarray) -> Call:
    array = import_module("apytypes").APyFloatArray
    exponent, mantissa = BITS[work.name]
    return lambda: array.from_array(x, exponent, mantissa).to_numpy()


class CPFloatOptions(ctypes.Structure):
    """`optstruct` of cpfloat_definitions.h."""

    _fields_ = (
        ("format", ctypes.c_char * 15),
        ("precision", ctypes.c_uint),
        *((name, ctypes.c_int) for name in ("emin", "emax", "explim", "infinity", "round", "saturation", "subnormal")),
        ("flip", ctypes.c_int),
        ("p", ctypes.c_double),
        *((name, ctypes.c_void_p) for name in ("bitseed", "randseedf", "randseed")),
    )


@contender("cpfloat", "cpfloatf", *CASTS, "e4m3fn_sr", into="existing")
def cpfloat(work: Work, x: np.ndarray) -> Call:
    """The shared library of CPFloat that CPFLOAT_LIB names."""
    if not (path := os.environ.get("CPFLOAT_LIB")):
        raise ModuleNotFoundError("CPFLOAT_LIB is not set")
    function = ctypes.CDLL(path).cpfloatf
    exponent, mantissa = BITS[work.name]
    emax = 2 ** (exponent - 1) - 1 + work.name.startswith("e4m3fn")  # e4m3fn: one exponent more than IEEE's
    options = CPFloatOptions(
        precision=mantissa + 1, emin=2 - 2 ** (exponent - 1), emax=emax, explim=1, infinity=1, saturation=1,
        subnormal=1, round=5 if work.rounding == "stochastic" else 1,
    )  # fmt: skip
    out = np.zeros_like(x)
    pointer = ctypes.POINTER(ctypes.c_float)
    arguments = (out.ctypes.data_as(pointer), x.ctypes.data_as(pointer), ctypes.c_size_t(x.size), ctypes.byref(options))

    def run() -> np.ndarray:
        function(*arguments)
        return out

    return run
