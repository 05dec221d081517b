"""Processing elements of published accelerators, built of the same blocks as every other datapath.

Their structure follows the papers as far as they tell it; what is assumed is said in `ProcessingElement.assumed`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from lowp._errors import ArgumentError, unknown_name
from lowp.formats import Float, parse
from lowp.hw_models.blocks import Block
from lowp.hw_models.datapath import Datapath, datapath
from lowp.hw_models.datapath_formats import WIDE, decoders
from lowp.hw_models.estimate import Estimate
from lowp.hw_models.units import UnitCost, price
from lowp.hw_models.value_sets import factor


@dataclass(frozen=True)
class ProcessingElement:
    """A published processing element.

    Attributes:
        name: Short name.
        title: What it is.
        datapath: Its blocks.
        steps: (weights, steps) pairs: in how many steps it makes `datapath.lanes` products with such weights.
        source: Where it was published.
        assumed: What the model assumes about it beyond the publication.
        seldom: Blocks that do not work for every product, each with the products between two uses.
    """

    name: str
    title: str
    datapath: Datapath
    steps: tuple[tuple[str, float], ...]
    source: str
    assumed: str
    seldom: tuple[tuple[Block, float], ...] = ()

    def cost(self, target: str = "n28") -> UnitCost:
        """Price the element on a target; see `dot_unit`."""
        return price(self.datapath, target)

    def products_per_step(self, weights: str) -> float:
        """Return how many products the element makes per step.

        Raises:
            ArgumentError: The element does not multiply such weights.
        """
        for name, steps in self.steps:
            if name == weights:
                return self.datapath.lanes / steps
        raise ArgumentError(unknown_name("weights", weights, [name for name, _ in self.steps]))

    def energy_per_product(self, weights: str, target: str = "n28") -> Estimate:
        """Return the energy of one product and its share of the sum, and of blocks that work for many products at once.

        Raises:
            ArgumentError: The element does not multiply such weights.
            FormatError: The target has no coefficients of energy.
        """
        seldom = dict(self.seldom)
        often = tuple(block for block in self.datapath.blocks if block not in seldom)
        energy = price(replace(self.datapath, blocks=often), target).energy * (1 / self.products_per_step(weights))
        for block, products in self.seldom:
            energy = energy + price(replace(self.datapath, blocks=(block,)), target).energy * (1 / products)
        return energy

    def describe(self) -> str:
        """Return the element's blocks, source and assumptions as text."""
        lines = [self.title, self.datapath.describe(), f"  source: {self.source}", f"  assumed: {self.assumed}"]
        return "\n".join(lines)


def processing_elements() -> list[str]:
    """Return the names of the published processing elements.

    Example:
        >>> processing_elements()
        ['axllm', 'bitmod', 'dint', 'fp16_mac', 'lns_madam', 'mixpe', 'xr_npe']
    """
    return sorted(_BUILDERS)


def processing_element(name: str) -> ProcessingElement:
    """Return a published processing element.

    Args:
        name: One of `processing_elements()`; also as papers write it, such as "XR-NPE".

    Raises:
        ArgumentError: The name is unknown.

    Example:
        >>> element = processing_element("bitmod")
        >>> element.products_per_step("int8"), element.products_per_step("fp4")
        (1.0, 2.0)
    """
    found = str(name).strip().lower().replace("-", "_")
    if found not in _BUILDERS:
        raise ArgumentError(unknown_name("name", name, processing_elements()))
    return _BUILDERS[found](found)


def _unit(blocks: list[Block], a: str, b: str, lanes: int, product: int, stored: int) -> Datapath:
    unit, accumulator = 0, parse("float32")
    return Datapath(parse(a), parse(b), accumulator, lanes, lanes, None, product, unit, stored, tuple(blocks))


def _fp16_mac(name: str) -> ProcessingElement:
    unit = datapath("float16", accumulator="float16", stages=6)
    assumed = "six pipeline stages, float16 running sum"
    return ProcessingElement(
        name, "FP16 multiply-and-add element", unit, (("float16", 1),), "BitMoD, HPCA 2025, Table X", assumed
    )


_HALF = Float(5, 10)
_BITMOD_LANES = 4
#: Bits that a group's sum and the running sum keep.
_BITMOD_WINDOW = 24


def _bitmod(name: str) -> ProcessingElement:
    """Four float16 activations times one bit-serial term of a weight each: a significand bit, a sign, a shift."""
    lanes, half, wide = _BITMOD_LANES, factor(_HALF), factor(WIDE)
    significand, exponent, window = half.significand, half.exponent_bits, _BITMOD_WINDOW
    total = window + (lanes - 1).bit_length()
    blocks = [
        *decoders(_HALF, lanes, "decode"),
        Block.of("multiplier", "multiply", lanes, ma=significand, mb=1),
        Block.of("exponent_adder", "exponent", lanes, label="activation and term", bits=exponent),
        Block.of("comparator_tree", "align", inputs=lanes, bits=exponent + 1),
        Block.of("subtractor", "align", lanes, label="exponents", bits=exponent + 1),
        Block.of("aligner", "align", lanes, n=significand + 4, product=significand),
        Block.of("negate", "align", lanes, bits=significand + 4),
        Block.of("adder_tree", "sum", inputs=lanes, bits=significand + 4),
        Block.of("shifter", "sum", label="to the group's sum", bits=window, positions=window),
        Block.of("adder", "sum", label="group's sum", bits=total),
        Block.of("leading_zero_counter", "normalise", bits=total),
        Block.of("normaliser", "normalise", bits=total),
        Block.of("shifter", "accumulate", label="to the running sum", bits=window, positions=window),
        Block.of("adder", "accumulate", label="running sum plus one bit of the scale", bits=total),
        Block.of("register", "register", lanes, label="activations", operand="a", bits=16),
        Block.of("register", "register", lanes, label="terms", operand="b", bits=6),
        Block.of("register", "register", label="group's sum", bits=total + exponent + 1),
        Block.of("register", "register", label="running sum", bits=total + wide.exponent_bits),
    ]
    steps = (("int8", 4), ("int6", 3), ("int5", 3), ("fp4", 2), ("int4", 2), ("fp3", 2), ("int3", 2))
    return ProcessingElement(
        name,
        "BitMoD bit-serial mixture-of-datatype element",
        _unit(blocks, "float16", "int8", lanes, significand + 8, 32),
        steps,
        "Chen et al., BitMoD, HPCA 2025",
        "window of 24 bits, scales applied one bit per step, no pipeline registers besides the sums; Booth terms: 4 "
        "for int8, 3 for int6 and int5, 2 for four bits and fewer",
    )


#: Products of a group, which share a scale.
_MIXPE_GROUP = 128


def _mixpe(name: str) -> ProcessingElement:
    """An int8 activation times an int4 weight by shifting and adding; dequantization once per group of sums."""
    unit = datapath("int8", f"int4_g{_MIXPE_GROUP}", lanes=1, accumulator="float32")
    operands = [b for b in unit.of_role("register") if b["bits"] in (8, 4)]
    dequantize = [b for b in unit.blocks if b.role != "multiply" and b not in operands]
    blocks = [
        Block.of("multiplier", "multiply", ma=8, mb=1),
        Block.of("shifter", "multiply", label="by the weight's bit", bits=12, positions=4),
        Block.of("adder", "accumulate", label="group's sum", bits=20),
        *dequantize,
        *operands,
        Block.of("register", "register", label="group's sum", bits=20),
    ]
    return ProcessingElement(
        name,
        "MixPE shift-and-add element",
        _unit(blocks, "int8", "int4", 1, 12, 32),
        (("int4", 4), ("int8", 8)),
        "MixPE, arXiv 2411.16158",
        f"one bit of the weight per step; the group's scale is applied by one multiplier per element, once in "
        f"{_MIXPE_GROUP} products",
        tuple((block, _MIXPE_GROUP) for block in dequantize),
    )


_MADAM_LANES = 16


def _lns_madam(name: str) -> ProcessingElement:
    unit = datapath("lns8_f3_unsigned_nozero", lanes=_MADAM_LANES, accumulator="fixed24_12")
    return ProcessingElement(
        name,
        "LNS-Madam vector multiply-and-add element",
        unit,
        (("lns8_f3_unsigned_nozero", 1),),
        "Zhao et al., LNS-Madam, IEEE Transactions on Computers 2022",
        "16 lanes, a 24-bit fixed-point running sum, an antilogarithm of eight entries per lane",
    )


def _dint(name: str) -> ProcessingElement:
    unit = datapath("int8", "dint4", accumulator="int32")
    return ProcessingElement(
        name,
        "dINT multiply-and-add element",
        unit,
        (("dint4", 1),),
        "dINT (denormal integers), as registered in lowp.formats",
        "codes are decoded by a table; no figures of the element were published where we could read them",
    )


#: Magnitudes of an 8-bit weight, and the weights that an activation is multiplied by.
_AXLLM_MAGNITUDES, _AXLLM_WEIGHTS = 128, 4096


def _axllm(name: str) -> ProcessingElement:
    """A multiplier whose products with each weight value are kept, and read where the value comes again."""
    unit = datapath("int8", "int8", accumulator="int32")
    multiplier = unit.of_role("multiply")
    kept = Block.of("register", "register", label="products kept", bits=_AXLLM_MAGNITUDES * 16)
    choice = Block.of("selector", "multiply", label="choice of a product", inputs=_AXLLM_MAGNITUDES, bits=16)
    blocks = [*unit.blocks, kept, choice]
    return ProcessingElement(
        name,
        "AxLLM element that reuses products",
        _unit(blocks, "int8", "int8", 1, 16, 32),
        (("int8", 1),),
        "AxLLM",
        f"{_AXLLM_MAGNITUDES} magnitudes, a product of 16 bits each, all of which occur among the {_AXLLM_WEIGHTS} "
        "weights that an activation is multiplied by, and are multiplied and written once; no figures of the element "
        "were published where we could read them",
        (*((block, _AXLLM_WEIGHTS / _AXLLM_MAGNITUDES) for block in multiplier), (kept, _AXLLM_WEIGHTS)),
    )


def _xr_npe(name: str) -> ProcessingElement:
    """One posit16 lane, two posit8, four of four bits, which share an accumulator's quire-like word."""
    wide = datapath("posit16_es1", accumulator="float32")
    narrow = [datapath("posit8_es0", lanes=2), datapath("posit4_es1", lanes=4), datapath("float4_e2m1fn", lanes=4)]
    decoding = [block for unit in narrow for block in unit.of_role("decode")]
    blocks = [*wide.blocks, *decoding]
    return ProcessingElement(
        name,
        "XR-NPE mixed-precision element",
        _unit(blocks, "posit16_es1", "posit16_es1", 4, wide.product_bits, 32),
        (("posit16_es1", 4), ("posit8_es0", 2), ("posit4_es1", 1), ("float4_e2m1fn", 1)),
        "XR-NPE (28 nm, 1.72 GHz)",
        "narrow lanes use the wide multiplier; each format has decoders of its own",
    )


_BUILDERS: dict[str, Callable[[str], ProcessingElement]] = {
    "axllm": _axllm,
    "bitmod": _bitmod,
    "dint": _dint,
    "fp16_mac": _fp16_mac,
    "lns_madam": _lns_madam,
    "mixpe": _mixpe,
    "xr_npe": _xr_npe,
}
