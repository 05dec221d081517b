"""A GPT of plain PyTorch: nothing in it knows of number formats."""

import torch
from benchmarks.training.settings import Settings
from torch import nn
from torch.nn import functional


class Block(nn.Module):
    """Pre-norm attention and a two-layer perceptron."""

    def __init__(self, s: Settings) -> None:
        super().__init__()
        self.heads = s.heads
        self.norm1, self.norm2 = nn.LayerNorm(s.width), nn.LayerNorm(s.width)
        self.qkv = nn.Linear(s.width, 3 * s.width, bias=False)
        self.proj = nn.Linear(s.width, s.width, bias=False)
        self.up = nn.Linear(s.width, 4 * s.width, bias=False)
        self.down = nn.Linear(4 * s.width, s.width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, t, w = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(b, t, 3, self.heads, w // self.heads).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.proj(mixed.transpose(1, 2).reshape(b, t, w))
        return x + self.down(functional.gelu(self.up(self.norm2(x)), approximate="tanh"))


class GPT(nn.Module):
    """Token and position embeddings, blocks, and an untied output layer."""

    def __init__(self, s: Settings, vocabulary: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, s.width)
        self.positions = nn.Embedding(s.context, s.width)
        self.blocks = nn.ModuleList(Block(s) for _ in range(s.layers))
        self.norm = nn.LayerNorm(s.width)
        self.head = nn.Linear(s.width, vocabulary, bias=False)
        for name, p in self.named_parameters():
            if p.ndim == 2:
                deep = name.endswith(("proj.weight", "down.weight"))
                nn.init.normal_(p, std=0.02 / (2 * s.layers) ** 0.5 if deep else 0.02)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.tokens(x) + self.positions(torch.arange(x.shape[1]))
        for block in self.blocks:
            h = block(h)
        return self.head(self.norm(h))


def loss_of(model: nn.Module, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the mean cross-entropy in nats per character."""
    return functional.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())
