"""One call of one emulated operation: its casts, its seeds, its products, and what the report hears of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from lowp._errors import ArgumentError
from lowp.emulation._torch_pieces import by_whole, is_distributed, like, settled, whole
from lowp.emulation._torch_straight import below_transforms, is_wrapped, straight
from lowp.emulation._torch_world import TORCH, refuse_tracing
from lowp.emulation._unit_sums import Elements, draws
from lowp.emulation.casting import Rounded, round_operand
from lowp.emulation.casts import Cast
from lowp.emulation.seeds import sign_seed, site_seed
from lowp.formats import Block, Packed, ScalarFormat, parse
from lowp.rounding.shard import Shard

if TYPE_CHECKING:
    from lowp.emulation._torch_mode import Emulation

_inside = threading.local()
_decided = threading.local()


def is_inside() -> bool:
    """Whether this thread computes the inside of an emulated operation, which nothing may intercept."""
    return getattr(_inside, "depth", 0) > 0


@contextmanager
def decided() -> Iterator[None]:
    """Mark that the products inside have been looked at by their public name, and are left to torch."""
    before = getattr(_decided, "flag", False)
    _decided.flag = True
    try:
        yield
    finally:
        _decided.flag = before


def is_decided() -> bool:
    """Whether this thread runs something whose products are left to torch."""
    return getattr(_decided, "flag", False)


def is_automatic(device: str) -> bool:
    """Whether autocast acts on tensors of a type of device."""
    return device != "meta" and torch.is_autocast_enabled(device)


@contextmanager
def inside(device: str) -> Iterator[None]:
    """Mark the inside of an emulated operation; autocast does not act there."""
    _inside.depth = getattr(_inside, "depth", 0) + 1
    automatic = is_automatic(device)
    if automatic:
        torch.set_autocast_enabled(device, False)
    try:
        yield
    finally:
        _inside.depth -= 1
        if automatic:
            torch.set_autocast_enabled(device, True)


@contextmanager
def differentiable() -> Iterator[None]:
    """Record a graph, also below autograd, where torch calls a dispatch mode."""
    excluded = torch._C._dispatch_tls_local_exclude_set()
    for key in ("AutogradFunctionality", "AutogradOther", "AutogradNestedTensor", "ADInplaceOrView"):
        excluded = excluded.remove(getattr(torch._C.DispatchKey, key))
    included = torch._C._dispatch_tls_local_include_set()
    with torch._C._ForceDispatchKeyGuard(included, excluded), torch.enable_grad():
        yield


def wide(x: torch.Tensor) -> torch.Tensor:
    """Return the dtype in which products are computed: float64 stays, the others are float32, exactly."""
    return x if x.dtype in (torch.float32, torch.float64) else x.to(torch.float32)


def ignores_axis(cast: Cast) -> bool:
    """Whether a cast gives the same values whichever axis is summed over, and in every call."""
    if cast.stochastic or cast.method != "round" or cast.hadamard or cast.reuse:
        return False
    fmt = parse(cast.format) if cast.format else None
    if isinstance(fmt, Block):
        return fmt.size == "tensor" or (isinstance(fmt.size, tuple) and fmt.size[0] == fmt.size[1])
    return not isinstance(fmt, Packed)


class Call:
    """One call of one operation in one layer; the backward pass, whenever it runs, goes on with it."""

    __slots__ = ("index", "layer", "operation", "replayed", "run")

    def __init__(self, run: Emulation, layer: str, operation: str, index: int, replayed: bool = False) -> None:
        self.run, self.layer, self.operation, self.index, self.replayed = run, layer, operation, index, replayed

    def cast(self, role: str, product: str) -> Cast:
        """Return the cast of a role in one product of this layer."""
        return self.run.known_cast(self.layer, self.operation, product, role)[0]

    def seed(self, product: str, role: str) -> int:
        """Return the seed of one operand's random bits."""
        return site_seed(self.run.recipe.seed, self.layer, self.operation, self.index, product, role)

    def sign_seed(self, product: str, cast: Cast) -> int | None:
        """Return the seed of the rotation's signs in one product."""
        return sign_seed(self.run.recipe.seed, self.layer, self.operation, self.index, product, cast.signs)

    def note(self, product: str, role: str, cast: Cast | None = None) -> None:
        """Count an operand in the report; `cast`: instead of the recipe's."""
        text = cast.describe() if cast else self.run.known_cast(self.layer, self.operation, product, role)[1]
        self.run.report.add(self.layer, self.operation, product, role, text)

    def round(
        self,
        x: torch.Tensor,
        role: str,
        product: str,
        axis: int,
        outer: int | None = None,
        *,
        second: bool = False,
        forward: Rounded | None = None,
        cast: Cast | None = None,
        pieces: bool | None = None,
    ) -> Rounded:
        """Return an operand as its cast makes it, and count it.

        Args:
            x: The operand in its own layout.
            role: Its role.
            product: The product it belongs to.
            axis: Axis that the product sums over.
            outer: The other axis.
            second: Whether the other operand has the same role and comes first: random bits differ.
            forward: What the forward pass made of it.
            cast: Instead of the recipe's.
            pieces: Whether the first axis is the one that data-parallel ranks split; None: unless it is a weight.
        """
        apart = bool(self.cast("accumulator", product).unit)
        if apart:
            self._check_plain(x)
        if is_wrapped(x):
            again: dict[str, Any] = {"second": second, "cast": cast, "pieces": pieces}

            def below(t: torch.Tensor) -> torch.Tensor:  # `forward`, where there is one, is `x` itself
                kept = None if forward is None else Rounded(t)
                rounded: torch.Tensor = self.round(t, role, product, axis, outer, forward=kept, **again).values
                return rounded

            return Rounded(rounded_by(x, below))
        if is_distributed(x):
            known: dict[str, Any] = {"second": second, "cast": cast, "pieces": pieces}
            known["forward"] = None if forward is None else Rounded(whole(forward.values))
            result = self.round(whole(x), role, product, axis, outer, **known)
            return Rounded(like(result.values, x), like(result.mask, x), result.amax)
        self.note(product, role, cast)
        if cast is None:
            cast = self.cast(role, product)
        if not cast:
            return Rounded(x, parts=Elements(x) if apart else None)
        if apart and forward is not None and not cast.requantize:
            forward = Rounded(forward.values, parts=self._reused_parts(forward.values, role))
        refuse_tracing()
        if product == "forward" or role == "gradient":
            self.run.check_operand(x, self, product, role)
        scale = history = None
        if cast.scaling == "delayed" and (cast.requantize or not cast.reuse):
            name = f"{role}_2" if second else role
            history = self.run.state.history((self.layer, self.operation, product, name), cast, x)
            scale = history.scale_at(self.index, cast)
        local = role == "weight" if pieces is None else not pieces
        x = x.detach()
        try:
            with below_transforms():
                rounded = round_operand(
                    TORCH,
                    x,
                    cast,
                    axis=axis,
                    outer=outer,
                    seed=self.seed(product, f"{role}_2" if second else role),
                    sign_seed=self.sign_seed(product, cast) if cast.hadamard else None,
                    scale=scale,
                    shard=None if local else self.shard(x),
                    amax=None if local else self.run.combine,
                    forward=forward,
                    apart=apart,
                )
        except ArgumentError as error:
            raise ArgumentError(f"{self.where(product, role)}: {error}") from error
        if history is not None and not (self.replayed and product == "forward") and not x.is_meta:
            history.push(rounded.amax)
        return rounded

    def where(self, product: str, role: str) -> str:
        """Return the place of an operand in words, for errors."""
        return f"layer {self.layer!r}, {self.operation}, {product}, {role}"

    def _check_plain(self, x: torch.Tensor) -> None:
        if is_wrapped(x) or is_distributed(x):
            kind = "DTensors" if is_distributed(x) else "what torch.func transforms"
            raise ArgumentError(
                f"layer {self.layer!r}, {self.operation}: sums by a matrix unit are not there for {kind}; leave the "
                "accumulator's unit out, or exempt the layer with a rule."
            )

    def _reused_parts(self, x: torch.Tensor, role: str) -> Elements:
        """Return the elements of an operand that is taken as the forward pass rounded it."""
        cast = self.cast(role, "forward")
        fmt = parse(cast.format) if cast.format else None
        if not isinstance(fmt, ScalarFormat | None) or cast.scaling != "none":
            raise ArgumentError(
                "reuse=True hands on elements and scales together, which a matrix unit needs apart; add "
                "requantize=True, or leave the accumulator's unit out."
            )
        return Elements(x, fmt)

    def shard(self, x: torch.Tensor) -> Shard | None:
        """Return where an activation or gradient lies in the batch of all ranks."""
        if self.run.shard is None:
            return None
        rank, world = self.run.shard
        rest = tuple(x.shape[1:])
        return Shard((rank * x.shape[0], *(0 for _ in rest)), (world * x.shape[0], *rest))

    def accumulate(
        self,
        length: int,
        product: str,
        part: Callable[[slice], torch.Tensor],
        *,
        can_split: bool = True,
        pieces: bool = True,
    ) -> torch.Tensor:
        """Return a product over `length` terms: in one sum, or as the accumulator's cast has it in rounded parts."""
        cast = self.cast("accumulator", product)
        if cast.unit:
            raise ArgumentError(
                f"{self.where(product, 'accumulator')}: unit={cast.unit!r} sums matrix products, not this operation; "
                "exempt the layer with a rule, or take the operation out of the recipe's `operations`."
            )
        if not cast.format:
            return part(slice(None))
        self.note(product, "accumulator")
        step = cast.group if cast.group and can_split else max(length, 1)
        total: Any = None
        for number, start in enumerate(range(0, max(length, 1), step)):
            piece = part(slice(start, start + step)) if step < length else part(slice(None))
            total = piece if total is None else _sum(total, piece)
            if cast.format == str(total.dtype).removeprefix("torch."):
                continue  # the sum is in the accumulator's format; beyond it there is infinity, as in any sum
            seed = self.seed(product, f"accumulator_{number}") if cast.stochastic else 0
            total = self._rounded_result(total, cast, seed, -1, pieces)
        return total  # type: ignore[no-any-return]

    def matmul(
        self,
        left: torch.Tensor,
        right: torch.Tensor,
        product: str,
        bias: Any = None,
        *,
        pieces: bool = True,
        parts: tuple[Any, Any] = (None, None),
    ) -> torch.Tensor:
        """Return `left @ right + bias` for `(..., m, k)` and `(..., k, n)`, summed as the accumulator's cast says.

        Without such a cast torch adds the bias as it does in its own linear layers. `parts`: the operands' `Elements`,
        which a matrix unit reads instead of their values.
        """
        left, right = wide(left), wide(right)
        if left.dtype != right.dtype:
            left, right = left.to(torch.float64), right.to(torch.float64)

        if bias is not None and left.ndim == 2 and not self.cast("accumulator", product):
            return torch.addmm(bias.to(left.dtype), left, right)

        def part(k: slice) -> torch.Tensor:
            return torch.matmul(left[..., k], right[..., k, :])

        cast = self.cast("accumulator", product)
        if cast.unit or (cast.format and cast.group == 1 and not is_wrapped(left) and not is_wrapped(right)):
            self.note(product, "accumulator")
            y = self._by_engine(left, right, product, cast, parts)
            if torch.is_grad_enabled() and (left.requires_grad or right.requires_grad):
                y = straight(torch.matmul(left, right), y)
        else:
            y = self.accumulate(left.shape[-1], product, part, pieces=pieces)
        return y if bias is None else y + bias.to(y.dtype)

    def _by_engine(
        self, left: torch.Tensor, right: torch.Tensor, product: str, cast: Cast, parts: tuple[Any, Any]
    ) -> torch.Tensor:
        """Return a product whose sums are those of a matrix unit, or rounded after every addition; without gradient."""
        from lowp.emulation import _torch_sums

        with torch.no_grad():
            if not cast.unit:
                seed = self.seed(product, "accumulator") if cast.stochastic else 0
                return _torch_sums.rounded(left, right, cast, seed)
            try:
                return _torch_sums.by_unit(
                    cast,
                    *parts,
                    lambda x, number: self._rounded_result(
                        x, cast, self.seed(product, f"accumulator_{number}") if cast.stochastic else 0, -1, True
                    ),
                    self.seed(product, "accumulator") if draws(cast) else 0,
                )
            except ArgumentError as error:
                raise ArgumentError(f"{self.where(product, 'accumulator')}: {error}") from error

    def output(self, y: torch.Tensor, product: str, dtype: torch.dtype, axis: int = -1, pieces: bool = True) -> Any:
        """Return a product's result, rounded by the output's cast and once to the dtype of the model; check it."""
        cast, y = self.cast("output", product), settled(y)
        if cast:
            self.note(product, "output")
            y = self._rounded_result(y, cast, self.seed(product, "output"), axis, pieces)
        y = y.to(dtype)
        if not is_wrapped(y):
            self.run.check(y, self, product)
        return y

    def _rounded_result(self, y: torch.Tensor, cast: Cast, seed: int, axis: int, pieces: bool) -> torch.Tensor:
        def rounding(exact: torch.Tensor) -> torch.Tensor:
            place = self.shard(exact) if pieces else None
            combine = self.run.combine if pieces else None
            values: torch.Tensor = round_operand(
                TORCH, exact, cast, axis=axis, seed=seed, shard=place, amax=combine
            ).values
            return values

        return rounded_by(y, rounding)


def _sum(total: torch.Tensor, piece: torch.Tensor) -> torch.Tensor:
    """Return a sum, in the memory of `total` where nothing else needs that."""
    return total + piece if torch.is_grad_enabled() or is_wrapped(total) else total.add_(piece)


class Lifted(torch.autograd.Function):
    """A rounding of what one of torch.func's transforms wraps; the gradient passes unchanged."""

    @staticmethod
    def forward(x: torch.Tensor, rounding: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        rounded = rounding(x)
        return rounded.view_as(rounded)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.dtype = inputs[0].dtype

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, None]:
        return gradients[0].to(ctx.dtype), None

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: torch.Tensor, rounding: Any) -> Any:
        """Round one tensor after another."""
        return torch.stack([Lifted.apply(part, rounding) for part in x.unbind(in_dims[0])]), 0  # type: ignore[no-untyped-call]


def rounded_by(x: torch.Tensor, rounding: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """Return a rounding of a tensor; where a graph is recorded, with a gradient that passes unchanged."""
    if is_wrapped(x):
        lifted: torch.Tensor = Lifted.apply(x, rounding)  # type: ignore[no-untyped-call]
        return lifted
    return straight(x, by_whole(x, rounding) if is_distributed(x) else rounding(x.detach()))
