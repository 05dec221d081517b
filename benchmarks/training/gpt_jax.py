"""The same GPT in Equinox, started from the torch model's weights and fed the same batches."""

import time
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from benchmarks.training import gpt, text
from benchmarks.training.settings import Settings
from benchmarks.training.train import recipe_of

import lowp.jax as lj


class Block(eqx.Module):
    """Pre-norm attention and a two-layer perceptron."""

    norm1: eqx.nn.LayerNorm
    norm2: eqx.nn.LayerNorm
    qkv: eqx.nn.Linear
    proj: eqx.nn.Linear
    up: eqx.nn.Linear
    down: eqx.nn.Linear
    heads: int = eqx.field(static=True)

    def __init__(self, s: Settings) -> None:
        key = jax.random.key(0)  # every weight is replaced by torch's
        self.heads = s.heads
        self.norm1, self.norm2 = eqx.nn.LayerNorm(s.width), eqx.nn.LayerNorm(s.width)
        self.qkv = eqx.nn.Linear(s.width, 3 * s.width, use_bias=False, key=key)
        self.proj = eqx.nn.Linear(s.width, s.width, use_bias=False, key=key)
        self.up = eqx.nn.Linear(s.width, 4 * s.width, use_bias=False, key=key)
        self.down = eqx.nn.Linear(4 * s.width, s.width, use_bias=False, key=key)

    def __call__(self, x: jax.Array) -> jax.Array:
        t, w = x.shape
        q, k, v = jax.vmap(self.qkv)(jax.vmap(self.norm1)(x)).reshape(t, 3, self.heads, -1).transpose(1, 0, 2, 3)
        mixed = jax.nn.dot_product_attention(q, k, v, is_causal=True)
        x = x + jax.vmap(self.proj)(mixed.reshape(t, w))
        return x + jax.vmap(self.down)(jax.nn.gelu(jax.vmap(self.up)(jax.vmap(self.norm2)(x)), approximate=True))


class GPT(eqx.Module):
    """Token and position embeddings, blocks, and an untied output layer."""

    tokens: eqx.nn.Embedding
    positions: eqx.nn.Embedding
    blocks: list[Block]
    norm: eqx.nn.LayerNorm
    head: eqx.nn.Linear

    def __init__(self, s: Settings, vocabulary: int) -> None:
        key = jax.random.key(0)
        self.tokens = eqx.nn.Embedding(vocabulary, s.width, key=key)
        self.positions = eqx.nn.Embedding(s.context, s.width, key=key)
        self.blocks = [Block(s) for _ in range(s.layers)]
        self.norm = eqx.nn.LayerNorm(s.width)
        self.head = eqx.nn.Linear(s.width, vocabulary, use_bias=False, key=key)

    def __call__(self, x: jax.Array) -> jax.Array:
        h = jax.vmap(self.tokens)(x) + self.positions.weight
        for block in self.blocks:
            h = block(h)
        return jax.vmap(self.head)(jax.vmap(self.norm)(h))


def as_torch_starts(s: Settings, vocabulary: int, seed: int) -> GPT:
    """Return the model with the weights that torch draws for this seed."""
    torch.manual_seed(seed)
    given = gpt.GPT(s, vocabulary).state_dict()

    def weight(path: Any, leaf: Any) -> Any:
        name = jax.tree_util.keystr(path).replace("[", ".").replace("]", "").lstrip(".")
        return jnp.asarray(given[name].numpy())

    model = GPT(s, vocabulary)
    arrays, rest = eqx.partition(model, eqx.is_array)
    return eqx.combine(jax.tree_util.tree_map_with_path(weight, arrays), rest)


def train(name: str, seed: int, s: Settings) -> dict[str, Any]:
    """Train once; the record is that of `benchmarks.training.train.train`."""
    corpus = text.load()
    params, rest = eqx.partition(as_torch_starts(s, len(corpus.alphabet), seed), eqx.is_array)
    recipe = recipe_of(name)

    def loss_of(params: Any, inputs: Any, targets: Any) -> Any:
        logits = jax.vmap(eqx.combine(params, rest))(inputs)
        return optax.softmax_cross_entropy_with_integer_labels(logits, targets).mean()

    emulated = lj.emulate(loss_of, recipe) if recipe else loss_of
    decayed = jax.tree.map(lambda p: p.ndim == 2, params)
    optimizer = optax.chain(
        optax.clip_by_global_norm(1.0),
        optax.adamw(s.rate_schedule(), b1=0.9, b2=0.95, weight_decay=s.weight_decay, mask=decayed),
    )
    state = optimizer.init(params)

    @jax.jit
    def step(params: Any, state: Any, inputs: Any, targets: Any, seed: Any) -> Any:
        noise = {"seed": seed} if recipe else {}
        loss, grads = jax.value_and_grad(emulated)(params, inputs, targets, **noise)
        updates, state = optimizer.update(grads, state, params)
        return loss, optax.apply_updates(params, updates), state

    judge = jax.jit(emulated)
    rng, losses, start = np.random.default_rng(seed), [], time.perf_counter()
    for n in range(s.steps):
        inputs, targets = text.batch(corpus.train, rng, s.batch, s.context)
        loss, params, state = step(params, state, inputs.astype(np.int32), targets.astype(np.int32), np.uint32(n))
        losses.append(float(loss))
    seconds = time.perf_counter() - start
    batches = text.held_out_batches(s.context, 64, s.judged_on)
    judged = [float(judge(params, i.astype(np.int32), t.astype(np.int32))) for i, t in batches]
    return {
        "world": "jax", "recipe": name, "seed": seed, "losses": losses,
        "held_out": float(np.mean(judged)), "seconds": seconds,
    }  # fmt: skip
