"""A batch is told by its rows, whole or cut; lengths are those of prompt and longest answer."""

from __future__ import annotations

from mergetool.align.tokenised import lengths, rows_of


def test_a_batch_is_found_by_its_tokens_whole_cut_or_as_prompts() -> None:
    import torch

    rows = [{"prompt_ids": [1, 2], "chosen_ids": [3] * size, "rejected_ids": [4]} for size in (1, 4, 2)]
    batch = {"input_ids": torch.tensor([[1, 2, 3, 3, 0]]), "attention_mask": torch.tensor([[1, 1, 1, 1, 0]])}
    assert rows_of(batch, rows) == [2, 3], "the second row cut at four tokens, and the third whole"
    assert rows_of({"input_ids": torch.tensor([[9]]), "attention_mask": torch.tensor([[1]])}, rows) == []
    assert rows_of([{"prompt": "b"}], [{"prompt": "a"}, {"prompt": "b"}]) == [2]
    assert rows_of({}, rows) == []


def test_lengths_count_what_is_cut() -> None:
    from datasets import Dataset

    rows = [{"prompt_ids": [1, 2], "chosen_ids": [3] * size, "rejected_ids": [4] * 2} for size in (1, 4, 2)]
    assert lengths(Dataset.from_list(rows), 5) == {"cut": 1, "longest": 6}
    assert lengths(Dataset.from_list(rows), None) == {"cut": 0, "longest": 6}
    assert lengths(Dataset.from_list([{"input_ids": [1]}]), 5) == {}
