"""What an emulated torch program remembers from step to step: counts of calls, and the amax of delayed scaling."""

from __future__ import annotations

from typing import Any

import torch

from lowp._errors import ArgumentError, ArgumentTypeError
from lowp.emulation._torch_world import TORCH
from lowp.emulation.casting import scale_of
from lowp.emulation.casts import Cast

#: Calls of a site whose scale is kept, for recomputation under checkpointing.
_KEPT_CALLS = 1024

Key = tuple[str, ...]


class History:
    """The largest magnitudes of one operand's last calls, and the scale that follows from them."""

    def __init__(self, length: int, like: torch.Tensor) -> None:
        self.amax = torch.zeros(length, dtype=torch.float32, device=like.device)
        self.scale = torch.ones((), dtype=torch.float32, device=like.device)
        self.pushed = 0
        self._scales: dict[int, torch.Tensor] = {}

    def scale_at(self, call: int, cast: Cast) -> torch.Tensor:
        """Return the scale of a call: from the amax before it; 1 at first. The same again where a call is repeated."""
        if call not in self._scales:
            if self.pushed:
                self.scale = scale_of(TORCH, self.amax.amax(), cast, self.scale)
            self._scales[call] = self.scale
            if len(self._scales) > _KEPT_CALLS:
                del self._scales[next(iter(self._scales))]
        return self._scales[call]

    def push(self, amax: torch.Tensor) -> None:
        """Add the amax of a call, which takes the place of the oldest."""
        self.amax[self.pushed % len(self.amax)] = amax.to(torch.float32)
        self.pushed += 1


class State:
    """Counts of calls by layer and operation, and amax histories by layer, operation, product and role."""

    def __init__(self) -> None:
        self.calls: dict[Key, int] = {}
        self.histories: dict[Key, History] = {}

    def next_call(self, layer: str, operation: str) -> int:
        """Count a call; return how many there were before."""
        key = (layer, operation)
        number = self.calls.get(key, 0)
        self.calls[key] = number + 1
        return number

    def history(self, key: Key, cast: Cast, like: torch.Tensor) -> History:
        """Return the history of one operand."""
        found = self.histories.get(key)
        if found is None:
            found = self.histories[key] = History(cast.history, like)
        return found

    def clear(self) -> None:
        """Forget everything."""
        self.calls.clear()
        self.histories.clear()

    def to_dict(self) -> dict[str, Any]:
        """Return the state as nested dictionaries of numbers and tensors, for `torch.save`."""
        return {
            "calls": {"/".join(key): n for key, n in self.calls.items()},
            "histories": {
                "/".join(key): {"amax": h.amax.clone(), "scale": h.scale.clone(), "pushed": h.pushed}
                for key, h in self.histories.items()
            },
        }

    def from_dict(self, given: Any) -> None:
        """Take over a state that `to_dict` returned.

        Raises:
            ArgumentError, ArgumentTypeError: It is none.
        """
        if not isinstance(given, dict):
            raise ArgumentTypeError(f"state={given!r:.80} must be a dictionary that state_dict() returned.")
        if set(given) != {"calls", "histories"}:
            raise ArgumentError(f"state has the keys {sorted(map(str, given))}; those of state_dict() are wanted.")
        try:
            calls = {tuple(key.rsplit("/", 1)): int(n) for key, n in given["calls"].items()}
            histories = {tuple(key.rsplit("/", 3)): _history(h) for key, h in given["histories"].items()}
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ArgumentError(f"state is not one that state_dict() returned: {error!r}.") from error
        self.calls, self.histories = calls, histories


def _history(given: dict[str, Any]) -> History:
    amax = given["amax"]
    result = History(len(amax), amax)
    result.amax, result.scale, result.pushed = amax.clone(), given["scale"].clone(), int(given["pushed"])
    return result
