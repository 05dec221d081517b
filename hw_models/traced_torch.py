"""The operations of a PyTorch program, seen below autograd on fake tensors; fused attention is taken from its call."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from lowp._errors import ArgumentError
from lowp.hw_models.traced_torch_state import Kept, storage
from lowp.hw_models.workload import Operation, Workload

_aten = torch.ops.aten
#: Products by name, "_" at its end left out, with the positions of their operands.
_MATRICES = {"mm": (0, 1), "bmm": (0, 1), "addmm": (1, 2), "baddbmm": (1, 2), "_int_mm": (0, 1), "_scaled_mm": (0, 1)}
_VECTORS = {"mv": (0, 1), "addmv": (1, 2), "dot": (0, 1), "vdot": (0, 1)}
_CONVOLUTIONS = (_aten.convolution, _aten._convolution, _aten.mkldnn_convolution, _aten.cudnn_convolution)
#: Products of fused attention's backward pass over those of its forward pass.
_ATTENTION_BACKWARD = 2.5
#: In names of operations that multiply matrices inside, which are refused if they are not taken apart.
_OPAQUE = re.compile(
    r"mm_?$|_mm|rnn|lstm|gru|^(?!_?upsample).*linear|matmul|einsum|attention|cholesky|geqrf|ormqr|triangular_solve"
    r"|linalg_(?!vector_norm|cross|diagonal)"
)
#: In names of operations whose results have a tensor's shape or dtype, and none of its numbers.
_FRESH = re.compile(r"_like$|^new_|rand|bernoulli|^empty|^full")


def trace_torch(program: Any, inputs: tuple[Any, ...], positions: tuple[int, ...], name: str) -> Workload:
    """Return the operations of a module or function; see `lowp.hw_models.trace.trace`."""
    if isinstance(program, torch.nn.Module) and any(is_lazy(parameter) for parameter in program.parameters()):
        raise ArgumentError(f"program={name} has parameters without a size; call it once before it is traced.")
    log = logging.getLogger("torch._subclasses.fake_tensor")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        recorder = _run(program, inputs, positions, fake=True)
    except RuntimeError:  # values are needed, or shapes are worked out for other dtypes than the program's
        recorder = _run(program, inputs, positions, fake=False)
    finally:
        log.setLevel(level)
    work = Workload(name, tuple(recorder.operations)).merged()
    used = sum(recorder.weights[key] for key in recorder.multiplied)
    return Workload(name, work.operations, weight_values=used, other_values=sum(recorder.weights.values()) - used)


def _run(program: Any, inputs: tuple[Any, ...], positions: tuple[int, ...], fake: bool) -> _Recorder:
    """Run a program, on shapes alone or on its values, and record what it does."""
    with ExitStack() as stack:
        kept = stack.enter_context(Kept(program, values=not fake))
        if fake:
            mode = FakeTensorMode(allow_non_fake_inputs=True)
            faked = _faking(mode, program, inputs)
            if isinstance(program, torch.nn.Module):
                stack.enter_context(_parameters_as(program, faked))
            inputs = tree_map_only(torch.Tensor, faked, inputs)
            stack.enter_context(mode)
        recorder = _Recorder(_weights(program, inputs, positions), kept)
        if isinstance(program, torch.nn.Module):
            stack.enter_context(_named(program, recorder))
        fast = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)  # one opaque operation would stand for a whole layer
        stack.callback(torch.backends.mha.set_fastpath_enabled, fast)
        stack.callback(torch._C._set_mkldnn_enabled, torch._C._get_mkldnn_enabled())
        torch._C._set_mkldnn_enabled(False)  # likewise for a recurrent layer
        stack.enter_context(recorder)
        stack.enter_context(_Calls(recorder))
        program(*inputs)
    return recorder


def _faking(mode: FakeTensorMode, program: Any, inputs: tuple[Any, ...]) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return what makes tensors fake; "meta" ones come to the device of the others, if there are any."""
    module = isinstance(program, torch.nn.Module)
    held = [*program.parameters(), *program.buffers()] if module else []
    devices = [t.device for t in (*held, *tree_leaves(inputs)) if isinstance(t, torch.Tensor)]
    place = next((device for device in devices if device.type != "meta"), torch.device("meta"))
    memo: dict[int, torch.Tensor] = {}

    def faked(tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) not in memo:
            if tensor.device.type == "meta" != place.type:
                with mode:
                    strided = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=place)
                    memo[id(tensor)] = strided.requires_grad_(tensor.requires_grad)
            else:
                memo[id(tensor)] = mode.from_tensor(tensor, static_shapes=True)
        return memo[id(tensor)]

    return faked


@contextmanager
def _parameters_as(module: torch.nn.Module, faked: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[None]:
    """Put fake tensors in the place of a module's parameters and buffers, for as long as it is traced."""
    kept: list[tuple[dict[str, Any], str, torch.Tensor]] = []
    try:
        for child in module.modules():
            tables: tuple[dict[str, Any], ...] = (child._parameters, child._buffers)
            for table in tables:
                for key, tensor in table.items():
                    if tensor is not None:
                        kept.append((table, key, tensor))
                        table[key] = faked(tensor)
        yield
    finally:
        for table, key, tensor in kept:
            table[key] = tensor


def _weights(program: Any, inputs: tuple[Any, ...], positions: tuple[int, ...]) -> dict[int, int]:
    """Return the sizes of all weights by their storage."""
    tensors = [leaf for position in positions for leaf in tree_leaves(inputs[position])]
    if isinstance(program, torch.nn.Module):
        tensors += list(program.parameters())
    return {storage(tensor): tensor.numel() for tensor in tensors if isinstance(tensor, torch.Tensor)}


@contextmanager
def _named(module: torch.nn.Module, recorder: _Recorder) -> Iterator[None]:
    """Keep the names of the modules that are running."""
    handles = []
    for name, child in module.named_modules():
        if isinstance(child, torch.jit.ScriptModule):  # which takes no hooks
            continue

        def enter(_module: Any, _args: Any, name: str = name) -> None:
            recorder.path.append(name)

        def leave(_module: Any, _args: Any, _out: Any) -> None:
            recorder.path.pop()

        handles += [child.register_forward_pre_hook(enter), child.register_forward_hook(leave)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Calls(TorchFunctionMode):
    """Sees fused attention before it is taken apart."""

    def __init__(self, recorder: _Recorder) -> None:
        super().__init__()
        self.recorder = recorder

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not torch.nn.functional.scaled_dot_product_attention:
            return func(*args, **kwargs)
        names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        self.recorder.attention(given["query"], given["key"], given["value"], bool(given.get("is_causal")))
        self.recorder.silent += 1
        try:
            return func(*args, **kwargs)
        finally:
            self.recorder.silent -= 1


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records what reaches the dispatcher below autograd."""

    def __init__(self, weights: dict[int, int], kept: Kept) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.weights = weights
        self.kept = kept
        #: Storages of what was made of weights alone, such as a view or a cast, with the weight; and those tensors.
        self.made_of: dict[int, int] = {}
        self.alive: list[torch.Tensor] = []
        self.multiplied: set[int] = set()
        self.operations: list[Operation] = []
        self.path: list[str] = []
        self.silent = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not self.silent and _is_composite(func):
            with self:  # which arrives whole in inference mode
                out = func.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
        self.kept.before(func, args)
        out = func(*args, **kwargs)
        sources, results = ([t for t in tree_leaves(x) if isinstance(t, torch.Tensor)] for x in (args, out))
        self.kept.after(func, sources, results)
        self._follow(func, sources, results)
        if not self.silent:
            self._record(func, args, out)
        return out

    def _follow(self, func: Any, sources: list[torch.Tensor], results: list[torch.Tensor]) -> None:
        """Note parameters as weights, and what is made of weights alone."""
        for tensor in sources:
            if isinstance(tensor, torch.nn.Parameter):
                self.weights.setdefault(storage(tensor), tensor.numel())
        keys = [self._weight(tensor) for tensor in sources]
        if func._schema.is_mutable or _FRESH.search(func.overloadpacket.__name__):
            if None in keys:
                for tensor in results:
                    self.made_of.pop(storage(tensor), None)
        elif keys and None not in keys and torch._C._current_autograd_node() is None:
            largest = max((key for key in keys if key is not None), key=lambda key: self.weights[key])
            for tensor in results:
                if storage(tensor) not in self.weights:
                    self.made_of[storage(tensor)] = largest
                    self.alive.append(tensor)

    def _weight(self, tensor: torch.Tensor) -> int | None:
        """Return the weight that a tensor is, or is made of, by its storage; else None."""
        key = storage(tensor)
        return key if key in self.weights else self.made_of.get(key)

    def _record(self, func: Any, args: tuple[Any, ...], out: Any) -> None:
        packet = func.overloadpacket
        name = packet.__name__.rstrip("_")
        if name in _MATRICES:
            left, right = (args[i] for i in _MATRICES[name])
            self._product(func, left, right)
        elif name == "addbmm":  # the sum of its products is one of their depths together
            left, right = args[1], args[2]
            self._product(func, left.transpose(0, 1).flatten(1), right.flatten(0, 1))
        elif name == "_trilinear" and [t.dim() for t in args[:3]] == [2, 3, 2]:
            self._bilinear(func, *args[:3])
        elif name in _VECTORS:
            left, right = (args[i] for i in _VECTORS[name])
            matrix = left if left.dim() == 2 else left[None, :]
            self._product(func, matrix, right[:, None])
        elif packet is _aten._grouped_mm and args[0].dim() == 2 and args[1].dim() == 3:
            self._experts(func, args[0], args[1])
        elif packet in _CONVOLUTIONS:
            self._convolution(func, args, out)
        elif packet is _aten.convolution_backward:
            self._convolution_backward(func, args, out)
        elif "scaled_dot_product" in packet.__name__:
            self._fused(packet.__name__, args)
        else:
            self._pass(func, args, out)

    def _add(self, func: Any, kind: str, m: int, n: int, k: int, *, role: str, **more: int) -> None:
        path = self.path[-1] if self.path else ""
        name = ".".join(filter(None, (path, func.overloadpacket.__name__)))
        self.operations.append(Operation(kind, m, n, k, 1, name, role, **more))

    def _is_weight(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor is a weight, seen through views; then it is counted as multiplied."""
        key = self._weight(tensor)
        if key is not None:
            self.multiplied.add(key)
        return key is not None

    def _role(self, left: torch.Tensor, right: torch.Tensor) -> tuple[str, bool]:
        """Return the role of a product, and whether its left operand is the weight."""
        backward = torch._C._current_autograd_node() is not None
        by_right, by_left = self._is_weight(right), self._is_weight(left)
        if by_right or by_left:
            return ("input_gradient" if backward else "linear"), by_left and not by_right
        return ("weight_gradient" if backward and left.dim() == 2 else "activations"), False

    def _product(self, func: Any, left: torch.Tensor, right: torch.Tensor) -> None:
        groups = left.shape[0] if left.dim() == 3 else 1
        (m, k), n = left.shape[-2:], right.shape[-1]
        if 0 in (groups, m, n, k):
            return
        if groups > 1 and right.stride(0) == 0:  # one operand for all groups is one larger product
            m, groups = m * groups, 1
        elif groups > 1 and left.stride(0) == 0:
            n, groups = n * groups, 1
        role, swapped = self._role(left, right)
        if swapped or role == "weight_gradient":  # which PyTorch computes as gradients.T @ activations
            m, n = n, m
        self._add(func, "matmul", int(m), int(n), int(k), role=role, groups=int(groups))

    def _bilinear(self, func: Any, left: torch.Tensor, weight: torch.Tensor, right: torch.Tensor) -> None:
        """Record x W y for each output: a product with the weights, and one with what comes out of it."""
        (rows, k), (outputs, _, depth) = left.shape, weight.shape
        if 0 not in (rows, k, outputs, depth):
            self._add(func, "matmul", rows, outputs * depth, k, role=self._role(left, weight)[0])
            self._add(func, "matmul", outputs, 1, depth, role=self._role(left, right)[0], groups=rows)

    def _experts(self, func: Any, tokens: torch.Tensor, weights: torch.Tensor) -> None:
        """Record products of parts of the tokens with an expert's weights each, as if the parts were alike."""
        (rows, k), n = tokens.shape, weights.shape[-1]
        groups = min(int(weights.shape[0]), int(rows))
        if groups:
            role, _ = self._role(tokens, weights)
            m = math.ceil(rows / groups)
            uneven = int(rows) if m * groups > rows else 0
            self._add(func, "matmul", m, int(n), int(k), role=role, groups=groups, rows=uneven)

    def _convolution(self, func: Any, args: tuple[Any, ...], out: torch.Tensor) -> None:
        source, kernel, transposed, groups = args[0], args[1], bool(args[6]), int(args[8])
        inputs, outputs, per_output = _channels(kernel, transposed, groups)
        positions = source if transposed else out
        m = positions.shape[0] * math.prod(positions.shape[2:])
        n, k = (outputs * per_output, inputs) if transposed else (outputs, inputs * per_output)
        weight = self._is_weight(kernel)
        role = "linear" if weight else "activations"
        sizes = {"read": source.numel(), "written": out.numel(), "groups": groups}
        self._add(func, "convolution", m, n, k, role=role, **sizes)

    def _convolution_backward(self, func: Any, args: tuple[Any, ...], out: Any) -> None:
        gradient, source, kernel, transposed, groups = args[0], args[1], args[2], bool(args[7]), int(args[9])
        inputs, outputs, per_output = _channels(kernel, transposed, groups)
        positions = source if transposed else gradient
        m = positions.shape[0] * math.prod(positions.shape[2:])
        k = inputs * per_output
        if out[0] is not None:
            self._is_weight(kernel)
            sizes = {"read": gradient.numel(), "written": source.numel(), "groups": groups}
            self._add(func, "convolution", m, k, outputs, role="input_gradient", **sizes)
        if out[1] is not None:
            sizes = {"read": source.numel(), "groups": groups}
            self._add(func, "convolution", k, outputs, m, role="weight_gradient", **sizes)

    def attention(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, causal: bool) -> None:
        """Record fused attention: queries [..., heads, rows, size], keys and values of as many or fewer heads."""
        shapes = [(*(1,) * (3 - t.dim()), *t.shape) for t in (query, key, value)]
        batch = torch.broadcast_shapes(*(s[:-3] for s in shapes))  # type: ignore[no-untyped-call]
        (heads, rows, size), (kv_heads, keys) = shapes[0][-3:], shapes[1][-3:-1]
        shared = max(1, heads // kv_heads)
        pairs = shared * sum(min(row + 1, keys) for row in range(rows)) if causal else 0
        sizes = (shared * rows, keys, (size + value.shape[-1] + 1) // 2)
        groups = math.prod(batch) * kv_heads
        name = ".".join(filter(None, (self.path[-1] if self.path else "", "attention")))
        self.operations.append(Operation("attention", *sizes, name=name, role="attention", groups=groups, pairs=pairs))

    def _fused(self, name: str, args: tuple[Any, ...]) -> None:
        """Record attention that was fused below the call: its backward pass, or an internal call of its kernel."""
        if "backward" not in name:
            self.attention(args[0], args[1], args[2], any(arg is True for arg in args[3:]))
            return
        query, key = args[1], args[2]
        *batch, heads, rows, size = query.shape
        keys = key.shape[-2]
        causal = any(arg is True for arg in args)
        pairs = sum(min(row + 1, keys) for row in range(rows)) if causal else rows * keys
        path = ".".join(filter(None, (self.path[-1] if self.path else "", "attention_backward")))
        groups = math.prod(batch) * heads
        self.operations.append(
            Operation(
                "attention",
                rows,
                keys,
                size,
                name=path,
                role="attention",
                groups=groups,
                pairs=math.ceil(_ATTENTION_BACKWARD * pairs),
                read=3 * query.numel(),
                written=query.numel() + 2 * key.numel(),
            )
        )

    def _pass(self, func: Any, args: tuple[Any, ...], out: Any) -> None:
        """Record an operation that moves memory: whatever writes tensors that are no views of what it read."""
        if getattr(func, "is_view", False) or func.namespace in ("prim", "profiler"):
            return
        name = func.overloadpacket.__name__
        if _OPAQUE.search(name):
            raise ArgumentError(f"program calls {func}, which multiplies matrices in a way that is not known here.")
        sources = [t for t in tree_leaves(args) if isinstance(t, torch.Tensor)]
        results = [t for t in tree_leaves(out) if isinstance(t, torch.Tensor)]
        if not func._schema.is_mutable:
            shared = {storage(t) for t in sources}
            results = [t for t in results if storage(t) not in shared]
        written = sum(t.numel() for t in results)
        if not written:
            return
        gathers = func.overloadpacket in (_aten.embedding, _aten.index_select, _aten.gather, _aten.index)
        read = written if gathers else sum(t.numel() for t in sources)
        rows = max(1, results[0].numel() // max(1, results[0].shape[-1])) if results[0].dim() else 1
        columns = max(1, results[0].shape[-1]) if results[0].dim() else 1
        self._add(func, "elementwise", rows, columns, 1, role="other", read=read, written=written)


def _is_composite(func: Any) -> bool:
    """Whether an operation is made of others, and not recorded as it is."""
    if func.namespace != "aten" or func.overloadpacket in _CONVOLUTIONS:
        return False
    return bool(torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd"))


def _channels(kernel: torch.Tensor, transposed: bool, groups: int) -> tuple[int, int, int]:
    """Return input and output channels of one group, and the values of the kernel per pair of them."""
    first, second = int(kernel.shape[0]), int(kernel.shape[1])
    inputs, outputs = (first // groups, second) if transposed else (second, first // groups)
    return inputs, outputs, math.prod(kernel.shape[2:])
