"""Who takes part: one small function per contender, which prepares the input and returns the call to be timed.

A contender whose package cannot be imported is "not installed"; one that raises is "failed". Neither stops the run.
Every result is compared with lowp's, bit for bit.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from benchmarks.expressions import integer_groups, mx, nvfp4
from benchmarks.timing import Call

import lowp


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


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile for one shape; without the option, a cast to bfloat16 or float16 and back is dropped."""
    import torch

    return torch.compile(function, dynamic=False, options={"emulate_precision_casts": True})


@contender("torch", "eager", *CASTS, "mxfp8", *GROUPS, "encode_e4m3fn", "decode_e4m3fn")
def torch_eager(work: Work, x: np.ndarray) -> Call:
    import torch

    function, t = torch_function(work), torch.from_numpy(x)
    return lambda: function(t)


@contender("torch", "torch.compile", *CASTS, "mxfp8", *GROUPS, "encode_e4m3fn", "decode_e4m3fn", whole=True)
def torch_compiled(work: Work, x: np.ndarray) -> Call:
    import torch

    function, t = compiled(torch_function(work)), torch.from_numpy(x)
    return lambda: function(t)


@contender("torch", "torch.compile, copy_ into out", "e4m3fn", into="existing", whole=True)
def torch_compiled_existing(work: Work, x: np.ndarray) -> Call:
    import torch

    function, t = torch_function(work), torch.from_numpy(x)
    copying, out = compiled(lambda t, out: out.copy_(function(t))), torch.zeros_like(t)
    return lambda: copying(t, out)


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

    function, t = compiled(torchao_nvfp4_function()), torch.from_numpy(x)
    return lambda: function(t)


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

    jitted, v = jax.jit(function), jnp.asarray(x)
    return lambda: jitted(v).block_until_ready()
