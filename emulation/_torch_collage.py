"""AdamW with weights and moments as sums of two bfloat16 numbers, for torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.optim import Optimizer

from lowp._errors import ArgumentError, ArgumentTypeError, unknown_name
from lowp.emulation._torch_stored import keep_dtypes
from lowp.emulation.collage import VARIANTS, Moments, Scalars, adamw, constants
from lowp.emulation.optimizer_arithmetic import load, nearest, square_root, store
from lowp.rounding._namespaces import namespace_of

_DTYPES = (torch.bfloat16, torch.float32)


class CollageAdamW(Optimizer):
    """AdamW in bfloat16 arithmetic, with multi-component weights and second moments: Collage.

    Each operation of the update rounds to bfloat16 once. A weight is the sum of the parameter and of "weight_low", its
    rounding error; what a model computes with is the parameter alone. "light" keeps that error, "plus" also that of the
    second moment and of beta2, which bfloat16 rounds to 1; "none" is plain bfloat16. States are bfloat16. Weight decay
    is part of the update, and acts on the first part of the weight, as in the authors' code. The powers of beta1 and
    beta2 in the bias correction are float32 products.

    A float32 parameter is rounded to bfloat16 values, and starts with its error as second part.

    Args:
        params: Parameters of bfloat16 or float32, or groups of them.
        lr: Learning rate.
        betas: Decay rates of the moments.
        eps: Added to the root of the second moment.
        weight_decay: Decoupled weight decay.
        variant: "none", "light" or "plus".

    Raises:
        ArgumentError: A hyperparameter out of range, or another variant.
        ArgumentTypeError: A parameter of another dtype; at a step: a sparse gradient.

    Source:
        Yu et al., Collage: Light-Weight Low-Precision Strategy for LLM Training, arXiv:2405.03637.

    Example:
        >>> weight = torch.nn.Parameter(torch.ones(2, dtype=torch.bfloat16))
        >>> optimizer = CollageAdamW([weight], lr=1e-3, weight_decay=0.0)
        >>> weight.sum().backward()
        >>> optimizer.step()
        >>> weight.tolist(), [round(x, 6) for x in optimizer.state[weight]["weight_low"].tolist()]
        ([1.0, 1.0], [-0.001007, -0.001007])
    """

    def __init__(
        self,
        params: Any,
        lr: float | torch.Tensor = 1e-3,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        *,
        variant: str = "plus",
    ) -> None:
        if variant not in VARIANTS:
            raise ArgumentError(unknown_name("variant", variant, VARIANTS))
        for name, value in (("lr", lr), ("eps", eps), ("weight_decay", weight_decay)):
            if not 0 <= value < float("inf"):
                raise ArgumentError(f"{name}={value!r} must be a finite number, 0 or more.")
        if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
            raise ArgumentError(f"betas={betas!r} must be two numbers from 0 on, below 1.")
        defaults = {"lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay, "variant": variant}
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        for parameter in self.param_groups[-1]["params"]:
            if parameter.dtype not in _DTYPES:
                raise ArgumentTypeError(f"a parameter has dtype {parameter.dtype}; allowed: bfloat16 and float32.")

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Run one step."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)
        return loss

    def _update(self, parameter: torch.Tensor, group: dict[str, Any]) -> None:
        gradient, state, variant = parameter.grad, self.state[parameter], group["variant"]
        assert gradient is not None
        if gradient.layout != torch.strided:
            raise ArgumentTypeError(f"a gradient is {gradient.layout}; Collage needs dense ones.")
        xp = namespace_of(parameter)
        if not state:
            _start(parameter, state, group)
        weight = load(xp, parameter.detach())
        names = Moments._fields
        moments = Moments(*(load(xp, state[name]) if name in state else None for name in names))
        wide = nearest(xp, gradient.detach().to(torch.float32))
        scalars = _scalars(group, state, parameter.device)
        weight, moments = adamw(xp, weight, wide, moments, scalars, variant)
        parameter.copy_(store(xp, weight, str(parameter.dtype).removeprefix("torch.")))
        for name, value in zip(names, moments, strict=True):
            if value is not None:
                state[name].copy_(store(xp, value, "bfloat16"))
        state["step"] += 1
        for name, beta in zip(("power1", "power2"), group["betas"], strict=True):
            state[name] *= torch.tensor(beta, dtype=torch.float32, device=parameter.device)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what `state_dict` returned, in the dtypes that it has."""
        super().load_state_dict(state_dict)
        keep_dtypes(self, state_dict)

    @torch.no_grad()
    def weights(self, parameter: torch.Tensor) -> torch.Tensor:
        """Return the weight of a parameter, both parts together, in float64."""
        low = self.state.get(parameter, {}).get("weight_low")
        wide = parameter.detach().to(torch.float64)
        return wide if low is None else wide + low.to(torch.float64)


def _start(parameter: torch.Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
    variant = group["variant"]
    xp = namespace_of(parameter)
    names = ["exp_avg", "exp_avg_sq"] + ["weight_low"] * (variant != "none") + ["exp_avg_sq_low"] * (variant == "plus")
    state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
    for name, beta in zip(("power1", "power2"), group["betas"], strict=True):
        state[name] = torch.tensor(beta, dtype=torch.float32, device=parameter.device)
    for name in names:
        state[name] = torch.zeros_like(parameter, dtype=torch.bfloat16)
    if parameter.dtype == torch.float32:
        high = nearest(xp, parameter.detach())
        if variant != "none":
            state["weight_low"].copy_(store(xp, nearest(xp, parameter.detach() - high), "bfloat16"))
        parameter.copy_(high)


def _scalars(group: dict[str, Any], state: dict[str, Any], device: torch.device) -> Scalars:
    """Return the hyperparameters of a step; `power1` and `power2` are those of the betas at this step."""

    def scalar(value: Any) -> torch.Tensor:
        return torch.as_tensor(value, dtype=torch.float32, device=device)

    fixed = constants(*group["betas"])
    high, low = fixed.pop("decay")
    lr = scalar(group["lr"])
    return Scalars(
        **{name: scalar(value) for name, value in fixed.items()},
        decay=(scalar(high), scalar(low)),
        step_size=lr / (1 - state["power1"]),
        correction=square_root(namespace_of(lr), 1 - state["power2"]),
        eps=scalar(np.float32(group["eps"])),
        shrink=lr * scalar(np.float32(group["weight_decay"])),
    )
