"""A task's rows in parts are the rows of the whole, with what the SFT model made of each."""

from __future__ import annotations

import torch

from mergetool.evaluate import Reference, Task, prepare
from mergetool.study.analysis.row_scores import RowColumns
from mergetool.study.execution.parts import part_of, rows_after
from tests.evaluate import tiny
from tests.study.tiny import PAIRS


def test_parts_are_the_rows_between_with_their_reference() -> None:
    whole = prepare(Task("pairs", ("reward_margin", "preference_accuracy"), PAIRS), tiny.tokenizer())
    scores = torch.arange(24.0).double(), torch.arange(24.0).double() + 100
    part, reference = part_of(whole, Reference(scores, tuple(map(str, range(24)))), 4, 7)
    assert part is not None
    assert reference is not None
    assert part.rows == whole.rows[4:7]
    assert part.pairs == whole.pairs[4:7]
    assert part.task.metrics == ("reward_margin",)
    assert reference.log_probs[1].tolist() == [104, 105, 106]
    assert reference.answers == ("4", "5", "6")
    assert part_of(whole, None, 24, 30) == (None, None)


def test_new_rows_stand_behind_the_old_ones() -> None:
    first = rows_after(None, ([1, 2], [1, 1]))
    assert rows_after(first, ([3], [1])) == RowColumns(([1.0, 2.0, 3.0], [1.0, 1.0, 1.0]))
