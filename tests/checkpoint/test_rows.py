"""Rows in another order, borrowed rows and padding read as the same model with another vocabulary."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mergetool.checkpoint.layout import read_layout
from mergetool.checkpoint.reader import Reader
from mergetool.checkpoint.rows import ZERO, Loan, Rows, RowsReader, as_shown, as_stored, row_count, with_rows
from tests.helpers import random_weights, write_checkpoint

E = "model.embed_tokens.weight"


@pytest.mark.parametrize("mean", [0, 2])
def test_blocks_of_any_cut_give_the_rearranged_tensor(tmp_path: Path, mean: int) -> None:
    own, other = random_weights(0), random_weights(1)
    layout = read_layout(write_checkpoint(tmp_path / "own", own))
    lender = Reader(read_layout(write_checkpoint(tmp_path / "other", other)))
    taken = np.array([5, 6, 7, ZERO, -2, 3, -3, 63])
    loans = (Loan(((0, E, 4),)), Loan(((0, E, 1), (0, E, 2))))
    rows = {E: Rows(taken, loans, mean, layout.tensors[E])}
    shown = as_shown(layout, rows)
    assert shown.tensors[E].shape == (8 + mean, 32)
    assert as_stored(shown, rows).tensors == layout.tensors
    reader = RowsReader(shown, rows, Reader(layout), lambda _: lender)
    zero = torch.zeros(32)
    want = [own[E][5], own[E][6], own[E][7], zero, other[E][4], own[E][3], (other[E][1] + other[E][2]) / 2, own[E][63]]
    want += [torch.stack(want).double().mean(0).float()] * mean
    flat = torch.stack(want).view(-1)
    torch.testing.assert_close(reader.tensor(E).view(-1), flat, rtol=0, atol=1e-7)
    for start, stop in ((0, 1), (31, 33), (60, 200), (100, flat.numel())):
        assert torch.equal(reader.block(E, start, stop), reader.tensor(E).view(-1)[start:stop])
    assert torch.equal(reader.tensor("model.norm.weight"), own["model.norm.weight"])


def test_a_bias_of_one_row_counts_words_by_columns() -> None:
    assert (row_count((1, 7)), row_count((7, 3)), row_count((7,))) == (7, 7, 7)
    assert (with_rows((1, 7), 9), with_rows((7, 3), 9), with_rows((7,), 9)) == ((1, 9), (9, 3), (9,))
