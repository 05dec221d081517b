"""The emulators among the contenders: they serve any format, as lowp does."""

import ctypes
import os
import sys
from importlib import import_module
from typing import Any

import numpy as np
from benchmarks.contenders import contender
from benchmarks.timing import Call
from benchmarks.works import BITS, CASTS, MX_ELEMENTS, SMALL_CASTS, Work


def qtorch_quantize(package: str, work: Work, x: np.ndarray) -> Call:
    import torch

    quantize = import_module(f"{package}.quant").float_quantize
    t, (exponent, mantissa) = torch.from_numpy(x), BITS[work.name]
    rounding = "stochastic" if work.rounding == "stochastic" else "nearest"
    return lambda: quantize(t, exponent, mantissa, rounding)


@contender("qtorch", "float_quantize", *CASTS, "e5m7", "e4m3fn_sr", "bf16_sr")
def qtorch(work: Work, x: np.ndarray) -> Call:
    return qtorch_quantize("qtorch", work, x)


@contender("qtorch_plus", "float_quantize", "e4m3fn", "e4m3fn_sr")
def qtorch_plus(work: Work, x: np.ndarray) -> Call:
    return qtorch_quantize("qtorch_plus", work, x)


@contender("qtorch_plus", "posit_quantize", "posit8", "posit16")
def qtorch_posit(work: Work, x: np.ndarray) -> Call:
    import torch

    quantize = import_module("qtorch_plus.quant").posit_quantize
    t, bits = torch.from_numpy(x), 8 if work.name == "posit8" else 16
    return lambda: quantize(t, nsize=bits, es=2)


@contender("bitsandbytes", "quantize_nf4, dequantize_nf4, a scale for each 64", "nf4")
def bitsandbytes(work: Work, x: np.ndarray) -> Call:
    import torch

    functional, t = import_module("bitsandbytes.functional"), torch.from_numpy(x)
    return lambda: functional.dequantize_nf4(*functional.quantize_nf4(t, blocksize=64))


@contender("numpy", "searchsorted", "posit8", "posit16", "takum16", "lns8", "nf4")
def search(work: Work, x: np.ndarray) -> Call:
    """Nearest value by distance: what a user of NumPy writes."""
    import lowp

    values = np.unique(np.array(lowp.values(work.format), np.float64))
    values = values[np.isfinite(values)].astype(np.float32)
    middles = (values[1:] + values[:-1]) / 2
    return lambda: values[np.searchsorted(middles, x)]


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


def gfloat_info(work: Work) -> Any:
    names = {"bf16": "bfloat16", "e5m2": "ocp_e5m2", "fp16": "binary16", "fp6": "ocp_e3m2", "fp6_e2m3": "ocp_e2m3"}
    name = {**names, "fp4": "ocp_e2m1"}.get(work.name, "ocp_e4m3")
    return getattr(import_module("gfloat.formats"), f"format_info_{name}")


@contender("gfloat", "round_ndarray", *SMALL_CASTS, "e4m3fn_zero")
def gfloat_numpy(work: Work, x: np.ndarray) -> Call:
    gfloat = import_module("gfloat")
    info = gfloat_info(work)
    mode = gfloat.RoundMode.TowardZero if work.rounding == "toward_zero" else gfloat.RoundMode.TiesToEven
    return lambda: gfloat.round_ndarray(info, x, mode, sat=True)


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
    jitted = jax.jit(lambda v: gfloat.round_ndarray(info, v, sat=True))
    return lambda: jitted(v).block_until_ready()


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


@contender("pychop", "Chop on torch", *CASTS, "e5m7", "e4m3fn_sr", "bf16_sr")
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


@contender("apytypes", "from_array, to_numpy", "e5m2", "bf16", "fp16", "e5m7")
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


@contender("cpfloat", "cpfloatf", *CASTS, "e5m7", "e4m3fn_sr", "bf16_sr", into="existing")
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
