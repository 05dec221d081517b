"""Predictions of published numbers about lookup-table engines."""

from __future__ import annotations

from functools import partial

from lowp.formats import parse
from lowp.formats.packed import Packed
from lowp.hw_models.cpu_simd import cpu_tokens_per_second, measured_tokens
from lowp.hw_models.lut_engine import LutEngine, lut_engine
from lowp.hw_models.lut_gemm import lut_gemm
from lowp.hw_models.lut_unit import lut_unit
from lowp.hw_models.units import dot_unit
from lowp.hw_models.validation import predicts

_TWO_BITS, _FOUR_BITS = "int2_g128_fp16", "ggml_q4_0"
#: Matrices of BitNet b1.58 3B, (outputs, terms, how many): 26 layers of 3200 and 8640, and the last layer.
_BITNET_3B = ((3200, 3200, 26 * 4), (8640, 3200, 26 * 2), (3200, 8640, 26), (32002, 3200, 1))


@predicts("f59_density_ratio")
def _density_ratio() -> float:
    """Products of four float16 activations: by multiplication, and looked up for one-bit weights."""
    engine = lut_engine("lut_tensor_core", table="float16")
    m, n = 2, 64
    table = lut_unit("binary", "float16", engine, m, n, accumulate=False).area.value / (m * n)
    multiply = dot_unit("float16", lanes=4, target="n28").without("accumulate", "register").area.value
    return multiply / table


@predicts("f60_mirror_area")
def _mirror_area() -> float:
    full, half = (lut_unit("int2", "int8", lut_engine("lut_tensor_core", mirror=m)).area.value for m in (False, True))
    return full / half


@predicts("f61_redundancy")
def _redundancy() -> float:
    alone, shared = (
        lut_gemm(1, 12288, 12288, "int2", engine="lut_tensor_core", outputs_per_table=n).tables for n in (4, None)
    )
    return alone / shared


@predicts("f62_lut_4x")
def _bitnet_on_lut_4x() -> float:
    seconds = sum(
        count * lut_gemm(1024, n, k, "ternary", "int8_row", "lut_tensor_core", device="a100", array=4).time.value
        for n, k, count in _BITNET_3B
    )
    return 1e3 * seconds


def _speed(core: str, weights: str, threads: int = 1) -> float:
    return cpu_tokens_per_second("llama-2-7b", weights, core, threads, "t_mac").value


def _bits_ratio(core: str) -> float:
    return _speed(core, _TWO_BITS) / _speed(core, _FOUR_BITS)


for _letter, _core in zip("abcd", ("m2_ultra", "orin", "rpi5", "surface_book_3"), strict=True):
    predicts(f"f63{_letter}_{_core}")(partial(_bits_ratio, _core))
predicts("f64a_two_bits")(partial(_speed, "m2_ultra", _TWO_BITS))
predicts("f64b_four_bits")(partial(_speed, "m2_ultra", _FOUR_BITS))
predicts("f65_memory_bound")(partial(_speed, "rpi5", _FOUR_BITS, 2))


@predicts("f66_joules_per_token")
def _joules_per_token() -> float:
    return measured_tokens("orin", "Llama-2-7B", 2, "t_mac", 12).joules_per_token or 0.0


def _packed_bits(engine: str) -> float:
    return lut_gemm(1, 4096, 4608, "ternary", engine=engine).bits_per_weight


predicts("f67a_tl1_bits")(partial(_packed_bits, "tl1"))
predicts("f67b_tl2_bits")(partial(_packed_bits, "tl2"))
predicts("f67c_tl2_magnitudes")(lambda: float(lut_engine("tl2").entries(3)))


def _format_bits(name: str) -> float:
    found = parse(name)
    assert isinstance(found, Packed)
    return found.bits_per_value


for _letter, _name in zip("abc", ("hlq2_g128", "hlq2_g64", "hlq3_g128"), strict=True):
    predicts(f"f68{_letter}_{_name}")(partial(_format_bits, _name))


def _table_over_activations(engine: LutEngine) -> float:
    cost = lut_gemm(1, 4096, 4096, "int4", "float16", engine)
    return cost.table_bytes / cost.activation_bytes


predicts("f69a_full_table")(partial(_table_over_activations, lut_engine("conventional")))
predicts("f69b_mirrored_int8")(partial(_table_over_activations, lut_engine("t_mac")))
