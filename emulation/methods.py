"""What a cast may do to round an operand: plain rounding and methods of papers, as array code for every framework.

A method is a function of (world, x, cast, fmt, axis, seed, shard, combine) that returns the values and where the
gradient passes (None: everywhere). `x` is rotated already and at least float32; `combine` is `amax` of `round_operand`.
Sums run in a fixed order and products are fenced, so that every framework gives the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lowp.emulation._blockwise import block_largest, divide, grouped, tree_sum, ungrouped
from lowp.formats import Block, Format, parse

if TYPE_CHECKING:
    from lowp.emulation.casting import World
    from lowp.emulation.casts import Cast

Combine = Callable[[Any], Any] | None
#: By bits, the a whose 2^bits levels in equal steps from -a to a are best for normal data of standard deviation 1.
#: Source: IST-DASLab/Quartet, `quantizers/base.py` and `notebooks/mse_fitting.ipynb`.
GAUSSIAN_GRIDS = {
    1: 0.7978845587140913, 2: 1.4935345, 3: 2.0510679, 4: 2.5139325, 5: 2.9160898, 6: 3.2765974, 7: 3.6010436,
    8: 3.8849974,
}  # fmt: skip
#: Keeps scales of zero blocks positive. Source: IST-DASLab/Quartet, `quantizers/quest.py`.
_QUEST_FLOOR = 1e-8
#: MS-EDEN: 17/16 keeps elements in range whatever the rounding of the scale, 0.93 is the best factor beside it; scales
#: end at 255.99, so that the correction may raise them. Source: Quartet II, arXiv:2601.22813.
_EDEN_LARGEST = 6 / (17 / 16 * 0.93)
_EDEN_SCALE_MAX = 255.99
#: Probabilities that a standard normal number is below -1, -3, -5: that half of it rounds to -1, -2, -3 or less.
_NORMAL_TAILS = (0.15865525393145707, 0.0013498980316300946, 2.866515718791945e-07)


def round_once(
    world: World, x: Any, cast: Cast, fmt: Format, *, axis: Any, seed: Any, shard: Any, combine: Combine
) -> tuple[Any, Any]:
    """Round to the format once."""
    amax = None
    if combine is not None and isinstance(fmt, Block) and (fmt.tensor_scale is not None or fmt.size == "tensor"):
        amax = combine(world.largest(world.abs(x)))
    rounded = world.quantize(
        x,
        fmt,
        rounding=cast.rounding,
        overflow=cast.overflow,
        random_bits=cast.random_bits,
        seed=seed,
        axis=axis,
        shard=shard,
        amax=amax,
    )
    return rounded, None


def quest(
    world: World, x: Any, cast: Cast, fmt: Format, *, axis: Any, seed: Any, shard: Any, combine: Combine
) -> tuple[Any, Any]:
    """Round to the grid that is best for normal data; the gradient passes where the error is small.

    Blocks have 2^bits levels from -a rms to a rms in equal steps, without zero; the gradient passes where the error is
    at most half a step, `a rms / (2^bits - 1)` (the trust mask). A format with the scale recipe "quest" is rounded as
    it says; the gradient passes where the magnitude is below the block's largest value.

    Source:
        Panferov et al., QuEST, arXiv:2502.05003; Castro et al., Quartet, arXiv:2505.14669; IST-DASLab/Quartet,
        `quantizers/quest.py` and `mxfp4_triton.py`.
    """
    assert isinstance(fmt, Block)
    if fmt.recipe == "quest":
        values, _ = round_once(world, x, cast, fmt, axis=axis, seed=seed, shard=shard, combine=combine)
        return values, world.abs(x) < world.limits(x, fmt, axis)[1]
    levels = 1 << fmt.element.bits
    best = GAUSSIAN_GRIDS[fmt.element.bits]
    blocks = grouped(world, x, axis, x.shape[axis] if fmt.size == "row" else fmt.size, "quest")  # type: ignore[arg-type]
    mean = divide(world, tree_sum(world, world.fence(blocks * blocks)), world.scalar(blocks.shape[-1], x))
    rms = world.sqrt(mean)
    scale = world.fence(rms * world.scalar(best, x)) + world.scalar(_QUEST_FLOOR, x)
    step = divide(world, scale * 2.0, world.scalar(levels - 1, x))
    clipped = world.where(blocks > scale, scale, world.where(blocks < -scale, -scale, blocks))
    index = world.round(divide(world, clipped, step) + 0.5)
    values = world.fence((index - 0.5) * step)
    trusted = world.abs(values - blocks) <= rms * world.scalar(best / (levels - 1), x)
    return ungrouped(world, values, x, axis), ungrouped(world, trusted, x, axis)


def ms_eden(
    world: World, x: Any, cast: Cast, fmt: Format, *, axis: Any, seed: Any, shard: Any, combine: Combine
) -> tuple[Any, Any]:
    """Round NVFP4 to nearest with headroom, ties away from zero; correct each rotation group by its block scales.

    The factor sum z^2 / sum z q of a group of `cast.hadamard` numbers makes the projection of the result on the input
    exact; it is folded into the block scales, which are rounded stochastically. Positions of the random bits are those
    in the array of scales, which has the shape of `x` with blocks along `axis`.

    Source:
        Quartet II, arXiv:2601.22813; IST-DASLab/Quartet-II, `quantizers/nvfp4_triton.py`, `eden_1x16s_fp4_kernel`.
    """
    assert isinstance(fmt, Block)
    size = fmt.block_elements
    assert size is not None
    groups = grouped(world, x, axis, cast.hadamard, "ms_eden")
    blocks = world.reshape(groups, (*groups.shape[:-1], cast.hadamard // size, size))
    largest = world.scalar(_EDEN_LARGEST, x)
    block_amax = world.largest(world.abs(blocks), -1)
    amax = world.largest(block_amax)
    amax = amax if combine is None else combine(amax)
    tensor_scale = divide(world, divide(world, amax, world.scalar(_EDEN_SCALE_MAX, x)), largest)
    tensor_scale = world.where(tensor_scale == 0, world.scalar(1.0, x), tensor_scale)
    scales = world.quantize(divide(world, divide(world, block_amax, largest), tensor_scale), fmt.scale)
    scales = world.where(scales == 0, world.scalar(1.0, x), scales)
    scaled = divide(world, blocks, scales * tensor_scale)
    elements = world.quantize(scaled, fmt.element, rounding="ties_to_away")
    correction = _projection(world, scaled, elements, groups.shape)
    wanted = world.fence(scales * world.reshape(correction, (*correction.shape, 1)))
    per_block = ungrouped(world, wanted[..., 0], x, axis, size)
    stored = world.quantize(
        per_block, fmt.scale, rounding="stochastic_a", seed=seed, shard=_shard_of_blocks(shard, axis, size)
    )
    stored = grouped(world, stored, axis, cast.hadamard // size, "ms_eden")
    units = world.fence(elements * world.reshape(stored, wanted.shape)) * tensor_scale
    return ungrouped(world, world.reshape(units, groups.shape), x, axis), None


def _projection(world: World, z: Any, q: Any, shape: tuple[int, ...]) -> Any:
    """Return sum z^2 / sum z q of each group; 1 where that is 0/0."""
    own = tree_sum(world, world.reshape(world.fence(z * z), shape))
    projected = tree_sum(world, world.reshape(world.fence(z * q), shape))
    one = world.scalar(1.0, own)
    return world.where(projected == 0, one, divide(world, own, world.where(projected == 0, one, projected)))


def _shard_of_blocks(shard: Any, axis: int, size: int) -> Any:
    """Return where the block scales of a piece lie in the array of all block scales."""
    if shard is None:
        return None
    offset, shape = list(shard.offset), list(shard.shape)
    offset[axis], shape[axis] = offset[axis] // size, shape[axis] // size
    return replace(shard, offset=tuple(offset), shape=tuple(shape))


def gauss_noise(
    world: World, x: Any, cast: Cast, fmt: Format, *, axis: Any, seed: Any, shard: Any, combine: Combine
) -> tuple[Any, Any]:
    """Add rounded Gaussian noise instead of rounding: `x + R amax 2^(1 - b)`, R = round(N(0, 1) / 2).

    amax is that of the block, b the bits of the format's elements; the format's scales do not matter. R comes from 24
    random bits per element and is cut off at +-3.

    Source:
        Gaussian weight sampling, arXiv:2505.11170.
    """
    assert isinstance(fmt, Block)
    axes, sizes = (axis, fmt.size) if isinstance(fmt.size, tuple) else ((axis,), (fmt.size,))
    amax = world.abs(x)
    for along, size in zip(axes, sizes, strict=True):
        amax = block_largest(world, amax, along, x.shape[along] if size == "row" else int(size))
    step = amax * world.scalar(2.0 ** (1 - fmt.element.bits), x)
    return x + world.fence(_half_normal_integers(world, x, seed, shard) * step), None


def _half_normal_integers(world: World, x: Any, seed: Any, shard: Any) -> Any:
    """Return round(N(0, 1) / 2) for each element."""
    uniform = world.uniform(x, seed, shard)
    result = world.scalar(0.0, x)
    for magnitude, tail in enumerate(_NORMAL_TAILS, 1):
        result = world.where(uniform < world.scalar(tail, uniform), world.scalar(-magnitude, x), result)
        result = world.where(uniform >= world.scalar(1 - tail, uniform), world.scalar(magnitude, x), result)
    return result


def pow2_ratio(
    world: World, x: Any, cast: Cast, fmt: Format, *, axis: Any, seed: Any, shard: Any, combine: Combine
) -> tuple[Any, Any]:
    """Round in blocks whose scales are the largest scale of their row divided by powers of two.

    With S_i = amax of block / largest element, the scale is `S_max / 2^ceil(log2(S_max / S_i))`; elements may clip. A
    zero block has scale S_max.

    Source:
        Wu, Yao, He, ZeroQuant-FP, arXiv:2307.09782, constraint M2.
    """
    assert isinstance(fmt, Block)
    one = world.scalar(1.0, x)
    amax = block_largest(world, world.abs(x), axis, int(fmt.size))  # type: ignore[arg-type]
    wanted = divide(world, amax, world.scalar(fmt.element.max, x))
    row = world.largest(wanted, axis)
    row = world.where(amax == amax, row, row)
    ratio = world.where(wanted == 0, one, divide(world, row, world.where(wanted == 0, one, wanted)))
    scale = divide(world, row, world.quantize(ratio, parse("float8_e8m0fnu"), rounding="toward_positive"))
    scale = world.where(scale == 0, one, scale)
    elements, _ = round_once(
        world, divide(world, x, scale), cast, fmt.element, axis=-1, seed=seed, shard=shard, combine=None
    )
    return world.fence(elements * scale), None


#: Names in `lowp.emulation.casts.METHODS`.
METHODS: dict[str, Callable[..., tuple[Any, Any]]] = {
    "round": round_once,
    "quest": quest,
    "ms_eden": ms_eden,
    "gauss_noise": gauss_noise,
    "pow2_ratio": pow2_ratio,
}
