"""A message says something by its content, the tools that it calls, or its reasoning; numbers of a database say nothing."""

from __future__ import annotations

import pytest

from mergetool.data.messages import carried, conversation, is_blank, is_text, said, with_roles

CALL = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f"}}]}


@pytest.mark.parametrize(
    "value", ["", "text", [], [{"role": "user", "content": "p"}], [CALL], [{"role": "a", "tool_calls": []}]]
)
def test_text_and_messages_are_text(value: object) -> None:
    assert is_text(value)


@pytest.mark.parametrize(
    "value", [None, 3, [3], [{"content": "no role"}], [{"role": "user"}], {"role": "user", "content": "p"}]
)
def test_other_values_are_not(value: object) -> None:
    assert not is_text(value)


@pytest.mark.parametrize(
    "value", [" \n", [], [{"role": "a", "content": None}], [{"role": "a", "content": " ", "tool_calls": []}]]
)
def test_nothing_but_white_space_is_blank(value: list) -> None:
    assert is_blank(value)


def test_a_call_and_a_reasoning_are_not_blank() -> None:
    assert not is_blank([CALL])
    assert not is_blank([{"role": "assistant", "content": "", "reasoning_content": "since"}])


def test_what_is_said_leaves_numbers_out_and_keeps_the_call_that_a_tool_answers() -> None:
    message = {"role": "tool", "content": "3", "tool_call_id": "c1"}
    assert said([{**message, "id": 7, "conversation_id": "x", "name": None}]) == [message]
    assert said("text") == "text"


def test_a_system_message_stands_where_there_is_one() -> None:
    assert [one["role"] for one in conversation("p", "s")] == ["system", "user"]
    assert conversation("p", " ") == conversation("p", None) == [{"role": "user", "content": "p"}]


def test_keys_are_renamed_as_trl_renames_them() -> None:
    from trl.data_utils import maybe_convert_to_chatml

    talk = [{"from": "user", "value": "p"}, {"from": "assistant", "value": "a", "weight": 1}]
    ours = with_roles(talk)
    assert ours == maybe_convert_to_chatml({"conversations": [dict(one) for one in talk]})["messages"]


def test_columns_for_the_template_are_carried_where_a_row_has_them() -> None:
    assert carried({"tools": None, "chat_template_kwargs": {"think": True}, "other": 1}) == {
        "chat_template_kwargs": {"think": True}
    }
