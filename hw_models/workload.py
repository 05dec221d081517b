"""What a program asks of a machine: a list of operations with their sizes, whatever formats they run in.

A `Workload` comes from a model's shape (`workload`), from tracing a module or function (`trace`), or by hand.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from lowp._errors import ArgumentError, ArgumentTypeError, unknown_name
from lowp.hw_models.arguments import sizes

#: Kinds of operations, and what their sizes mean.
KINDS = {
    "matmul": "out[m, n] = a[m, k] @ b[k, n], `groups` of them in one launch",
    "convolution": "a matmul of m = batch x output positions, n = output channels, k = input channels x kernel",
    "attention": "softmax(q[m, k] @ keys[n, k].T) @ values[n, k] in one kernel, per group",
    "elementwise": "m x n values: activation functions, norms, softmax, residual sums, gathers",
    "all_reduce": "m x n values summed over the devices of a group",
}
#: What the operands are, which decides the formats they are in.
ROLES = {
    "linear": "activations times weights",
    "head": "activations times the weights of the last layer",
    "attention": "queries times keys, and probabilities times values, of the cache",
    "activations": "activations times activations",
    "input_gradient": "gradients times weights, of the backward pass",
    "weight_gradient": "activations times gradients, of the backward pass",
    "other": "activations",
}


@dataclass(frozen=True)
class Operation:
    """One kind of kernel call with its sizes, and how often it runs.

    Attributes:
        kind: One of `KINDS`.
        m: Rows of the output: tokens, or queries.
        n: Columns of the output, or keys.
        k: Depth; of attention, the size of a head; else 1.
        count: How often it runs.
        name: Where it stands, such as "layer.attention.qkv".
        role: One of `ROLES`.
        groups: Independent products of this shape in one launch: batch times key and value heads, experts, groups of a
            convolution.
        read: Values read of the left operand where that is not `m * k` (convolutions, attention's backward pass), or
            by an elementwise operation (default `m * n`).
        written: Values written where that is not the output's size.
        pairs: Query and key pairs per group that are not masked; default all, `m * n`.
        rows: Rows of a matmul's groups together where they are not `m` each, but at most: tokens of experts; default
            `groups * m`.

    Raises:
        ArgumentError: An unknown kind or role, a size that is not positive, or more rows than groups have.

    Example:
        >>> op = Operation("matmul", 2048, 4096, 4096, count=32, name="layer.attention.out")
        >>> op.operations
        68719476736
    """

    kind: str
    m: int
    n: int
    k: int = 1
    count: int = 1
    name: str = ""
    role: str = "linear"
    groups: int = 1
    read: int = 0
    written: int = 0
    pairs: int = 0
    rows: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ArgumentError(unknown_name("kind", self.kind, KINDS))
        if self.role not in ROLES:
            raise ArgumentError(unknown_name("role", self.role, ROLES))
        sizes(m=self.m, n=self.n, k=self.k, count=self.count, groups=self.groups)
        if min(self.read, self.written, self.pairs) < 0:
            raise ArgumentError(
                f"read={self.read!r}, written={self.written!r}, pairs={self.pairs!r} must not be negative."
            )
        if not 0 <= self.rows <= self.groups * self.m:
            raise ArgumentError(f"rows={self.rows!r} must be from 0 to groups * m = {self.groups * self.m!r}.")

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of one run; of attention those of unmasked pairs; 0 of other kinds."""
        if self.kind in ("matmul", "convolution"):
            return self._rows * self.n * self.k
        if self.kind == "attention":
            return 2 * self.groups * (self.pairs or self.m * self.n) * self.k
        return 0

    @property
    def operations(self) -> int:
        """Operations of one run, a multiply-add counting as two."""
        return 2 * self.multiply_adds

    @property
    def left_values(self) -> int:
        """Values of the left operand, or values that an elementwise operation reads."""
        if self.kind in ("matmul", "convolution", "attention"):
            return self.read or self._rows * self.k
        return self.read or self.m * self.n

    @property
    def right_values(self) -> int:
        """Values of the right operand: weights, or keys and values together."""
        if self.kind in ("matmul", "convolution"):
            return self.groups * self.n * self.k
        return 2 * self.groups * self.n * self.k if self.kind == "attention" else 0

    @property
    def out_values(self) -> int:
        """Values written."""
        if self.written:
            return self.written
        if self.kind == "attention":
            return self.groups * self.m * self.k
        return self._rows * self.n

    @property
    def _rows(self) -> int:
        return self.rows or self.groups * self.m

    @property
    def is_product(self) -> bool:
        """Whether it multiplies matrices."""
        return self.kind in ("matmul", "convolution", "attention")


@dataclass(frozen=True)
class Workload:
    """Operations that run one after the other.

    Attributes:
        name: Of the model or function.
        operations: What runs.
        weight_values: Weights of the products that are held in memory, on one device.
        other_values: Weights that no product reads: embeddings, norms, biases; on one device.
        head_values: Weights of the last layer, on one device; not in `weight_values`.
        cache_values: Keys and values held in memory, on one device.
        tokens: Tokens that one run yields: of all sequences for "prefill" and "train", the batch for "decode".
        phase: "prefill", "decode", "train" or "forward".
        devices: Devices that share the work.

    Raises:
        ArgumentTypeError: `operations` holds something else.

    Example:
        >>> Workload("mine", (Operation("matmul", 512, 512, 512, count=2),)).multiply_adds
        268435456
    """

    name: str
    operations: tuple[Operation, ...]
    weight_values: int = 0
    other_values: int = 0
    head_values: int = 0
    cache_values: int = 0
    tokens: int = 1
    phase: str = "forward"
    devices: int = 1

    def __post_init__(self) -> None:
        given: Any = self.operations
        operations: tuple[Any, ...] = tuple(given) if isinstance(given, Iterable) else (given,)
        for operation in operations:
            if not isinstance(operation, Operation):
                raise ArgumentTypeError(f"operations: {operation!r} must be an Operation.")
        object.__setattr__(self, "operations", operations)

    def __iter__(self) -> Iterator[Operation]:
        return iter(self.operations)

    def __len__(self) -> int:
        return len(self.operations)

    @property
    def products(self) -> tuple[Operation, ...]:
        """The operations that multiply matrices."""
        return tuple(op for op in self.operations if op.is_product)

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of all runs on one device."""
        return sum(op.count * op.multiply_adds for op in self.operations)

    def shapes(self) -> list[tuple[int, int, int, int]]:
        """Return (m, n, k, count) of every matmul and convolution, groups counted as runs: what `matmuls_cost` takes.

        Example:
            >>> Workload("mine", (Operation("matmul", 8, 16, 32, count=2),)).shapes()
            [(8, 16, 32, 2)]
        """
        chosen = (op for op in self.operations if op.kind in ("matmul", "convolution"))
        return [(op.m, op.n, op.k, op.count * op.groups) for op in chosen]

    def merged(self) -> Workload:
        """Return the same work with operations that differ in nothing but their count put together."""
        counts: dict[Operation, int] = {}
        for op in self.operations:
            key = replace(op, count=1)
            counts[key] = counts.get(key, 0) + op.count
        return replace(self, operations=tuple(replace(op, count=count) for op, count in counts.items()))

    def describe(self) -> str:
        """Return the operations as a table in text."""
        lines = [f"{self.name}, {self.phase}: {2 * self.multiply_adds:.4g} operations"]
        for op in self.operations:
            groups = f" x {op.groups}" if op.groups > 1 else ""
            lines.append(f"  {op.count:6d} x {op.kind:11} {op.m} x {op.n} x {op.k}{groups}  {op.name} [{op.role}]")
        return "\n".join(lines)
