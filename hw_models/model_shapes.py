"""Shapes of known models: `data/models/*.toml`, with source and published count of parameters."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from functools import cache
from importlib.resources import files
from typing import Any

from lowp._errors import ArgumentError, ArgumentTypeError, unknown_name


@dataclass(frozen=True)
class Transformer:
    """The sizes of a transformer: a decoder (language model), an encoder of text, or one of images ("vision").

    Attributes:
        name: Name, as `models()` lists it.
        title: What its makers call it.
        architecture: "decoder", "encoder" or "vision".
        hidden: Size of the residual stream.
        layers: Layers.
        heads: Query heads.
        kv_heads: Key and value heads.
        ffn: Inner size of the feed-forward layer, of one expert.
        gated: Whether that layer has a gate beside its first product.
        norm: "rms" or "layer".
        parameters: Parameters as published.
        kind: How sure the figures are.
        source: Who published them.
        vocabulary: Rows of the embedding; 0 of vision models.
        tied: Whether embedding and last layer are one matrix.
        bias: Whether every linear layer of a block has a bias.
        qkv_bias: Whether the projections to queries, keys and values have one.
        head_size: Size of a head; default `hidden / heads`.
        experts: Experts of each feed-forward layer; 1 of dense models.
        active_experts: Experts that a token goes through.
        positions: Rows of a learned position embedding.
        token_types: Rows of a token type embedding.
        pooler: Whether a square layer follows the first token.
        image: Pixels along a side, of vision models.
        patch: Pixels along a side of a patch.
        classes: Outputs of the last layer of vision models.
        parameters_tolerance: Relative rounding of the published count.
    """

    name: str
    title: str
    architecture: str
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    ffn: int
    gated: bool
    norm: str
    parameters: int
    kind: str
    source: str
    vocabulary: int = 0
    tied: bool = False
    bias: bool = False
    qkv_bias: bool = False
    head_size: int = 0
    experts: int = 1
    active_experts: int = 1
    positions: int = 0
    token_types: int = 0
    pooler: bool = False
    image: int = 0
    patch: int = 0
    classes: int = 0
    parameters_tolerance: float = 0.0

    @property
    def head(self) -> int:
        """Size of a head."""
        return self.head_size or self.hidden // self.heads

    @property
    def layer_weights(self) -> int:
        """Weights of the products of one layer, all experts and the router of a mixture included."""
        attention = self.hidden * self.head * (2 * self.heads + 2 * self.kv_heads)
        expert = self.hidden * self.ffn * (3 if self.gated else 2)
        return attention + self.experts * expert + (self.experts * self.hidden if self.experts > 1 else 0)

    def experts_read(self, tokens: int) -> int:
        """Return how many experts of a layer so many tokens go through, on average, if all are as likely."""
        share = self.active_experts / self.experts
        return max(self.active_experts, round(self.experts * (1 - (1 - share) ** tokens)))

    def weights_read(self, tokens: int) -> int:
        """Return the weights of the products of one layer that so many tokens read: of a mixture, not all experts'."""
        unread = self.experts - self.experts_read(tokens)
        return self.layer_weights - unread * self.hidden * self.ffn * (3 if self.gated else 2)

    @property
    def head_weights(self) -> int:
        """Weights of the last layer, also where it is tied to the embedding."""
        return self.hidden * (self.classes if self.architecture == "vision" else self._words)

    @property
    def _words(self) -> int:
        return self.vocabulary if self.architecture == "decoder" else 0

    @property
    def tokens(self) -> int:
        """Tokens of an image, the class token included; 0 of other models."""
        return (self.image // self.patch) ** 2 + 1 if self.architecture == "vision" else 0

    @property
    def patch_weights(self) -> int:
        """Weights of the patch embedding."""
        return 3 * self.patch**2 * self.hidden

    @property
    def other_weights(self) -> int:
        """Parameters that are no product's weights: embeddings, norms, biases, the pooler's too."""
        per_norm = self.hidden * (1 if self.norm == "rms" else 2)
        biases = self.head * (self.heads + 2 * self.kv_heads) if self.bias or self.qkv_bias else 0
        biases += 2 * self.hidden + self.ffn if self.bias else 0
        embedded = self.hidden * (self.vocabulary + self.positions + self.token_types)
        if self.architecture == "vision":  # class token, positions, and the biases of both ends
            embedded = self.hidden * (1 + self.tokens + 1) + self.classes
        pooler = self.hidden**2 + self.hidden if self.pooler else 0
        return embedded + self.layers * (2 * per_norm + biases) + per_norm + pooler

    @property
    def counted_parameters(self) -> int:
        """Parameters counted from the sizes."""
        head = 0 if self.tied else self.head_weights
        patches = self.patch_weights if self.architecture == "vision" else 0
        return self.layers * self.layer_weights + head + self.other_weights + patches

    @property
    def cache_values_per_token(self) -> int:
        """Keys and values that one token leaves in the cache."""
        return 2 * self.layers * self.kv_heads * self.head


@dataclass(frozen=True)
class Residual:
    """The sizes of a residual network of bottleneck blocks.

    Attributes:
        name: Name, as `models()` lists it.
        title: What its makers call it.
        architecture: "residual".
        image: Pixels along a side.
        classes: Outputs of the last layer.
        stem: Channels of the first convolution.
        expansion: Output channels of a block over its width.
        widths: Width of the blocks of each stage.
        blocks: Blocks of each stage.
        parameters: Parameters as published.
        multiply_adds: Multiply-adds for one image, as published.
        kind: How sure the figures are.
        source: Who published them.
    """

    name: str
    title: str
    architecture: str
    image: int
    classes: int
    stem: int
    expansion: int
    widths: tuple[int, ...]
    blocks: tuple[int, ...]
    parameters: int
    multiply_adds: int
    kind: str
    source: str


Shape = Transformer | Residual


def models() -> list[str]:
    """Return the names of all models with a shape file.

    Example:
        >>> "llama-2-7b" in models() and "resnet-50" in models()
        True
    """
    return list(_names())


def model_shape(model: str | Shape) -> Shape:
    """Return the shape of a model; a shape is returned as it is.

    Case, "_" and spaces do not matter.

    Raises:
        ArgumentError: The name is unknown.
        ArgumentTypeError: `model` is neither a name nor a shape.

    Example:
        >>> model_shape("llama-3-8b").parameters
        8030261248
    """
    if isinstance(model, Transformer | Residual):
        return model
    if not isinstance(model, str):
        raise ArgumentTypeError(f"model={model!r} must be a name or a model shape, not {type(model).__name__}.")
    key = model.strip().lower().replace("_", "-").replace(" ", "-")
    found = {name.replace("-", "").replace(".", ""): name for name in _names()}.get(
        key.replace("-", "").replace(".", "")
    )
    if found is None:
        raise ArgumentError(unknown_name("model", model, _names()))
    return _shape(found)


@cache
def _names() -> tuple[str, ...]:
    folder = files("lowp.hw_models") / "data" / "models"
    return tuple(sorted(file.name.removesuffix(".toml") for file in folder.iterdir() if file.name.endswith(".toml")))


@cache
def _shape(name: str) -> Shape:
    text = (files("lowp.hw_models") / "data" / "models" / f"{name}.toml").read_text(encoding="utf-8")
    return shape_from({"name": name, **tomllib.loads(text)})


def shape_from(sizes: dict[str, Any]) -> Shape:
    """Return a shape from its fields, as a model file gives them.

    Raises:
        ArgumentError: A field is missing or unknown.

    Example:
        >>> small = {"name": "small", "title": "small", "architecture": "decoder", "hidden": 64, "layers": 2,
        ...          "heads": 4, "kv_heads": 2, "ffn": 128, "gated": True, "norm": "rms", "vocabulary": 1000,
        ...          "parameters": 0, "kind": "assumed", "source": "made up"}
        >>> shape_from(small).counted_parameters
        202048
    """
    wanted: type[Any] = Residual if sizes.get("architecture") == "residual" else Transformer
    known = {field.name for field in fields(wanted)}
    unknown = set(sizes) - known
    if unknown:
        raise ArgumentError(unknown_name("field", min(unknown), sorted(known)))
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in sizes.items()}
    try:
        made: Shape = wanted(**values)
    except TypeError as error:
        raise ArgumentError(f"a {wanted.__name__} lacks fields: {error}") from error
    return made
