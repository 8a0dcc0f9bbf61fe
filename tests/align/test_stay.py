"""Rows that should stay are read as SFT rows are, scored on their answers, and drawn as a function of the micro step."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from mergetool.activations.answers import batch_of
from mergetool.align.stay import Rows, Stay, tokenised
from mergetool.data.tokens import Coded
from mergetool.errors import DataError


def written(path: Path, *rows: dict) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def answers(stay: Stay, tokenizer) -> list[str]:
    batch = batch_of(stay.rows)
    return [tokenizer.decode(ids[1:][scored]) for ids, scored in zip(batch.ids, batch.scored, strict=True)]


CHAT = {"messages": [{"role": "user", "content": "is it red"}, {"role": "assistant", "content": "yes it is"}]}


@pytest.mark.parametrize(
    ("row", "scored"),
    [
        ({"prompt": "is it red ", "completion": "yes it is"}, "yes it is </s>"),
        ({"prompt": "is it red ", "chosen": "yes it is", "rejected": "no"}, "yes it is </s>"),
        (CHAT, "yes it is </s>"),
        ({"text": "the cat sat"}, "cat sat"),  # nothing precedes the first token
    ],
)
def test_the_answer_is_scored_with_its_end_and_of_running_text_every_token(triple, tmp_path, row: dict, scored: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(triple / "sft")
    written(tmp_path / "r.jsonl", row, row)
    stay = tokenised(Rows(data="r.jsonl").read(tmp_path), tokenizer, 32)
    assert answers(stay, tokenizer) == [scored, scored]
    assert stay.tokens == int(batch_of(stay.rows).scored.sum())


STAY = Stay(tuple(Coded((1, 2, *range(3, 4 + n)), 2) for n in range(7)))


def test_every_turn_draws_each_row_once_in_an_order_of_its_own() -> None:
    turns = [STAY.drawn(start, 7, seed=3) for start in (0, 7, 14)]
    assert all({row.ids for row in turn} == {row.ids for row in STAY.rows} for turn in turns)
    assert turns[0] != turns[1] != turns[2]
    assert STAY.drawn(0, 21, seed=3) == [row for turn in turns for row in turn]
    assert STAY.drawn(0, 7, seed=4) != turns[0]


def test_ranks_draw_together_what_one_process_draws() -> None:
    for number in range(5):
        whole = STAY.batch(number, 4, seed=1)
        parts = [STAY.batch(number, 2, seed=1, rank=rank, ranks=2) for rank in (0, 1)]
        assert {part.tokens for part in parts} == {whole.tokens}
        assert [t for part in parts for t in part.targets.tolist()] == whole.targets.tolist()


def test_rows_are_known_by_what_they_hold(tmp_path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        written(tmp_path / folder / "r.jsonl", {"text": "the cat"})
    rows = Rows(data="r.jsonl")
    assert rows.identities(tmp_path / "a") == rows.identities(tmp_path / "b")
    written(tmp_path / "b" / "other.jsonl", {"text": "the dog"})
    assert Rows(data="other.jsonl").identities(tmp_path / "b") != rows.identities(tmp_path / "b")


def test_several_sources_follow_one_another_and_the_limit_is_of_each(tmp_path) -> None:
    written(tmp_path / "a.jsonl", *({"text": f"a {i}"} for i in range(3)))
    written(tmp_path / "b.jsonl", *({"text": f"b {i}"} for i in range(3)))
    found = Rows(data=["a.jsonl", "b.jsonl"], limit=2).read(tmp_path)
    assert [row["completion"] for row in found] == ["a 0", "a 1", "b 0", "b 1"]


def test_each_source_is_a_set_of_its_own_without_the_rows_that_are_dropped(triple, tmp_path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(triple / "sft")
    long = {"prompt": "is it red " * 9, "completion": "yes"}
    written(tmp_path / "a.jsonl", {"text": "the cat"}, long, {"text": "the dog"})
    written(tmp_path / "b.jsonl", long, {"text": "the hill"})
    rows = Rows(data=["a.jsonl", "b.jsonl"])
    each = rows.read_each(tmp_path)
    stay = tokenised(rows.read(tmp_path), tokenizer, 8, [len(part) for part in each])
    assert [[tokenizer.decode(row.ids) for row in rows] for rows in stay.sets] == [["the cat", "the dog"], ["the hill"]]
    assert (stay.sizes, stay.dropped) == ((2, 1), 2)
    assert STAY.sets == [STAY.rows]


def test_rows_that_cannot_be_used_are_told_in_one_line(triple, tmp_path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(triple / "sft")
    written(tmp_path / "prompts.jsonl", {"prompt": "is it red"})
    with pytest.raises(DataError, match=r"prompts\.jsonl: prompts without answers"):
        Rows(data="prompts.jsonl").read(tmp_path)
    with pytest.raises(DataError, match="no such file"):
        Rows(data="none.jsonl").read(tmp_path)
    long = [{"prompt": "is it red " * 9, "completion": "yes"}]
    with pytest.raises(DataError, match=r"no row has a token of an answer within 8 tokens; raise merging\.rows\.max_length"):
        tokenised(long, tokenizer, 8)
    assert tokenised([*long, {"prompt": "is ", "completion": "yes"}], tokenizer, 8).dropped == 1
    tokenizer.chat_template = None
    written(tmp_path / "chat.jsonl", CHAT)
    with pytest.raises(DataError, match="conversations, and the tokenizer has no chat template"):
        tokenised(Rows(data="chat.jsonl").read(tmp_path), tokenizer, 32)
