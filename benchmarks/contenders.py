"""Who takes part: one small function per contender, which prepares the input and returns the call to be timed.

A contender whose package cannot be imported is "not installed"; one that raises is "failed". Neither stops the run.
Every result is compared with lowp's, bit for bit.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from benchmarks.expressions import integer_groups, mx, nvfp4
from benchmarks.timing import Call
from benchmarks.works import CASTS, GROUPS, MX_ELEMENTS, SMALL_CASTS, Work

Build = Callable[[Work, np.ndarray], Call]


@dataclass(frozen=True)
class Contender:
    """One way of doing some of the works.

    Attributes:
        owner: "lowp", "lowp.torch", "lowp.jax", "copy" (the machine's own limit) or the peer's name.
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
OTHER_DTYPES = ("f64_e4m3fn", "f64_bf16", "bf16_e4m3fn", "fp16_e4m3fn")


def contender(owner: str, label: str, *works: str, into: str = "new", whole: bool = False) -> Callable[[Build], Build]:
    """Enter the function in the list of contenders."""

    def enter(build: Build) -> Build:
        CONTENDERS.append(Contender(owner, label, build, works, into, whole))
        return build

    return enter


# NumPy and ml_dtypes


def numpy_dtype(work: Work) -> Any:
    """Return the dtype of the work's format that NumPy or ml_dtypes has."""
    return np.float16 if work.format == "float16" else getattr(import_module("ml_dtypes"), work.format)


@contender("ml_dtypes", "astype", *SMALL_CASTS, "f64_bf16", "bf16_e4m3fn", "fp16_e4m3fn")
def ml_dtypes_cast(work: Work, x: np.ndarray) -> Call:
    dtype = numpy_dtype(work)
    return lambda: x.astype(dtype).astype(x.dtype)


@contender("ml_dtypes", "assignment, both arrays kept", *SMALL_CASTS, into="existing")
def ml_dtypes_existing(work: Work, x: np.ndarray) -> Call:
    codes = np.zeros(x.shape, numpy_dtype(work))
    out = np.zeros_like(x)

    def run() -> np.ndarray:
        codes[...] = x
        out[...] = codes
        return out

    return run


@contender("ml_dtypes", "astype", "encode_e4m3fn", "encode_bf16")
def ml_dtypes_encode(work: Work, x: np.ndarray) -> Call:
    dtype = np.dtype(getattr(import_module("ml_dtypes"), work.format))
    return lambda: x.astype(dtype).view(f"u{dtype.itemsize}")


@contender("ml_dtypes", "astype", "decode_e4m3fn")
def ml_dtypes_decode(work: Work, x: np.ndarray) -> Call:
    codes = x.view(getattr(import_module("ml_dtypes"), work.format))
    return lambda: codes.astype(np.float32)


@contender("ml_dtypes", "and a NumPy expression", *MX_ELEMENTS)
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
        return lambda t: t.to(dtype).view(torch.uint8 if dtype.itemsize == 1 else torch.uint16)
    if work.verb == "decode":
        return lambda t: t.view(dtype).to(torch.float32)
    if work.dtype != "float32":
        return lambda t: t.to(dtype).to(getattr(torch, work.dtype))
    return lambda t: t.to(dtype).to(torch.float32)


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile for one shape; without the option, a cast to bfloat16 or float16 and back is dropped."""
    import torch

    return torch.compile(function, dynamic=False, options={"emulate_precision_casts": True})


TORCH = (*CASTS, "mxfp8", *GROUPS, "encode_e4m3fn", "encode_bf16", "decode_e4m3fn", *OTHER_DTYPES)


def tensor(work: Work, x: np.ndarray) -> Any:
    """Return the input as a tensor; NumPy's bfloat16 goes by its bits."""
    import torch

    return torch.from_numpy(x.view(np.uint16)).view(torch.bfloat16) if work.dtype == "bfloat16" else torch.from_numpy(x)


@contender("torch", "eager", *TORCH)
def torch_eager(work: Work, x: np.ndarray) -> Call:
    function, t = torch_function(work), tensor(work, x)
    return lambda: function(t)


@contender("torch", "torch.compile", *TORCH, whole=True)
def torch_compiled(work: Work, x: np.ndarray) -> Call:
    function, t = compiled(torch_function(work)), tensor(work, x)
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


@contender("jax", "jax.jit", *SMALL_CASTS, *MX_ELEMENTS, *GROUPS, "encode_e4m3fn", "decode_e4m3fn")
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
        if work.name in ("bf16", "fp16"):  # jit may drop a cast to bfloat16 and back
            return jax.lax.reduce_precision(v, *((8, 7) if work.name == "bf16" else (5, 10)))
        return v.astype(dtype).astype(jnp.float32)

    jitted, v = jax.jit(function), jnp.asarray(x)
    return lambda: jitted(v).block_until_ready()
