"""Set lowp beside other packages' fake quantizers: `python -m benchmarks.fake_quantizers [PEER ...] [--size N]`."""

import argparse
import json
import logging
import math
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any

import numpy as np
from benchmarks.fake_quantizers_peers import SIDES, Side
from benchmarks.fake_quantizers_rules import Setting
from benchmarks.run import OUT, machine, quiet
from benchmarks.timing import Call, quickest, take_turns

COLUMNS = 1024
CALL_LIMIT_NS = 0.3e9  # a call that takes longer is timed on a part of the rows
PEERS = list(dict.fromkeys(side.peer for side in SIDES))
PACKAGES = ("numpy", "torch", "jax", "pychop", "torchao", "brevitas", "qwix")
# fmt: off
EDGES = [  # ends of ranges of E4M3 with and without infinities, fixed point, E5M2, float16 and bfloat16; small numbers
    0.0, -0.0, np.nan, np.inf, -np.inf,
    239, 240, 247, 248, 249, 256, 300, 448, 463, 464, 465, 480, 500, 511, 512, 7.9375, 7.96, 7.97, 8.0, -8.0, -8.1,
    57344, 61439, 61440, 61441, 65504, 65519, 65520, 65535, 65536, 1e5, 131072, 3.3895e38, 3.3961e38,
    2.0**-9, 2.0**-10, 1.5 * 2.0**-9, 2.0**-16, 2.0**-17, 2.0**-24, 2.0**-25, 1e-40, 1e-45,
]
# fmt: on
EXACT = 5  # edges that have no neighbours or need none


def element_row(rng: np.random.Generator) -> np.ndarray:
    """Return what formats without a scale find hard: edges, ties, the neighbours of both, and many magnitudes."""
    ties = [*((rng.integers(-128, 127, 40) + 0.5) / 16)]
    for mantissa in (1, 2, 3, 7, 10):  # of E2M1, E5M2, E4M3, bfloat16, float16
        halves = 2 * rng.integers(2**mantissa, 2 ** (mantissa + 1), 40) + 1.0
        ties += [*np.ldexp(halves, rng.integers(-8, 7, 40) - mantissa - 1)]
    hard = np.array(EDGES + ties, np.float32)
    around = [np.nextafter(hard[EXACT:], np.float32(end)) for end in (0, np.inf)]
    wide = np.ldexp(rng.standard_normal(COLUMNS), rng.integers(-20, 20, COLUMNS)).astype(np.float32)
    row = np.concatenate([hard, *around, wide])[:COLUMNS]
    signs = rng.choice(np.array([-1, 1], np.float32), COLUMNS)
    signs[: len(EDGES)] = 1
    return row * signs


def block_row(rng: np.random.Generator) -> np.ndarray:
    """Return blocks of 32 that make scales hard: largest just below powers of two, ties, a zero and a tiny block."""
    elements = np.array([0, -0.0, 0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5, 1.0625, 1.1875], np.float32)
    blocks = rng.choice(elements, (COLUMNS // 32, 32)) * rng.choice(np.array([-1, 1], np.float32), (COLUMNS // 32, 32))
    below = [np.nextafter(np.float32(power), np.float32(0)) for power in (8, 4)]
    blocks[:, 0] = np.resize(np.array([4, 6, 7, 7.5, 5.9999, 6.0001, 7.9, *below], np.float32), len(blocks))
    blocks *= np.ldexp(np.float32(1), np.resize(np.arange(-8, 0), (len(blocks), 1)))
    blocks[5] = 0
    blocks[6] *= np.float32(2.0**-14)
    return blocks.reshape(-1)


def tensors(size: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return N(0, 1) below the two aimed rows, and three rows whose first block holds NaN, infinity and -infinity."""
    rng = np.random.default_rng(seed)
    aimed = element_row(rng), block_row(rng)
    x = rng.standard_normal((size // COLUMNS, COLUMNS), dtype=np.float32)
    x[0], x[1] = aimed
    special = x[2:5].copy()
    special[:, 5] = np.nan, np.inf, -np.inf
    return x, special


@dataclass
class Row:
    """What one side gave.

    Attributes:
        lowp: The definition of lowp's that the counts are about.
        why: What the peer's own definition has that this one has not.
        n: Values compared.
        differ: Values that differ.
        special: Values that differ in three more rows, with a NaN, an infinity and a negative one; or None.
        zeros: Zeros that have another sign.
        unexplained: Values of all these that differ from lowp by the peer's own definition.
        ns: Least nanoseconds per element of the peer.
        lowp_ns: The same of lowp.
    """

    peer: str
    call: str
    lowp: str
    why: str
    status: str = "ok"
    n: int = 0
    differ: int = 0
    special: int | None = None
    zeros: int = 0
    unexplained: int = 0
    ns: float = math.nan
    lowp_ns: float = math.nan


def differing(a: np.ndarray, b: np.ndarray) -> int:
    """Return how many values differ; NaN equals NaN, and -0 equals 0."""
    return int((~((a == b) | (np.isnan(a) & np.isnan(b)))).sum())


def computed(call: Callable[[], Any]) -> np.ndarray:
    with np.errstate(all="ignore"):
        return np.asarray(call(), dtype=np.float32)


def results(side: Side, x: np.ndarray, special: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Return what the peer makes of both inputs; not of NaN and infinities where they would spoil the whole tensor."""
    whole = computed(side.build(x.copy()))
    return whole, None if side.scope == "tensor" else computed(side.build(special.copy()))


def compare(side: Side, x: np.ndarray, special: np.ndarray, got: np.ndarray, of_special: np.ndarray | None) -> Row:
    """Count the differences of the peer's results to the standard, and to its own definition."""
    row = Row(side.peer, side.call, str(side.standard), side.why, n=x.size)
    own = side.own or side.standard
    right = computed(lambda: side.standard(x))
    row.differ = differing(got, right)
    row.zeros = int(((got == 0) & (right == 0) & (np.signbit(got) != np.signbit(right))).sum())
    row.unexplained = differing(got, computed(lambda: own(x)))
    if of_special is not None:
        row.special = differing(of_special, computed(lambda: side.standard(special)))
        row.unexplained += differing(of_special, computed(lambda: own(special)))
    return row


def lowp_call(side: Side, x: np.ndarray) -> Call:
    """Return lowp's call on the peer's kind of array: by the peer's definition if that is a setting of lowp's."""
    setting = side.own if isinstance(side.own, Setting) else side.standard
    if side.world == "numpy":
        return lambda: setting(x)
    if side.world == "torch":
        import torch

        t = torch.from_numpy(x)
        return lambda: setting(t)
    import jax

    function, v = jax.jit(setting), jax.numpy.asarray(x)
    return lambda: function(v).block_until_ready()


def measure(row: Row, side: Side, x: np.ndarray, rounds: int) -> None:
    """Time the peer and lowp in turns, on so many rows that a call of the peer does not take long."""
    part = x[: max(1, min(len(x), int(len(x) * CALL_LIMIT_NS / quickest(side.build(x)))))]
    timings = take_turns({"peer": side.build(part), "lowp": lowp_call(side, part)}, rounds, budget_s=1.0)
    row.ns, row.lowp_ns = (timings[who].min / part.size for who in ("peer", "lowp"))


def run(side: Side, x: np.ndarray, special: np.ndarray, rounds: int) -> Row:
    """Compare and time one side; a peer that is not there or that raises does not stop the others."""
    x = x if side.scope == "elements" else x[1:]
    try:
        got = results(side, x, special)
    except ModuleNotFoundError as error:
        return Row(side.peer, side.call, str(side.standard), "", f"not installed ({error})")
    except Exception as error:  # noqa: BLE001 - whatever a peer raises, the others go on
        status = f"failed ({type(error).__name__}: {error})".split("\n")[0][:160]
        return Row(side.peer, side.call, str(side.standard), "", status)
    row = compare(side, x, special, *got)
    measure(row, side, x, rounds)
    return row


def cells(row: Row) -> list[str]:
    if row.status != "ok":
        return [row.peer, row.call, row.lowp, row.status.replace("|", "/"), *[""] * 6]
    counts = [str(row.differ), "" if row.special is None else str(row.special), str(row.zeros)]
    reason = row.why if row.differ or row.special else ""
    if row.unexplained:
        reason += f" ({row.unexplained} not explained)"
    return [
        row.peer, row.call, row.lowp, *counts, reason,
        f"{row.ns:.3g}", f"{row.lowp_ns:.3g}", f"{row.ns / row.lowp_ns:.2g}",
    ]  # fmt: skip


def table(rows: list[Row]) -> str:
    """Return the rows as a Markdown table."""
    head = ["peer", "call", "lowp", "differ", "NaN, inf", "sign of 0", "why", "ns", "lowp ns", "ratio"]
    right = ("differ", "NaN, inf", "sign of 0", "ns", "lowp ns", "ratio")
    lines = [head, ["---:" if name in right else "---" for name in head], *map(cells, rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def main() -> int:
    """Run the comparison; the exit status is 1 if a peer differs in a way that its definition does not explain."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("peer", nargs="*", help=f"which peers (default all): {', '.join(PEERS)}")
    parser.add_argument("--size", type=int, default=1 << 20, help="elements, a multiple of 1024 (default 2^20)")
    parser.add_argument("--rounds", type=int, default=5, help="turns of peer and lowp (default 5)")
    parser.add_argument("--seed", type=int, default=0, help="of the input (default 0)")
    options = parser.parse_args()
    if unknown := set(options.peer) - set(PEERS):
        parser.error(f"unknown peer {', '.join(sorted(unknown))}; there are {', '.join(PEERS)}")
    if options.size < 8 * COLUMNS or options.size % COLUMNS:
        parser.error(f"--size {options.size} is not a multiple of {COLUMNS} of at least {8 * COLUMNS}")
    logging.disable(logging.WARNING)
    facts, start = machine() | {"versions": versions(), "elements": options.size}, time.monotonic()
    x, special = tensors(options.size, options.seed)
    rows = []
    for side in SIDES:
        if not options.peer or side.peer in options.peer:
            print(f"  {side.peer}: {side.call}", file=sys.stderr)
            with quiet():
                rows.append(run(side, x, special, options.rounds))
    facts |= {"load after": [round(v, 2) for v in os.getloadavg()], "seconds": round(time.monotonic() - start)}
    OUT.mkdir(parents=True, exist_ok=True)
    results = {"machine": facts, "rows": [asdict(row) for row in rows]}
    (OUT / "fake_quantizers.json").write_text(json.dumps(results, indent=1).replace("NaN,\n", "null,\n") + "\n")
    head = "\n".join(f"- {key}: {value}" for key, value in facts.items())
    (OUT / "fake_quantizers.md").write_text(f"# Fake quantizers\n\n{head}\n\n{table(rows)}\n")
    print(f"{table(rows)}\n\n{head}\n\nwritten: {OUT}/fake_quantizers.json, {OUT}/fake_quantizers.md")
    return int(any(row.unexplained for row in rows))


if __name__ == "__main__":
    raise SystemExit(main())
