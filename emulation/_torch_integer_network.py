"""Layers of an integer-only network from the graph of a torch module."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional

from lowp._errors import ArgumentError
from lowp.emulation import _integer_layers as layers

_ADDITIONS = {operator.add, torch.add, "add", operator.iadd, "add_"}
_RELU = {torch.relu, functional.relu, torch.relu_, "relu", "relu_"}
_NOTHING = (nn.Identity, nn.Dropout, nn.Dropout2d)
#: A layer with the node that it comes from; nodes tell where branches part.
_Path = tuple[tuple[fx.Node, Any], ...]


def layers_of(module: nn.Module) -> tuple[Any, ...]:
    """Return the layers of a module.

    Raises:
        ArgumentError: It is training, or holds something that there is no layer for.
    """
    if module.training:
        raise ArgumentError("module is training; call module.eval() first, so that its statistics are fixed.")
    graph = fx.symbolic_trace(module)
    result = next(node for node in graph.graph.nodes if node.op == "output").args[0]
    if not isinstance(result, fx.Node):
        raise ArgumentError("module must return one tensor.")
    reader = _Reader(graph)
    return tuple(layer for _, layer in reader.path(result))


class _Reader:
    """Reads the graph from its end to its start."""

    def __init__(self, graph: fx.GraphModule) -> None:
        self.modules = dict(graph.named_modules())
        self.paths: dict[fx.Node, _Path] = {}

    def path(self, node: fx.Node) -> _Path:
        """Return the layers from the input to a node."""
        if node not in self.paths:
            self.paths[node] = self._path(node)
        return self.paths[node]

    def _path(self, node: fx.Node) -> _Path:
        if node.op == "placeholder":
            return ()
        if node.op in ("call_function", "call_method") and node.target in _ADDITIONS:
            return self._sum(node)
        before = self.path(node.all_input_nodes[0]) if len(node.all_input_nodes) == 1 else None
        if before is None:
            raise ArgumentError(f"module does {node.target!r}, which is no layer of one tensor.")
        layer = self._layer(node)
        return before if layer is None else (*before, (node, layer))

    def _sum(self, node: fx.Node) -> _Path:
        branches = node.args
        if len(branches) != 2 or node.kwargs or not all(isinstance(x, fx.Node) for x in branches):
            raise ArgumentError(f"module adds {node.args!r}; sums are of two branches.")
        main, shortcut = (self.path(x) for x in branches)  # type: ignore[arg-type]
        common = 0
        while common < min(len(main), len(shortcut)) and main[common][0] is shortcut[common][0]:
            common += 1
        parts = [tuple(layer for _, layer in path[common:]) for path in (main, shortcut)]
        if not parts[0]:
            parts.reverse()
        return (*main[:common], (node, layers.Residual(*parts)))

    def _layer(self, node: fx.Node) -> Any:
        if node.op == "call_module":
            return _of_module(self.modules[str(node.target)], str(node.target))
        if node.target in _RELU:
            return layers.ReLU()
        if node.target in (torch.flatten, "flatten") and (node.args[1:], dict(node.kwargs)) in (
            ((1,), {}),
            ((), {"start_dim": 1}),
        ):
            return layers.Flatten()
        raise ArgumentError(f"module calls {node.target!r}, for which there is no layer.")


def _of_module(module: Any, name: str) -> Any:
    if isinstance(module, _NOTHING):
        return None
    read = next((read for kinds, read in _READERS if isinstance(module, kinds)), None)
    layer = None if read is None else read(module)
    if layer is None:
        raise ArgumentError(f"module holds {name!r}, {module}, for which there is no layer.")
    return layer


def _array(x: Any) -> Any:
    return None if x is None else x.detach().cpu().double().numpy()


def _conv2d(module: Any) -> Any:
    if module.groups != 1 or module.dilation != (1, 1) or module.padding_mode != "zeros":
        return None
    if isinstance(module.padding, str):
        return None
    return layers.Conv2d(_array(module.weight), _array(module.bias), module.stride, module.padding)


def _batch_norm(module: Any) -> Any:
    if module.running_mean is None:
        return None
    statistics = _array(module.running_mean), _array(module.running_var)
    return layers.BatchNorm(*statistics, _array(module.weight), _array(module.bias), module.eps)


def _max_pool(module: Any) -> Any:
    plain = module.dilation in (1, (1, 1)) and not module.ceil_mode and not module.return_indices
    return layers.MaxPool2d(module.kernel_size, module.stride, module.padding) if plain else None


def _average_pool(module: Any) -> Any:
    plain = module.padding in (0, (0, 0)) and not module.ceil_mode and module.divisor_override is None
    return layers.AveragePool2d(module.kernel_size, module.stride) if plain else None


_READERS: tuple[tuple[Any, Any], ...] = (
    (nn.Conv2d, _conv2d),
    (nn.Linear, lambda m: layers.Linear(_array(m.weight), _array(m.bias))),
    ((nn.BatchNorm1d, nn.BatchNorm2d), _batch_norm),
    (nn.ReLU, lambda m: layers.ReLU()),
    (nn.MaxPool2d, _max_pool),
    (nn.AvgPool2d, _average_pool),
    (nn.AdaptiveAvgPool2d, lambda m: layers.AveragePool2d() if m.output_size in (1, (1, 1)) else None),
    (nn.Flatten, lambda m: layers.Flatten() if (m.start_dim, m.end_dim) == (1, -1) else None),
)
