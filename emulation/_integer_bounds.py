"""That no accumulator of a network can overflow: the extreme sums, whatever the activations are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lowp.emulation._integer_steps import Product
from lowp.emulation._overflow_proofs import CounterExample, Proof, Undecided, prove_no_overflow
from lowp.emulation.accumulator import Accumulator


@dataclass(frozen=True, kw_only=True)
class AccumulatorBound:
    """The sums that a product can have with any activations of its format. True if the accumulator holds them all.

    Args:
        name: Of the step.
        least: The least sum, bias included.
        largest: The largest.
        bits: Width of the accumulator.
        needed: The narrowest two's complement that holds both.
        proof: What `lowp.emulation.accumulator_bounds.prove_no_overflow` finds for the products without the bias.
    """

    name: str
    least: int
    largest: int
    bits: int
    needed: int
    proof: Proof | CounterExample | Undecided

    def __bool__(self) -> bool:
        return bool(self.proof) and self.needed <= self.bits


def bound_of(step: Product, accumulator: Accumulator) -> AccumulatorBound:
    """Return the bound of a product."""
    weight, bias = step.weight.astype(np.int64), step.bias.astype(np.int64)
    ends = weight * step.input.low, weight * step.input.high
    least = int((np.minimum(*ends).sum(axis=0) + bias).min())
    largest = int((np.maximum(*ends).sum(axis=0) + bias).max())
    needed = max(_width(least), _width(largest))
    proof = prove_no_overflow(accumulator, weight, step.input.format)
    bits = step.output.format.bits
    return AccumulatorBound(name=step.name, least=least, largest=largest, bits=bits, needed=needed, proof=proof)


def _width(x: int) -> int:
    return (x if x >= 0 else ~x).bit_length() + 1
