"""Programs against test vectors: a right one, wrong ones, and broken ones; in C, in Verilog and in Python."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import lowp
from lowp._errors import ArgumentError
from lowp.vector_files import ProgramError, Vectors, compare, verify_vectors

#: A float8_e4m3fn converter and a float8_e5m2 adder; ROUND and TINY are where a bug is planted.
C_SOURCE = r"""
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* Round to a format with m mantissa bits; the code of the magnitude, not yet checked for overflow. */
static unsigned magnitude(double x, int m, int emin, int bias) {
    int e = emin;
    if (x != 0) {
        frexp(x, &e);
        e = e - 1 < emin ? emin : e - 1;
    }
    double n = ROUND(ldexp(x, m - e));
    if (x < ldexp(1, emin)) return TINY((unsigned)n);
    return ((unsigned)(e + bias) << m) + (unsigned)n - (1u << m);
}

static unsigned to_e4m3fn(uint32_t bits) {
    float x;
    memcpy(&x, &bits, 4);
    unsigned sign = bits >> 31 << 7;
    if (!isfinite(x)) return sign | 0x7f;
    unsigned code = magnitude(fabs(x), 3, -6, 7);
    return sign | (code > 0x7e ? 0x7f : code);
}

static double from_e5m2(unsigned code) {
    int e = code >> 2 & 31, t = code & 3;
    double x = e == 31 ? (t ? NAN : INFINITY) : e ? ldexp(4 + t, e - 17) : ldexp(t, -16);
    return code >> 7 ? -x : x;
}

static unsigned to_e5m2(double x) {
    if (isnan(x)) return 0x7e;
    unsigned sign = signbit(x) ? 0x80 : 0;
    if (isinf(x)) return sign | 0x7c;
    unsigned code = magnitude(fabs(x), 2, -14, 15);
    return sign | (code > 0x7c ? 0x7c : code);
}

int main(int argc, char **argv) {
    unsigned a, b;
    if (argc > 1)
        while (scanf("%x %x", &a, &b) == 2) printf("%02x\n", to_e5m2(from_e5m2(a) + from_e5m2(b)));
    else
        while (scanf("%x", &a) == 1) printf("%02x\n", to_e4m3fn(a));
    return 0;
}
"""
BUGS = {"none": ("rint", ""), "truncates": ("trunc", ""), "ties away": ("round", ""), "flushes": ("rint", "0*")}


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The C program compiled with each bug."""
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("gcc is not here to compile the C program under test")
    folder = tmp_path_factory.mktemp("c")
    (folder / "toy.c").write_text(C_SOURCE)
    programs = {}
    for bug, (rounding, tiny) in BUGS.items():
        programs[bug] = folder / bug.replace(" ", "_")
        flags = [f"-DROUND={rounding}", f"-DTINY={tiny}"]
        subprocess.run([compiler, "-O1", *flags, folder / "toy.c", "-o", programs[bug], "-lm"], check=True)
    return programs


@pytest.fixture(scope="module")
def conversions() -> Vectors:
    return lowp.vectors("float8_e4m3fn", "convert", count=1500)


@pytest.fixture(scope="module")
def sums() -> Vectors:
    return lowp.vectors("float8_e5m2", "add", count=1500)


def test_a_right_program_passes(toys: dict[str, Path], conversions: Vectors, sums: Vectors) -> None:
    assert verify_vectors(conversions, [str(toys["none"])])
    assert verify_vectors(sums, f"{toys['none']} add")
    assert str(verify_vectors(sums, f"{toys['none']} add")) == "all 1500 cases agree"


@pytest.mark.parametrize("bug", ["truncates", "ties away", "flushes"])
def test_a_wrong_program_is_found_out(toys: dict[str, Path], conversions: Vectors, sums: Vectors, bug: str) -> None:
    for made, command in ((conversions, f"{toys[bug]}"), (sums, f"{toys[bug]} add")):
        outcome = verify_vectors(made, command, first=3)
        assert not outcome
        assert 3 <= outcome.wrong < len(made) // 2
        assert len(outcome.mismatches) == 3


def test_a_mismatch_is_spelled_out(toys: dict[str, Path], sums: Vectors) -> None:
    tie = replace(sums, cases=[(0x3C, 0x30)], answers=[(0x3C,)])
    assert str(verify_vectors(tie, f"{toys['ties away']} add")).splitlines() == [
        "1 of 1 cases differ; the first 1:",
        "case 0",
        "  a = 0x3c  0|01111|00  1",
        "  b = 0x30  0|01100|00  0.125",
        "  expected result = 0x3c  0|01111|00  1",
        "  got      result = 0x3d  0|01111|01  1.25",
        "  differs in mantissa",
    ]


def test_nan_codes_are_equal_unless_payloads_count(sums: Vectors) -> None:
    other = [(0x7F,) if codes == (0x7E,) else codes for codes in sums.answers]
    assert other != sums.answers
    assert compare(sums, other)
    assert not compare(sums, other, nan_payload=True)
    assert not compare(sums, [(0x7C,) if codes == (0x7E,) else codes for codes in sums.answers])


# Verilog

VERILOG = r"""
module toy;
    reg [17:0] words [0:`CASES-1];
    reg signed [5:0] a, b, expected, got;
    reg signed [6:0] sum;
    integer i, wrong;
    initial begin
        $readmemh("add.mem", words);
        wrong = 0;
        for (i = 0; i < `CASES; i = i + 1) begin
            {a, b, expected} = words[i];
            sum = a + b;
`ifdef WRAPS
            got = sum[5:0];
`else
            got = sum > 31 ? 31 : sum < -32 ? -32 : sum[5:0];
`endif
            if (got !== expected) wrong = wrong + 1;
        end
        $display("%0d wrong of %0d", wrong, `CASES);
        $finish;
    end
endmodule
"""
VERILOG_FILTER = r"""
module filter;
    reg signed [5:0] a, b, got;
    reg signed [6:0] sum;
    initial begin
        while ($fscanf(32'h8000_0000, "%h %h\n", a, b) == 2) begin
            sum = a + b;
            got = sum > 31 ? 31 : sum < -32 ? -32 : sum[5:0];
            $display("%h", got);
        end
        $finish;
    end
endmodule
"""


def simulate(folder: Path, source: str, *flags: str) -> Path:
    """Compile a simulation with Icarus Verilog."""
    compiler = shutil.which("iverilog")
    if compiler is None:
        pytest.skip("Icarus Verilog (iverilog) is not here to run the Verilog under test")
    (folder / "toy.v").write_text(source)
    subprocess.run([compiler, "-g2005", *flags, "-o", folder / "toy", folder / "toy.v"], check=True)
    return folder / "toy"


def test_verilog_reads_a_memory_file(tmp_path: Path) -> None:
    made = lowp.vectors("int6", "add", path=tmp_path / "add.mem")
    said = []
    for flags in ((), ("-DWRAPS",)):
        program = simulate(tmp_path, VERILOG, f"-DCASES={len(made)}", *flags)
        done = subprocess.run(["vvp", "-n", program], cwd=tmp_path, capture_output=True, text=True, check=True)
        said.append(done.stdout.strip())
        assert done.stderr == ""
    overflowing = sum(not -32 <= a + b <= 31 for a in range(-32, 32) for b in range(-32, 32))
    assert said == ["0 wrong of 4096", f"{overflowing} wrong of 4096"]


def test_a_simulation_can_be_the_program(tmp_path: Path) -> None:
    program = simulate(tmp_path, VERILOG_FILTER)
    assert verify_vectors(lowp.vectors("int6", "add"), f"vvp -n {program}")


# Programs that fail


@pytest.fixture(scope="module")
def nibbles() -> Vectors:
    return lowp.vectors("float4_e2m1fn", "absolute")


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


ECHO = "import sys\nfor line in sys.stdin: print(hex(int(line, 16) & 7).upper().replace('X', 'x'))"


def test_prefixes_and_capitals_are_allowed(nibbles: Vectors) -> None:
    assert verify_vectors(nibbles, python(ECHO))


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("print(0)", "1 lines for 16 cases"),
        ("for i in range(17): print(0)", "17 lines for 16 cases"),
        ("for i in range(16): print('zero')", "line 1 of the answers: 'zero' is no result of 4 bits"),
        ("for i in range(16): print(i * 2)", "line 6 of the answers: '10' is no result of 4 bits"),
        ("for i in range(16): print(-1)", "'-1' is no result"),
        ("for i in range(16): print('1 2')", "must hold 1 codes, not '1 2'"),
        ("for i in range(16): print()", "0 lines for 16 cases"),
        ("import sys; print(0); sys.exit('out of luck')", "ended with status 1 after 1 lines of output.*out of luck"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "was ended by SIGSEGV"),
        ("raise SystemExit(3)", "ended with status 3"),
        ("import sys; sys.stdout.buffer.write(b'\\xff\\n' * 16)", "is no result"),
    ],
)
def test_a_broken_program_is_an_error(nibbles: Vectors, code: str, says: str) -> None:
    with pytest.raises(ProgramError, match=says):
        verify_vectors(nibbles, python(code))


def test_a_program_that_hangs_is_stopped(nibbles: Vectors) -> None:
    code = "import time; print(1, flush=True); time.sleep(60)"
    with pytest.raises(ProgramError, match=r"longer than 0.5 seconds; it had answered 1 cases"):
        verify_vectors(nibbles, python(code), timeout=0.5)


def test_no_program_is_an_error(nibbles: Vectors) -> None:
    with pytest.raises(ProgramError, match=r"'\./absent' cannot be run: No such file"):
        verify_vectors(nibbles, "./absent --fast")
    for command, says in (("", "names no program"), ("'open", "cannot be split"), ([], "names no program")):
        with pytest.raises(ArgumentError, match=says):
            verify_vectors(nibbles, command)
    with pytest.raises(ArgumentError, match="timeout=0"):
        verify_vectors(nibbles, "true", timeout=0)
    with pytest.raises(ArgumentError, match="first=-1"):
        verify_vectors(nibbles, python(ECHO), first=-1)


def test_answers_from_python_are_compared_too(nibbles: Vectors) -> None:
    assert compare(nibbles, [(code & 7,) for (code,) in nibbles.cases])
    outcome = compare(nibbles, nibbles.cases)
    assert (outcome.wrong, outcome.mismatches[0].case, outcome.mismatches[0].differing_fields) == (8, 8, ("sign",))
    with pytest.raises(ArgumentError, match="answers has 0 entries"):
        compare(nibbles, [])


def test_blocks_name_the_element_that_differs() -> None:
    made = lowp.vectors("mxfp4", "block_quantize", length=4, count=5)
    scale, *elements = made.answers[0]
    wrong = [(scale, *elements[:2], elements[2] ^ 9, elements[3]), *made.answers[1:]]
    (mismatch,) = compare(made, wrong).mismatches
    assert [code.name for code in mismatch.expected] == ["elements2"]
    assert mismatch.differing_fields == ("sign, mantissa",)
    assert [code.name for code in mismatch.operands] == ["x0", "x1", "x2", "x3"]
