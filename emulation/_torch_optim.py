"""Any torch optimizer with its state, and its parameters, in low precision."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch.optim import Optimizer

from lowp._errors import ArgumentError, ArgumentTypeError, Error
from lowp.emulation._torch_parameters import Parameters
from lowp.emulation._torch_stored import StoredTensor, at, is_stored, rounded
from lowp.emulation.optimizer_states import StateRules, check_wrapper, checked_seed, site_seed, step_seed

#: Where a state_dict says that `LowPrecision` wrote it, and the entry of a parameter's master weights.
_MARK, _MASTER = "low_precision", "lowp_master"


class LowPrecision(Optimizer):
    """Keep an optimizer's state in a number format between steps, and its parameters too if asked.

    A step decodes the state of the parameters that have a gradient, lets the optimizer run in its own precision, and
    rounds what has changed: every floating-point tensor of a state that has at least one dimension. Step counters and
    other scalars stay. The wrapper shares `param_groups` with the optimizer, so schedulers, `GradScaler`, hooks,
    closures and the `foreach` and `fused` variants work as before; state that is captured in a CUDA graph does not.

    With `parameters`, each parameter holds a value of that format from the start and after each step. It is rounded
    from the updated parameter; with `master_weights` from a float32 copy that the optimizer updates instead. Parameters
    of 16 bits are updated in float32 either way, so that `update_rounding="stochastic_a"` is the plain stochastic
    rounding of bfloat16 training without master weights.

    Random bits depend on the seed, the parameter's index, the state's name, the number of the step and the position in
    the tensor alone, so data-parallel copies agree and a resumed run repeats an uninterrupted one.

    Args:
        optimizer: The optimizer; afterwards call the wrapper instead.
        states: What the states become: a name in `STATE_FORMATS` ("dynamic8"), a format, a `Cast`, a `Recipe`, whose
            `optimizer_state` counts, or a mapping of patterns over the states' names to formats or None, the last match
            counting. None leaves them.
        parameters: What the parameters become: a format, a `Cast`, or a mapping of patterns over their names (their
            indices, where the optimizer was not given names). None leaves them.
        master_weights: Keep a float32 copy of each parameter that `parameters` rounds; 16-bit parameters have one even
            without `parameters`, and hold it rounded to their dtype.
        rounding: Rounding mode of states, where `states` does not say.
        update_rounding: Rounding mode of parameters, where `parameters` does not say.
        min_size: States with fewer elements stay as they are (bitsandbytes: 4096).
        encoded: Whether states are stored as codes. Else they are rounded and stay tensors, with the same values;
            states that are DTensors need that.
        seed: Seed of the stochastic modes; default that of the recipe, or 0.

    Raises:
        ArgumentError, ArgumentTypeError, FormatError: An argument that is not allowed; a pattern that matches nothing.
        RangeError: At a step: a state holds NaN, and its format has none.

    Source:
        Dettmers et al., 8-bit Optimizers via Block-wise Quantization, arXiv:2110.02861.

    Example:
        >>> weight = torch.nn.Parameter(torch.ones(64, 64))
        >>> optimizer = LowPrecision(torch.optim.AdamW([weight]), "dynamic8")
        >>> weight.sum().backward()
        >>> optimizer.step()
        >>> optimizer.nbytes, optimizer.state[weight]["exp_avg_sq"]
        (8324, StoredTensor(bnb_dynamic8_unsigned, shape=(64, 64), 4160 bytes))
    """

    def __init__(
        self,
        optimizer: Any,
        states: Any = None,
        *,
        parameters: Any = None,
        master_weights: bool = False,
        rounding: str = "ties_to_even",
        update_rounding: str = "ties_to_even",
        min_size: int = 0,
        encoded: bool = True,
        seed: int | None = None,
    ) -> None:
        if not isinstance(optimizer, Optimizer) or isinstance(optimizer, LowPrecision):
            raise ArgumentTypeError(f"optimizer={optimizer!r:.80} must be a torch.optim.Optimizer, not wrapped yet.")
        check_wrapper(states, parameters, master_weights, min_size, encoded)
        self.optimizer: Optimizer = optimizer
        self._rules = StateRules(states, rounding)
        self._seed = checked_seed(seed, self._rules.recipe)
        self._min_size, self._encoded, self._steps = min_size, encoded, 0
        super().__init__([dict(group) for group in optimizer.param_groups], dict(optimizer.defaults))
        _check_groups(optimizer.param_groups, self._rules)
        self._parameters = Parameters(optimizer, parameters, update_rounding, master_weights, self._seed)
        with self._parameters.working():
            self._round_states({})

    # What the base class keeps is the inner optimizer's.

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return self.optimizer.param_groups

    @param_groups.setter
    def param_groups(self, value: Any) -> None:
        pass

    @property
    def state(self) -> Any:
        return self.optimizer.state

    @state.setter
    def state(self, value: Any) -> None:
        pass

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        if "_parameters" not in self.__dict__:  # the base class repeats the groups that there are
            return
        self.optimizer.add_param_group(param_group)
        _check_groups(self.optimizer.param_groups, self._rules)
        self._parameters.add_last_group()

    def __getstate__(self) -> dict[str, Any]:
        # Hooks and what schedulers put over `step` stay behind, as with every optimizer.
        own = ("optimizer", "defaults", "_rules", "_seed", "_min_size", "_encoded", "_steps", "_parameters")
        return {name: self.__dict__[name] for name in own}

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Run one step of the optimizer on decoded states, then round states and parameters.

        Raises:
            ArgumentTypeError: A gradient is sparse.
            RangeError: A NaN has no place in a state's format.
            ArgumentError: A pattern over states' names has matched none so far.
        """
        self._check_gradients()
        evaluate = None if closure is None else self._evaluation(closure)
        self._steps += 1
        self._parameters.begin(self._steps)
        with self._parameters.working():
            read = self._read_states(everything=closure is not None)
            try:
                loss = self.optimizer.step(evaluate) if evaluate else self.optimizer.step()
            except BaseException:
                self._restore(read)
                raise
            self._round_states(read)
        self._parameters.finish()
        self._check_patterns()
        return loss

    def _evaluation(self, closure: Callable[[], Any]) -> Callable[[], Any]:
        def evaluate() -> Any:
            with self._parameters.published():
                loss = closure()
                self._check_gradients()
            return loss

        return evaluate

    def _check_gradients(self) -> None:
        for index, parameter in enumerate(self._parameters.model):
            if parameter.grad is not None and parameter.grad.layout != torch.strided:
                raise ArgumentTypeError(
                    f"the gradient of parameter {self._parameters.names[index]} is {parameter.grad.layout}; states in "
                    "low precision need dense gradients (nn.Embedding: sparse=False)."
                )

    def _check_patterns(self) -> None:
        unmet = self._rules.unmet()
        if unmet and self._steps == 1:
            found = sorted({path for _, path, _, _ in self._leaves()})
            raise ArgumentError(f"states has patterns that match no state: {unmet}; this optimizer has {found}.")

    # States

    def _leaves(self) -> Iterator[tuple[int, str, Any, Any]]:
        """Yield the states that may be rounded: parameter's index, path, the container and the key in it."""
        for index, parameter in enumerate(self._parameters.held):
            state = self.optimizer.state.get(parameter)
            if state:
                yield from ((index, path, container, key) for path, container, key in _tensors(state, ""))

    def _read_states(self, everything: bool) -> dict[int, tuple[torch.Tensor, int, Any]]:
        """Decode states, and return by identity each tensor, its version and what it was before."""
        read = {}
        has_gradient = [p.grad is not None for p in self._parameters.held]
        for index, _, container, key in list(self._leaves()):
            before = container[key]
            if isinstance(before, StoredTensor):
                if not (everything or has_gradient[index]):
                    continue
                container[key] = before.decode()
            else:
                before = before.clone() if has_gradient[index] and not self._encoded else before
            tensor = container[key]
            read[id(tensor)] = (tensor, tensor._version, before)
        return read

    def _restore(self, read: dict[int, tuple[torch.Tensor, int, Any]]) -> None:
        for _, _, container, key in list(self._leaves()):
            tensor, _, before = read.get(id(container[key]), (None, 0, None))
            if tensor is not None and isinstance(before, StoredTensor):
                container[key] = before

    def _round_states(self, read: dict[int, tuple[torch.Tensor, int, Any]]) -> None:
        """Round the states that have changed; the others become again what they were."""
        for index, path, container, key in list(self._leaves()):
            tensor = container[key]
            _, version, before = read.get(id(tensor), (None, -1, None))
            if isinstance(tensor, StoredTensor):
                continue
            if version == tensor._version and not _has_changed(tensor, before):
                container[key] = before if isinstance(before, StoredTensor) else tensor
                continue
            layer = self._parameters.names[index].rpartition(".")[0]
            cast = self._rules.cast(path, layer)
            if cast is None or tensor.numel() < self._min_size:
                continue
            seed = step_seed(site_seed(self._seed, str(index), path), self._steps)
            try:
                if self._encoded:
                    _check_plain(tensor)
                    container[key] = StoredTensor.of(tensor, cast, seed)
                else:
                    tensor.copy_(rounded(tensor, cast, seed))
            except Error as error:
                raise at(f"state {path!r} of parameter {self._parameters.names[index]}", error) from None

    @property
    def nbytes(self) -> int:
        """Bytes that states and master weights take between steps."""
        total = self._parameters.nbytes
        for state in self.optimizer.state.values():
            total += sum(_size(value) for value in _values(state))
        return total

    def describe(self) -> str:
        """Return a table of the states: parameter, name, how it is kept, elements and bytes."""
        rows: list[tuple[str, ...]] = [("parameter", "state", "kept as", "elements", "bytes")]
        for index, path, container, key in self._leaves():
            value = container[key]
            count = str(value.numel()) if isinstance(value, torch.Tensor) else str(torch.Size(value.shape).numel())
            kept = value.cast.format.name if isinstance(value, StoredTensor) else self._plain(index, path, value)
            rows.append((self._parameters.names[index], path, kept, count, str(_size(value))))
        rows += self._parameters.rows()
        widths = [max(len(row[i]) for row in rows) for i in range(5)]
        return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)

    def _plain(self, index: int, path: str, value: torch.Tensor) -> str:
        cast = self._rules.cast(path, self._parameters.names[index].rpartition(".")[0])
        dtype = str(value.dtype).removeprefix("torch.")
        if cast is None or value.numel() < self._min_size:
            return dtype
        return f"{cast.format.name} in {dtype}"

    # Saving

    def state_dict(self) -> dict[str, Any]:
        """Return the optimizer's state_dict with states as codes, made of tensors and plain values.

        `load_state_dict` brings back the same bits. Parameters are not part of it, master weights are.
        """
        with self._parameters.working():
            saved = self.optimizer.state_dict()
        saved["state"] = {i: _plain_copy(state) for i, state in saved["state"].items()}
        for index, master in self._parameters.masters.items():
            saved["state"].setdefault(index, {})[_MASTER] = master
        published = list(self._parameters.published_at)
        saved[_MARK] = {"version": 1, "steps": self._steps, "seed": self._seed, "published": published}
        return saved

    @torch.no_grad()
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load what `state_dict` returned, or the state_dict of a plain optimizer, whose states are then rounded.

        Raises:
            ArgumentError: A state was stored in another format than this optimizer keeps it in.
        """
        mark = state_dict.get(_MARK)
        names, parameters = self._parameters.names, self._parameters.held
        states: dict[Any, Any] = {}
        masters = {}
        for index, saved in state_dict["state"].items():
            state = {name: value for name, value in saved.items() if name != _MASTER}
            if _MASTER in saved:
                masters[index] = saved[_MASTER]
            if state:
                known = index in range(len(names))
                states[index] = self._with_codes(state, names[index], parameters[index].device) if known else state
        self._parameters.check_masters(masters, bool(mark))
        plain = {key: value for key, value in state_dict.items() if key != _MARK}
        with self._parameters.working():
            self.optimizer.load_state_dict({**plain, "state": states})
        self._parameters.load_masters(masters, mark and mark["published"])
        if mark is not None:
            self._steps, self._seed = mark["steps"], mark["seed"]
            self._parameters.seed = self._seed
            return
        with self._parameters.working():
            self._round_states({})

    def _with_codes(self, state: Any, name: str, device: torch.device, path: str = "") -> Any:
        if is_stored(state):
            cast = self._rules.cast(path, name.rpartition(".")[0])
            return StoredTensor.from_dict(state, cast, f"state {path!r} of parameter {name}", device)
        if isinstance(state, dict):
            return {k: self._with_codes(v, name, device, _joined(path, k)) for k, v in state.items()}
        if isinstance(state, list):
            return [self._with_codes(v, name, device, _joined(path, i)) for i, v in enumerate(state)]
        return state


def _check_groups(groups: list[dict[str, Any]], rules: StateRules) -> None:
    for group in groups:
        if group.get("differentiable"):
            raise ArgumentError("differentiable=True: a step that rounds its states has no derivative.")
        if rules.needs_names and "param_names" not in group:
            raise ArgumentError(
                "the recipe's rules speak of optimizer states by layer name; give the optimizer "
                "model.named_parameters() so that names are known."
            )
        for parameter in group["params"]:
            if not parameter.dtype.is_floating_point:
                raise ArgumentTypeError(
                    f"a parameter has dtype {parameter.dtype}; allowed: real floating-point dtypes."
                )


def _check_plain(tensor: torch.Tensor) -> None:
    if type(tensor) not in (torch.Tensor, torch.nn.Parameter):
        raise ArgumentTypeError(
            f"a {type(tensor).__name__} cannot be stored as codes; encoded=False rounds it and keeps it as it is."
        )


def _has_changed(tensor: torch.Tensor, before: Any) -> bool:
    """Whether a kernel that counts no versions, as those of fused optimizers, has written to a tensor."""
    was = before.decode() if isinstance(before, StoredTensor) else before
    return was is not tensor and not torch.equal(tensor, was)


def _joined(path: str, key: Any) -> str:
    return f"{path}.{key}" if path else str(key)


def _tensors(state: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    """Yield path, container and key of floating-point tensors with dimensions, and of stored ones, in order."""
    items = state.items() if isinstance(state, dict) else enumerate(state) if isinstance(state, list) else ()
    for key, value in items:
        here = _joined(path, key)
        if isinstance(value, StoredTensor) or _is_rounded(value):
            yield here, state, key
        else:
            yield from _tensors(value, here)


def _is_rounded(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point() and value.ndim > 0


def _values(state: Any) -> Iterator[Any]:
    if isinstance(state, dict | list):
        for value in state.values() if isinstance(state, dict) else state:
            yield from _values(value)
    else:
        yield state


def _size(value: Any) -> int:
    return value.nbytes if isinstance(value, StoredTensor | torch.Tensor) else 0


def _plain_copy(state: Any) -> Any:
    if isinstance(state, StoredTensor):
        return state.to_dict()
    if isinstance(state, dict):
        return {key: _plain_copy(value) for key, value in state.items()}
    return [_plain_copy(value) for value in state] if isinstance(state, list) else state
