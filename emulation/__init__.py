"""Chains of rounded steps: arithmetic, accumulators and whole programs in a format."""

from lowp.emulation.accumulator import Accumulator, Alignment
from lowp.emulation.arithmetic import add, divide, dot, fma, fmod, maximum, minimum, multiply, remainder, sqrt, subtract
from lowp.emulation.array import array
from lowp.emulation.casts import Cast
from lowp.emulation.elementary import cos, exp, exp2, log, log2, power, sin, tanh
from lowp.emulation.every_operation import every_operation
from lowp.emulation.faults import flip_bits
from lowp.emulation.gauss import GaussTable
from lowp.emulation.matmul import matmul
from lowp.emulation.matrix_units import MatrixUnit, matrix_unit, matrix_units
from lowp.emulation.neighbours import classify, next_down, next_up, total_order, ulp
from lowp.emulation.recipe import Recipe, Rule
from lowp.emulation.report import Report

__all__ = [
    "Accumulator",
    "Alignment",
    "Cast",
    "GaussTable",
    "MatrixUnit",
    "Recipe",
    "Report",
    "Rule",
    "add",
    "array",
    "classify",
    "cos",
    "divide",
    "dot",
    "every_operation",
    "exp",
    "exp2",
    "flip_bits",
    "fma",
    "fmod",
    "log",
    "log2",
    "matmul",
    "matrix_unit",
    "matrix_units",
    "maximum",
    "minimum",
    "multiply",
    "next_down",
    "next_up",
    "power",
    "remainder",
    "sin",
    "sqrt",
    "subtract",
    "tanh",
    "total_order",
    "ulp",
]
