"""Predictions of published numbers about CPUs."""

from __future__ import annotations

from functools import partial

from lowp.hw_models.cpu_simd import cpu_gemm, cpu_tokens_per_second
from lowp.hw_models.validation import predicts


def _milliseconds(m: int, n: int, k: int) -> float:
    return 1e3 * cpu_gemm(m, n, k, "bitnet_i2_s", "epyc_7v13").value


predicts("f73a_i2_s_128")(partial(_milliseconds, 128, 2048, 2048))
predicts("f73b_i2_s_2048")(partial(_milliseconds, 2048, 2048, 2048))
predicts("f73c_i2_s_8192")(partial(_milliseconds, 128, 2048, 8192))


def _speed(core: str, weights: str) -> float:
    return cpu_tokens_per_second("llama-2-7b", weights, core).value


for _core in ("m2_ultra", "orin", "rpi5", "surface_book_3"):
    predicts(f"llama_cpp_q4_{_core}")(partial(_speed, _core, "ggml_q4_0"))
    predicts(f"llama_cpp_q2_{_core}")(partial(_speed, _core, "ggml_q2_k"))
