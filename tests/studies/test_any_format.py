"""Studies of packed formats, posits and logarithmic numbers: storage, errors, and formats that fit nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import lowp
from lowp.formats import names
from lowp.studies import study
from lowp.studies.costs import storage_bits
from tests.rounding.samples import LOSSLESS, PACKED

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("name", PACKED)
def test_storage_is_that_of_the_packed_bytes(name: str) -> None:
    for shape in ((8, 256), (4, 96)):
        counted = storage_bits(lowp.parse(name), *shape)
        if name in LOSSLESS:  # before its code, whose length depends on the values
            assert counted == 16 * shape[0] * shape[1]
            continue
        assert counted == 8 * lowp.encode(np.ones(shape, np.float32), name).nbytes


@pytest.mark.parametrize("name", [name for name in names() if name not in PACKED])
def test_storage_of_other_formats_is_at_most_a_byte_from_theirs(name: str) -> None:
    parts = lowp.encode(np.ones((2, 4), np.float32), name).parts()
    stored = 8 * sum(part.size for part in parts.values())
    assert 0 <= stored - storage_bits(lowp.parse(name), 2, 4) < 8 * len(parts)


def test_a_study_measures_every_kind_of_format(tmp_path: Any) -> None:
    torch.manual_seed(0)
    model, inputs = torch.nn.Linear(256, 32), torch.randn(8, 256)
    result = study(model, [inputs], formats=["ggml_q4_k", "posit16", "lns8_f3", "dfloat11"], out=tmp_path, devices=())
    rows = {row.weights: row for row in result.rows if row.mode == "weights"}
    assert [rows[n].bits_per_value for n in ("ggml_q4_k", "posit16", "lns8_f3")] == [4.5, 16, 8]
    assert 15 < rows["ggml_q4_k"].sqnr_worst_db < 30 < rows["lns8_f3"].sqnr_worst_db < 34
    assert rows["posit16"].sqnr_worst_db > 60
    assert "is no bfloat16 number" in rows["dfloat11"].notes
