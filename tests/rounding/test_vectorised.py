"""The loops of the quick kernels become packed instructions, on lanes of 32 bits where numbers have 32.

An edit that takes this away changes no result and would go unseen: a loop that reads and writes one array, an index
that may be negative, or an operation that Numba widens to 64 bits (see `_float32_kernels` and `_fast_kernels`).
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest

pytest.importorskip("numba")

from numba import config, types

from tests.rounding.instructions import Loop, fresh_assembly, innermost_loops, vector_loop

f4, f8, i2, i4, i8 = (t[::1] for t in (types.float32, types.float64, types.int16, types.int32, types.int64))
u1, u2, u4 = (t[::1] for t in (types.uint8, types.uint16, types.uint32))
rows, n, f, i = types.float32[:, ::1], types.int64, types.float32, types.int32
PLAN = (f4, f4, i4, f4)

#: Kernel, types of its arguments, and the most instructions on lanes of 64 bits (None: its numbers have 64 bits).
#: Positions of random words have 64 bits.
KERNELS: list[tuple[str, tuple[Any, ...], int | None]] = [
    ("_fast_kernels.rounded_to_nearest_even", PLAN, 0),
    ("_fast_kernels.rounded_to_nearest_even", (u2, u2, i4, f4), 0),
    ("_fast_kernels.rounded_to_nearest_even", (i2, i2, i4, f4), 0),
    ("_fast_kernels.float32_exponents", (i4, i4, i4), 0),
    ("_fast_directed_kernels.rounded_and_corrected", (*PLAN, f4), 0),
    ("_fast_directed_kernels.rounded_and_corrected", (u2, u2, i4, f4, f4), 0),
    ("_fast_directed_kernels.rounded_and_corrected", (i2, i2, i4, f4, f4), 0),
    ("_fast_directed_kernels.float32_exponents_corrected", (i4, i4, i4, f4), 0),
    ("_fast_stochastic_kernels._round_randomly", (f4, f4, u4, i4, f4, n, n), 4),
    ("_fast_stochastic_kernels._round_bits_randomly", (i4, i4, u4, i4, n, n), 6),
    ("_stochastic_kernels.fill_words", (u4, n, n, n), 24),
    ("_float32_kernels._codes", (f4, u1, i4, f), 0),
    ("_fast_codes_kernels.codes_to_nearest_even", (f4, u1, i4, f, i4), 0),
    ("_fast_codes_kernels.codes_of_float32_exponents", (i4, u2, i4, i), 0),
    ("_float32_kernels.widen_float16", (u2, f4), 0),
    ("_float32_kernels.narrow_float16", (f4, u2), 0),
    ("_float32_kernels.widen_bfloat16", (u2, f4), 0),
    ("_float32_kernels.narrow_bfloat16", (f4, u2), 0),
    ("_float64_kernels._round", (f8, f8, i8, f8), None),
    ("_float64_kernels._round_and_correct", (f8, f8, i8, f8, f8), None),
    ("_lane_kernels.nearest_powers", (f4, f4, rows, n, n, i4, f4), 0),
    ("_lane_kernels.nearest_products", (f4, f4, rows, n, n, i4, f4), 0),
    ("_lane_kernels.nearest_quotients", (f4, f4, rows, n, n, i4, f4), 0),
    ("_lane_kernels.multiply", (f4, f4, rows, n), 0),
]


@pytest.fixture(autouse=True)
def _needs_wide_vectors() -> None:
    from llvmlite import binding

    if not binding.get_host_cpu_features().get("avx2"):
        pytest.skip("needs a processor with AVX2")


def is_vectorised(loop: Loop, most_64: int | None) -> bool:
    """Whether a loop's work is done on whole vectors, none of it number by number."""
    return loop.packed >= 8 and loop.scalar == 0 and (most_64 is None or loop.lanes_64 <= most_64)


@pytest.mark.parametrize(("name", "signature", "most_64"), KERNELS, ids=[f"{k[0]}-{k[1][0].dtype}" for k in KERNELS])
def test_kernel_is_vectorised(name: str, signature: tuple[Any, ...], most_64: int | None) -> None:
    loop = vector_loop(kernel_of(name), signature)
    assert is_vectorised(loop, most_64), loop


#: Kernels with a loop for mirrored ends and one for others.
OF_TWO_LOOPS = ("nearest_even", "float32_exponents", "rounded_and_corrected", "exponents_corrected")


@pytest.mark.parametrize(
    ("name", "signature", "most_64"), [k for k in KERNELS if k[0].endswith(OF_TWO_LOOPS)],
    ids=[f"{k[0]}-{k[1][0].dtype}" for k in KERNELS if k[0].endswith(OF_TWO_LOOPS)],
)  # fmt: skip
def test_both_loops_are_vectorised(name: str, signature: tuple[Any, ...], most_64: int | None) -> None:
    loops = innermost_loops(fresh_assembly(kernel_of(name), signature))
    assert sum(is_vectorised(loop, most_64) and loop.vector_stores > 0 for loop in loops) >= 2, loops


def kernel_of(name: str) -> Any:
    module, kernel = name.split(".")
    return getattr(importlib.import_module(f"lowp.rounding.{module}"), kernel)


def test_a_kernel_without_vectors_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from lowp.rounding._fast_kernels import rounded_to_nearest_even

    assert is_vectorised(vector_loop(rounded_to_nearest_even, PLAN), 0)
    monkeypatch.setattr(config, "LOOP_VECTORIZE", 0)
    monkeypatch.setattr(config, "SLP_VECTORIZE", 0)
    assert not is_vectorised(vector_loop(rounded_to_nearest_even, PLAN), 0)


def test_a_loop_of_single_numbers_is_found() -> None:
    """Each number waits for the one before it."""

    def scalar(x: Any, out: Any) -> None:
        for i in range(1, x.size):
            out[i] = np.float32(np.float32(x[i] + out[i - 1]) - out[i - 1])

    assert not is_vectorised(vector_loop(scalar, (f4, f4)), None)


def test_numbers_widened_to_64_bits_are_found() -> None:
    """The same sum in 32 bits, and as Numba types it without the casts."""

    def narrow(x: Any, out: Any) -> None:
        for i in range(x.size):
            m = np.int32(x[i] & np.int32(0x7FFFFFFF))
            out[i] = np.int32(np.int32(np.int32(m + np.int32(7)) >> np.int32(3)) * np.int32(5)) - (m < 9)

    def wide(x: Any, out: Any) -> None:
        for i in range(x.size):
            m = x[i] & 0x7FFFFFFF
            out[i] = ((m + 7) >> 3) % 5 - (m < 9)

    assert vector_loop(narrow, (i4, i4)).lanes_64 == 0
    loop = vector_loop(wide, (i4, i4))
    assert loop.lanes_64 > 4 or loop.packed < 8, loop


def test_loops_are_read_from_assembly() -> None:
    text = """
outer:
	movq	%rax, %rbx
.L1:
	vmovups	(%rdi,%rcx,4), %ymm0
	vaddps	%ymm0, %ymm1, %ymm0
	vpaddq	%ymm0, %ymm1, %ymm2
	vmovups	%ymm0, (%rsi,%rcx,4)
	addq	$8, %rcx
	jne	.L1
.L2:
	vaddss	%xmm0, %xmm1, %xmm0
	vmovss	%xmm0, (%rsi,%rcx,4)
	jne	.L2
	jmp	outer
"""
    first, second = innermost_loops(text)
    assert (first.packed, first.lanes_64, first.scalar, first.vector_stores) == (4, 1, 0, 1)
    assert (second.packed, second.scalar) == (0, 1)
