"""What a run of an emulated torch program knows: recipe, report, counts, histories, and what went wrong."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

import torch

from lowp._errors import ArgumentError, ArgumentTypeError
from lowp.emulation._torch_calls import Call, inside, is_inside
from lowp.emulation._torch_derived import Derived
from lowp.emulation._torch_names import Names
from lowp.emulation._torch_pieces import is_distributed
from lowp.emulation._torch_state import State
from lowp.emulation._torch_straight import is_wrapped
from lowp.emulation.casts import Cast
from lowp.emulation.recipe import PASSES, Recipe
from lowp.emulation.report import Report

_ROLES = ("weight", "activation", "gradient", "output", "accumulator")


class Thread(threading.local):
    """What one thread does in a run: how deep it is inside, and what else the run's modes must know of it."""

    def __init__(self) -> None:
        self.depth = 0
        self.exits: list[ExitStack] = []
        self.replaying = False
        self.passing = False
        #: What products of two activations are called: "attention" inside torch's multi-head attention.
        self.products_are = "matmul"
        self.derived = Derived()
        #: What the second operands of the next of them become first.
        self.operands: list[Callable[[torch.Tensor], torch.Tensor]] = []


class Run:
    """The data of an emulation; `Emulation` adds the context manager."""

    def __init__(
        self,
        recipe: Recipe,
        *,
        strict: bool = False,
        check_finite: bool = True,
        shard: tuple[int, int] | None = None,
        group: Any = None,
        decompose: bool = True,
    ) -> None:
        for argument, flag in (("strict", strict), ("check_finite", check_finite), ("decompose", decompose)):
            if not isinstance(flag, bool):
                raise ArgumentTypeError(f"{argument}={flag!r} must be True or False.")
        self.recipe, self.strict, self.check_finite = recipe, strict, check_finite
        self.decompose = decompose
        self.options: dict[str, Any] = {
            "strict": strict, "check_finite": check_finite, "shard": shard, "group": group, "decompose": decompose
        }  # fmt: skip
        self.shard, self.combine = _placed(shard, group)
        self.report, self.state, self.names = Report(), State(), Names()
        self.thread = Thread()
        self._casts: dict[tuple[str, str, str, str], tuple[Cast, str]] = {}
        self._emulated: dict[tuple[str, str], bool] = {}
        self._nonfinite = ""
        self._swallowed = ""
        self._seen: set[tuple[str, str]] = set()
        self._told: set[str] = set()
        if recipe.elementwise and "elementwise" not in recipe.operations:
            self.report.remark(
                "elementwise has a format, but the recipe's operations do not name it: nothing is rounded by it"
            )

    # What the program asks.

    def acts(self) -> bool:
        """Whether this run, not one inside it, is to intercept what this thread does."""
        from lowp.emulation._torch_mode import running

        runs = running()
        return not is_inside() and (not runs or runs[-1] is self)

    def known_cast(self, layer: str, operation: str, product: str, role: str) -> tuple[Cast, str]:
        """Return the cast of an operand, and the same in words."""
        key = (layer, operation, product, role)
        found = self._casts.get(key)
        if found is None:
            cast = self.recipe.cast(role, product, layer, operation)
            found = self._casts[key] = (cast, cast.describe())
        return found

    def emulates(self, operation: str, layer: str) -> bool:
        """Whether an operation in a layer is emulated and any of its operands changes."""
        key = (layer, operation)
        found = self._emulated.get(key)
        if found is None:
            roles = (*_ROLES, "kv_cache") if operation == "attention" else _ROLES
            found = self._emulated[key] = self.recipe.emulates(operation, layer) and any(
                self.known_cast(layer, operation, product, role)[0] for product in PASSES for role in roles
            )
        return found

    def start(self, operation: str, weight: Any = None) -> Call | None:
        """Return a new call of an operation in the running layer; None, with a line in the report, if it is left."""
        layer = self.wants(operation, weight)
        return None if layer is None else self.call(operation, layer)

    def wants(self, operation: str, weight: Any = None) -> str | None:
        """Return the running layer if the operation is emulated there; None, with a line in the report, if not."""
        layer = self.layer_of(weight)
        self._seen.add((layer, operation))
        if self.emulates(operation, layer):
            return layer
        if set(self.recipe.operations) != {"elementwise"}:
            exempt = operation in self.recipe.operations and not self.recipe.emulates(operation, layer)
            self.report.add(layer, operation, "", "", "exempt" if exempt else "not emulated")
        return None

    def layer_of(self, weight: Any) -> str:
        """Return the running layer, or the layer inside it that owns the parameter which a weight follows from."""
        return self.names.current(self.thread.derived.root(weight))

    def call(self, operation: str, layer: str) -> Call:
        """Return a new call of an operation in a layer."""
        self._seen.add((layer, operation))
        return Call(self, layer, operation, self.state.next_call(layer, operation), self.thread.replaying)  # type: ignore[arg-type]

    def where(self, name: str) -> str:
        """Return the place that an error speaks of."""
        return f"layer {self.names.current()!r}, {name}"

    def left(self, name: str, why: str) -> None:
        """Tell that an operation that the recipe asks for was not emulated.

        Raises:
            ArgumentError: The run is strict.
        """
        text = f"{self.where(name)}: not emulated, because {why}"
        if self.strict:
            raise ArgumentError(f"{text}; strict=True asks for it. Exempt the layer by a rule, or pass strict=False.")
        self.report.remark(text)

    # What the program hears about its results.

    def check(self, y: torch.Tensor, call: Call, product: str) -> None:
        """Note the first result of an emulated operation that holds NaN or infinity, or whose operands do."""
        if not self.check_finite:
            return
        if _is_finite(y):
            if self._swallowed:
                self.report.remark(self._swallowed)
            self._swallowed = ""
            return
        if self._nonfinite:
            self.report.remark("results with NaN or infinity after that")
            return
        self._nonfinite = call.layer
        self.report.remark(
            f"NaN or infinity appeared first in the result of layer {call.layer!r} ({call.operation}, {product}, "
            f"call {call.index})"
        )

    def check_operand(self, x: torch.Tensor, call: Call, product: str, role: str) -> None:
        """Look whether an operand holds NaN or infinity, of which rounding may make numbers; `check` speaks of it."""
        if self.check_finite and not self._nonfinite and not self._swallowed and not _is_finite(x):
            self._swallowed = (
                f"NaN or infinity went into layer {call.layer!r} ({call.operation}, {product}, {role}, call "
                f"{call.index}), and its result is finite"
            )

    def check_result(self, output: Any) -> None:
        """Note NaN or infinity in what an outermost module returned, such as a loss."""
        if not self.check_finite or self._nonfinite:
            return
        found = output.values() if isinstance(output, dict) else output
        for y in found if isinstance(found, tuple | list) else [found]:
            if isinstance(y, torch.Tensor) and y.is_floating_point() and not _is_finite(y):
                self.report.remark("the result of the outermost module holds NaN or infinity")

    def check_loss(self, loss: Any) -> None:
        """Note a loss that is NaN or infinite."""
        for y in loss if isinstance(loss, tuple | list) else [loss]:
            if self.check_finite and isinstance(y, torch.Tensor) and y.is_floating_point() and not _is_finite(y):
                first = f"; it appeared first in layer {self._nonfinite!r}" if self._nonfinite else ""
                self.report.remark(f"the loss holds NaN or infinity{first}")

    def unmatched(self) -> list[str]:
        """Return what to say of patterns that matched no layer so far; nothing twice.

        Patterns that match layers in which nothing ran that the rule speaks of are but a remark.
        """
        if not self._seen:
            return []
        known = self.names.known | {layer for layer, _ in self._seen}
        told = [text for text in unmatched_patterns(self.recipe, known) if text not in self._told]
        idle = [*idle_patterns(self.recipe, known, self._seen), *self.idle_primitives()]
        for text in [*told, *(text for text in idle if text not in self._told)]:
            self._told.add(text)
            self.report.remark(text)
        return told

    def idle_primitives(self) -> list[str]:
        """Return a sentence for each pattern over primitives that matches none that ran."""
        return []

    def saw(self, layer: str, operation: str) -> None:
        """Remember that an operation ran in a layer."""
        self._seen.add((layer, operation))

    # What the user keeps.

    def state_dict(self) -> dict[str, Any]:
        """Return the counts of calls and the amax histories, for `torch.save`."""
        return self.state.to_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` returned: the run goes on as the other one would have.

        Raises:
            ArgumentError, ArgumentTypeError: It is no such state.
        """
        self.state.from_dict(state)

    def reset(self) -> None:
        """Forget counts, histories and the report, as if nothing had run."""
        self.state.clear()
        self.report = Report()
        self._nonfinite = ""
        self._swallowed = ""
        self._told.clear()

    def __reduce__(self) -> Any:
        """Copies and files hold recipe, options, counts and histories; not the report."""
        return _rebuilt, (type(self), self.recipe, self.options, self.state.to_dict())

    def __repr__(self) -> str:
        return f"<Emulation of {self.recipe.name or 'a recipe'!r}: {self.report!r}>"


def _rebuilt(kind: type[Run], recipe: Recipe, options: dict[str, Any], state: dict[str, Any]) -> Run:
    run = kind(recipe, **options)
    run.load_state_dict(state)
    return run


def _is_finite(y: torch.Tensor) -> bool:
    if y.is_meta or not y.numel() or is_wrapped(y) or hasattr(y, "fake_mode"):
        return True
    y = y.to_local() if is_distributed(y) else y  # type: ignore[attr-defined]
    with torch.no_grad(), inside(y.device.type):
        return math.isfinite(y.sum().item()) or bool(y.isfinite().all())


def unmatched_patterns(recipe: Recipe, names: Iterable[str]) -> list[str]:
    """Return a sentence for each pattern of a rule that matches none of the names."""
    names = sorted(names)
    texts = []
    for rule in recipe.rules:
        for pattern in () if rule.optional else rule.match:
            if not any(fnmatchcase(name, pattern) for name in names):
                close = get_close_matches(pattern, names, n=3, cutoff=0.4) or [n for n in names if n][:8]
                some = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
                texts.append(f"rules: the pattern {pattern!r} matches no layer.{some}")
    return texts


def idle_patterns(recipe: Recipe, names: Iterable[str], seen: Iterable[tuple[str, str]]) -> list[str]:
    """Return a sentence for each pattern of a rule that matches names, but no operation that ran there."""
    names, texts = sorted(names), []
    for rule in recipe.rules:
        for pattern in () if rule.optional else rule.match:
            here = [name for name in names if fnmatchcase(name, pattern)]
            if here and not any(fnmatchcase(layer, pattern) and rule.operation in ("", o) for layer, o in seen):
                what = f"of {rule.operation!r} " if rule.operation else ""
                below = any(name.startswith(f"{n}.") for n in here if n for name in names)
                hint = f" For the layers inside: {pattern + '.*'!r}." if below else ""
                found = f"rules: the pattern {pattern!r} matches {here[0]!r}"
                texts.append(f"{found}, but no operation {what}ran there.{hint}")
    return texts


def _placed(shard: Any, group: Any) -> tuple[tuple[int, int] | None, Callable[[Any], Any] | None]:
    """Return the rank and the number of ranks, and the function that makes one amax of those of all ranks."""
    distributed = torch.distributed
    ready = distributed.is_available() and distributed.is_initialized()
    if group is not None and not ready:
        raise ArgumentError(f"group={group!r}: torch.distributed is not initialized.")
    if shard is None:
        if group is None:
            return None, None
        shard = (distributed.get_rank(group), distributed.get_world_size(group))
    pair = isinstance(shard, tuple | list) and len(shard) == 2 and all(type(n) is int for n in shard)
    if not pair or not 0 <= shard[0] < shard[1]:
        raise ArgumentError(f"shard={shard!r} must be a pair (rank, number of ranks) with 0 <= rank < number.")
    if group is None:
        if not ready or distributed.get_world_size() != shard[1]:
            return (shard[0], shard[1]), None
        group = distributed.group.WORLD

    def combine(amax: torch.Tensor) -> torch.Tensor:
        amax = amax.clone()
        distributed.all_reduce(amax, distributed.ReduceOp.MAX, group=group)
        return amax

    return (shard[0], shard[1]), combine
