"""Sums over devices: ring all-reduce. Data: `data/links.csv`, `data/collectives.csv`."""

from __future__ import annotations

from functools import lru_cache

from lowp._errors import ArgumentError
from lowp.hw_models.arguments import sizes
from lowp.hw_models.devices import Device
from lowp.hw_models.devices import device as find_device
from lowp.hw_models.estimate import Estimate
from lowp.hw_models.tables import rows


def all_reduce(nbytes: int, devices: int, device: str | Device = "h100") -> Estimate:
    """Predict the time to sum a tensor over devices that all hold one, in a ring.

    Each device sends `2 (p - 1) / p` times the tensor in `2 (p - 1)` steps; of the protocols that the library offers
    the quickest counts.

    Args:
        nbytes: Bytes of the tensor.
        devices: Devices p; with one there is nothing to do.
        device: A device or its name.

    Returns:
        Seconds. `bound` is "link" or "launch".

    Raises:
        ArgumentError: A size is below 1, or the data list no link of the device.

    Source:
        Patarasuk and Yuan, "Bandwidth optimal all-reduce", 2009; latencies of NCCL's tuning model.

    Example:
        >>> all_reduce(2 * 4096 * 8192, 8, "h100").bound
        'link'
    """
    nbytes, devices = sizes(nbytes=nbytes, devices=devices)
    return _all_reduce(nbytes, devices, find_device(device))


@lru_cache(maxsize=4096)
def _all_reduce(nbytes: int, parts: int, device: Device) -> Estimate:
    link = next((row for row in rows("links") if row["device"] == device.name), None)
    if link is None:
        raise ArgumentError(f"device={device.name!r} has no link in data/links.csv.")
    if parts == 1:
        return Estimate(0.0, 0.0, 0.0, "s", "link", "one device has nothing to sum over")
    steps = 2 * (parts - 1)
    sent = steps / parts * nbytes
    options = []
    for row in rows("collectives"):
        if row["link"] == link["link"]:
            latency = (float(row["base_us"]) + steps * float(row["hop_us"])) * 1e-6
            moving = [sent / (float(link["bandwidth"]) * float(row[s])) for s in ("share", "share_high", "share_low")]
            options.append((latency, *moving))
    latency, value, low, high = min(options, key=lambda option: option[0] + option[1])
    bound = "launch" if latency > value else "link"
    provenance = f"ring all-reduce over {parts} x {link['link']} of {device.name}, NCCL tuning model, {link['source']}"
    # A one-step exchange of small tensors, as serving stacks do, takes about half the latency of a ring.
    return Estimate(latency + value, latency / 2 + low, 1.5 * latency + high, "s", bound, provenance)
