"""Names to formats."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

from lowp._errors import ArgumentTypeError, FormatError, nearest
from lowp.formats.block import SCALE_RECIPES, Block
from lowp.formats.float_format import Float
from lowp.formats.integer import Fixed, Integer
from lowp.formats.registry import ALIASES, FAMILIES, REGISTRY
from lowp.formats.spec import Format, ScalarFormat

_FLOAT = re.compile(
    r"(?:(?:float|fp)(?P<bits>\d+)_)?(?P<unsigned>u?)e(?P<e>\d+)m(?P<m>\d+)(?:b(?P<bias>-?\d+))?"
    r"(?P<special>fnuz|fn|f|dl)?(?P<nozero>_nozero)?(?P<nosub>_nosub)?"
)
_P3109 = re.compile(r"(?:binary|p3109_)(?P<k>\d+)p(?P<p>\d+)(?P<sign>[su])(?P<domain>[ef])(?:b(?P<bias>-?\d+))?")
_INTEGER = re.compile(r"(?P<unsigned>u?)int(?P<bits>\d+)(?P<sym>_sym)?")
_FIXED = re.compile(r"(?P<unsigned>u?)fixed(?P<bits>\d+)_(?P<minus>m?)(?P<fraction>\d+)(?P<sym>_sym)?")
_AP_FIXED = re.compile(r"ap_(?P<unsigned>u?)fixed<(?P<w>\d+),(?P<i>-?\d+)>")
_BLOCK = re.compile(r"block\[(?P<parts>[^\]]*)\]")
_SIZE = re.compile(r"row|tensor|\d+(x\d+)?")
_GROUP = re.compile(
    r"(?P<element>.+?)_(?:g(?P<group>\d+)|(?P<whole>row|tensor)|t(?P<rows>\d+)x(?P<columns>\d+))"
    r"(?P<asym>_asym)?(?:_(?P<scale>fp32|fp16|bf16|pow2|e8m0|e4m3fn|ue4m3|ue5m3fn|ue5m3f|ue5m3))?"
)
_HYPHEN = re.compile(r"(?<![b,])-|-(?!\d)")  # every one but the minus of a bias (b-3) and of ap_fixed<6,-2>
_SPECIALS = {None: "ieee", "fn": "fn", "fnuz": "fnuz", "f": "finite", "dl": "dlfloat"}


def parse(name: str | Format) -> Format:
    """Return the format that a name stands for; a format is returned as it is.

    Accepts registered names and aliases (`lowp.formats.names()`), ml_dtypes spellings, and names made by rule:
    `e5m7`, `e4m3b9fn`, `ue6m2f`; `int5`, `uint12`, `int6_sym`; `fixed12_7` (12 bits, 7 right of the point),
    `ap_fixed<12,5>`; `binary8p4se`, `p3109_8p4se`; `posit10_es1`, `takum12_log`, `lns10_f4`; elements in
    blocks `int4_g64`, `nf4_g128_bf16`, `e4m3fn_t128x128`, `int8_row`;
    a block name followed by a recipe, `mxfp4_rceil`; and `block[element,size,scale,...]`. Case and `-` do not matter.

    Args:
        name: A name, or a format.

    Returns:
        The format.

    Raises:
        FormatError: The name is unknown, or names a format that cannot exist.
        ArgumentTypeError: `name` is neither a string nor a format.

    Example:
        >>> parse("fp8").name, parse("e5m7").bits, parse("int4_g64").bits_per_value
        ('float8_e4m3fn', 13, 4.5)
    """
    if isinstance(name, Format):
        return name
    if not isinstance(name, str):
        raise ArgumentTypeError(f"format={name!r} must be a name or a Format, not {type(name).__name__}.")
    key = _HYPHEN.sub("_", "".join(name.lower().split())).removeprefix("torch.").removeprefix("ml_dtypes.")
    try:
        return _parse(key)
    except FormatError as error:  # say what came, not what it was read as
        raise FormatError(str(error).replace(repr(key), repr(name), 1)) from None


@lru_cache(maxsize=1024)
def _parse(name: str) -> Format:
    key = ALIASES.get(name, name)
    if key in REGISTRY:
        return REGISTRY[key].format
    rule: Callable[[str], Format | None]
    for rule in (_float, _p3109, _integer, _fixed, *(f.read_name for f in FAMILIES), _block, _with_recipe, _group):
        fmt = rule(key)
        if fmt is not None:
            return fmt
    raise FormatError(
        f"format={name!r} is not known.{nearest(name, [*REGISTRY, *ALIASES])} lowp.formats.names() lists all; "
        "names by rule: e5m7, e4m3b9fn, int5, fixed12_7, posit10_es1, takum12_log, lns10_f4, int4_g64, mxfp4_rceil."
    )


def _float(name: str) -> Format | None:
    m = _FLOAT.fullmatch(name)
    if not m:
        return None
    fmt = Float(
        int(m["e"]),
        int(m["m"]),
        bias=int(m["bias"]) if m["bias"] else None,
        signed=not m["unsigned"],
        subnormals=not (m["nosub"] or m["nozero"]),
        specials=_SPECIALS[m["special"]],
        zero=not m["nozero"],
    )
    if m["bits"] and int(m["bits"]) != fmt.bits:
        raise FormatError(f"format={name!r} says {m['bits']} bits, but its fields make {fmt.bits}.")
    return fmt


def _p3109(name: str) -> Format | None:
    m = _P3109.fullmatch(name)
    if not m:
        return None
    k, p, signed = int(m["k"]), int(m["p"]), m["sign"] == "s"
    return Float(
        k - p + (0 if signed else 1),
        p - 1,
        bias=int(m["bias"]) if m["bias"] else None,
        signed=signed,
        specials="p3109" if m["domain"] == "e" else "p3109_finite",
    )


def _integer(name: str) -> Format | None:
    m = _INTEGER.fullmatch(name)
    return Integer(int(m["bits"]), signed=not m["unsigned"], symmetric=bool(m["sym"])) if m else None


def _fixed(name: str) -> Format | None:
    if m := _AP_FIXED.fullmatch(name):
        return Fixed(int(m["w"]), int(m["w"]) - int(m["i"]), signed=not m["unsigned"])
    m = _FIXED.fullmatch(name)
    if not m:
        return None
    fraction = int(m["fraction"]) * (-1 if m["minus"] else 1)
    return Fixed(int(m["bits"]), fraction, signed=not m["unsigned"], symmetric=bool(m["sym"]))


def _group(name: str) -> Format | None:
    m = _GROUP.fullmatch(name)
    if not m:
        return None
    size = int(m["group"]) if m["group"] else m["whole"] or (int(m["rows"]), int(m["columns"]))
    element = _parse(m["element"])
    if m["asym"] and isinstance(element, Integer):
        element = Integer(element.bits, signed=False)
    scale = "e8m0" if m["scale"] == "pow2" else m["scale"] or "fp32"
    return Block(_scalar(element), size, _scalar(_parse(scale)), zero_point=bool(m["asym"]))


def _with_recipe(name: str) -> Format | None:
    for recipe in SCALE_RECIPES:
        if name.endswith("_" + recipe):
            base = _parse(name.removesuffix("_" + recipe))
            if not isinstance(base, Block):
                raise FormatError(f"format={name!r}: only block formats have a scale recipe, {base.name!r} is none.")
            return base.with_recipe(recipe)
    return None


def _block(name: str) -> Format | None:
    m = _BLOCK.fullmatch(name)
    if not m:
        return None
    plain = [p for p in m["parts"].split(",") if "=" not in p and p != "asym"]
    options = dict(p.split("=", 1) for p in m["parts"].split(",") if "=" in p)
    if len(plain) != 3 or not _SIZE.fullmatch(plain[1]) or set(options) - {"tensor", "recipe", "nonfinite"}:
        raise FormatError(
            f"format={name!r} must read block[element,size,scale] with optional ,tensor=FORMAT ,asym ,recipe=NAME "
            ",nonfinite=POLICY."
        )
    size = plain[1] if plain[1] in ("row", "tensor") else tuple(int(n) for n in plain[1].split("x"))
    return Block(
        _scalar(_parse(plain[0])),
        size[0] if isinstance(size, tuple) and len(size) == 1 else size,
        _scalar(_parse(plain[2])),
        tensor_scale=_scalar(_parse(options["tensor"])) if "tensor" in options else None,
        zero_point="asym" in m["parts"].split(","),
        recipe=options.get("recipe", ""),
        nonfinite=options.get("nonfinite", "nan_block"),
    )


def _scalar(fmt: Format) -> ScalarFormat:
    if not isinstance(fmt, ScalarFormat):
        raise FormatError(f"{fmt.name!r} is a block format; elements and scales must be scalar formats.")
    return fmt
