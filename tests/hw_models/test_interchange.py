"""Files for other tools: Accelergy's reference tables, ZigZag's accelerators, the YAML of both."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import lowp
from lowp import hw
from lowp.hw_models.yaml_text import yaml_text

READ = hw.Estimate(1e-11, 8e-12, 2e-11, "J", "memory", "by hand")
ROOM = hw.Estimate(5e-9, 4e-9, 6e-9, "m2", "memory", "by hand")


def tables(**options: Any) -> hw.AccelergyTables:
    unit = hw.dot_unit("int8", lanes=4, target="n28")
    return hw.accelergy_tables({"chip.PE[0..3].mac": unit, "chip.glb": {"read": READ, "area": ROOM}}, **options)


def test_the_text_is_what_accelergy_writes() -> None:
    cost = hw.dot_unit("int8", lanes=4, target="n28")
    notes = [
        "# pJ per action, um2; best guesses of intervals",
        "# chip.PE[0..3].mac: int8 x int8 + int32, 4 per step, n28",
        f"#   compute: {cost.energy}",
        f"#   area: {cost.area}",
        "# chip.glb: by hand",
        "#   read: 10 pJ (8 to 20 pJ, memory)",
        "#   area: 5000 um2 (4000 to 6000 um2, memory)",
    ]
    energies = [
        "ERT:",
        '  version: "0.4"',
        "  tables:",
        '    - name: "chip.PE[0..3].mac"',
        "      actions:",
        "        - name: compute",
        "          arguments: {}",
        f"          energy: {cost.energy.value * 1e12:.6g}",
        "    - name: chip.glb",
        "      actions:",
        "        - name: read",
        "          arguments: {}",
        "          energy: 10.0",
    ]
    areas = [
        "ART:",
        '  version: "0.4"',
        "  tables:",
        '    - name: "chip.PE[0..3].mac"',
        f"      area: {cost.area.value * 1e12:.6g}",
        "    - name: chip.glb",
        "      area: 5000.0",
    ]
    found = tables()
    assert found.ert_yaml.splitlines() == notes + energies
    assert found.art_yaml.splitlines() == notes + areas


def test_ends_shares_and_versions() -> None:
    cost = hw.dot_unit("int8", lanes=4, target="n28")
    found = tables(end="high", per="product", version="0.3", action="mac_random")
    first, second = found.ert["ERT"]["tables"]
    (action,) = first["actions"]
    assert action == {"name": "mac_random", "arguments": None, "energy": pytest.approx(cost.energy.high / 4e-12, 1e-5)}
    assert second["actions"][0]["energy"] == 20.0
    assert found.art["ART"]["tables"][0]["area"] == pytest.approx(cost.area.high / 4e-12, 1e-5)
    assert found.ert["ERT"]["version"] == 0.3
    assert tables(end="low").ert["ERT"]["tables"][1]["actions"][0]["energy"] == 8.0


def test_names_are_made_of_formats() -> None:
    units = ["int8", ("fp8", "int4"), hw.datapath("mxfp4", lanes=32), hw.processing_element("bitmod")]
    found = hw.accelergy_tables(units, parent="chip.pe[0..7]", target="n7")
    names = [row["name"] for row in found.ert["ERT"]["tables"]]
    assert names == [f"chip.pe[0..7].{n}" for n in ("mac_int8", "mac_fp8_int4", "dot32_mxfp4", "bitmod")]
    bitmod = {a["name"]: a["energy"] for a in found.ert["ERT"]["tables"][3]["actions"]}
    assert bitmod["compute_int8"] == pytest.approx(2 * bitmod["compute_fp4"], rel=1e-5)


def test_one_unit_needs_no_list() -> None:
    assert hw.accelergy_tables("int8").ert == hw.accelergy_tables(["int8"]).ert


def test_files_are_read_back(tmp_path: Path) -> None:
    yaml = pytest.importorskip("yaml")
    found = tables()
    paths = found.save(tmp_path)
    assert [path.name for path in paths] == ["ERT.yaml", "ART.yaml"]
    assert [yaml.safe_load(path.read_text(encoding="utf-8")) for path in paths] == [found.ert, found.art]
    with pytest.raises(lowp.FileError, match="cannot be written"):
        found.save(tmp_path / "absent")


@pytest.mark.parametrize(
    ("units", "options", "error", "said"),
    [
        ("int8", {"target": "sky130"}, lowp.FormatError, "no coefficients of energy"),
        ("int8", {"target": "gate_model"}, lowp.FormatError, "'GE switched', not 'J'"),
        ("int8", {"target": "xcup"}, lowp.FormatError, "FPGA"),
        ("int8", {"target": "n3"}, lowp.ArgumentError, "target='n3'"),
        ("int8", {"end": "middle"}, lowp.ArgumentError, "end='middle'"),
        ("int8", {"per": "bit"}, lowp.ArgumentError, "per='bit'"),
        ("int8", {"version": "0.5"}, lowp.ArgumentError, "version='0.5'"),
        ("int8", {"action": "to do"}, lowp.ArgumentError, "action='to do'"),
        (["int8", "int8"], {}, lowp.ArgumentError, "twice"),
        ({"a b": "int8"}, {}, lowp.ArgumentError, "'a b'"),
        ({"pe[0.mac": "int8"}, {}, lowp.ArgumentError, "mac\\[0..63\\]"),
        ({"read": READ}, {}, lowp.ArgumentError, "no name"),
        ({"glb": {"read": 1.0}}, {}, lowp.ArgumentTypeError, "Estimate"),
        ({"glb": {"read": ROOM}}, {}, lowp.FormatError, "'m2', not 'J'"),
        (7, {}, lowp.ArgumentTypeError, "must be a format"),
        ("fp9", {}, lowp.FormatError, "fp9"),
    ],
)
def test_what_accelergy_does_not_take(units: Any, options: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        hw.accelergy_tables(units, **options)


def accelerator(lanes: int = 32, **options: Any) -> hw.ZigzagAccelerator:
    return hw.zigzag_accelerator("mxfp4", "int8", target="n28", sizes=(8, 16), lanes=lanes, **options)


def test_the_array_and_its_registers_are_the_unit() -> None:
    cost = hw.dot_unit("mxfp4", "int8", lanes=32, target="n28")
    found = accelerator()
    array, memories = found.operational_array, found.memories
    assert (array["dimensions"], array["sizes"], array["input_precision"]) == (["D1", "D2", "D3"], [8, 16, 32], [4, 8])
    assert {name: memory["size"] for name, memory in memories.items()} == {
        "reg_I1": 32 * 4 + 8,  # with the block's scale
        "reg_I2": 32 * 8,
        "reg_O": 32,
    }
    assert [m["served_dimensions"] for m in memories.values()] == [["D2", "D3"], ["D1", "D3"], ["D3"]]
    energy = 32 * array["unit_energy"] + sum(m["w_cost"] for m in memories.values())
    area = 32 * array["unit_area"] + sum(m["area"] for m in memories.values())
    assert energy == pytest.approx(cost.energy.value * 1e12, rel=1e-4)
    assert area == pytest.approx(cost.area.value * 1e6, rel=1e-4)
    assert found.precision == {"I": 4, "W": 8, "O": 32, "O_final": 32}


def test_one_lane_has_two_dimensions() -> None:
    found = hw.zigzag_accelerator("int8", sizes=(4, 2), end="low")
    cost = hw.mac("int8", target="n28").without("register")
    assert found.operational_array == {
        "input_precision": [8, 8],
        "unit_energy": pytest.approx(cost.energy.low * 1e12, rel=1e-5),
        "unit_area": pytest.approx(cost.area.low * 1e6, rel=1e-5),
        "dimensions": ["D1", "D2"],
        "sizes": [4, 2],
    }
    assert found.memories["reg_O"]["served_dimensions"] == []


def test_a_memory_counts_the_bits_of_scales() -> None:
    memory = hw.zigzag_memory({"O": "float32", "I1": "mxfp4"}, 1 << 20, 512, read=READ, write=2 * READ, area=ROOM)
    assert memory == {
        "size": (1 << 20) * 16 // 17,
        "r_cost": 10.0,
        "w_cost": 20.0,
        "area": 0.005,
        "latency": 1,
        "operands": ["I1", "O"],
        "ports": [
            {
                "name": "r_port_1",
                "type": "read",
                "bandwidth_min": 481,
                "bandwidth_max": 481,
                "allocation": ["I1, tl", "O, tl", "O, th"],
            },
            {
                "name": "w_port_1",
                "type": "write",
                "bandwidth_min": 481,
                "bandwidth_max": 481,
                "allocation": ["I1, fh", "O, fh", "O, fl"],
            },
        ],
        "served_dimensions": ["D1", "D2"],
    }
    plain = hw.zigzag_memory({"I1": "int8"}, 4096, 64, read=READ, write=READ)
    assert (plain["size"], plain["ports"][0]["bandwidth_max"], plain["area"]) == (4096, 64, 0.0)


def test_the_text_of_an_accelerator_is_read_back() -> None:
    yaml = pytest.importorskip("yaml")
    found = accelerator(memories={"l1": hw.zigzag_memory({"I1": "mxfp4"}, 4096, 64, read=READ, write=READ)})
    assert yaml.safe_load(found.yaml) == found.entry
    assert list(found.memories) == ["reg_I1", "reg_I2", "reg_O", "l1"]


def test_zigzag_takes_it() -> None:
    validator = pytest.importorskip("zigzag.parser.accelerator_validator")
    factory = pytest.importorskip("zigzag.parser.accelerator_factory")
    every = {"I1": "mxfp4", "I2": "int8", "O": "float32"}
    found = accelerator(memories={"l1": hw.zigzag_memory(every, 1 << 20, 64, read=READ, write=READ)})
    checked = validator.AcceleratorValidator(found.entry)
    assert checked.validate(), checked.validator.errors
    core = factory.AcceleratorFactory(checked.normalized_data).create()
    assert core.operational_array.unit.energy_cost == found.operational_array["unit_energy"]


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"end": "middle"}, lowp.ArgumentError, "end='middle'"),
        ({"sizes": (8,)}, lowp.ArgumentError, "must be two"),
        ({"sizes": (8, 0)}, lowp.ArgumentError, "D2=0"),
        ({"target": "gate_model"}, lowp.FormatError, "GE"),
        ({"target": "xcup"}, lowp.FormatError, "FPGA"),
        ({"target": "sky130"}, lowp.FormatError, "energy"),
        ({"memories": {"reg_O": {}}}, lowp.ArgumentError, "register"),
    ],
)
def test_what_zigzag_does_not_take(options: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        hw.zigzag_accelerator("int8", **options)


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"operands": {"W": "int8"}}, lowp.ArgumentError, "operands='W'"),
        ({"operands": {}}, lowp.ArgumentError, "at least one"),
        ({"operands": {"I1": "ggml_q4_0"}}, lowp.FormatError, "no elements"),
        ({"size": 0}, lowp.ArgumentError, "size=0"),
        ({"read": 10.0}, lowp.ArgumentTypeError, "Estimate"),
        ({"write": ROOM}, lowp.FormatError, "'m2'"),
        ({"end": ""}, lowp.ArgumentError, "end=''"),
    ],
)
def test_what_is_no_memory(arguments: Any, error: type[Exception], said: str) -> None:
    given_ = {"operands": {"I1": "int8"}, "size": 64, "width": 8, "read": READ, "write": READ, **arguments}
    with pytest.raises(error, match=said):
        hw.zigzag_memory(**given_)


TEXTS = st.text(st.characters(blacklist_categories=["Cs"]), max_size=8) | st.sampled_from(
    ["no", "Yes", "1e3", "0x1F", "~", "", "- a", "a: b", "a #b", "1_000", "12:30", "=", "<<", "'", "null", ".5", "NaN"]
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS
DATA = st.recursive(
    st.dictionaries(TEXTS, SCALARS | st.lists(SCALARS, max_size=3), max_size=3),
    lambda inner: st.dictionaries(TEXTS, inner | st.lists(inner.filter(bool), min_size=1, max_size=3), max_size=3),
    max_leaves=8,
)


@given(DATA.filter(bool), st.lists(st.text(st.characters(blacklist_categories=["Cs"]), max_size=8), max_size=2))
def test_yaml_is_read_back_as_it_was(data: dict[str, Any], comments: list[str]) -> None:
    yaml = pytest.importorskip("yaml")
    assert yaml.safe_load(yaml_text(data, comments)) == data


@pytest.mark.parametrize(
    ("data", "error"),
    [
        ({"a": math.inf}, lowp.ArgumentError),
        ({"a": {1}}, lowp.ArgumentTypeError),
        ({"a": [[1]]}, lowp.ArgumentTypeError),
    ],
)
def test_what_has_no_yaml(data: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        yaml_text(data)
