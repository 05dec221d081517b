"""lowp among the contenders: on NumPy arrays, on torch tensors, and in JAX."""

from __future__ import annotations

from typing import Any

import numpy as np
from benchmarks.contenders import contender, tensor
from benchmarks.timing import Call
from benchmarks.works import QUANTIZE, Work, block_codes

import lowp

ENCODE = ("encode_e4m3fn", "encode_bf16", "encode_mxfp4", "encode_posit8")
DECODE = ("decode_e4m3fn", "decode_mxfp4")
#: Works that tensors and JAX arrays are timed with too.
FRAMEWORKS = ("e4m3fn", "e5m7", "bf16", "e4m3fn_sr", "int8_row", "mxfp8", "mxfp4", "nvfp4", "posit8", "posit16", "nf4")
TORCH_ONLY = ("bf16_e4m3fn", "f64_e4m3fn")


@contender("lowp", "quantize", *QUANTIZE)
def new(work: Work, x: np.ndarray) -> Call:
    return lambda: lowp.quantize(x, work.format, work.rounding, work.overflow)


@contender("lowp", "quantize, out=", *QUANTIZE, into="existing")
def existing(work: Work, x: np.ndarray) -> Call:
    out = np.zeros_like(x)
    return lambda: lowp.quantize(x, work.format, work.rounding, work.overflow, out=out)


@contender("lowp", "encode", *ENCODE)
def encode(work: Work, x: np.ndarray) -> Call:
    return lambda: lowp.encode(x, work.format).codes


@contender("lowp", "encode, pack", "pack_fp4")
def pack(work: Work, x: np.ndarray) -> Call:
    return lambda: lowp.encode(x, work.format).pack()


@contender("lowp", "decode", *DECODE)
def decode(work: Work, x: np.ndarray) -> Call:
    if work.format == "mxfp4":
        encoded = block_codes(x)
        return lambda: lowp.decode(encoded)
    return lambda: lowp.decode(x, work.format, dtype=np.float32)


@contender("lowp.torch", "eager", *FRAMEWORKS, *TORCH_ONLY)
def torch_eager(work: Work, x: np.ndarray) -> Call:
    import lowp.torch as lt

    t = tensor(work, x)
    return lambda: lt.quantize(t, work.format, work.rounding)


@contender("lowp.torch", "eager, out=", *FRAMEWORKS, *TORCH_ONLY, into="existing")
def torch_existing(work: Work, x: np.ndarray) -> Call:
    import torch

    import lowp.torch as lt

    t = tensor(work, x)
    out = torch.zeros_like(t)
    return lambda: lt.quantize(t, work.format, work.rounding, out=out)


@contender("lowp.torch", "torch.compile", *FRAMEWORKS, whole=True)
def torch_compiled(work: Work, x: np.ndarray) -> Call:
    import torch

    import lowp.torch as lt

    t = tensor(work, x)
    function = torch.compile(lambda v: lt.quantize(v, work.format, work.rounding), dynamic=False)
    return lambda: function(t)


@contender("lowp.jax", "jax.jit", *FRAMEWORKS)
def jax_jit(work: Work, x: np.ndarray) -> Call:
    import jax

    import lowp.jax as lj

    def function(v: Any) -> Any:
        return lj.quantize(v, work.format, work.rounding)

    jitted, v = jax.jit(function), jax.numpy.asarray(x)
    return lambda: jitted(v).block_until_ready()
