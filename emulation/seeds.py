"""Seeds of everything random in an emulated program: a hash of where it happens, so that a rerun repeats it."""

from __future__ import annotations

from hashlib import blake2b


def site_seed(seed: int, layer: str, operation: str, call: int, product: str, role: str) -> int:
    """Return the seed of one rounding: 64 bits that depend on each argument.

    Args:
        seed: The recipe's seed.
        layer: Dotted name of the layer.
        operation: "linear", "conv", ...
        call: How often this site has been called before.
        product: "forward", "grad_input" or "grad_weight".
        role: "weight", "activation", "gradient", ...

    Returns:
        An integer from 0 to 2^64 - 1: the first 8 bytes, little-endian, of BLAKE2b over the arguments joined by NUL.

    Example:
        >>> site_seed(0, "fc", "linear", 0, "forward", "weight") == site_seed(0, "fc", "linear", 1, "forward", "weight")
        False
    """
    text = "\0".join((str(int(seed)), layer, operation, str(int(call)), product, role))
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")


def sign_seed(seed: int, layer: str, operation: str, call: int, product: str, signs: str) -> int | None:
    """Return the seed of a rotation's sign flips, the same for both operands of a product; None for no flips.

    Args:
        seed: The recipe's seed.
        layer: As for `site_seed`, like the arguments that follow.
        operation: Operation.
        call: Number of the call.
        product: Product.
        signs: The cast's "random", "fixed" (then one seed for the whole program and all calls) or "none".

    Example:
        >>> sign_seed(0, "fc", "linear", 0, "forward", "fixed") == sign_seed(0, "out", "conv", 3, "forward", "fixed")
        True
    """
    if signs == "none":
        return None
    if signs == "fixed":
        return site_seed(seed, "", "", 0, "", "signs")
    return site_seed(seed, layer, operation, call, product, "signs")
