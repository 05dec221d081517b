"""The text: the documentation topics that come with Python, as characters, and the batches drawn from it."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

HELD_OUT = 0.1  # share of the topics' text, from the end, that no training batch sees


@dataclass(frozen=True)
class Text:
    """Characters as indices into `alphabet`, the last tenth held out."""

    alphabet: str
    train: np.ndarray
    held_out: np.ndarray


@lru_cache(maxsize=1)
def load() -> Text:
    """Return the topics in alphabetical order."""
    from pydoc_data.topics import topics

    whole = "\n\n".join(topics[name] for name in sorted(topics))
    alphabet = "".join(sorted(set(whole)))
    codes = np.searchsorted(np.array(list(alphabet)), np.array(list(whole))).astype(np.int64)
    cut = int(len(codes) * (1 - HELD_OUT))
    return Text(alphabet, codes[:cut], codes[cut:])


def batch(source: np.ndarray, rng: np.random.Generator, size: int, context: int) -> tuple[np.ndarray, np.ndarray]:
    """Return `size` stretches of `context` characters, and the same shifted by one: what is to be predicted."""
    starts = rng.integers(0, len(source) - context - 1, size)
    rows = source[starts[:, None] + np.arange(context + 1)]
    return rows[:, :-1], rows[:, 1:]


def held_out_batches(context: int, size: int, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the batches that every run is judged on."""
    rng = np.random.default_rng(12345)
    return [batch(load().held_out, rng, size, context) for _ in range(count)]
