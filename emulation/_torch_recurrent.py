"""Recurrent layers as explicit steps of emulated products."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from lowp.emulation._torch_calls import is_automatic
from lowp.emulation._torch_matmul import HANDLERS, PASS, linear_of, prepared

if TYPE_CHECKING:
    from lowp.emulation._torch_mode import Emulation

Tensor = torch.Tensor
Linear = Callable[[Tensor, Tensor, Any], Tensor]


def _lstm(gates: Tensor, state: tuple[Tensor, ...], again: Callable[[Tensor], Tensor]) -> tuple[Tensor, ...]:
    """Return the next h and c of a long short-term memory."""
    h, c = state
    i, f, g, o = (gates + again(h)).chunk(4, -1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


def _gru(gates: Tensor, state: tuple[Tensor, ...], again: Callable[[Tensor], Tensor]) -> tuple[Tensor, ...]:
    """Return the next h of a gated recurrent unit."""
    (h,) = state
    xr, xz, xn = gates.chunk(3, -1)
    hr, hz, hn = again(h).chunk(3, -1)
    r, z = (xr + hr).sigmoid(), (xz + hz).sigmoid()
    n = (xn + r * hn).tanh()
    return ((h - n) * z + n,)


def _simple(activate: Any, gates: Tensor, state: tuple[Tensor, ...], again: Callable[[Tensor], Tensor]) -> Any:
    """Return the next h of a plain recurrent layer."""
    return (activate(gates + again(state[0])),)


_CELLS: dict[str, Any] = {
    "lstm": _lstm,
    "gru": _gru,
    "rnn_tanh": partial(_simple, torch.tanh),
    "rnn_relu": partial(_simple, torch.relu),
}


class Direction:
    """One direction of one layer: its weights and its cell."""

    def __init__(self, kind: str, weights: list[Any], linear: Linear) -> None:
        self.cell, self.linear = _CELLS[kind], linear
        self.w_ih, self.w_hh, self.b_ih, self.b_hh, self.w_hr = weights

    def run(self, x: Tensor, sizes: list[int], state: tuple[Tensor, ...], back: bool) -> tuple[Tensor, Any]:
        """Return the results for packed steps `x`, step by step `sizes` sequences, and the last state."""
        gates = self.linear(x, self.w_ih, self.b_ih)
        starts = [sum(sizes[:t]) for t in range(len(sizes))]
        results: list[Any] = [None] * len(sizes)
        for t in reversed(range(len(sizes))) if back else range(len(sizes)):
            n = sizes[t]
            new = self.step(gates[starts[t] : starts[t] + n], tuple(s[:n] for s in state))
            results[t] = new[0]
            state = tuple(torch.cat([a, s[n:]]) if n < len(s) else a for a, s in zip(new, state, strict=True))
        return torch.cat(results), state

    def step(self, gates: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return the next state."""
        new = self.cell(gates, state, lambda h: self.linear(h, self.w_hh, self.b_hh))
        return new if self.w_hr is None else (self.linear(new[0], self.w_hr, None), *new[1:])


def _layers(params: Any, has_biases: bool, count: int, directions: int) -> list[list[list[Any]]]:
    """Return weights by layer and direction: w_ih, w_hh, b_ih, b_hh, w_hr."""
    per = len(params) // (count * directions)
    result = []
    for start in range(0, len(params), per):
        own = list(params[start : start + per])
        biases = own[2:4] if has_biases else [None, None]
        projection = own[-1] if per == (5 if has_biases else 3) else None
        result.append([own[0], own[1], *biases, projection])
    return [result[i : i + directions] for i in range(0, len(result), directions)]


def _recurrent(
    kind: str, run: Emulation, x: Tensor, sizes: list[int], hx: Any, params: Any, has_biases: bool, num_layers: int,
    dropout: float, train: bool, bidirectional: bool,
) -> Any:  # fmt: skip
    """Return packed results and last states of all layers; None where nothing is emulated."""
    layer = run.wants("recurrent")
    if layer is None or prepared(run, kind, x, *params) is None:
        return None

    def linear(x: Tensor, weight: Tensor, bias: Any) -> Tensor:
        result: Tensor = linear_of(run.call("recurrent", layer), kind, x, weight, bias)
        return result

    states = tuple(hx) if kind == "lstm" else (hx,)
    directions = 2 if bidirectional else 1
    last: list[tuple[Tensor, ...]] = []
    for number, weights in enumerate(_layers(params, has_biases, num_layers, directions)):
        if number and dropout and train:
            x = functional.dropout(x, dropout)
        outputs = []
        for back, own in enumerate(weights):
            state = tuple(s[number * directions + back] for s in states)
            y, state = Direction(kind, own, linear).run(x, sizes, state, bool(back))
            outputs.append(y)
            last.append(state)
        x = torch.cat(outputs, -1)
    return x, tuple(torch.stack(parts) for parts in zip(*last, strict=True))


def _as_autocast(kind: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the arguments with inputs and states in autocast's dtype where the kernels of whole layers have them so.

    These are cuDNN's, and oneDNN's of LSTMs without projections; layers step by step keep the states' dtype.
    """
    packed = not isinstance(args[3], bool)
    data, hx = args[0], args[2 if packed else 1]
    device = data.device.type
    if not is_automatic(device):
        return args
    if device == "cpu":
        projected = kind == "lstm" and hx[0].shape[-1] != hx[1].shape[-1]
        fused = kind == "lstm" and not packed and not projected and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    else:
        fused = device == "cuda" and torch.backends.cudnn.is_acceptable(data)  # type: ignore[no-untyped-call]
    if not fused:
        return args
    dtype = torch.get_autocast_dtype(device)
    low = tuple(s.to(dtype) for s in hx) if kind == "lstm" else hx.to(dtype)
    return (data.to(dtype), args[1], low, *args[3:]) if packed else (data.to(dtype), low, *args[2:])


def _layer(kind: str, run: Emulation, *args: Any) -> Any:
    """Emulate `torch.lstm`, `gru`, `rnn_tanh` and `rnn_relu`: sequences of one length, or packed ones."""
    args = _as_autocast(kind, args)
    if not isinstance(args[3], bool):  # packed: the weights come fourth
        data, batch_sizes, hx, params, *rest = args
        found = _recurrent(kind, run, data, batch_sizes.tolist(), hx, params, *rest)
        return PASS if found is None else (found[0], *found[1])
    x, hx, params, *rest, batch_first = args
    x = x.transpose(0, 1) if batch_first else x
    steps, batch = x.shape[:2]
    found = _recurrent(kind, run, x.reshape(steps * batch, -1), [batch] * steps, hx, params, *rest)
    if found is None:
        return PASS
    y = found[0].reshape(steps, batch, -1)
    return (y.transpose(0, 1) if batch_first else y, *found[1])


def _cell(
    kind: str, run: Emulation, x: Tensor, hx: Any, w_ih: Tensor, w_hh: Tensor, b_ih: Any = None, b_hh: Any = None
) -> Any:
    """Emulate one step of a recurrent cell."""
    layer = run.wants("recurrent")
    if layer is None or prepared(run, kind, x, w_ih, w_hh) is None:
        return PASS

    def linear(x: Tensor, weight: Tensor, bias: Any) -> Tensor:
        result: Tensor = linear_of(run.call("recurrent", layer), f"{kind}_cell", x, weight, bias)
        return result

    own = Direction(kind, [w_ih, w_hh, b_ih, b_hh, None], linear)
    new = own.step(linear(x, w_ih, b_ih), tuple(hx) if kind == "lstm" else (hx,))
    return new if kind == "lstm" else new[0]


HANDLERS.update({getattr(torch, kind): partial(_layer, kind) for kind in _CELLS})
HANDLERS.update({getattr(torch, f"{kind}_cell"): partial(_cell, kind) for kind in _CELLS})
