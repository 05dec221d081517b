"""The area of a whole accelerator die: cores, caches, memory and link interfaces. Data: `data/die_area.csv`.

Follows the area model of LLMCompass (ISCA 2024): transistor counts over a node's density, SRAM bits over an array
efficiency, and the measured size of physical interfaces, which do not shrink.
"""

from __future__ import annotations

from functools import cache

from lowp._errors import ArgumentError, unknown_name
from lowp.hw_models.estimate import Estimate
from lowp.hw_models.tables import rows

_LARGEST_CACHE = 1 << 19
_SMALLEST_CACHE = 1 << 12
_REGISTER_BITS, _REGISTER_PORTS = 32, 4
_WIDE_MANTISSA = 52
#: Errors of the published model on two dies were 5 and 8 percent, of their parts up to a factor of 2.
_SPREAD = 0.15


def dies() -> list[str]:
    """Return the names of the dies with published configurations.

    Example:
        >>> dies()
        ['ga100', 'aldebaran']
    """
    return list(dict.fromkeys(r["subject"] for r in rows("die_area") if r["quantity"] == "cores"))


def die_area(name: str) -> Estimate:
    """Return the area of a die; `bound` is its largest part.

    Args:
        name: One of `dies()`.

    Raises:
        ArgumentError: The name is unknown.

    Example:
        >>> print(die_area("ga100"))
        827 mm2 (703 to 951 mm2, cores)
    """
    if name not in dies():
        raise ArgumentError(unknown_name("name", name, dies()))
    parts = _parts(name)
    total = sum(parts.values())
    source = "LLMCompass area model @2e015fd"
    return Estimate(
        total, total * (1 - _SPREAD), total * (1 + _SPREAD), "m2", max(parts, key=lambda p: parts[p]), source
    )


def float_unit_transistors(mantissa_bits: int) -> float:
    """Return the transistors of a floating-point unit: those of float64's by the square of the mantissa bits.

    It overestimates narrow formats: their exponents and shifters do not shrink as fast.

    Example:
        >>> round(float_unit_transistors(10))
        25344
    """
    return _fact("logic", "float64_unit") * (mantissa_bits / _WIDE_MANTISSA) ** 2


def cache_area(size: int, node: str) -> float:
    """Return the area of an SRAM of so many bytes, in m2, split in arrays of at most 512 KB.

    Example:
        >>> round(cache_area(192 * 1024, "N7") * 1e6, 3)
        0.508
    """
    arrays, each = (-(-size // _LARGEST_CACHE), _LARGEST_CACHE) if size > _LARGEST_CACHE else (1, size)
    each = max(each, _SMALLEST_CACHE)
    efficiency = _fact("sram", f"efficiency_{1 << (each - 1).bit_length()}")
    return arrays * each * 8 * _fact(node, "sram_bit") / efficiency


def register_file_area(registers: int, node: str) -> float:
    """Return the area of a register file of 32-bit registers with 4 ports, in m2, by EMPIRE's fit at 90 nm.

    Example:
        >>> round(register_file_area(512, "N6") * 1e6, 3)
        0.009
    """
    d, w, p = registers, _REGISTER_BITS, _REGISTER_PORTS
    squares = 1.5e-2 * d**2 + 1.08e-2 * w**2 + 0.586 * p**2
    micrometres = 3.29e4 - 1.09e3 * d - 8.83e2 * w - 5.55e3 * p + 53.5 * d * w + squares + 142 * d * p + 368 * w * p
    return micrometres * 1e-12 * _fact("N90", "density") / _fact(node, "density")


def _parts(name: str) -> dict[str, float]:
    node = _text(name, "node")
    density = _fact(node, "density")
    get = {r["quantity"]: r["value"] for r in rows("die_area") if r["subject"] == name}
    count = {key: int(value) for key, value in get.items() if value.isdecimal()}
    logic = count["lanes"] * _fact("logic", "control_per_lane")
    logic += count["int32"] * _fact("logic", "int32_unit")
    logic += count["float32"] * float_unit_transistors(23) + count["float64"] * float_unit_transistors(52)
    logic += count["array"] * float_unit_transistors(10)
    sublane = logic / density + count["register_files"] * register_file_area(count["registers"], node)
    core = count["sublanes"] * sublane + cache_area(count["buffer"], node)
    memory, link = get["memory"], get["link"]
    return {
        "cores": count["cores"] * core,
        "interconnect": count["cores"] * _fact("logic", "communication_per_core") / density,
        "cache": cache_area(count["cache"], node),
        "memory": count["memory_channels"] * _interface(memory, density),
        "links": count["links"] * _interface(link, density),
    }


def _interface(kind: str, density: float) -> float:
    return _fact(kind, "phy") + _fact(kind, "control") / density


def _fact(subject: str, quantity: str) -> float:
    return float(_text(subject, quantity))


@cache
def _text(subject: str, quantity: str) -> str:
    for row in rows("die_area"):
        if (row["subject"], row["quantity"]) == (subject, quantity):
            return row["value"]
    raise ArgumentError(f"{quantity}={subject!r} is not in data/die_area.csv.")
