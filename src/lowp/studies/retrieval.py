"""A retrieval task made from the language reference that ships with every Python, and how it is scored.

The reference text is in `pydoc_data.topics`. A paragraph of at least two sentences gives one pair: its opening
sentence is the query, the rest is the document. The query's words are thus not in the document, and the paragraphs
around it, about the same subject, are the wrong answers. The text belongs to the Python that runs, so scores of
different Python versions are not comparable; the hash of the pairs is part of every result.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

FIRST_SENTENCE = re.compile(r"(.+?[.:;?])\s+(?=[A-Z\"*(])(.+)$")
#: Grammar, tables and doctests are not prose.
NOT_PROSE = ("::=", "+--", "|==", ">>>")
MIN_QUERY_WORDS = 6
MIN_DOCUMENT_WORDS = 25


@dataclass(frozen=True)
class RetrievalTask:
    """Queries and documents; query `i` asks for document `i`."""

    queries: tuple[str, ...]
    documents: tuple[str, ...]


def pydoc_task(topics: Mapping[str, str] | None = None, limit: int | None = None) -> RetrievalTask:
    """Build the retrieval task from the reference text of the running Python.

    The same text gives the same pairs in the same order. With `limit`, every n-th pair is kept, so that all topics
    stay represented.

    Args:
        topics: Text by topic; default `pydoc_data.topics.topics`.
        limit: Largest number of pairs; default all.

    Example:
        >>> text = "Dog days. " + "The dog barks at the very old moon. " + "It goes on and on about it. " * 5
        >>> task = pydoc_task({"a": "short", "b": text.removeprefix("Dog days. ")})
        >>> task.queries
        ('The dog barks at the very old moon.',)
    """
    if topics is None:
        from pydoc_data.topics import topics as installed

        topics = installed
    pairs = list(_pairs(topics))
    if limit is not None and limit < len(pairs):
        pairs = [pairs[i * len(pairs) // limit] for i in range(limit)]
    return RetrievalTask(tuple(q for q, _ in pairs), tuple(d for _, d in pairs))


def _pairs(topics: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield (opening sentence, rest of paragraph), each once: topics repeat each other's sections."""
    seen: set[str] = set()
    for topic in sorted(topics):
        for paragraph in topics[topic].split("\n\n"):
            match = FIRST_SENTENCE.match(" ".join(paragraph.split()))
            if match is None or any(sign in paragraph for sign in NOT_PROSE):
                continue
            query, document = match.groups()
            long_enough = len(query.split()) >= MIN_QUERY_WORDS and len(document.split()) >= MIN_DOCUMENT_WORDS
            if long_enough and query not in seen and document not in seen:
                seen |= {query, document}
                yield query, document


def reciprocal_ranks(queries: Any, documents: Any, cutoff: int = 10) -> np.ndarray:
    """Return 1 / rank of each query's own document by cosine, 0 beyond `cutoff`; the mean of it is MRR@cutoff.

    Documents that score exactly as high as the right one count as ranked above it: a format that maps everything to
    one point earns nothing. A query or document embedding that is not finite scores 0.

    Args:
        queries: Embeddings (n, d).
        documents: Embeddings (n, d), row `i` being the answer to query `i`.
        cutoff: Ranks beyond it score 0.

    Example:
        >>> reciprocal_ranks([[1, 0], [0, 1]], [[1, 0], [1, 0.1]]).tolist()
        [1.0, 1.0]
    """
    import numpy as np

    q, d = (_unit_rows(np.asarray(x, dtype=np.float64)) for x in (queries, documents))
    scores = q @ d.T
    own = np.diagonal(scores)[:, None]
    rank = np.sum(~(scores < own), axis=1)  # counts the document itself; NaN scores count as ranked above
    rank = np.where(np.isfinite(own[:, 0]), rank, cutoff + 1)
    return np.where(rank <= cutoff, 1.0 / rank, 0.0)


def _unit_rows(x: np.ndarray) -> np.ndarray:
    """Scale rows to length one; a zero row stays zero."""
    import numpy as np

    norm = np.linalg.norm(x, axis=1, keepdims=True)
    return x / np.where(norm == 0, 1.0, norm)
