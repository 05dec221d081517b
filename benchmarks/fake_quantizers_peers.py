"""The fake quantizers that lowp is set beside: what each computes by its own definition, and how it is called."""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from benchmarks import fake_quantizers_rules as rules
from benchmarks.fake_quantizers_rules import TINY, Rule, Setting
from benchmarks.timing import Call

import lowp

Build = Callable[[np.ndarray], Call]


@dataclass(frozen=True)
class Side:
    """One format of one peer beside lowp's.

    Attributes:
        peer: Name of the package.
        call: What is called.
        standard: lowp by the standard, or by the definition of lowp's own that is nearest.
        build: Takes the input, prepares the peer and returns its call.
        own: lowp by the peer's definition: a setting, or a rule around roundings by lowp; None if it is the standard.
        why: What the peer's definition has that the standard has not.
        scope: "elements" if no element depends on another, "blocks", or "tensor" if all of them share a scale.
        world: Arrays that the peer works on, and lowp beside it: "torch", "numpy" or "jax".
    """

    peer: str
    call: str
    standard: Setting
    build: Build
    own: Rule | None = None
    why: str = ""
    scope: str = "elements"
    world: str = "torch"


IEEE = "infinity_or_nan"
E4M3, E5M2, E2M1 = (Setting(name) for name in ("float8_e4m3fn", "float8_e5m2", "float4_e2m1fn"))
INT4, INT8 = (Setting(lowp.Integer(bits)) for bits in (4, 8))
LOG2 = "floor of a float32 log2"


def block(element: str | lowp.Integer, size: int | str, scale: str = "float32", **options: Any) -> Setting:
    """Return lowp's block format of those parts: exact quotients, rounded once."""
    made = lowp.Block(element, size=size, scale=scale, **options)
    zero = " and zero point" * made.zero_point
    return Setting(made, label=f"{made.element.name}, {scale} scale{zero} per {size}")


def recipe(name: str, rule: str) -> Setting:
    return Setting(lowp.parse(name).with_recipe(rule), label=f"{name}, {rule}")


def torch_call(function: Callable[[Any], Any], x: np.ndarray) -> Call:
    """Return the call of a function of a tensor, without gradients."""
    import torch

    t = torch.from_numpy(x)

    def run() -> Any:
        with torch.no_grad():
            return function(t)

    return run


# pychop


def chop(name: str, *arguments: Any, **options: Any) -> Build:
    return lambda x: torch_call(getattr(import_module("pychop"), name)(*arguments, **options), x)


def chop_mx(name: str) -> Build:
    return lambda x: lambda: import_module("pychop.mx_formats").mx_quantize(x, name, 32)


def chop_side(exponent: int, mantissa: int, name: str, why: str = "") -> Side:
    call, own = f"Chop({exponent}, {mantissa})", rules.chop(exponent, mantissa)
    why += "overflow found before rounding: 0 or too large; subnormals rounded twice"
    return Side("pychop", call, Setting(name, overflow=IEEE), chop("Chop", exponent, mantissa), own, why)


FIXED = Setting(lowp.Fixed(8, 4))
SPECIALS = "NaN and infinity touch no other element"
PYCHOP = [
    chop_side(4, 3, "float8_e4m3fn", "E4M3 with infinities, largest value 240; "),
    chop_side(4, 3, "float8_e4m3"),
    chop_side(5, 2, "float8_e5m2"),
    chop_side(5, 10, "float16"),
    Side("pychop", "Chop(8, 7)", Setting("bfloat16", overflow=IEEE), chop("Chop", 8, 7), rules.chop(8, 7)),
    Side(
        "pychop", "Chopf(4, 4)", FIXED, chop("Chopf", 4, 4), why="-infinity becomes -7.9375, not -8",
        own=rules.infinity_as(lambda x: np.sign(x) * np.float32(7.9375), FIXED),
    ),
    Side(
        "pychop", "Chopi(8, symmetric=True)", Setting("int8_tensor"), chop("Chopi", 8, symmetric=True), scope="tensor",
        own=rules.scaled(INT8, rules.span_of_tensor(8)), why="scale (max - min) / 255, not amax / 127",
    ),
    *(
        Side("pychop", f"mx_quantize {name}", Setting(fmt), chop_mx(name), rules.pychop_mx(element, emax), why,
             "blocks", "numpy")
        for name, fmt, element, emax, why in (
            ("mxfp4_e2m1", "mxfp4", E2M1, 2, f"{LOG2}; {SPECIALS}"),
            ("mxfp8_e4m3", "mxfp8_e4m3", E4M3, 8, f"{LOG2}; {SPECIALS}"),
            ("mxint8", "mxint8", Setting(lowp.Fixed(8, 6)), 0, f"{LOG2}; {SPECIALS}; element -2 in use"),
        )
    ),
]  # fmt: skip


# torchao


def fake_quantizer(kind: str, *arguments: str, **options: Any) -> Build:
    """Build IntxFakeQuantizer or Float8FakeQuantizer; `arguments` name the dtype and the granularity."""

    def build(x: np.ndarray) -> Call:
        import torch

        qat = import_module("torchao.quantization.qat")
        granularity = import_module("torchao.quantization.granularity")
        dtype, *units = arguments
        config = getattr(qat, f"{kind}FakeQuantizeConfig")
        made = config(getattr(torch, dtype), *(getattr(granularity, unit)() for unit in units), **options)
        return torch_call(
            import_module("torchao.quantization.qat.fake_quantizer").FakeQuantizerBase.from_config(made), x
        )

    return build


def torchao_mx(element: str, mode: str) -> Build:
    """What MXFakeQuantizedLinear computes with: MXTensor, by the options of MXFakeQuantizeConfig."""

    def build(x: np.ndarray) -> Call:
        import torch

        modes = import_module("torchao.prototype.mx_formats.config").ScaleCalculationMode
        config = import_module("torchao.prototype.qat").MXFakeQuantizeConfig
        c = config(getattr(torch, element), scaling_mode=modes[mode])
        to_mx = import_module("torchao.prototype.mx_formats.mx_tensor").MXTensor.to_mx
        return torch_call(lambda t: to_mx(t, c.dtype, c.block_size, c.scaling_mode).dequantize(torch.float32), x)

    return build


def torchao_nvfp4(x: np.ndarray) -> Call:
    """What NVFP4FakeQuantizedLinear computes with, by the options of NVFP4FakeQuantizeConfig."""
    import torch

    module = import_module("torchao.prototype.mx_formats.nvfp4_tensor")

    def function(t: Any) -> Any:
        scale = module.per_tensor_amax_to_scale(t.abs().max())
        return module.NVFP4Tensor.to_nvfp4(t, per_tensor_scale=scale).dequantize(torch.float32)

    return torch_call(function, x)


TORCHAO = [
    Side(
        "torchao", "IntxFakeQuantizer int8 per token", block(lowp.Integer(8), "row", zero_point=True),
        fake_quantizer("Intx", "int8", granularity="per_token", is_symmetric=False), rules.per_token(8),
        "x * (1 / s) in float32, zero point added after rounding", "blocks",
    ),
    Side(
        "torchao", "IntxFakeQuantizer int8 per channel", Setting("int8_row"),
        fake_quantizer("Intx", "int8", granularity="per_channel"), rules.scaled(INT8, rules.over(127.5, TINY), True),
        "scale amax / 127.5; x * (1 / s) in float32", "blocks",
    ),
    Side(
        "torchao", "IntxFakeQuantizer int4 per group of 32", block(lowp.Integer(4), 32),
        fake_quantizer("Intx", "int4", group_size=32),
        rules.blocks(rules.scaled(INT4, rules.over(7.5, TINY), True), 32),
        "scale amax / 7.5; x * (1 / s) in float32", "blocks",
    ),
    Side(
        "torchao", "Float8FakeQuantizer E4M3 PerRow", block("float8_e4m3fn", "row"),
        fake_quantizer("Float8", "float8_e4m3fn", "PerRow"), rules.scaled(E4M3, rules.over(448)),
        "x / s rounded to float32 first", "blocks",
    ),
    *(
        Side("torchao", f"MXFakeQuantizeConfig {name} {mode}", setting, torchao_mx(element, mode), scope="blocks",
             own=rules.infinity_alone(setting), why="infinity stays, the rest of its block is 0")
        for name, mode, element, setting in (
            ("fp4", "RCEIL", "float4_e2m1fn_x2", recipe("mxfp4", "rceil")),
            ("fp4", "FLOOR", "float4_e2m1fn_x2", Setting("mxfp4")),
            ("fp8", "RCEIL", "float8_e4m3fn", recipe("mxfp8_e4m3", "rceil")),
            ("fp8", "FLOOR", "float8_e4m3fn", Setting("mxfp8_e4m3")),
        )
    ),
    Side(
        "torchao", "NVFP4FakeQuantizeConfig", Setting("nvfp4"), torchao_nvfp4, Setting("nvfp4_torchao"),
        "decodes in two float32 steps; block scale at least 2^-6", "tensor",
    ),
]  # fmt: skip


# microxcaling


def mx_specs(**options: Any) -> Any:
    """Return the package's options; a checkout of microsoft/microxcaling is found by PEERS_PATH."""
    if (folder := os.environ.get("PEERS_PATH")) and folder not in sys.path:
        sys.path.append(folder)
    return import_module("mx.specs").finalize_mx_specs({"custom_cuda": False, **options})


def mx_elementwise(rounding: str, **options: Any) -> Build:
    def build(x: np.ndarray) -> Call:
        specs = mx_specs(round=rounding, **options)
        quantize = import_module("mx.elemwise_ops").quantize_elemwise_op
        return torch_call(lambda t: quantize(t, specs), x)

    return build


def mx_block(element: str, rounding: str) -> Build:
    def build(x: np.ndarray) -> Call:
        specs = mx_specs(a_elem_format=element, block_size=32)
        quantize = import_module("mx.mx_ops").quantize_mx_op
        return torch_call(lambda t: quantize(t, specs, element, axes=[-1], round=rounding), x)

    return build


def mx_side(element: str, name: str, emax: int, rounding: str) -> Side:
    value = rules.microxcaling(lowp.parse(name).element, rounding == "even", clip=True)
    own = rules.scaled(value, rules.power_of_two(emax, rules.torch_log2))
    why = "ties away from zero; " * (rounding == "nearest") + LOG2
    call = f"quantize_mx_op {element}, {rounding}"
    return Side("microxcaling", call, Setting(name), mx_block(element, rounding), rules.blocks(own, 32), why, "blocks")


MICROXCALING = [
    *(
        Side("microxcaling", f"quantize_elemwise_op {option}=16, {rounding}", Setting(name, overflow=IEEE),
             mx_elementwise(rounding, **{option: 16}), rules.microxcaling(name, rounding == "even", clip=False), why)
        for option, name, rounding, why in (
            ("bfloat", "bfloat16", "nearest", "ties away from zero"),
            ("bfloat", "bfloat16", "even", ""),
            ("fp", "float16", "nearest", "ties away from zero; 0.49999997 + 0.5 is 1 in float32"),
            ("fp", "float16", "even", "0.49999997 + 0.5 is 1 in float32"),
        )
    ),
    *(
        mx_side(element, name, emax, rounding)
        for element, name, emax in (
            ("fp4_e2m1", "mxfp4", 2), ("fp6_e2m3", "mxfp6_e2m3", 2), ("fp6_e3m2", "mxfp6_e3m2", 4),
            ("fp8_e4m3", "mxfp8_e4m3", 8), ("fp8_e5m2", "mxfp8_e5m2", 15), ("int8", "mxint8", 0),
        )
        for rounding in ("nearest", "even")
    ),
]  # fmt: skip


# brevitas


def activation(where: str, name: str, **options: Any) -> Build:
    def build(x: np.ndarray) -> Call:
        quantizer = getattr(import_module(f"brevitas.quant.{where}"), name)
        return torch_call(import_module("brevitas.nn").QuantIdentity(act_quant=quantizer, **options).eval(), x)

    return build


def weight(name: str, **options: Any) -> Build:
    """The quantizer of a linear layer whose weight is the input."""

    def build(x: np.ndarray) -> Call:
        import torch

        quantizer = getattr(import_module("brevitas.quant.scaled_int"), name)
        linear = import_module("brevitas.nn").QuantLinear
        layer = linear(x.shape[1], x.shape[0], bias=False, weight_quant=quantizer, **options).eval()
        layer.weight.data = torch.from_numpy(x)
        return torch_call(lambda _: layer.quant_weight().value, x)

    return build


def brevitas_mx(element: Rule, emax: int) -> Rule:
    return rules.blocks(rules.scaled(element, rules.power_of_two(emax, rules.torch_log2)), 32)


FP4_ACT = {"group_dim": -1, "bit_width": 4, "exponent_bit_width": 2, "mantissa_bit_width": 1}
OCP, MX, INT = "float_quant_ocp", "mx_quant_ocp", "Int8WeightPerChannelFloat"
BREVITAS = [
    *(
        Side("brevitas", name, setting, activation(OCP, name), rules.infinity_as(lambda x: np.nan, setting),
             "infinity becomes NaN")
        for name, setting in (("Fp8e4m3OCPAct", E4M3), ("Fp8e5m2OCPAct", E5M2))
    ),
    Side(
        "brevitas", "MXFloat8e4m3Act", Setting("mxfp8_e4m3"), activation(MX, "MXFloat8e4m3Act", group_dim=-1),
        brevitas_mx(E4M3, 8), LOG2, "blocks",
    ),
    Side(
        "brevitas", "MXFloat8e4m3Act made E2M1", Setting("mxfp4"),
        activation(MX, "MXFloat8e4m3Act", **FP4_ACT), brevitas_mx(E2M1, 2), LOG2, "blocks",
    ),
    Side(
        "brevitas", "MXInt8Act", Setting("mxint8"), activation(MX, "MXInt8Act", group_dim=-1),
        brevitas_mx(INT8, 7), "scale half the standard's: numbers above half the range clip", "blocks",
    ),
    Side(
        "brevitas", "Int8WeightPerChannelFloat", Setting("int8_row"), weight(INT),
        rules.scaled(INT8, rules.over(127, 1e-10)), "x / s rounded to float32 first", "blocks",
    ),
    Side(
        "brevitas", "Int8WeightPerChannelFloat of 4 bits", block(lowp.Integer(4), "row"),
        weight(INT, weight_bit_width=4),
        rules.scaled(INT4, rules.over(7, 1e-10)), "x / s rounded to float32 first", "blocks",
    ),
    Side(
        "brevitas", "Int8WeightPerTensorFloat", Setting("int8_tensor"), weight("Int8WeightPerTensorFloat"),
        rules.scaled(INT8, lambda x: np.abs(x).max() / np.float32(127)), "x / s rounded to float32 first", "tensor",
    ),
]  # fmt: skip


# qwix


def qwix(qtype: str, tile: int = 0) -> Build:
    """Quantize and dequantize in one compiled function."""

    def build(x: np.ndarray) -> Call:
        import jax

        array = import_module("qwix._src.core.qarray")
        dtype = getattr(jax.numpy, qtype, qtype)
        how = array.HowToQuantize(qtype=dtype, channelwise_axes=(0,), tiled_axes={1: tile} if tile else {})
        function, v = jax.jit(lambda v: array.dequantize(array.quantize(v, how))), jax.numpy.asarray(x)
        return lambda: function(v).block_until_ready()

    return build


def qwix_side(call: str, standard: Setting, build: Build, own: Rule | None = None, why: str = "") -> Side:
    return Side("qwix", call, standard, build, own, why, "blocks", "jax")


def e4m3_scale(x: np.ndarray) -> np.ndarray:
    return np.asarray(E4M3(rules.times(1 / 6)(x)))


XLA = "x / s compiled to x * (1 / s)"
QWIX = [
    qwix_side(
        "int8, channelwise", Setting("int8_row"), qwix("int8"), rules.scaled(INT8, rules.times(1 / 127.5), True),
        f"scale amax / 127.5, compiled to amax * (1 / 127.5); {XLA}",
    ),
    qwix_side(
        "int4, tiles of 32", block(lowp.Integer(4), 32), qwix("int4", 32),
        rules.blocks(rules.scaled(INT4, rules.times(1 / 7.5), True), 32),
        f"scale amax / 7.5, compiled to amax * (1 / 7.5); {XLA}",
    ),
    qwix_side(
        "float8_e4m3fn, channelwise", block("float8_e4m3fn", "row"), qwix("float8_e4m3fn"),
        rules.scaled(E4M3, rules.times(1 / 448), True), f"scale compiled to amax * (1 / 448); {XLA}",
    ),
    qwix_side("mxfp4", recipe("mxfp4", "rceil"), qwix("mxfp4", 32)),
    qwix_side("mxfp4", Setting("mxfp4"), qwix("mxfp4", 32), recipe("mxfp4", "rceil"), "scale rounded up"),
    qwix_side("mxfp8", Setting("mxfp8_e4m3"), qwix("mxfp8", 32), recipe("mxfp8_e4m3", "rceil"), "scale rounded up"),
    qwix_side(
        "nvfp4", Setting("nvfp4"), qwix("nvfp4", 16),
        rules.blocks(rules.scaled(rules.nan_as(-0.0, E2M1), e4m3_scale, True), 16),
        f"no tensor scale; {XLA}",
    ),
    qwix_side(
        "nf4, channelwise", block("nf4", "row"), qwix("nf4"),
        rules.scaled(rules.least_distance("nf4"), rules.times(1), True),
        f"least distance in float32, not bitsandbytes' thresholds; {XLA}; infinity becomes -infinity",
    ),
]  # fmt: skip

SIDES = [*PYCHOP, *TORCHAO, *MICROXCALING, *BREVITAS, *QWIX]
