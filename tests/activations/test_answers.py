"""Answers are scored token by token, alone and in a batch; padding never counts."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoTokenizer

from mergetool.activations.answers import batch_of, code_answers, logits, nll
from mergetool.data.tokens import Coded
from mergetool.errors import DataError
from tests.activations.models import live
from tests.helpers import write_tokenizer


def test_padding_is_masked_and_never_scored() -> None:
    batch = batch_of([Coded((5, 6, 7, 8), 1), Coded((5, 6), 0)])
    assert batch.ids.tolist() == [[5, 6, 7, 8], [5, 6, 0, 0]]
    assert batch.mask.tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert batch.scored.tolist() == [[True, True, True], [True, False, False]]
    assert batch.targets.tolist() == [6, 7, 8, 6]
    assert batch.tokens == 4


def test_a_batch_scores_what_its_rows_score_alone() -> None:
    model, rows = live("llama"), [Coded((5, 6, 7, 8), 1), Coded((5, 9), 0), Coded((3, 4, 5), 2)]
    with torch.no_grad():
        alone = []
        for row in rows:
            log_p = model(input_ids=torch.tensor([row.ids])).logits[0].log_softmax(-1)
            alone.append(-sum(log_p[at - 1, row.ids[at]] for at in range(max(row.start, 1), len(row.ids))))
        together = nll(model, batch_of(rows))
        assert logits(model, batch_of(rows)).shape == (5, 64)
    assert together == pytest.approx(float(sum(alone)), rel=1e-5)


def test_rows_are_coded_in_their_order_and_those_without_room_are_none(tmp_path) -> None:
    write_tokenizer(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    rows = [
        {"prompt": "w1 w2 ", "completion": "w3"},
        {"prompt": "w1 w2 w3 ", "completion": "w4"},
        {"prompt": "", "completion": "w5 w6"},
    ]
    found = code_answers(rows, tokenizer, 3, "merging.rows", "the SFT model")
    assert [None if one is None else one.start for one in found] == [2, None, 0]
    tokenizer.chat_template = None
    with pytest.raises(DataError, match=r"here: the rows are conversations.*beside that model"):
        code_answers([{"prompt": [], "completion": []}], tokenizer, 3, "here", "that model")
