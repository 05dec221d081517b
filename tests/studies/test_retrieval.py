"""The retrieval task and its score."""

from __future__ import annotations

import numpy as np

from lowp.studies.retrieval import MIN_DOCUMENT_WORDS, MIN_QUERY_WORDS, pydoc_task, reciprocal_ranks

LONG = "It tells a long story about many small things that happen one after the other. " * 3


def test_reciprocal_ranks_of_a_hand_made_example() -> None:
    documents = np.eye(3)
    queries = [[1, 0, 0], [0.9, 0.8, 0], [0.9, 0.8, 0.7]]  # right document first, second, third
    assert reciprocal_ranks(queries, documents).tolist() == [1.0, 1 / 2, 1 / 3]


def test_a_rank_beyond_the_cutoff_scores_nothing() -> None:
    assert reciprocal_ranks([[0, 1.0], [1, 0]], [[1.0, 0], [1, 0.1]], cutoff=1).tolist() == [0.0, 0.0]


def test_scale_of_embeddings_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    q, d = rng.standard_normal((2, 20, 5))
    assert np.array_equal(reciprocal_ranks(q, d), reciprocal_ranks(q * 8, d * rng.uniform(1, 2, (20, 1))))


def test_collapsed_embeddings_earn_no_more_than_the_last_rank() -> None:
    same = np.ones((20, 4))
    assert reciprocal_ranks(same, same).max() == 0.0
    assert reciprocal_ranks(np.zeros((5, 4)), np.zeros((5, 4))).max() == 1 / 5


def test_not_a_number_scores_nothing_and_ranks_above_the_right_document() -> None:
    documents = np.eye(2)
    documents[1] = np.nan
    assert reciprocal_ranks(np.eye(2), documents).tolist() == [1 / 2, 0.0]


def test_the_task_is_the_same_each_time() -> None:
    assert pydoc_task() == pydoc_task()


def test_the_task_has_a_few_hundred_pairs_of_some_length() -> None:
    task = pydoc_task()
    assert 150 <= len(task.queries) == len(task.documents) <= 2000
    assert min(len(q.split()) for q in task.queries) >= MIN_QUERY_WORDS
    assert min(len(d.split()) for d in task.documents) >= MIN_DOCUMENT_WORDS
    assert len(set(task.queries)) == len(set(task.documents)) == len(task.queries)


def test_no_document_holds_its_query() -> None:
    task = pydoc_task()
    assert not [q for q, d in zip(task.queries, task.documents, strict=True) if q in d]


def test_matching_words_alone_finds_some_documents_and_not_all() -> None:
    """The task is neither trivial nor hopeless: a bag of words lies well between 0 and 1."""
    task = pydoc_task()
    words = sorted({w for text in (*task.queries, *task.documents) for w in text.lower().split()})
    column = {w: i for i, w in enumerate(words)}

    def vectors(texts: tuple[str, ...]) -> np.ndarray:
        counts = np.zeros((len(texts), len(words)))
        for row, text in enumerate(texts):
            for word in text.lower().split():
                counts[row, column[word]] += 1
        return counts

    documents = vectors(task.documents)
    rarity = np.log(len(task.documents) / (1 + (documents > 0).sum(axis=0)))
    mrr = reciprocal_ranks(vectors(task.queries) * rarity, documents * rarity).mean()
    assert 0.1 < mrr < 0.8


def test_paragraphs_are_split_at_the_first_sentence() -> None:
    wanted = f"A query of exactly\nsix words.  {LONG}"
    paragraphs = ["Title\n*****", wanted, f"   >>> no.  Prose. {LONG}", f"Too short. {LONG}"]
    text = "\n\n".join(paragraphs)
    task = pydoc_task({"topic": text})
    assert task.queries == ("A query of exactly six words.",)
    assert task.documents == (LONG.strip(),)


def test_a_repeated_section_counts_once_and_a_limit_keeps_every_nth() -> None:
    topics = {str(n): f"Number {n} opens this very paragraph. Then {n}: {LONG}" for n in range(10)}
    assert len(pydoc_task(topics | {"again": topics["3"]}).queries) == 10
    assert [q.split()[1] for q in pydoc_task(topics, limit=5).queries] == ["0", "2", "4", "6", "8"]
