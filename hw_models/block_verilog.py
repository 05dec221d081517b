"""Verilog of elementary blocks and of product units: small modules that a synthesiser turns into LUT counts."""

from __future__ import annotations

from collections.abc import Callable

from lowp._errors import FormatError
from lowp.formats import parse
from lowp.formats.float_format import Float
from lowp.formats.integer import Fixed, Integer
from lowp.formats.posit import Posit
from lowp.formats.spec import Format, ScalarFormat
from lowp.hw_models.blocks import Block
from lowp.hw_models.value_sets import factor, product_bits, sum_bits


def block_verilog(block: Block, name: str = "block", signed: bool = False) -> str:
    """Return a Verilog module that does what an elementary block does.

    Args:
        block: Block of a kind that has no parts.
        name: Name of the module.
        signed: Whether the words of a multiplier or an adder tree are two's complement.

    Raises:
        FormatError: No module is known for this kind.

    Example:
        >>> print(block_verilog(Block.of("adder", "sum", bits=8), "add8"))
        module add8(input [7:0] a, input [7:0] b, output [7:0] y);
          assign y = a + b;
        endmodule
    """
    if block.kind not in _BODIES:
        raise FormatError(f"kind={block.kind!r} has no Verilog here; allowed: {', '.join(_BODIES)}.")
    ports, body = _BODIES[block.kind](block, " signed" if signed else "")
    lines = "\n".join(f"  {line}" for line in body)
    return f"module {name}({', '.join(ports)});\n{lines}\nendmodule"


def _port(direction: str, name: str, bits: int, sign: str = "") -> str:
    return f"{direction}{sign} [{bits - 1}:0] {name}"


def _multiplier(block: Block, sign: str) -> tuple[list[str], list[str]]:
    ma, mb = block["ma"], block["mb"]
    ports = [_port("input", "a", ma, sign), _port("input", "b", mb, sign), _port("output", "y", ma + mb, sign)]
    return ports, ["assign y = a * b;"]


def _adder(block: Block, sign: str) -> tuple[list[str], list[str]]:
    bits, operator = block["bits"], "-" if block.kind == "subtractor" else "+"
    ports = [_port("input", "a", bits), _port("input", "b", bits), _port("output", "y", bits)]
    return ports, [f"assign y = a {operator} b;"]


def _negate(block: Block, sign: str) -> tuple[list[str], list[str]]:
    bits = block["bits"]
    ports = [_port("input", "a", bits), "input s", _port("output", "y", bits)]
    return ports, ["assign y = s ? -a : a;"]


def _adder_tree(block: Block, sign: str) -> tuple[list[str], list[str]]:
    inputs, bits = block["inputs"], block["bits"]
    words, body, width, level = [f"x[{i * bits} +: {bits}]" for i in range(inputs)], [], bits, 0
    while len(words) > 1:
        width, level = width + 1, level + 1
        pairs = [words[i : i + 2] for i in range(0, len(words), 2)]
        named = []
        for i, pair in enumerate(pairs):
            wire = f"t{level}_{i}"
            terms = " + ".join(f"$signed({word})" for word in pair)
            body.append(f"wire signed [{width - 1}:0] {wire} = {terms};")
            named.append(wire)
        words = named
    return [_port("input", "x", inputs * bits), _port("output", "y", width)], [*body, f"assign y = {words[0]};"]


def _comparator_tree(block: Block, sign: str) -> tuple[list[str], list[str]]:
    inputs, bits = block["inputs"], block["bits"]
    words, body, level = [f"x[{i * bits} +: {bits}]" for i in range(inputs)], [], 0
    while len(words) > 1:
        level += 1
        named = []
        for i in range(0, len(words) - 1, 2):
            body.append(
                f"wire [{bits - 1}:0] t{level}_{i} = {words[i]} > {words[i + 1]} ? {words[i]} : {words[i + 1]};"
            )
            named.append(f"t{level}_{i}")
        words = named + ([words[-1]] if len(words) % 2 else [])
    return [_port("input", "x", inputs * bits), _port("output", "y", bits)], [*body, f"assign y = {words[0]};"]


def _shifter(block: Block, sign: str) -> tuple[list[str], list[str]]:
    bits, positions = block["bits"], block["positions"]
    select = max((positions - 1).bit_length(), 1)
    reach = bits - positions + 1 if block.role == "align" and bits >= positions else bits
    ports = [_port("input", "a", reach), _port("input", "s", select), _port("output", "y", bits)]
    return ports, [f"wire [{bits - 1}:0] w = a;", "assign y = w << s;"]


def _aligner(block: Block, sign: str) -> tuple[list[str], list[str]]:
    n, product = block["n"], min(block["product"], block["n"])
    select = max((n - 1).bit_length(), 1)
    ports = [_port("input", "a", product), _port("input", "s", select), _port("output", "y", n)]
    return ports, [f"wire [{n - 1}:0] w = a << {n - product};", "assign y = w >> s;"]


def _counter(block: Block, sign: str) -> tuple[list[str], list[str]]:
    bits = block["bits"]
    count = bits.bit_length()
    body = ["integer i;", f"reg [{count - 1}:0] n;", "always @* begin", f"  n = {bits};"]
    body += [f"  for (i = 0; i < {bits}; i = i + 1) if (a[i]) n = {bits - 1} - i;", "end", "assign y = n;"]
    return [_port("input", "a", bits), _port("output", "y", count)], body


def _normaliser(block: Block, sign: str) -> tuple[list[str], list[str]]:
    bits = block["bits"]
    select = max((bits - 1).bit_length(), 1)
    ports = [_port("input", "a", bits), _port("input", "s", select), _port("output", "y", bits)]
    return ports, ["assign y = a << s;"]


def _rounder(block: Block, sign: str) -> tuple[list[str], list[str]]:
    bits = block["bits"]
    ports = [_port("input", "a", bits), "input g", "input r", _port("output", "y", bits)]
    return ports, ["wire up = g & (r | a[0]);", "assign y = a + up;"]


def _register(block: Block, sign: str) -> tuple[list[str], list[str]]:
    bits = block["bits"]
    ports = ["input clk", _port("input", "a", bits), f"output reg [{bits - 1}:0] y"]
    return ports, ["always @(posedge clk) y <= a;"]


def _table(block: Block, sign: str) -> tuple[list[str], list[str]]:
    entries, bits = block["entries"], block["bits"]
    select = max((entries - 1).bit_length(), 1)
    body = [f"reg [{bits - 1}:0] w;", "always @* case (s)"]
    # rounded powers of two, as antilogarithms are
    words = [round((2 ** (i / max(entries, 2)) - 1) * (1 << bits)) & ((1 << bits) - 1) for i in range(entries)]
    body += [f"  {select}'d{i}: w = {bits}'d{word};" for i, word in enumerate(words)]
    body += [f"  default: w = {bits}'d0;", "endcase", "assign y = w;"]
    return [_port("input", "s", select), _port("output", "y", bits)], body


_BODIES: dict[str, Callable[[Block, str], tuple[list[str], list[str]]]] = {
    "multiplier": _multiplier,
    "scale_multiplier": _multiplier,
    "adder": _adder,
    "exponent_adder": _adder,
    "subtractor": _adder,
    "negate": _negate,
    "adder_tree": _adder_tree,
    "comparator_tree": _comparator_tree,
    "shifter": _shifter,
    "aligner": _aligner,
    "leading_zero_counter": _counter,
    "normaliser": _normaliser,
    "rounder": _rounder,
    "register": _register,
    "table": _table,
}


def product_verilog(fmt: str | Format, name: str = "product", style: str = "magnitude") -> str:
    """Return a module that multiplies two numbers of a format exactly, to a two's complement word.

    Floats without infinities: every code is a finite number, as in a dot unit whose specials are found elsewhere.

    Args:
        fmt: Integer, fixed point, or a float.
        name: Name of the module.
        style: Of floats: "magnitude" multiplies significands, negates the product and shifts it; "mx_for_fpga" gives
            significands their signs first and takes magnitudes again inside the multiplier, to words of
            `2 (2^e + m)` bits, as the RTL of that name (Samson et al., arXiv 2407.01475).

    Raises:
        FormatError: Another family of formats.

    Example:
        >>> "assign y = a * b" in product_verilog("int4")
        True
    """
    found = parse(fmt)
    if isinstance(found, Integer | Fixed):
        block = Block.of("multiplier", "multiply", ma=found.bits, mb=found.bits)
        return block_verilog(block, name, signed=found.signed)
    if not isinstance(found, Float) or not found.mantissa_bits:
        raise FormatError(f"format={found.name!r} has no product unit in Verilog here; allowed: integers and floats.")
    e, m, bits = found.exponent_bits, found.mantissa_bits, found.bits
    lines = [f"module {name}(input [{bits - 1}:0] a, input [{bits - 1}:0] b, output signed [%d:0] y);"]
    for x in "ab":
        lines += [
            f"  wire [{e - 1}:0] e{x} = {x}[{bits - 2}:{m}];",
            f"  wire n{x} = |e{x};",
            f"  wire [{m}:0] m{x} = {{n{x}, {x}[{m - 1}:0]}};",
        ]
    lines.append(f"  wire [{e}:0] e = ea + eb - na - nb;")
    if style == "magnitude":
        width, span = product_bits(factor(found), factor(found)), 2 * m + 3
        lines += [
            f"  wire n = a[{bits - 1}] ^ b[{bits - 1}];",
            f"  wire signed [{span - 1}:0] p = ma * mb;",
            f"  wire signed [{span - 1}:0] q = n ? -p : p;",
            "  assign y = q << e;",
        ]
    else:
        width, span = 2 * ((1 << e) + m), m + 2
        for x in "ab":
            lines += [
                f"  wire signed [{span - 1}:0] s{x} = {x}[{bits - 1}] ? -m{x} : m{x};",
                f"  wire [{span - 1}:0] u{x} = s{x} < 0 ? -s{x} : s{x};",
            ]
        lines += [
            "  wire n = (sa < 0) ^ (sb < 0);",
            f"  wire [{2 * span - 1}:0] p = ua * ub;",
            f"  wire signed [{2 * span - 1}:0] q = n ? -p : p;",
            "  assign y = q << e;",
        ]
    lines[0] = lines[0] % (width - 1)
    return "\n".join([*lines, "endmodule"])


def posit_decoder_verilog(fmt: str | Format, name: str = "decoder") -> str:
    """Return a module that takes a posit's code apart: sign, scale and fraction with its hidden bit.

    Raises:
        FormatError: The format is no posit.

    Example:
        >>> posit_decoder_verilog("posit8_es0", "p8").splitlines()[0]
        'module p8(input [7:0] x, output s, output signed [3:0] scale, output [5:0] f);'
    """
    found = parse(fmt)
    if not isinstance(found, Posit):
        raise FormatError(f"format={found.name!r} must be a posit.")
    bits, es = found.bits, found.es
    run, count = bits - 1, (bits - 1).bit_length()
    fraction, regime = max(bits - 3 - es, 0), count + 1
    scale = regime + es
    lines = [
        f"module {name}(input [{bits - 1}:0] x, output s, output signed [{scale - 1}:0] scale, "
        f"output [{fraction}:0] f);",
        f"  assign s = x[{bits - 1}];",
        f"  wire [{run - 1}:0] v = s ? -x[{run - 1}:0] : x[{run - 1}:0];",
        f"  wire r = v[{run - 1}];",
        f"  wire [{run - 1}:0] u = r ? ~v : v;",
        "  integer i;",
        f"  reg [{count - 1}:0] n;",
        "  always @* begin",
        f"    n = {run};",
        f"    for (i = 0; i < {run}; i = i + 1) if (u[i]) n = {run - 1} - i;",
        "  end",
        f"  wire signed [{regime - 1}:0] k = r ? n - 1 : -n;",
        f"  wire [{run - 1}:0] w = v << n;",  # drops the run; its end is the top bit
        f"  assign f = {{x != 0, w[{run - 2}:0]}} >> {max(run - 1 - es - fraction, 0) + es if es else 0};",
    ]
    if es:
        lines[-1] = f"  assign f = {{|x, w[{run - 2 - es} -: {fraction}]}};" if fraction else "  assign f = |x;"
        lines.append(f"  assign scale = {{k, w[{run - 2} -: {es}]}};")
    else:
        lines[-1] = f"  assign f = {{|x, w[{run - 2} -: {fraction}]}};" if fraction else "  assign f = |x;"
        lines.append("  assign scale = k;")
    return "\n".join([*lines, "endmodule"])


def dot_verilog(fmt: str | Format, name: str = "dot", lanes: int = 4, terms: int = 256) -> str:
    """Return modules that multiply `lanes` pairs exactly and add the products to a running sum with room for `terms`.

    Args:
        fmt: Integer, fixed point, or a float; products as `product_verilog` makes them.
        name: Name of the top module.
        lanes: Pairs per clock cycle, at least 2.
        terms: Products that the running sum holds.

    Raises:
        FormatError: Another family of formats.

    Example:
        >>> dot_verilog("int8", lanes=2, terms=64).count("endmodule")
        3
    """
    found = parse(fmt)
    product = product_verilog(found, f"{name}_product")
    assert isinstance(found, ScalarFormat)
    seen = factor(found)
    bits, width, total = found.bits, product_bits(seen, seen), sum_bits(seen, seen, terms)
    tree = block_verilog(Block.of("adder_tree", "sum", inputs=lanes, bits=width), f"{name}_tree")
    levels = (lanes - 1).bit_length()
    lines = [
        f"module {name}(input clk, input [{lanes * bits - 1}:0] a, input [{lanes * bits - 1}:0] b, "
        f"output reg signed [{total - 1}:0] y);",
        f"  wire [{lanes * width - 1}:0] p;",
        f"  wire signed [{width + levels - 1}:0] t;",
    ]
    for i in range(lanes):
        ports = f".a(a[{i * bits} +: {bits}]), .b(b[{i * bits} +: {bits}]), .y(p[{i * width} +: {width}])"
        lines.append(f"  {name}_product u{i}({ports});")
    lines += [f"  {name}_tree sum(.x(p), .y(t));", "  always @(posedge clk) y <= y + t;", "endmodule"]
    return "\n".join([product, tree, *lines])
