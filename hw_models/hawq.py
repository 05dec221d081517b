"""HAWQ-V3's published problems and configurations. Data: `data/hawq_layers.csv`, `data/hawq_configurations.csv`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from lowp._errors import ArgumentError, unknown_name
from lowp.hw_models.mixed_precision import PrecisionLayer
from lowp.hw_models.tables import rows

NETWORKS = ("resnet18", "resnet50")
_MEBI = 1 << 20


@dataclass(frozen=True)
class PublishedConfiguration:
    """A row of HAWQ-V3's tables.

    Attributes:
        network: "resnet18" or "resnet50".
        name: "uniform8", "uniform4", or a cost and the fraction of its range that was the budget, such as "bops_0.5".
        precisions: "int4" or "int8" by layer, the first and last ones aside.
        size: Published size in bytes; the source gives MiB with one decimal.
        bops: Published bit operations; the source gives whole 10^9.
        speedup: Over float32 on a T4.
        accuracy: ImageNet top-1, as a share.
    """

    network: str
    name: str
    precisions: dict[str, str]
    size: float
    bops: float
    speedup: float
    accuracy: float


def hawq_layers(network: str, fixed: bool = False) -> list[PrecisionLayer]:
    """Return the layers of a network with HAWQ-V3's sensitivities and latencies in "int8" and "int4".

    The sensitivity is the published average Hessian trace times the published squared error of the weights. The
    convolution of a shortcut has the precision of its unit's first one.

    Args:
        network: "resnet18" or "resnet50".
        fixed: Whether to add the first and last layer, which stay in int8 and have no published sensitivity (0 here)
            and no latency.

    Raises:
        ArgumentError: Another network.

    Source:
        The HAWQ repository, commit 1616df6, ILP.ipynb.

    Example:
        >>> layers = hawq_layers("resnet18")
        >>> len(layers), layers[0].name, round(layers[0].sensitivity["int4"], 4)
        (19, 'stage1.unit1.conv1', 0.4624)
    """
    if network not in NETWORKS:
        raise ArgumentError(unknown_name("network", network, NETWORKS))
    chosen = [row for row in rows("hawq_layers") if row["network"] == network]
    return [_layer(row, fixed) for row in chosen if fixed or row["index"]]


def _layer(row: dict[str, str], fixed: bool) -> PrecisionLayer:
    counts = (row["layer"], int(row["weights"]), int(row["multiply_adds"]))
    if not row["index"]:
        return PrecisionLayer(*counts, {"int8": 0.0})
    loss = {p: float(row["trace"]) * float(row[f"error_{p}"]) for p in ("int8", "int4")}
    latency = {p: float(row[f"latency_{p}_ms"]) * 1e-3 for p in ("int8", "int4")}
    return PrecisionLayer(*counts, loss, {} if fixed else {"latency": latency}, row["group"])


@cache
def hawq_configurations(network: str) -> tuple[PublishedConfiguration, ...]:
    """Return the configurations that HAWQ-V3 published for a network, uniform ones included.

    Raises:
        ArgumentError: Another network.

    Source:
        The HAWQ repository, commit 1616df6, bit_config.py and model_zoo.md.

    Example:
        >>> found = {c.name: c for c in hawq_configurations("resnet18")}
        >>> [name for name, p in found["size_0.75"].precisions.items() if p == "int4"]
        ['stage3.unit2.conv2', 'stage4.unit2.conv2']
    """
    names = [layer.name for layer in hawq_layers(network)]
    return tuple(_configuration(row, names) for row in rows("hawq_configurations") if row["network"] == network)


def _configuration(row: dict[str, str], names: list[str]) -> PublishedConfiguration:
    narrow: set[int] = set()
    for part in row["int4_layers"].split():
        first, _, last = part.partition("-")
        narrow.update(range(int(first), int(last or first) + 1))
    precisions = {name: "int4" if i in narrow else "int8" for i, name in enumerate(names)}
    return PublishedConfiguration(
        row["network"],
        row["configuration"],
        precisions,
        float(row["size_mib"]) * _MEBI,
        float(row["gigabops"]) * 1e9,
        float(row["speedup"]),
        float(row["accuracy_percent"]) / 100,
    )
