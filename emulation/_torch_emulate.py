"""`emulate` for torch: the context manager and the module wrapper."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Iterable
from typing import Any, overload

import torch
from torch import nn

from lowp._errors import ArgumentError, ArgumentTypeError
from lowp.emulation._torch_mode import Emulation
from lowp.emulation._torch_names import layers
from lowp.emulation._torch_run import unmatched_patterns
from lowp.emulation._torch_world import refuse_tracing
from lowp.emulation.casts import Cast
from lowp.emulation.recipe import Recipe, as_recipe


class Emulated(nn.Module):
    """A module that runs another one under a recipe, forward and backward; made by `lowp.torch.emulate`.

    Attributes:
        module: The module inside, with its parameters; it is not changed. Its other attributes are found here too, its
            methods, such as `generate`, run under the recipe.
        run: The `Emulation`: report, counts, histories.
    """

    def __init__(self, module: nn.Module, run: Emulation) -> None:
        super().__init__()
        self.module = module
        self.run = run

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the module inside; under `torch.compile` it runs uncompiled."""
        if "torch._dynamo" in sys.modules:
            return _run_uncompiled(self, args, kwargs)
        return _run(self, args, kwargs)  # saves loading the compiler, which takes seconds

    @property
    def report(self) -> Any:
        """What was done so far."""
        return self.run.report

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "module":
                raise
        found = getattr(self.module, name)
        own = inspect.ismethod(found) and found.__self__ is self.module
        return functools.partial(self._call, found) if own else found

    def _call(self, method: Any, *args: Any, **kwargs: Any) -> Any:
        """Run a method of the module inside, such as `generate`, as `forward` is run."""
        with self.run, self.run.names.inside(self.module):
            return method(*args, **kwargs)


def _run(emulated: Emulated, args: Any, kwargs: Any) -> Any:
    refuse_tracing()
    with emulated.run:
        return emulated.module(*args, **kwargs)


_run_uncompiled = torch._disable_dynamo(_run)  # type: ignore[attr-defined]


@overload
def emulate(
    recipe: Any,
    model: None = None,
    *,
    strict: bool = ...,
    check_finite: bool = ...,
    shard: tuple[int, int] | None = ...,
    group: Any = ...,
    decompose: bool = ...,
) -> Emulation: ...
@overload
def emulate(
    recipe: Any,
    model: nn.Module,
    *,
    strict: bool = ...,
    check_finite: bool = ...,
    shard: tuple[int, int] | None = ...,
    group: Any = ...,
    decompose: bool = ...,
) -> Emulated: ...
def emulate(
    recipe: Any,
    model: nn.Module | None = None,
    *,
    strict: bool = False,
    check_finite: bool = True,
    shard: tuple[int, int] | None = None,
    group: Any = None,
    decompose: bool = True,
) -> Emulation | Emulated:
    """Run a torch program, unedited, as if it computed in the formats of a recipe: forward and backward.

    As a context manager, `with emulate(recipe) as run:`, everything that runs inside is emulated; given a model it
    returns a module that runs the model so. Matrix products, convolutions, attention, embeddings and recurrent layers
    are found by their public names, so a model needs no edits; each operand is rounded from its full-precision value,
    blocks along the axis that its product sums over. The backward pass of what ran inside is emulated wherever it runs,
    also after the `with`, under checkpointing and in data-parallel training.

    Layers have their dotted name in the outermost module that is called (or in `model`), without the parts that
    wrappers put in; a product outside any module has the name "". Random bits follow from the recipe's seed, the layer,
    the operation and how often it was called since the run began: enter one `run` again and again, or keep the module,
    for fresh bits at each step (and for delayed scaling, which needs its history); a new `emulate` repeats them.

    Products are computed in float32 (float64 for float64) and rounded to the dtype of the model once; a bias is added
    before that. Under autocast operands come in autocast's dtype.

    Args:
        recipe: A `Recipe`, the name of one or of a format, a path, or a mapping; see `lowp.emulation.recipe.as_recipe`.
        model: A module to wrap; None for a context manager.
        strict: Raise ArgumentError where an operation that the recipe names cannot be emulated, instead of a remark in
            the report.
        check_finite: Look for NaN and infinity in every result; the report names the layer where they appeared first.
        shard: `(rank, number of ranks)` of data-parallel training: random bits follow the batch of all ranks, which
            they share evenly along the first axis. A rank's loss must give each of its tokens the gradient that it has
            in one process; a mean over the rank's own tokens gives a larger one.
        group: Process group over which the largest magnitudes of activations and gradients are taken, for scales of
            whole tensors; default all ranks, where `shard` names as many as there are.

        decompose: Where the recipe covers element-wise operations: take softmax, normalisations, activations and losses
            apart into their primitives and round each; False rounds their results only.

    Returns:
        An `Emulation`, or a module `Emulated` that has one as its `run`. `run.report` says what was done, `run.reset()`
        forgets it, `run.state_dict()` and `run.load_state_dict()` carry counts and amax histories over.

    Raises:
        ArgumentError, ArgumentTypeError, FormatError: The recipe is none; with a model, a pattern of a rule that
            matches no layer (in a context: a PrecisionWarning at its end). While running: operands on different
            devices, or a length that does not suit the recipe.

    Example:
        >>> import torch
        >>> from lowp.emulation import Recipe
        >>> model = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 8))
        >>> with emulate(Recipe(weight="mxfp4", activation="mxfp8", gradient="mxfp8")) as run:
        ...     model(torch.ones(4, 64)).sum().backward()
        >>> [row.cast for row in run.report.find(layer="2", product="forward")]
        ['mxfp8_e4m3', 'mxfp4']
    """
    resolved = as_recipe(recipe)
    if resolved.cast("elementwise").gradient != "straight_through":
        raise ArgumentError(
            f"elementwise: gradient={resolved.cast('elementwise').gradient!r} is for lowp.jax; torch rounds the "
            "results of element-wise operations below autograd, and the gradient passes straight through."
        )
    if model is not None:
        _module(model)
    run = Emulation(resolved, strict=strict, check_finite=check_finite, shard=shard, group=group, decompose=decompose)
    if model is None:
        return run
    for text in unmatched_patterns(resolved, layers(model)):
        raise ArgumentError(text)
    return Emulated(model, run)


def every_operation(
    fmt: Any,
    model: nn.Module | None = None,
    *,
    rounding: str = "ties_to_even",
    overflow: str = "infinity_or_nan",
    random_bits: int | None = None,
    seed: int = 0,
    only: Iterable[str] = ("*",),
    exclude: Iterable[str] = (),
    decompose: bool = True,
    check_finite: bool = True,
) -> Emulation | Emulated:
    """Run any torch program with the result of every primitive rounded to a format, as chop and pychop do.

    Rounded is what each of torch's operators returns, forward and backward: sums, products, quotients, functions,
    reductions; also what in-place operators, such as an optimizer's, write. A sum or a matrix product is one operation:
    computed in the dtype of the program and rounded once. Copies, choices and signs are no new numbers and stay, as do
    random numbers, constants and the program's own inputs. Composite operators are taken apart, see `decompose`;
    fused attention runs unfused. Use float64 tensors where float32 would round first.

    Args:
        fmt: A scalar format or its name.
        model: A module to wrap; None for a context manager.
        rounding: Rounding mode; stochastic modes take new random bits at each operation.
        overflow: Overflow mode; by default results beyond the range become infinity, as in IEEE 754 arithmetic.
        random_bits: Random bits of the stochastic modes.
        seed: Seed of the stochastic modes.
        only: Patterns over primitives ("add", "exp*"): which results are rounded. Names are those of torch's operators
            without underscores; NumPy's and JAX's names of arithmetic are known too.
        exclude: Patterns of those that are not.
        decompose: Take softmax, normalisations, activations, losses and products with a bias apart into primitives.
        check_finite: As `emulate`.

    Returns:
        An `Emulation`, or a module `Emulated`. The backward pass of what ran inside is rounded also after the `with`.

    Raises:
        ArgumentError, ArgumentTypeError, FormatError: As `lowp.quantize`; `fmt` has blocks.

    Source: N. J. Higham and S. Pranesh, "Simulating Low Precision Floating-Point Arithmetic", SIAM J. Sci. Comput.
    41(5), 2019.

    Example:
        >>> import torch
        >>> with every_operation("bfloat16") as run:
        ...     y = torch.tensor(3.0) / 10 + 1
        >>> y.item(), [row.operation for row in run.report.rows]
        (1.296875, ['div', 'add'])
    """
    cast = Cast(fmt, rounding=rounding, overflow=overflow, random_bits=random_bits)
    recipe = Recipe(
        seed=seed,
        operations=("elementwise",),
        elementwise=cast,
        primitives=_listed("only", only),
        exclude=_listed("exclude", exclude),
    )
    run = Emulation(recipe, check_finite=check_finite, decompose=decompose)
    if model is None:
        return run
    return Emulated(_module(model), run)


def _module(model: Any) -> nn.Module:
    if isinstance(model, nn.Module):
        return model
    raise ArgumentTypeError(f"model={model!r:.80} must be a torch.nn.Module; a function runs inside the `with`.")


def _listed(argument: str, patterns: Iterable[str]) -> tuple[str, ...]:
    if isinstance(patterns, Iterable):
        return (patterns,) if isinstance(patterns, str) else tuple(patterns)
    raise ArgumentTypeError(f"{argument}={patterns!r} must be patterns over the names of primitives.")
