"""The operations of a residual network of bottleneck blocks."""

from __future__ import annotations

from collections.abc import Iterator

from lowp.hw_models.model_shapes import Residual
from lowp.hw_models.workload import Operation, Workload


def residual_workload(shape: Residual, batch: int) -> Workload:
    """Return one pass over a batch of images; normalisation and activation are part of each convolution's kernel."""
    operations = tuple(_operations(shape, batch))
    weights = sum(op.right_values for op in operations if op.role == "linear")
    outputs = [op.n for op in operations if op.kind == "convolution"]
    return Workload(
        name=shape.name,
        operations=operations,
        weight_values=weights,
        other_values=2 * sum(outputs) + shape.classes,
        head_values=sum(op.right_values for op in operations if op.role == "head"),
        tokens=batch,
        phase="forward",
    )


def _operations(shape: Residual, batch: int) -> Iterator[Operation]:
    side = shape.image // 2
    yield _convolution("stem", batch, 3, shape.stem, 7, shape.image, side)
    pooled = batch * shape.stem
    side //= 2
    yield Operation(
        "elementwise",
        batch,
        shape.stem * side**2,
        1,
        1,
        "pool",
        "other",
        read=pooled * (2 * side) ** 2,
        written=pooled * side**2,
    )
    channels = shape.stem
    for stage, (width, blocks) in enumerate(zip(shape.widths, shape.blocks, strict=True), start=1):
        for block in range(blocks):
            stride = 2 if stage > 1 and block == 0 else 1
            yield from _block(f"stage{stage}.{block}", batch, channels, width, shape.expansion, side, stride, block)
            channels, side = width * shape.expansion, side // stride
    values = batch * channels * side**2
    yield Operation("elementwise", batch, channels, 1, 1, "average", "other", read=values, written=batch * channels)
    yield Operation("matmul", batch, shape.classes, channels, 1, "head", "head")


def _block(
    name: str, batch: int, channels: int, width: int, expansion: int, side: int, stride: int, block: int
) -> Iterator[Operation]:
    out, small = width * expansion, side // stride
    yield _convolution(f"{name}.reduce", batch, channels, width, 1, side, side)
    yield _convolution(f"{name}.spatial", batch, width, width, 3, side, small)
    yield _convolution(f"{name}.expand", batch, width, out, 1, small, small)
    if block == 0:
        yield _convolution(f"{name}.shortcut", batch, channels, out, 1, side, small)
    values = batch * out * small**2
    yield Operation("elementwise", batch, out * small**2, 1, 1, f"{name}.sum", "other", read=2 * values, written=values)


def _convolution(name: str, batch: int, inputs: int, outputs: int, kernel: int, side: int, small: int) -> Operation:
    read = batch * inputs * (side if kernel > 1 or side == small else small) ** 2
    return Operation("convolution", batch * small**2, outputs, inputs * kernel**2, 1, name, "linear", read=read)
