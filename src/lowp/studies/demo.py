"""The demo: a sentence-embedding model on a retrieval task, both without a network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from lowp.studies.models import load_demo_encoder
from lowp.studies.retrieval import RetrievalTask, pydoc_task, reciprocal_ranks

if TYPE_CHECKING:
    import numpy as np
    import torch

MODEL_NAME = "all-MiniLM-L6-v2"
SCORE_NAME = "MRR@10"
#: What keeps the demo to minutes on two cores: longer texts are cut (the median document has about 55 tokens), and
#: every n-th pair is left out.
MAX_TOKENS = 40
PAIRS = 240
BATCH_TEXTS = 32


def demo() -> tuple[torch.nn.Module, list[dict[str, Any]], Callable[[list[Any]], np.ndarray], str]:
    """Return the demo's module, its inputs, its scoring function and a sentence about its data."""
    encoder = load_demo_encoder()
    task = pydoc_task(limit=PAIRS)
    inputs, order = batches(encoder, [*task.queries, *task.documents])
    count = len(task.queries)
    text = (
        f"{count} pairs from the language reference of the running Python (pydoc_data.topics): the opening sentence "
        f"of a paragraph is the query, the rest of the paragraph its document; all {count} documents are searched by "
        f"cosine. Texts are cut at {MAX_TOKENS} tokens. The score is the mean reciprocal rank of the right document, "
        "counted as 0 beyond the first ten (MRR@10)."
    )
    return sentence_module(encoder), inputs, retrieval_score(task, order), text


def sentence_module(encoder: Any) -> torch.nn.Module:
    """Return a module from token batches to sentence embeddings that leaves its inputs as they are."""
    import torch

    class SentenceEncoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = encoder

        def forward(self, **features: torch.Tensor) -> torch.Tensor:
            embedding: torch.Tensor = self.encoder(dict(features))["sentence_embedding"]
            return embedding

    return SentenceEncoder()


def batches(encoder: Any, texts: Sequence[str]) -> tuple[list[dict[str, Any]], list[int]]:
    """Tokenize texts into batches of like length, so that little is padded; also return the texts' order in them."""
    tokenizer = encoder.tokenizer
    lengths = [len(ids) for ids in tokenizer(list(texts), truncation=True, max_length=MAX_TOKENS)["input_ids"]]
    order = sorted(range(len(texts)), key=lambda i: (lengths[i], i))
    groups = [order[i : i + BATCH_TEXTS] for i in range(0, len(order), BATCH_TEXTS)]
    options = {"truncation": True, "max_length": MAX_TOKENS, "padding": True, "return_tensors": "pt"}
    return [dict(tokenizer([texts[i] for i in group], **options)) for group in groups], order


def retrieval_score(task: RetrievalTask, order: Sequence[int]) -> Callable[[list[Any]], np.ndarray]:
    """Return the function from the embeddings of all batches to one reciprocal rank per query."""
    queries = len(task.queries)
    positions = list(order)

    def mrr_at_10(outputs: list[Any]) -> np.ndarray:
        import numpy as np

        stacked = np.concatenate([output.numpy() for output in outputs])
        embeddings = np.empty_like(stacked)
        embeddings[positions] = stacked
        return reciprocal_ranks(embeddings[:queries], embeddings[queries:])

    return mrr_at_10
