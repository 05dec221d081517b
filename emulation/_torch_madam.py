"""Madam for torch: multiplicative updates of floating-point or logarithmic weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.optim import Optimizer

from lowp._errors import ArgumentError, ArgumentTypeError
from lowp.emulation import madam
from lowp.emulation._torch_stored import keep_dtypes
from lowp.emulation.optimizer_arithmetic import root_mean_square
from lowp.emulation.optimizer_states import checked_seed, site_seed, step_seed
from lowp.formats import LNS, Format, Integer
from lowp.rounding import decode, encode, quantize
from lowp.rounding._namespaces import namespace_of
from lowp.rounding.modes import rounding as rounding_mode


class Madam(Optimizer):
    """Madam: multiply each weight by a power whose exponent is its bounded, normalized gradient.

    With v the running mean of squared gradients, bias corrected, `g = clamp(gradient / sqrt(v), -bound, bound)` and
    `w = w * base^(-lr * g * sign(w))`, kept within `scale` times the root mean square of the first weights. A
    normalized gradient that is NaN, 0 / 0, counts as 0. Weights keep their signs, and zeros, so also parameters that
    start as zeros, stay.

    With `fmt`, weights are logarithmic numbers, as in LNS-Madam: float32 tensors that hold the format's values, and
    the update adds an integer, `lr * gamma * g` (base 2) rounded once, to the exponent. A format whose exponent has no
    sign is scaled by a power of two per parameter, so that its top suits the largest weight. Weights are rounded to the
    format when the optimizer is made.

    Random bits depend on the seed, the parameter's index, the number of the step and the position in it alone.

    Args:
        params: Parameters of a floating-point dtype, or groups of them. Those of 16 bits are updated in float32.
        lr: Learning rate.
        beta: Decay rate of the mean square.
        bound: Largest normalized gradient.
        scale: Largest weight in units of the root mean square of the first ones.
        base: "e", as Madam, or 2, as LNS-Madam.
        eps: Added to the root of v.
        fmt: A logarithmic format, such as "lns16_f11_unsigned_nozero", 16 bits over the range of LNS-Madam's 8.
        rounding: Rounding mode of the exponent's step.
        seed: Seed of the stochastic modes.

    Raises:
        ArgumentError: A hyperparameter out of range.
        ArgumentTypeError: A parameter of a dtype that cannot be; at a step: a sparse gradient.
        FormatError: `fmt` is not logarithmic.

    Source:
        Bernstein et al., arXiv:2006.14560; Zhao et al., LNS-Madam, arXiv:2106.13914.

    Example:
        >>> weight = torch.nn.Parameter(torch.tensor([1.0, -1.0]))
        >>> optimizer = Madam([weight], lr=0.5, base=2, fmt="lns16_f11")
        >>> weight.sum().backward()
        >>> optimizer.step()
        >>> [round(w, 4) for w in weight.tolist()]
        [0.7071, -1.4142]
    """

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 0.01,
        *,
        beta: float = 0.999,
        bound: float = 10.0,
        scale: float = 3.0,
        base: str | int = "e",
        eps: float = 0.0,
        fmt: str | Format | None = None,
        rounding: str = "ties_to_even",
        seed: int = 0,
    ) -> None:
        madam.check(lr, beta, bound, scale, base, eps)
        self._format = None if fmt is None else madam.logarithmic(fmt)
        self._rounding = rounding_mode(rounding).name
        self._seed = checked_seed(seed)
        if self._format is not None:
            madam.check_steps(lr, bound, base, self._format)
        defaults = {"lr": lr, "beta": beta, "bound": bound, "scale": scale, "base": base, "eps": eps}
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        for parameter in self.param_groups[-1]["params"]:
            name = str(parameter.dtype).removeprefix("torch.")
            if name not in ("float32", "bfloat16", "float16"):
                raise ArgumentTypeError(f"a parameter has dtype {name}; allowed: float32, bfloat16, float16.")
            if self._format is not None:
                madam.check_dtype(name)
            self._start(parameter, self.param_groups[-1])

    @torch.no_grad()
    def _start(self, parameter: torch.Tensor, group: dict[str, Any]) -> None:
        xp, state = namespace_of(parameter), self.state[parameter]
        wide = parameter.detach().to(torch.float32)
        state["step"] = torch.zeros((), dtype=torch.int32, device=parameter.device)
        state["power"] = _scalar(group["beta"], wide)
        state["limit"] = root_mean_square(xp, wide) * _scalar(group["scale"], wide)
        state["square"] = torch.zeros_like(wide)
        if self._format is not None:
            state["unit"] = madam.scale_of(xp, state["limit"], self._format)
            codes = encode(wide / state["unit"], self._format).codes
            parameter.copy_(_values(codes, self._format, state["unit"]))

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Run one step."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        index = 0
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group, index)
                index += 1
        return loss

    def _update(self, parameter: torch.Tensor, group: dict[str, Any], index: int) -> None:
        gradient, state = parameter.grad, self.state[parameter]
        assert gradient is not None
        if gradient.layout != torch.strided:
            raise ArgumentTypeError(f"a gradient is {gradient.layout}; Madam needs dense ones.")
        xp = namespace_of(parameter)
        state["step"] += 1
        g, square = madam.normalized(
            xp,
            gradient.detach().to(torch.float32),
            state["square"],
            state["power"],
            state["step"],
            group["beta"],
            group["bound"],
            group["eps"],
        )
        state["square"].copy_(square)
        state["power"] *= _scalar(group["beta"], square)
        if self._format is None:
            parameter.copy_(_multiplied(parameter.detach().to(torch.float32), g, state["limit"], group))
            return
        seed = step_seed(site_seed(self._seed, str(index), "parameter"), int(state["step"]))
        per_unit = _scalar(madam.steps_per_unit(float(group["lr"]), group["base"], self._format), g)
        steps = quantize(g * per_unit, Integer(24), rounding=self._rounding, seed=seed)
        codes = _codes(parameter.detach(), self._format, state["unit"])
        top = encode(state["limit"] / state["unit"], self._format, rounding="toward_zero").codes.to(torch.int32)
        moved = madam.moved(xp, codes, steps.to(torch.int32), self._format, madam.exponents(xp, top, self._format))
        parameter.copy_(_values(moved, self._format, state["unit"]))

    def codes(self, parameter: torch.Tensor) -> torch.Tensor:
        """Return the codes of a logarithmic parameter's values, after the division by its power of two, as int32.

        Raises:
            ArgumentError: The optimizer has no format.
        """
        if self._format is None:
            raise ArgumentError("fmt=None: the weights are floating-point numbers, which have no codes.")
        return _codes(parameter.detach(), self._format, self.state[parameter]["unit"])

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` returned, in the dtypes that it has."""
        super().load_state_dict(state_dict)
        keep_dtypes(self, state_dict)


def _multiplied(w: torch.Tensor, g: torch.Tensor, limit: torch.Tensor, group: dict[str, Any]) -> torch.Tensor:
    exponent = -_scalar(group["lr"], w) * g * torch.sign(w)
    w = w * (torch.exp(exponent) if group["base"] == "e" else torch.exp2(exponent))
    return torch.clamp(w, min=-limit, max=limit)


def _codes(w: torch.Tensor, fmt: LNS, unit: torch.Tensor) -> torch.Tensor:
    codes: torch.Tensor = encode(w / unit, fmt).codes
    return codes.to(torch.int32)


def _values(codes: torch.Tensor, fmt: LNS, unit: torch.Tensor) -> torch.Tensor:
    mask = (1 << fmt.bits) - 1
    values: torch.Tensor = decode(codes.to(torch.int64) & mask, fmt, dtype=torch.float32)
    return values * unit


def _scalar(value: Any, like: torch.Tensor) -> torch.Tensor:
    return torch.as_tensor(np.float32(float(value)), dtype=torch.float32, device=like.device)
