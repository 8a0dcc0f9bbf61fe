"""A preference pair is (prompt, chosen, rejected), however it is published; what is dropped is counted."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mergetool.data import Counts, preference_rows, preferences
from mergetool.errors import DataError

TURN = "\n\nAssistant:"
WORDS = st.text(alphabet="abc \n:", min_size=1, max_size=12)


def write(path, *rows: dict):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def user(text: str) -> dict:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict:
    return {"role": "assistant", "content": text}


@given(turns=st.lists(st.tuples(WORDS, WORDS), max_size=3), ask=WORDS, chosen=WORDS, rejected=WORDS)
def test_a_transcript_pair_splits_at_the_last_shared_answer_and_loses_nothing(
    turns, ask, chosen, rejected, tmp_path_factory
) -> None:
    if chosen == rejected or not chosen.strip() or not rejected.strip():
        return
    prompt = "".join(f"\n\nHuman: {a}{TURN} {b}" for a, b in turns) + f"\n\nHuman: {ask}{TURN}"
    path = write(tmp_path_factory.mktemp("p") / "p.jsonl", {"chosen": prompt + chosen, "rejected": prompt + rejected})
    assert preferences(path) == [{"prompt": prompt, "chosen": chosen, "rejected": rejected}]


def test_answers_that_begin_alike_keep_their_beginning(tmp_path) -> None:
    ask = f"\n\nHuman: hi{TURN}"
    path = write(tmp_path / "p.jsonl", {"chosen": f"{ask} I am well", "rejected": f"{ask} I am ill"})
    assert preferences(path)[0] == {"prompt": ask, "chosen": " I am well", "rejected": " I am ill"}


def test_explicit_prompts_and_messages_pass_through(tmp_path) -> None:
    rows = [
        {"prompt": "p", "chosen": "a", "rejected": "b"},
        {"prompt": [user("p")], "chosen": [assistant("a")], "rejected": [assistant("b")]},
    ]
    assert preferences(write(tmp_path / "p.jsonl", *rows)) == rows


@pytest.mark.parametrize("prompt", [{}, {"prompt": "p"}])
def test_conversations_with_an_implied_prompt_split_where_they_part(tmp_path, prompt: dict) -> None:
    row = {**prompt, "chosen": [user("p"), assistant("a")], "rejected": [user("p"), assistant("b")]}
    assert preferences(write(tmp_path / "p.jsonl", row)) == [
        {"prompt": [user("p")], "chosen": [assistant("a")], "rejected": [assistant("b")]}
    ]


def test_empty_identical_and_unpaired_rows_are_counted(tmp_path) -> None:
    path = write(
        tmp_path / "p.jsonl",
        {"prompt": "p", "chosen": "a", "rejected": "b"},
        {"prompt": "p", "chosen": " ", "rejected": "b"},
        {"prompt": "p", "chosen": "a", "rejected": None},
        {"prompt": "p", "chosen": "a", "rejected": "a"},
        {"chosen": "no turn a", "rejected": "no turn b"},
    )
    rows, counts = preference_rows(path)
    assert counts == Counts(rows=5, kept=1, empty=2, identical=1, unpaired=1)
    assert len(rows) == 1
    assert str(counts) == "1 usable of 5 rows (dropped: 2 empty, 1 identical, 1 unpaired)"


def test_a_limit_counts_usable_pairs(tmp_path) -> None:
    same, fine = {"prompt": "p", "chosen": "a", "rejected": "a"}, {"prompt": "p", "chosen": "a", "rejected": "b"}
    rows, counts = preference_rows(write(tmp_path / "p.jsonl", same, fine, same, fine, fine), limit=2)
    assert (len(rows), counts.rows) == (2, 4)


@pytest.mark.parametrize("missing", ["chosen", "rejected"])
def test_a_row_without_an_answer_is_named_with_what_it_has(tmp_path, missing: str) -> None:
    bad = {"prompt": "p", "chosen": "a", "rejected": "b"}
    del bad[missing]
    path = write(tmp_path / "p.jsonl", {"prompt": "p", "chosen": "a", "rejected": "b"}, bad)
    with pytest.raises(DataError, match=f"p.jsonl: row 2: no '{missing}' \\(it has: prompt, "):
        preferences(path)


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "p", "chosen": 1, "rejected": "b"},
        {"prompt": "p", "chosen": [{"text": "a"}], "rejected": "b"},
        {"prompt": "p", "chosen": [assistant("a")], "rejected": "b"},
        {"prompt": [user("p")], "chosen": "a", "rejected": "b"},
    ],
)
def test_a_row_of_mixed_forms_is_named(tmp_path, row: dict) -> None:
    with pytest.raises(DataError, match="row 1"):
        preferences(write(tmp_path / "p.jsonl", row))


def test_a_file_without_a_usable_pair_is_an_error(tmp_path) -> None:
    with pytest.raises(DataError, match="no usable pair in 1 rows"):
        preferences(write(tmp_path / "p.jsonl", {"prompt": "p", "chosen": "a", "rejected": "a"}))


def test_a_prompt_of_text_beside_answers_of_messages_opens_the_conversation(tmp_path) -> None:
    row = {"prompt": "p", "chosen": [assistant("a")], "rejected": [assistant("b")]}
    assert preferences(write(tmp_path / "p.jsonl", row)) == [{**row, "prompt": [user("p")]}]


def test_a_question_is_a_prompt_and_a_system_column_makes_a_conversation(tmp_path) -> None:
    row = {"question": "p", "chosen": "a", "rejected": "b"}
    talk = {"prompt": [user("p")], "chosen": [assistant("a")], "rejected": [assistant("b")]}
    system = {"role": "system", "content": "s"}
    path = write(tmp_path / "p.jsonl", row, {**row, "system": ""}, {**row, "system": "s"})
    assert preferences(path) == [{"prompt": "p", "chosen": "a", "rejected": "b"}, talk, {**talk, "prompt": [system, user("p")]}]


def test_messages_that_differ_by_their_numbers_alone_say_the_same(tmp_path) -> None:
    def numbered(message: dict, number: int) -> dict:
        return {**message, "id": number, "message_id": f"m{number}"}

    row = {"chosen": [numbered(user("p"), 1), assistant("a")], "rejected": [numbered(user("p"), 2), assistant("b")]}
    same = {"prompt": "p", "chosen": [numbered(assistant("a"), 3)], "rejected": [numbered(assistant("a"), 4)]}
    rows, counts = preference_rows(write(tmp_path / "p.jsonl", row, same))
    assert rows == [{"prompt": [numbered(user("p"), 1)], "chosen": [assistant("a")], "rejected": [assistant("b")]}]
    assert counts.identical == 1


def test_tools_travel_a_call_without_content_is_an_answer_and_unread_columns_are_told(tmp_path) -> None:
    call = {"role": "assistant", "content": None, "tool_calls": [{"type": "function", "function": {"name": "f"}}]}
    tools = [{"type": "function", "function": {"name": "f"}}]
    row = {"prompt": [user("p")], "chosen": [call], "rejected": [assistant("no")], "tools": tools, "score": 3, "note": None}
    found, counts = preference_rows(write(tmp_path / "p.jsonl", {**row, "chat_template_kwargs": {"think": False}}))
    assert found == [
        {**{k: row[k] for k in ("prompt", "chosen", "rejected", "tools")}, "chat_template_kwargs": {"think": False}}
    ]
    assert str(counts) == "1 usable; not read: score"
