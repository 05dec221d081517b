"""Matrix products as libraries run them: promotion, split-K, tile orders and the epilogue, around a matrix unit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lowp._errors import ArgumentError, ArgumentTypeError, unknown_name
from lowp.emulation.accumulator import Accumulator
from lowp.emulation.matrix_units import MatrixUnit, matrix_unit
from lowp.formats.float_format import Float
from lowp.formats.parse import parse
from lowp.formats.spec import Format
from lowp.rounding import verbs

__all__ = ["COMBINATIONS", "Schedule", "epilogue", "gemm", "gemm_accumulator", "schedule", "stream_k"]

COMBINATIONS = {
    "serial": "((p0 + p1) + p2) + ...",
    "pairwise": "((p_(S-1) + q_0) + q_1) + ..., h = ceil(S / 2), q_i = p_i + p_(i+h) where i + h < S - 1, else p_i",
}
_FLOAT32 = Float(8, 23)


def gemm_accumulator(
    unit: str | MatrixUnit,
    *,
    promote: int | None = None,
    splits: int = 1,
    split_tile: int = 128,
    interleaved: bool = False,
    terms: int | None = None,
    outer: str | Format | Accumulator = "float32",
) -> MatrixUnit:
    """Return a matrix unit that sums as a GEMM around an instruction does.

    Fast accumulation is one chain of instructions over all terms; `promote=128` starts a new one from +0 every 128
    terms and adds their results in `outer`, as cuBLAS does without fast accumulation and DeepSeek-V3 on CUDA cores.
    Split-K gives each of `splits` workers its own terms and adds their results in `outer`, from first to last.

    Args:
        unit: The instruction, or its name.
        promote: Terms after which a chain's result is added to a sum in `outer`. None: fast accumulation.
        splits: Workers among which the terms are divided, in tiles: contiguous runs of ceil(tiles / splits), as on
            Hopper.
        split_tile: Terms of a tile.
        interleaved: Tile t goes to worker t mod `splits`, as on Ada. Only for products of `terms` terms, whose tiles
            must be a multiple of `splits`; `gemm` has no such limits.
        terms: Terms of the product.
        outer: Format, or `Accumulator`, of the sums of chains and workers.

    Raises:
        ArgumentError: Arguments that do not fit each other, or a unit that has partial sums already.

    Source:
        DeepSeek-V3 Technical Report, arXiv:2412.19437, 3.3.2; mmaemu 0.1.0, which reproduces recorded products of
        cuBLASLt 12.8 on an H100 and an RTX 4060.

    Example:
        >>> slow = gemm_accumulator("hopper/wgmma_m64n8k32/e4m3_e4m3/f32", promote=128)
        >>> a, b = np.ones((1, 32768)), np.ones((32768, 1))
        >>> fast = matrix_unit("hopper/wgmma_m64n8k32/e4m3_e4m3/f32")
        >>> slow.run(a, b).item(), fast.run(a, b).item()  # beside 2^14, 14 bits leave nothing of 1
        (32768.0, 16384.0)
    """
    own = unit if isinstance(unit, MatrixUnit) else matrix_unit(unit)
    inner = own.accumulator
    if inner.chunk is not None or inner.lanes > 1 or inner.splits > 1:
        raise ArgumentError(f"unit={own.name!r} has partial sums of its own; give an instruction.")
    _check_counts(promote=promote, splits=splits, split_tile=split_tile)
    if promote is None and splits == 1:
        return own
    adding = outer if isinstance(outer, Accumulator) else Accumulator(format=outer)
    order = _interleaving(terms, splits, split_tile) if interleaved and splits > 1 else inner.order
    if order != inner.order and inner.order != "sequential":
        raise ArgumentError(f"unit={own.name!r} has an order of its own; interleaved must be False.")
    how = replace(inner, chunk=promote, splits=splits, split_tile=split_tile, outer=adding, order=order)
    parts = [f"promoted every {promote}"] if promote else []
    parts += (
        [f"{splits} splits of {'interleaved' if interleaved else 'contiguous'} tiles of {split_tile}"]
        if splits > 1
        else []
    )
    return replace(
        own,
        name=f"{own.name} ({', '.join(parts)})",
        accumulator=how,
        standing="model" if own.standing == "recorded" else own.standing,
        evidence=f"the instruction: {own.standing}, {own.evidence}; the GEMM around it: mmaemu 0.1.0",
    )


def _interleaving(terms: int | None, splits: int, tile: int) -> tuple[int, ...]:
    if terms is None or terms % (splits * tile):
        raise ArgumentError(
            f"interleaved=True needs terms, a multiple of splits * split_tile = {splits * tile}, not {terms!r}; "
            "lowp.emulation.gemm.gemm takes any."
        )
    return tuple(np.arange(terms).reshape(-1, splits, tile).transpose(1, 0, 2).reshape(-1).tolist())


@dataclass(frozen=True)
class Schedule:
    """Which terms are summed by whom, and how their sums are combined.

    Args:
        workers: For each worker its chains, and for each chain its terms in order. A worker's chains are added one by
            one, from +0 where there are several; a worker without chains has +0.
        combine: How the workers' sums are added, one of `COMBINATIONS`.

    Raises:
        ArgumentError: Unknown `combine`.
    """

    workers: tuple[tuple[tuple[int, ...], ...], ...]
    combine: str = "serial"

    def __post_init__(self) -> None:
        if self.combine not in COMBINATIONS:
            raise ArgumentError(unknown_name("combine", self.combine, COMBINATIONS))


def schedule(
    terms: int,
    *,
    promote: int | None = None,
    splits: int = 1,
    split_tile: int = 128,
    interleaved: bool = False,
    combine: str = "serial",
) -> Schedule:
    """Return the schedule of a product with promotion and split-K; arguments are those of `gemm_accumulator`.

    Args:
        terms: Terms of the product.
        promote: Terms of a chain, counted among the worker's own.
        splits: Workers.
        split_tile: Terms of a tile.
        interleaved: Whether tiles are dealt out in turn.
        combine: How the workers' sums are added.

    Raises:
        ArgumentError: Counts below one, or an unknown `combine`.

    Example:
        >>> schedule(6, splits=2, split_tile=2).workers, schedule(6, splits=2, split_tile=2, interleaved=True).workers
        ((((0, 1, 2, 3),), ((4, 5),)), (((0, 1, 4, 5),), ((2, 3),)))
    """
    _check_counts(promote=promote, splits=splits, split_tile=split_tile)
    tiles = [range(i, min(i + split_tile, terms)) for i in range(0, terms, split_tile)]
    each = -(-len(tiles) // splits)
    own = [tiles[s::splits] if interleaved else tiles[s * each : (s + 1) * each] for s in range(splits)]
    workers = [[k for tile in mine for k in tile] for mine in own]
    chains = [
        tuple(tuple(w[i : i + (promote or len(w))]) for i in range(0, len(w), promote or len(w))) for w in workers if w
    ]
    return Schedule(tuple(chains) + ((),) * (splits - len(chains)), combine)


def stream_k(terms: int, tiles: int, workers: int, *, split_tile: int = 128) -> list[Schedule]:
    """Return the schedules of the output tiles of a stream-K product: workers take equal shares of all tiles.

    The tiles' steps are laid end to end and cut in `workers` equal runs (the first ones a step longer); where a run
    ends inside an output tile, that tile's sum is split there, and its parts are added in order.

    Args:
        terms: Terms of every output.
        tiles: Output tiles, in the order in which they are laid out.
        workers: Thread blocks.
        split_tile: Terms of a step.

    Source:
        M. Osama, D. Merrill, C. Cecka, M. Garland, J. Owens, "Stream-K", PPoPP 2023.

    Example:
        >>> [[[chain[0] for chain in w] for w in s.workers] for s in stream_k(512, 3, 2)]
        [[[0]], [[0], [256]], [[0]]]
    """
    _check_counts(tiles=tiles, workers=workers, split_tile=split_tile)
    steps = max(-(-terms // split_tile), 1)
    share, longer = divmod(steps * tiles, workers)
    cuts = np.cumsum([share + (w < longer) for w in range(workers)])
    result = []
    for tile in range(tiles):
        first = tile * steps
        inner = [0, *(int(c) - first for c in cuts if first < c < first + steps), steps]
        runs = [range(i * split_tile, min(j * split_tile, terms)) for i, j in pairwise(inner) if i < j]
        result.append(Schedule(tuple((tuple(run),) for run in runs if len(run))))
    return result


def gemm(
    a: ArrayLike,
    b: ArrayLike,
    unit: str | MatrixUnit,
    how: Schedule | Sequence[Schedule],
    *,
    tile: tuple[int, int] = (128, 128),
    outer: str | Format | Accumulator = "float32",
) -> NDArray[np.float64]:
    """Return `a @ b` as workers that each run a matrix unit on their own terms compute it.

    Args:
        a: Values of the unit's format, (m, k).
        b: Values of the unit's format, (k, n).
        unit: The instruction, or its name; one without block scales.
        how: Which terms are summed by whom: one schedule for all outputs, or one for each output tile in row order, as
            `stream_k` makes.
        tile: Rows and columns of an output tile.
        outer: Format, or `Accumulator`, of the sums of chains and workers.

    Raises:
        ArgumentError: Shapes or schedules that do not fit; values that the unit's format does not have.

    Example:
        >>> a, b = np.full((2, 256), 0.5), np.ones((256, 2))
        >>> dealt = schedule(256, splits=2, split_tile=64, interleaved=True)
        >>> gemm(a, b, "ada_lovelace/mma_m16n8k32/e4m3_e4m3/f32", dealt).tolist()
        [[128.0, 128.0], [128.0, 128.0]]
    """
    own = unit if isinstance(unit, MatrixUnit) else matrix_unit(unit)
    if own.scale:
        raise ArgumentError(f"unit={own.name!r} has block scales; gemm is for units without.")
    left, right = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if left.ndim != 2 or right.ndim != 2 or left.shape[1] != right.shape[0]:
        raise ArgumentError(f"a of shape {left.shape} and b of shape {right.shape} must be matrices that fit.")
    adding = outer if isinstance(outer, Accumulator) else Accumulator(format=outer)
    if isinstance(how, Schedule):
        return _product(left, right, own, how, adding)
    result = np.zeros((len(left), right.shape[1]))
    rows, columns = range(0, len(left), tile[0]), range(0, right.shape[1], tile[1])
    if len(how) != len(rows) * len(columns):
        raise ArgumentError(
            f"how has {len(how)} schedules; outputs in tiles of {tile} need {len(rows) * len(columns)}."
        )
    places = [(i, j) for i in rows for j in columns]
    for (i, j), given in zip(places, how, strict=True):
        part = np.s_[i : i + tile[0], j : j + tile[1]]
        result[part] = _product(left[part[0]], right[:, part[1]], own, given, adding)
    return result


def _product(
    a: NDArray[np.float64], b: NDArray[np.float64], unit: MatrixUnit, how: Schedule, adding: Accumulator
) -> NDArray[np.float64]:
    taken = sorted(k for worker in how.workers for chain in worker for k in chain)
    if taken != list(range(a.shape[1])):
        raise ArgumentError(f"the schedule must take each of {a.shape[1]} terms once; it takes {len(taken)}.")
    zeros = np.zeros((len(a), b.shape[1]))
    sums = []
    for worker in how.workers:
        chains = [unit.run(a[:, list(chain)], b[list(chain)]) for chain in worker]
        sums.append(chains[0] if len(chains) == 1 else _added([zeros, *chains], adding))
    if len(sums) == 1:
        return np.asarray(sums[0])
    if how.combine == "serial":
        return _added(sums, adding) if sums else zeros
    half = -(-len(sums) // 2)
    slots = [
        _added([sums[i], sums[i + half]], adding) if i + half < len(sums) - 1 else sums[i] for i in range(half)
    ]  # fmt: skip
    return _added([sums[-1], *slots], adding)


def _added(numbers: Sequence[NDArray[np.float64]], how: Accumulator) -> NDArray[np.float64]:
    """Return numbers added one by one."""
    from lowp.emulation.matmul import matmul

    shape = numbers[0].shape
    stacked = np.stack([x.reshape(-1) for x in numbers[1:]], 1)[:, None, :] if len(numbers) > 1 else None
    if stacked is None:
        return numbers[0]
    ones = np.ones((stacked.shape[2], 1))
    total = matmul(stacked, ones, numbers[0].reshape(-1, 1, 1), accumulator=how)
    return np.asarray(total, np.float64).reshape(shape)


def epilogue(
    result: ArrayLike,
    alpha: float | tuple[float, float] = 1.0,
    bias: ArrayLike | None = None,
    out: str | Format = "bfloat16",
    scale_result: float | None = None,
) -> NDArray[np.float64]:
    """Return what a GEMM writes to memory for its sums: scaled, biased and rounded as cuBLAS does.

    `y = fma(sum, alpha, +0)`, rounded once to float32, so that zeros are +0; then `y + bias`, rounded to float32; then
    rounded again to `out`, ties to even. FP8 results are multiplied by `scale_result` first, rounded to float32, and
    saturate; other formats overflow to infinity and take no scale.

    Args:
        result: Sums, numbers of float32.
        alpha: Factor, a number of float32; or the two operands' scales, whose product rounded to float32 it is.
        bias: Numbers of float32 that are added, in a shape that broadcasts.
        out: Format of the result.
        scale_result: Factor of FP8 results, a number of float32.

    Raises:
        ArgumentError: Numbers that float32 does not have, or a scale for a format that takes none.

    Source:
        mmaemu 0.1.0 (outputs of cuBLASLt 12.8 through torch._scaled_mm); the bias, as in cuBLASLt, is a model.

    Example:
        >>> tie = 1 + 2.0**-8  # of bfloat16, and float32 does not have what is just above
        >>> epilogue(tie, 1 + 2.0**-20).item(), epilogue(tie, (1 + 2.0**-13, 1 + 2.0**-13)).item()
        (1.0078125, 1.0078125)
        >>> epilogue(tie).item()
        1.0
    """
    sums = _float32("result", result)
    scales = [_float32("alpha", x) for x in (alpha if isinstance(alpha, tuple) else (alpha,))]
    if len(scales) > 2 or any(s.ndim for s in scales):
        raise ArgumentError(f"alpha={alpha!r} must be a number, or the scales of both operands.")
    fmt = parse(out)
    if not isinstance(fmt, Float):
        raise ArgumentError(f"out={fmt.name!r} must be a floating-point format.")
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        factor = _rounded(scales[0] * scales[1]) if len(scales) == 2 else scales[0]
        y = _rounded(sums * factor + 0.0)  # exact in float64 but for the zeros' sign
        if bias is not None:
            y = _sum(y, _float32("bias", bias))
        narrow = fmt.bits <= 8
        if scale_result is not None:
            if not narrow:
                raise ArgumentError(f"scale_result={scale_result!r} is for FP8 results, not for {fmt.name!r}.")
            y = _rounded(y * _float32("scale_result", scale_result))
    return np.asarray(verbs.quantize(y, fmt, overflow="saturate" if narrow else "infinity_or_nan"))


def _rounded(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return numbers rounded to float32."""
    return np.asarray(x).astype(np.float32).astype(np.float64)


def _sum(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the sum of float32 numbers, rounded once."""
    return (x.astype(np.float32) + y.astype(np.float32)).astype(np.float64)


def _float32(name: str, given: ArrayLike) -> NDArray[np.float64]:
    try:
        values = np.asarray(given, np.float64)
    except (TypeError, ValueError):
        raise ArgumentTypeError(f"{name}={given!r} must hold numbers.") from None
    with np.errstate(over="ignore"):
        same = (values.astype(np.float32) == values) | np.isnan(values)
    if not same.all():
        raise ArgumentError(
            f"{name} holds {float(values[~same].flat[0])!r}, which float32 does not have; round it first."
        )
    return values


def _check_counts(**counts: int | None) -> None:
    for name, value in counts.items():
        if value is None:
            continue
        if isinstance(value, bool) or not hasattr(value, "__index__"):
            raise ArgumentTypeError(f"{name}={value!r} must be an integer.")
        if value < 1:
            raise ArgumentError(f"{name}={value!r} must be at least 1.")
