"""Bits that follow from formats alone: predictions of published numbers."""

from __future__ import annotations

from functools import partial

from lowp.formats import parse
from lowp.hw_models.datapath import datapath
from lowp.hw_models.validation import predicts


def _window(element: str) -> float:
    window = datapath(element, lanes=32).window
    assert window is not None
    return window


for _key, _element in (
    ("f36a_e4m3", "float8_e4m3fn"),
    ("f36b_e3m2", "float6_e3m2fn"),
    ("f36c_e2m3", "float6_e2m3fn"),
    ("f36d_e2m1", "float4_e2m1fn"),
):
    predicts(_key)(partial(_window, _element))


def _memory_density(name: str) -> float:
    fmt = parse(name)
    bits = getattr(fmt, "bits_per_value", None)
    assert isinstance(bits, float)
    return 32 / bits


for _bits in range(16, 10, -1):
    predicts(f"f42_msfp{_bits}")(partial(_memory_density, f"msfp{_bits}"))


def _bits_per_value(name: str) -> float:
    return 32 / _memory_density(name)


for _bits in (9, 6, 4):
    predicts(f"f45_mx{_bits}")(partial(_bits_per_value, f"mx{_bits}"))
