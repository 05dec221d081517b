"""What one run found, as tables: every work with all its contenders, ratios to targets, and peers that are faster."""

from __future__ import annotations

import math
from dataclasses import dataclass

from benchmarks.works import TARGET_JAX, TARGET_NEW, TARGET_TORCH, WORKS, Work

OURS = ("lowp", "lowp.torch", "lowp.jax")


@dataclass
class Row:
    """What one contender did with one work."""

    work: str
    owner: str
    label: str
    into: str
    status: str = "ok"
    n: int = 0
    ns: float = math.nan
    ns_min: float = math.nan
    samples: int = 0
    clean: int = 0
    bits: str = ""
    limit: float = math.nan  # ns / ns of the fastest copy into the same kind of output
    memory: float = math.nan  # bytes beyond the result, per byte of the result


@dataclass
class Ratio:
    """One aim: a row of ours over what it is measured by. `least` takes the least samples, `x` the medians."""

    work: str
    what: str
    ns: float
    basis_ns: float
    x: float
    least: float
    target: float

    @property
    def met(self) -> bool:
        return self.x <= self.target


@dataclass
class Faster:
    """A peer that is faster than lowp with the same kind of output."""

    work: str
    peer: str
    ns: float
    lowp: str
    lowp_ns: float
    bits: str


def fastest(rows: list[Row], owner: str, into: str = "", label: str = "", by: str = "ns") -> Row | None:
    """Return the quickest row of an owner ("peers": everybody but lowp and the copies)."""
    measured = [r for r in rows if r.status == "ok" and into in ("", r.into) and r.label.startswith(label)]
    chosen = [r for r in measured if (r.owner not in (*OURS, "copy") if owner == "peers" else r.owner == owner)]
    return min((r for r in chosen if not math.isnan(getattr(r, by))), key=lambda r: float(getattr(r, by)), default=None)


def best(rows: list[Row], owner: str, into: str = "") -> float:
    """Return the fewest ns among the rows of an owner, or NaN."""
    row = fastest(rows, owner, into)
    return math.nan if row is None else row.ns


def _ratio(
    rows: list[Row], what: str, ours: tuple[str, str, str], basis: tuple[str, str], target: float
) -> list[Ratio]:
    mine, theirs = fastest(rows, ours[0], ours[1], ours[2]), fastest(rows, *basis)
    if mine is None or theirs is None:
        return []
    least = fastest(rows, *basis, by="ns_min")
    assert least is not None
    return [Ratio(mine.work, what, mine.ns, theirs.ns, mine.ns / theirs.ns, mine.ns_min / least.ns_min, target)]


def ratios(work: Work, rows: list[Row]) -> list[Ratio]:
    """Return what is aimed at in one work: against the copy, and of the frameworks against NumPy."""
    new_target = TARGET_NEW if work.verb == "quantize" else work.target
    there, fresh = ("copy", "existing"), ("copy", "new")
    numpy_there, numpy_fresh = ("lowp", "existing"), ("lowp", "new")
    return [
        *_ratio(rows, "out=, by a copy", ("lowp", "existing", ""), there, work.target),
        *_ratio(rows, "new output, by a copy into a new array", ("lowp", "new", ""), fresh, new_target),
        *_ratio(rows, "torch, out=, by NumPy", ("lowp.torch", "existing", "eager"), numpy_there, TARGET_TORCH),
        *_ratio(rows, "torch, by NumPy", ("lowp.torch", "new", "eager"), numpy_fresh, TARGET_TORCH),
        *_ratio(rows, "torch.compile, by NumPy", ("lowp.torch", "new", "torch.compile"), numpy_fresh, TARGET_TORCH),
        *_ratio(rows, "jax.jit, by a copy", ("lowp.jax", "new", ""), there, TARGET_JAX),
    ]


def faster_peers(rows: list[Row]) -> list[Faster]:
    """Return the peers that beat lowp: with a new output lowp's new one, with an existing output lowp's `out=`.

    Tensors and JAX arrays are compared with lowp on the same framework too, where that is in the work.
    """
    found = []
    for owner, of_peer in (("lowp", ""), ("lowp.torch", "torch"), ("lowp.jax", "jax")):
        for into in ("existing", "new"):
            mine = fastest(rows, owner, into)
            for row in rows:
                other = row.owner in (*OURS, "copy") or row.into != into or row.status != "ok"
                if mine is None or other or (of_peer and row.owner != of_peer) or row.ns >= mine.ns:
                    continue
                peer = f"{row.owner}, {row.label}"
                found.append(Faster(row.work, peer, row.ns, f"{mine.owner}, {mine.label}", mine.ns, row.bits))
    return found


def rows_table(rows: list[Row]) -> str:
    """Return the contenders of one work as a Markdown table."""
    lines = [
        "| who | how | output | ns/element | min | x limit | x lowp | elements | clean/samples | memory | bits |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for r in rows:
        if r.status == "ok":
            figures = (r.ns, r.ns_min, r.limit, r.ns / best(rows, "lowp", r.into))
            cells = ["" if math.isnan(v) else f"{v:.3g}" for v in figures]
            memory = "" if math.isnan(r.memory) else f"{r.memory:.2g}"
            cells += [f"2^{math.log2(r.n):g}", f"{r.clean}/{r.samples}", memory, r.bits]
        else:
            cells = [r.status.replace("|", "/"), *[""] * 7]
        lines.append("| " + " | ".join([r.owner, r.label, r.into, *cells]) + " |")
    return "\n".join(lines)


def aims_table(found: list[Ratio]) -> str:
    """Return every aim and what came of it."""
    lines = [
        "| work | what | ns/element | measured by, ns | ratio | least samples | aim | |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for r in found:
        figures = (f"{v:.3g}" for v in (r.ns, r.basis_ns, r.x, r.least, r.target))
        lines.append(f"| {r.work} | {r.what} | {' | '.join(figures)} | {'met' if r.met else '**missed**'} |")
    return "\n".join(lines)


def faster_table(found: list[Faster], peers: bool = True) -> str:
    """Return the peers that are faster, first thing in every report; `peers`: whether they took part."""
    if not peers:
        return "This run was without peers (`--no-peers`)."
    if not found:
        return "No peer is faster than lowp in any work."
    lines = [
        "| work | peer | ns/element | lowp | ns/element | x | bits |",
        "| --- | --- | ---: | --- | ---: | ---: | --- |",
    ]
    lines += [
        f"| {f.work} | {f.peer} | {f.ns:.3g} | {f.lowp} | {f.lowp_ns:.3g} | {f.lowp_ns / f.ns:.2g} | {f.bits} |"
        for f in sorted(found, key=lambda f: f.ns / f.lowp_ns)
    ]
    return "\n".join(lines)


def formats_table(rows: list[Row]) -> str:
    """Return a line for each work: lowp, the copy, and the fastest peer, all with the better kind of output."""
    lines = [
        "| work | format | modes | limit | lowp `out=` | lowp new | fastest peer | | x lowp |",
        "| --- | --- | --- | ---: | ---: | ---: | --- | ---: | ---: |",
    ]
    for work in WORKS:
        mine = [r for r in rows if r.work == work.name]
        if not mine:
            continue
        modes = [m for m in (work.rounding, work.overflow) if m not in ("ties_to_even", "saturate")]
        modes += [work.dtype] if work.dtype != "float32" else []
        figures = (best(mine, "copy"), best(mine, "lowp", "existing"), best(mine, "lowp", "new"))
        cells = ["" if math.isnan(v) else f"{v:.3g}" for v in figures]
        peer = fastest(mine, "peers")
        own = best(mine, "lowp", "new")
        cells += (
            ["", "", ""] if peer is None else [f"{peer.owner}, {peer.label}", f"{peer.ns:.3g}", f"{peer.ns / own:.2g}"]
        )
        verb = "" if work.verb == "quantize" else f"{work.verb} "
        lines.append(f"| {work.name} | {verb}{work.format} | {', '.join(modes)} | {' | '.join(cells)} |")
    return "\n".join(lines)
