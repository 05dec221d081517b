"""Predictions against measured latencies, and against published ones of a second source."""

from __future__ import annotations

from statistics import fmean, stdev

import numpy as np
import pytest

from lowp.hw_models import gemm
from lowp.hw_models.tables import rows
from lowp.hw_models.tile_wave import Kernel, Work, roofline, tile_wave

A_B = {
    "bfloat16": ("bfloat16", "bfloat16"),
    "fp8": ("fp8", "fp8"),
    "nvfp4": ("nvfp4", "nvfp4"),
    "int4_wo": ("bfloat16", "int4_g128"),
    "int8_wo": ("bfloat16", "int8_row"),
    "sq": ("int8_row", "int8_row"),
}
TRT = "trtllm/1.3.0rc20"
#: Mean relative error of coarser fits to the whole tables, on the rows these held out: ours must be no worse.
PUBLISHED = {
    ("h100_sxm", TRT, "bfloat16"): 0.093,
    ("h100_sxm", TRT, "fp8"): 0.129,
    ("h200_sxm", TRT, "bfloat16"): 0.108,
    ("h200_sxm", TRT, "fp8"): 0.135,
    ("a100_sxm", "sglang/0.5.10", "bfloat16"): 0.126,
    ("a100_sxm", "trtllm/1.0.0", "int4_wo"): 0.192,
    ("b200_sxm", TRT, "bfloat16"): 0.150,
    ("b200_sxm", TRT, "fp8"): 0.146,
    ("b200_sxm", TRT, "nvfp4"): 0.241,
    ("gb200", TRT, "nvfp4"): 0.240,
    ("rtx_pro_6000_server", "vllm/0.24.0", "bfloat16"): 0.171,
    ("rtx_pro_6000_server", "vllm/0.24.0", "nvfp4"): 0.281,
    ("l40s", "vllm/0.24.0", "bfloat16"): 0.246,
    ("l40s", "vllm/0.24.0", "fp8"): 0.329,
}
# (device, stack, dtype): largest mean relative error allowed on all rows, up to three points above what it is.
LIMITS = {
    ("h100_sxm", TRT, "bfloat16"): 0.10,
    ("h100_sxm", TRT, "fp8"): 0.075,
    ("h200_sxm", TRT, "bfloat16"): 0.12,
    ("h200_sxm", TRT, "fp8"): 0.075,
    ("b200_sxm", TRT, "bfloat16"): 0.155,
    ("b200_sxm", TRT, "fp8"): 0.075,
    ("b200_sxm", TRT, "nvfp4"): 0.195,
    ("gb200", TRT, "bfloat16"): 0.14,
    ("gb200", TRT, "fp8"): 0.08,
    ("gb200", TRT, "nvfp4"): 0.21,
    ("b300_sxm", TRT, "bfloat16"): 0.16,
    ("b300_sxm", TRT, "fp8"): 0.085,
    ("b300_sxm", TRT, "nvfp4"): 0.21,
    ("a100_sxm", "sglang/0.5.10", "bfloat16"): 0.12,
    ("a100_sxm", "trtllm/1.0.0", "bfloat16"): 0.15,
    ("a100_sxm", "trtllm/1.0.0", "int4_wo"): 0.21,
    ("a100_sxm", "trtllm/1.0.0", "int8_wo"): 0.19,
    ("a100_sxm", "trtllm/1.0.0", "sq"): 0.185,
    ("rtx_pro_6000_server", "vllm/0.24.0", "bfloat16"): 0.15,
    ("rtx_pro_6000_server", "vllm/0.24.0", "fp8"): 0.20,
    ("rtx_pro_6000_server", "vllm/0.24.0", "nvfp4"): 0.285,
    ("l40s", "vllm/0.24.0", "bfloat16"): 0.19,
    ("l40s", "vllm/0.24.0", "fp8"): 0.295,
}
# LLMCompass, measured on A100: matmul m x 12288 x 12288 and 8192 x n x n, milliseconds.
WIDE = dict(
    zip(
        (64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768),
        (0.1900, 0.2003, 0.3185, 0.6118, 1.1990, 2.3586, 4.4576, 8.6216, 17.0307, 35.4407),
        strict=True,
    )
)
SQUARE = dict(
    zip(
        (64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768),
        (0.0296, 0.0310, 0.0356, 0.0471, 0.0927, 0.2818, 1.0210, 3.9614, 15.0087, 61.1346),
        strict=True,
    )
)


@pytest.mark.parametrize(("key", "limit"), LIMITS.items(), ids=lambda x: "-".join(x) if isinstance(x, tuple) else "")
def test_mean_error_on_measured_products_stays_near_the_held_out_error(measured_gemms, key, limit):
    a, b = A_B[key[2]]
    points = measured_gemms[key]
    errors = [abs(gemm(p.m, p.n, p.k, a, b, device=key[0]).value / p.seconds - 1) for p in points]
    assert fmean(errors) < limit


@pytest.mark.parametrize(("key", "published"), PUBLISHED.items(), ids=lambda x: "-".join(x) if len(str(x)) > 9 else "")
def test_error_on_rows_held_out_is_no_worse_than_published(measured_gemms, key, published):
    points = measured_gemms[key]
    held_out = np.random.default_rng(0).permutation(len(points))[len(points) // 2 :]  # the fits saw the other half
    a, b = A_B[key[2]]
    errors = []
    for i in held_out:
        p = points[i]
        errors.append(abs(gemm(p.m, p.n, p.k, a, b, device=key[0]).value / p.seconds - 1))
    # A sample of 200 of some 35,000 rows tells the mean error no better than to one standard error.
    assert fmean(errors) <= published + stdev(errors) / len(errors) ** 0.5


@pytest.mark.parametrize("key", LIMITS, ids="-".join)
def test_interval_covers_most_measured_products(measured_gemms, key):
    a, b = A_B[key[2]]
    points = measured_gemms[key]
    inside = [e.low <= p.seconds <= e.high for p in points for e in [gemm(p.m, p.n, p.k, a, b, device=key[0])]]
    assert fmean(inside) > 0.87


def test_model_is_far_better_than_the_roofline_on_measured_h100_products(measured_gemms):
    points = measured_gemms["h100_sxm", TRT, "bfloat16"]
    ideal = [roofline(Work(p.m, p.n, p.k, _bytes(p.m, p.n, p.k), 989e12, 3.35e12, 132)) for p in points]
    roofline_error = fmean(abs(t / p.seconds - 1) for t, p in zip(ideal, points, strict=True))
    assert roofline_error == pytest.approx(0.461, abs=0.03)


def test_llmcompass_a100_products_within_three_percent_on_average():
    kernel = Kernel(compute=0.92, memory=0.90, start=27e-6, ramp=128)
    shapes = [((m, 12288, 12288), t) for m, t in WIDE.items()] + [((8192, n, n), t) for n, t in SQUARE.items()]
    errors = [
        abs(tile_wave(Work(*s, _bytes(*s), 312e12, 2.039e12, 108), kernel).seconds / (t * 1e-3) - 1) for s, t in shapes
    ]
    assert fmean(errors) == pytest.approx(0.028, abs=0.001)
    assert max(errors) < 0.076


def test_products_measured_by_llmcompass_on_both_devices():
    errors: dict[str, list[float]] = {"a100": [], "mi210": []}
    for row in rows("measured_gemm"):
        if row["stack"] == "pytorch":
            m, n, k = (int(row[size]) for size in "mnk")
            time = gemm(m, n, k, "float16", "float16", "float16", row["device"], stack="pytorch").value
            errors[row["device"]].append(abs(time * 1e6 / float(row["microseconds"]) - 1))
    assert {name: len(found) for name, found in errors.items()} == {"a100": 20, "mi210": 22}
    assert fmean(errors["a100"]) < 0.03
    assert fmean(errors["mi210"]) < 0.04
    assert max(max(found) for found in errors.values()) < 0.12


@pytest.mark.parametrize(("m", "microseconds"), [(1, 49.2), (1024, 190.7), (8192, 1404.8)])
def test_h100_bfloat16_8192_square_weights_as_measured(m, microseconds):
    predicted = gemm(m, 8192, 8192, "bfloat16", "bfloat16", device="h100").value
    assert predicted * 1e6 == pytest.approx(microseconds, rel=0.12)


@pytest.mark.parametrize(("m", "microseconds"), [(1, 27.4), (1024, 91.0), (8192, 737.2)])
def test_b200_bfloat16_8192_square_weights_as_measured(m, microseconds):
    predicted = gemm(m, 8192, 8192, "bfloat16", "bfloat16", device="b200").value
    assert predicted * 1e6 == pytest.approx(microseconds, rel=0.15)


@pytest.mark.parametrize(
    ("device", "n", "k", "dtype", "m", "speedup", "tolerance"),
    [
        ("h100", 10240, 8192, "fp8", 4096, 1.56, 0.15),
        ("h100", 10240, 8192, "fp8", 1, 1.54, 0.20),
        ("b200", 16384, 8192, "fp8", 4096, 1.83, 0.25),
        ("b200", 16384, 8192, "nvfp4", 4096, 2.75, 0.25),
        ("a100", 16384, 8192, "sq", 4096, 2.17, 0.20),
        ("a100", 16384, 8192, "int4_wo", 128, 1.20, 0.30),
        ("a100", 16384, 8192, "int4_wo", 1024, 0.88, 0.20),
        ("a100", 16384, 8192, "int4_wo", 1, 3.37, 0.20),
        ("a100", 16384, 8192, "int4_wo", 16, 2.80, 0.20),
        ("a100", 16384, 8192, "int8_wo", 1, 1.92, 0.20),
    ],
)
def test_speedup_over_bfloat16_as_measured(device, n, k, dtype, m, speedup, tolerance):
    base = gemm(m, n, k, "bfloat16", "bfloat16", device=device).value
    assert base / gemm(m, n, k, *A_B[dtype], device=device).value == pytest.approx(speedup, rel=tolerance)


def _bytes(m: int, n: int, k: int) -> int:
    return 2 * (m * k + n * k + m * n)
