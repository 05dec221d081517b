"""The parameters of an optimizer in low precision: rounded after each step, with or without master weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.optim import Optimizer

from lowp._errors import ArgumentError, ArgumentTypeError, Error, RangeError
from lowp.emulation._torch_stored import at, rounded
from lowp.emulation.optimizer_states import StateCast, is_patterns, matches, site_seed, state_cast, step_seed

_NARROW = (torch.float16, torch.bfloat16)


class Parameters:
    """The model's parameters, and those that the optimizer updates in their place while it runs.

    Attributes:
        model: The model's parameters, by index.
        held: What the optimizer updates: the parameter, or its float32 stand-in.
        names: Names by index; the index itself where the optimizer knows none.
        masters: Stand-ins that live on between steps, by index.
        seed: Seed of stochastic rounding.
    """

    def __init__(self, optimizer: Optimizer, given: Any, rounding: str, master_weights: bool, seed: int) -> None:
        self._optimizer, self._given, self._rounding = optimizer, given, rounding
        self._master_weights, self.seed = master_weights, seed
        self.model: list[torch.Tensor] = []
        self.held: list[torch.Tensor] = []
        self.names: list[str] = []
        self.masters: dict[int, torch.Tensor] = {}
        self._casts: list[StateCast | None] = []
        self._versions: list[int] = []
        self._model_versions: list[int] = []
        self.published_at: list[int] = []
        self._step = 0
        for group in optimizer.param_groups:
            self._add(group)
        self._check_patterns()

    def add_last_group(self) -> None:
        """Take up the group that was added to the optimizer last."""
        self._add(self._optimizer.param_groups[-1])

    def _add(self, group: dict[str, Any]) -> None:
        first = len(self.model)
        names = group.get("param_names") or [str(first + i) for i in range(len(group["params"]))]
        for index, (parameter, name) in enumerate(zip(group["params"], names, strict=True), first):
            cast = self._cast(name)
            narrow = parameter.dtype in _NARROW
            kept = self._master_weights and (cast is not None or narrow)
            self.model.append(parameter)
            self.names.append(name)
            self._casts.append(cast)
            self.held.append(self._stand_in(parameter) if kept or (cast is not None and narrow) else parameter)
            self._versions.append(-1)
            self._model_versions.append(parameter._version)
            self.published_at.append(0)
            if kept:
                self.masters[index] = self.held[index]
            self._publish_one(index)
            self._release(index)

    def _cast(self, name: str) -> StateCast | None:
        if self._given is None:
            return None
        if not is_patterns(self._given):
            return state_cast("parameters", self._given, self._rounding)
        chosen = None
        for pattern, value in self._given.items():
            if matches(name, pattern):
                chosen = None if value is None else state_cast(f"parameters[{pattern!r}]", value, self._rounding)
        return chosen

    def _check_patterns(self) -> None:
        if is_patterns(self._given):
            unmet = [p for p in self._given if not any(matches(name, p) for name in self.names)]
            if unmet:
                raise ArgumentError(
                    f"parameters has patterns that match no name: {unmet}; names are {', '.join(self.names[:8])}, ..."
                )
        if self._master_weights and not self.masters:
            raise ArgumentError(
                "master_weights=True: no parameter is rounded or has 16 bits; name a format in parameters."
            )

    def _stand_in(self, parameter: torch.Tensor) -> torch.Tensor:
        wide = parameter.detach().to(torch.float32) if parameter.dtype in _NARROW else parameter.detach().clone()
        stand_in = torch.nn.Parameter(wide, requires_grad=parameter.requires_grad)
        state = self._optimizer.state
        if parameter in state:
            state[stand_in] = {k: _widened(v) for k, v in state.pop(parameter).items()}
        return stand_in

    @contextmanager
    def working(self) -> Iterator[None]:
        """A context in which the optimizer sees the parameters that it updates."""
        self._show(self.held)
        try:
            yield
        finally:
            self._show(self.model)

    @contextmanager
    def published(self) -> Iterator[None]:
        """Inside `working`: a context for the model to be evaluated in; its gradients are taken over at the end."""
        self.publish()
        self._show(self.model)
        try:
            yield
        finally:
            self._take_gradients()
            self._show(self.held)

    def _show(self, parameters: list[torch.Tensor]) -> None:
        start = 0
        for group in self._optimizer.param_groups:
            count = len(group["params"])
            group["params"] = parameters[start : start + count]
            start += count
        if isinstance(self._optimizer, torch.optim.LBFGS):
            self._optimizer._params = self._optimizer.param_groups[0]["params"]

    @torch.no_grad()
    def begin(self, step: int) -> None:
        """Make the parameters ready that the optimizer updates in this step."""
        self._step = step
        for index, (parameter, held) in enumerate(zip(self.model, self.held, strict=True)):
            if index in self.masters:
                if parameter._version != self._model_versions[index]:
                    self._take_changes(index)
            elif held is not parameter:
                held.data = parameter.detach().to(torch.float32)
            self._versions[index] = held._version
        self._take_gradients()

    def _take_changes(self, index: int) -> None:
        """Let elements of a parameter that somebody else has set become those of the master."""
        parameter, master = self.model[index], self.masters[index]
        same = parameter == self._rounded(index, self.published_at[index])
        master.copy_(torch.where(same, master, parameter.to(master.dtype)))

    def _take_gradients(self) -> None:
        for parameter, held in zip(self.model, self.held, strict=True):
            if held is not parameter:
                gradient = parameter.grad
                held.grad = None if gradient is None else gradient.detach().to(held.dtype)

    @torch.no_grad()
    def publish(self) -> None:
        """Round what the optimizer has changed into the model's parameters."""
        for index, held in enumerate(self.held):
            if held._version != self._versions[index]:
                self._publish_one(index)

    def finish(self) -> None:
        """Publish, and let go of what is not kept between steps."""
        for index, held in enumerate(self.held):
            # Fused kernels count no versions, so a gradient counts as a change.
            if held.grad is not None or held._version != self._versions[index]:
                self._publish_one(index)
            self._release(index)

    @torch.no_grad()
    def _publish_one(self, index: int) -> None:
        parameter, held = self.model[index], self.held[index]
        if self._casts[index] is not None or held is not parameter:
            parameter.copy_(self._rounded(index, self._step))
            self.published_at[index] = self._step
        self._versions[index] = held._version
        self._model_versions[index] = parameter._version

    def _rounded(self, index: int, step: int) -> torch.Tensor:
        parameter, held, cast = self.model[index], self.held[index].detach(), self._casts[index]
        if cast is None:
            return held.to(parameter.dtype)
        seed = step_seed(site_seed(self.seed, str(index), "parameter"), step)
        try:
            wide = rounded(held, cast, seed)
        except Error as error:
            raise at(f"parameter {self.names[index]}", error) from None
        narrow = wide.to(parameter.dtype)
        if narrow.dtype != wide.dtype and not bool(((narrow.to(wide.dtype) == wide) | wide.isnan()).all()):
            raise RangeError(
                f"parameter {self.names[index]}: {narrow.dtype} does not hold the values of {cast.format.name!r}."
            )
        return narrow

    def _release(self, index: int) -> None:
        held = self.held[index]
        if held is not self.model[index]:
            held.grad = None
            if index not in self.masters:
                held.data = held.data.new_empty(0)

    @property
    def nbytes(self) -> int:
        """Bytes of the master weights."""
        return sum(master.nbytes for master in self.masters.values())

    def rows(self) -> list[tuple[str, ...]]:
        """Return a row per parameter that is rounded, for `LowPrecision.describe`."""
        rows: list[tuple[str, ...]] = []
        for index, cast in enumerate(self._casts):
            master = self.masters.get(index)
            if cast is None and master is None:
                continue
            kept = cast.format.name if cast else str(self.model[index].dtype).removeprefix("torch.")
            kept += " of float32 masters" if master is not None else ""
            rows.append((self.names[index], "parameter", kept, str(self.model[index].numel()), str(_bytes(master))))
        return rows

    def check_masters(self, found: Mapping[int, Any], complete: bool) -> None:
        """Raise ArgumentError if a saved optimizer has other master weights than this one keeps."""
        missing = sorted(set(self.masters) - set(found)) if complete else []
        extra = sorted(set(found) - set(self.masters))
        if missing or extra:
            raise ArgumentError(
                f"state_dict has master weights of parameters {sorted(found)}; "
                f"this optimizer has those of {sorted(self.masters)}."
            )
        for index, master in found.items():
            if not isinstance(master, torch.Tensor) or master.shape != self.model[index].shape:
                raise ArgumentTypeError(f"state_dict: the master of parameter {index} is {master!r:.60}.")

    @torch.no_grad()
    def load_masters(self, found: Mapping[int, torch.Tensor], published_at: list[int] | None) -> None:
        """Take saved master weights; without any, those that the parameters give."""
        for index, held in self.masters.items():
            held.copy_(found[index] if index in found else self.model[index].to(held.dtype))
        if published_at is not None:
            self.published_at = list(published_at)
        for index in self.masters:
            self._model_versions[index] = -1  # the model's parameters may be loaded before or after


def _bytes(master: torch.Tensor | None) -> int:
    return 0 if master is None else master.nbytes


def _widened(value: Any) -> Any:
    narrow = isinstance(value, torch.Tensor) and value.dtype in _NARROW
    return value.to(torch.float32) if narrow else value
