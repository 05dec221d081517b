"""`lowp vectors` and `lowp verify-vectors`."""

import shlex
import sys
from pathlib import Path

import lowp as package
from tests.cli.conftest import Run, assert_refused


def test_vectors_are_printed_or_written(lowp: Run, tmp_path: Path) -> None:
    wanted = package.vectors("float4_e2m1fn", "add")
    assert lowp("vectors", "float4_e2m1fn", "add").out == wanted.text()
    assert lowp("vectors", "float4_e2m1fn", "add", "--style", "jsonl").out == wanted.text("jsonl")
    path = tmp_path / "add.mem"
    done = lowp("vectors", "float4_e2m1fn", "add", "--out", path)
    assert done.out == f"{path}: Vectors(add, float4_e2m1fn -> float4_e2m1fn, ties_to_even, 256 cases)\n"
    assert path.read_text() == wanted.text("mem")


def test_options_are_used(lowp: Run) -> None:
    options = ("--accumulator", "quire", "--length", "3", "--count", "9", "--seed", "5", "--rounding", "toward_zero")
    data = lowp("vectors", "posit8_es2", "dot", *options, "--json").json
    header = data["header"]
    assert (header["accumulator"], header["length"], header["seed"], header["rounding"]) == (
        "exact",
        3,
        5,
        "toward_zero",
    )
    assert len(data["cases"]) == header["count"] == 9
    assert len(data["cases"][0]) == 7
    convert = (
        "--result",
        "int4",
        "--overflow",
        "wrap",
        "--nan",
        "zero",
        "--random-bits",
        "4",
        "--rounding",
        "stochastic",
    )
    header = lowp("vectors", "float16", "convert", *convert, "--count", "9", "--json").json["header"]
    assert (header["result_format"], header["overflow"], header["nan"], header["random_bits"]) == (
        "int4",
        "wrap",
        "zero",
        4,
    )


def test_a_file_is_described_as_json(lowp: Run, tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    data = lowp("vectors", "int2", "mul", "--out", path, "--json").json
    assert data["path"] == str(path)
    assert data["header"]["count"] == 16


def answers(code: str) -> str:
    """A command that answers every case with the result of a Python expression of its operand `x`."""
    program = f"import sys\nfor line in sys.stdin: x = int(line, 16); print(f'{{{code}:x}}')"
    return shlex.join([sys.executable, "-c", program])


def test_a_program_is_verified(lowp: Run, tmp_path: Path) -> None:
    path = tmp_path / "absolute.hex"
    lowp("vectors", "float4_e2m1fn", "absolute", "--out", path)
    done = lowp("verify-vectors", path, "--command", answers("x & 7"))
    assert (done.code, done.out) == (0, "all 16 cases agree\n")
    done = lowp("verify-vectors", path, "--command", answers("x & 7 ^ (x == 9)"))
    assert done.code == 1
    assert done.out.splitlines() == [
        "1 of 16 cases differ; the first 1:",
        "case 9",
        "  x = 0x9  1|00|1  -0.5",
        "  expected result = 0x1  0|00|1  0.5",
        "  got      result = 0x0  0|00|0  0",
        "  differs in mantissa",
    ]


def test_the_outcome_as_json(lowp: Run, tmp_path: Path) -> None:
    path = tmp_path / "absolute.npz"
    lowp("vectors", "float4_e2m1fn", "absolute", "--out", path)
    done = lowp("verify-vectors", path, "--command", answers("x"), "--first", "2", "--json")
    assert done.code == 1
    assert (done.json["agrees"], done.json["cases"], done.json["wrong"]) == (False, 16, 8)
    assert [m["case"] for m in done.json["mismatches"]] == [8, 9]
    assert done.json["mismatches"][1]["got"] == [{"name": "result", "hex": "0x9", "bits": "1|00|1", "value": "-0.5"}]
    done = lowp("verify-vectors", path, "--command", answers("x & 7"), "--json")
    assert (done.code, done.json["agrees"]) == (0, True)


def test_bad_input_is_refused(lowp: Run, tmp_path: Path) -> None:
    path = tmp_path / "x.hex"
    lowp("vectors", "int2", "negative", "--out", path)
    assert_refused(lowp("vectors", "fp9", "add"), "format='fp9'")
    assert_refused(lowp("vectors", "fp8", "plus"), "op='plus'")
    assert_refused(lowp("vectors", "int2", "add", "--style", "npz"), "--out FILE")
    assert_refused(lowp("vectors", "int2", "add", "--out", tmp_path / "absent" / "x.hex"), "cannot be written")
    assert_refused(lowp("verify-vectors", tmp_path / "absent.hex", "--command", "cat"), "cannot be read")
    assert_refused(lowp("verify-vectors", path, "--command", "false"), "'false' ended with status 1")
    assert_refused(lowp("verify-vectors", path, "--command", shlex.join([sys.executable, "-c", "print(1)"])), "1 lines")
    assert lowp("verify-vectors", path).code == 2
