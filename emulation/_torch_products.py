"""Matrix products of tensors whose operands are rounded, forward and backward: six operands for a layer."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import torch

from lowp._errors import ArgumentError
from lowp.emulation._torch_calls import Call, ignores_axis, inside, wide
from lowp.emulation._torch_straight import straight, turned_back
from lowp.emulation.casting import Rounded


class Spec(NamedTuple):
    """How the operands of a product `a b^T` lie: their roles, and whether the summed axis is their last one."""

    role_a: str = "activation"
    role_b: str = "weight"
    last_a: bool = True
    last_b: bool = True

    def side(self, first: bool) -> tuple[str, str, bool, bool]:
        """Return an operand's role, the product of its gradient, whether its summed axis is last; then: is it b."""
        role, other = (self.role_a, self.role_b) if first else (self.role_b, self.role_a)
        if role == other:
            product = "grad_input" if first else "grad_weight"
        else:
            product = "grad_weight" if role == "weight" else "grad_input"
        return role, product, self.last_a if first else self.last_b, not first and role == other


class Kept:
    """What the forward pass leaves for the backward pass beside the operands themselves."""

    __slots__ = ("a", "b")

    def __init__(self) -> None:
        self.a: Rounded | None = None
        self.b: Rounded | None = None


def _oriented(x: torch.Tensor, last: bool) -> torch.Tensor:
    """Return `x` with the summed axis last."""
    return x if last else x.mT


def _parts(x: Rounded, last: bool) -> Any:
    """Return the elements of an operand with the summed axis last, or where that is not so exchanged."""
    return x.parts if x.parts is None or last else x.parts.turned(lambda t: t.mT)


def _axes(last: bool) -> tuple[int, int]:
    return (-1, -2) if last else (-2, -1)


class Product(torch.autograd.Function):
    """`a b^T + bias` for `a (..., m, k)`, `b (..., n, k)`, each rounded along the axis that is summed over."""

    @staticmethod
    def forward(a: Any, b: Any, bias: Any, call: Call, spec: Spec, kept: Kept) -> torch.Tensor:
        with inside(a.device.type):
            ra = call.round(a, spec.role_a, "forward", *_axes(spec.last_a))
            rb = call.round(b, spec.role_b, "forward", *_axes(spec.last_b), second=spec.role_a == spec.role_b)
            kept.a, kept.b = ra, rb
            left, right = _oriented(ra.values, spec.last_a), _oriented(rb.values, spec.last_b).mT
            y = call.matmul(left, right, "forward", bias, parts=(_parts(ra, spec.last_a), _parts(rb, not spec.last_b)))
            result: torch.Tensor = call.output(y, "forward", a.dtype)
            return result

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        a, b, bias, call, spec, kept = inputs
        need_a, need_b = ctx.needs_input_grad[:2]
        keep_a = need_b and _kept_for_backward(call, spec, False)
        keep_b = need_a and _kept_for_backward(call, spec, True)
        ctx.call, ctx.spec = call, spec
        ctx.dtypes = a.dtype, b.dtype, None if bias is None else bias.dtype
        if kept.a is None or kept.b is None:  # vmap ran the forward pass, inside a transform that differentiates
            check_forgettable(call, (spec.role_a, spec.role_b))
            ctx.save_for_backward(a if need_b else None, b if need_a else None, None, None, None, None)
            return
        ctx.save_for_backward(
            a if need_b else None,
            b if need_a else None,
            kept.a.values if keep_a else None,
            kept.b.values if keep_b else None,
            kept.a.mask if need_a else None,
            kept.b.mask if need_b else None,
        )

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Any, ...]:
        (g,) = gradients
        a, b, kept_a, kept_b, mask_a, mask_b = ctx.saved_tensors
        call, spec = ctx.call, ctx.spec
        need_a, need_b, need_bias = ctx.needs_input_grad[:3]
        with inside(g.device.type):
            shared: dict[str, Rounded] = {}
            da = db = dbias = None
            if need_a:
                da = _gradient(call, spec, True, g, (b, kept_b, mask_a), ctx.dtypes[0], shared)
            if need_b:
                db = _gradient(call, spec, False, g, (a, kept_a, mask_b), ctx.dtypes[1], shared)
            if need_bias:
                dbias = wide(g).sum(tuple(range(g.ndim - 1))).to(ctx.dtypes[2])
        return da, db, dbias, None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: Any, a: Any, b: Any, bias: Any, call: Call, spec: Spec, kept: Kept) -> Any:
        """Run one product after another: each is a call of its own."""
        results = []
        for i in range(info.batch_size):
            one = [x if d is None else x.select(d, i) for x, d in zip((a, b, bias), in_dims[:3], strict=True)]
            another = call if i == 0 else call.run.call(call.operation, call.layer)
            results.append(Product.apply(*one, another, spec, Kept()))  # type: ignore[no-untyped-call]
        return torch.stack(results), 0


def refuse_tangents(ctx: Any, *tangents: Any) -> Any:
    """Say that forward-mode differentiation is not there; the `jvp` of emulated products."""
    raise ArgumentError(
        f"layer {ctx.call.layer!r}, {ctx.call.operation}: forward-mode derivatives (jvp, jacfwd, hessian) of emulated "
        "products are not defined, for a recipe speaks of backward products; use vjp or jacrev."
    )


def check_forgettable(call: Call, roles: tuple[str, ...]) -> None:
    """Check that the backward pass of a product needs nothing but its operands.

    Raises:
        ArgumentError: The recipe carries rounded operands or masks from the forward pass to the backward pass.
    """
    for role in roles:
        if call.cast(role, "forward").masks or any(call.cast(role, p).reuse for p in ("grad_input", "grad_weight")):
            raise ArgumentError(
                f"layer {call.layer!r}, {call.operation}: the recipe has the backward pass use the {role} as the "
                "forward pass rounded it (reuse, masks), which is not kept where torch.func.vmap runs a derivative; "
                "differentiate one example after another."
            )


def _kept_for_backward(call: Call, spec: Spec, second: bool) -> bool:
    """Whether the backward pass takes an operand as the forward pass rounded it."""
    role = spec.role_b if second else spec.role_a
    product = spec.side(second)[1]  # the product of the gradient of the other operand
    cast = call.cast(role, product)
    return cast.reuse or _is_same(call, role, product)


def _is_same(call: Call, role: str, product: str) -> bool:
    """Whether rounding again in the backward pass would give what the forward pass has."""
    cast = call.cast(role, product)
    if call.cast("accumulator", product).unit:
        return False  # the unit reads elements and scales apart, which are made again
    if call.cast("gradient", product).hadamard:
        return False  # the operand is rotated as the gradient is
    return bool(cast) and cast == call.cast(role, "forward") and ignores_axis(cast)


def _gradient(
    call: Call,
    spec: Spec,
    first: bool,
    g: torch.Tensor,
    other: tuple[Any, Any, Any],
    dtype: torch.dtype,
    shared: dict[str, Rounded],
) -> torch.Tensor:
    """Return the gradient of one operand: of a, `g b`, summed over n; of b, `g^T a`, summed over m."""
    x, kept, mask = other
    own_role, product, own_last, _ = spec.side(first)
    role, _, last, second = spec.side(not first)
    rounded_g = _rounded_gradient(call, g, product, first, shared)
    rounded_x, rotated = _rounded_other(call, x, kept, role, product, last, second)
    left = rounded_g.values if first else rounded_g.values.mT
    pieces = own_role != "weight"
    parts = _parts(rounded_g, first), _parts(rounded_x, last)
    y = call.matmul(left, _oriented(rounded_x.values, last), product, pieces=pieces, parts=parts)
    forward = call.cast(own_role, "forward")
    if mask is not None:
        if bool(forward.hadamard) != rotated:
            raise ArgumentError(
                f"layer {call.layer!r}, {call.operation}, {product}: the {own_role}'s mask is in the basis of its "
                f"rotation (hadamard={forward.hadamard}); give the {role} of this product reuse=True."
            )
        y = y * mask_like(mask, own_last, y)
    if rotated:
        y = turned_back(call, y, "forward", forward, -1)
    y = call.output(y, product, dtype, pieces=pieces)
    return _oriented(y, own_last)


def mask_like(mask: torch.Tensor, last: bool, y: torch.Tensor) -> torch.Tensor:
    """Return a mask in the layout and dtype of a product."""
    return _oriented(mask, last).to(y.dtype)


def _rounded_gradient(call: Call, g: torch.Tensor, product: str, first: bool, shared: dict[str, Rounded]) -> Rounded:
    cast = call.cast("gradient", product)
    for done, found in shared.items():
        by_unit = call.cast("accumulator", done).unit or call.cast("accumulator", product).unit
        if call.cast("gradient", done) == cast and ignores_axis(cast) and not by_unit:
            call.note(product, "gradient")
            return found._replace(values=straight(g, found.values))
    axes = _axes(first)
    found = call.round(g, "gradient", product, *axes)
    shared[product] = found
    back = partial(turned_back, call, product=product, cast=cast, axis=axes[0])
    return found._replace(values=straight(g, found.values, back))


def _rounded_other(
    call: Call, x: Any, kept: Any, role: str, product: str, last: bool, second: bool
) -> tuple[Rounded, bool]:
    """Return the operand that meets the gradient, and whether it is in the basis of the forward rotation."""
    cast, gradient = call.cast(role, product), call.cast("gradient", product)
    forward = call.cast(role, "forward")
    if kept is not None and not cast.reuse:  # the same values either way
        call.note(product, role)
        return Rounded(straight(x, kept)), False
    if cast.reuse:
        rotation = cast.hadamard if cast.requantize else 0
        if gradient.hadamard != rotation:
            raise ArgumentError(
                f"layer {call.layer!r}, {call.operation}, {product}: the gradient is rotated (hadamard="
                f"{gradient.hadamard}) and the reused {role} is not; the rotation would not cancel."
            )
        axis, outer = _axes(not last)
        rounded = call.round(kept, role, product, axis, outer, second=second, forward=Rounded(kept))

        def back(g: torch.Tensor) -> torch.Tensor:
            g = turned_back(call, g, product, cast, axis) if cast.requantize else g
            return turned_back(call, g, "forward", forward, outer)

        return rounded._replace(values=straight(x, rounded.values, back)), bool(forward.hadamard)
    if role == "activation":
        cast = cast.turned_as(gradient)
    axes = _axes(not last)
    rounded = call.round(x, role, product, *axes, second=second, cast=cast)
    turned = partial(turned_back, call, product=product, cast=cast, axis=axes[0])
    return rounded._replace(values=straight(x, rounded.values, turned)), False


Product.jvp = staticmethod(refuse_tangents)  # type: ignore[method-assign]


def product(call: Call, a: torch.Tensor, b: torch.Tensor, spec: Spec, bias: torch.Tensor | None = None) -> torch.Tensor:
    """Return `a b^T + bias` emulated, with a gradient that is emulated too, whenever it is computed.

    Args:
        call: The call.
        a: Operand `(..., m, k)`, or `(..., k, m)` where `spec` says so.
        b: Operand `(..., n, k)`, or `(..., k, n)` where `spec` says so; leading axes as `a`.
        spec: Roles and layout.
        bias: Vector of n numbers, added in full precision.
    """
    result: torch.Tensor = Product.apply(a, b, bias, call, spec, Kept())  # type: ignore[no-untyped-call]
    return result
