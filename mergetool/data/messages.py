"""Text and messages: what a prompt or an answer is, when it says nothing, and when two of them say the same."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias, TypeGuard

Messages: TypeAlias = list[dict[str, Any]]
Text: TypeAlias = str | Messages

CARRIED = ("tools", "chat_template_kwargs")
"""Columns that go to the chat template beside the messages."""

_SAYS = ("content", "tool_calls", "reasoning_content", "thinking")
_NUMBERS = frozenset({"id", "uuid", "timestamp", "created_at", "updated_at", "turn"})


def is_text(value: Any) -> TypeGuard[Text]:
    """True for text, and for a list of messages; a message that calls a tool may lack its content."""
    if isinstance(value, str):
        return True
    return isinstance(value, list) and all(isinstance(one, dict) and "role" in one and _says(one) for one in value)


def _says(message: Mapping[str, Any]) -> bool:
    return any(key in message for key in _SAYS)


def is_blank(text: Text) -> bool:
    """True where there is nothing but white space: no content, no tool called, no reasoning."""
    if isinstance(text, str):
        return not text.strip()
    return not any(str(message.get(key) or "").strip() for message in text for key in _SAYS)


def said(text: Any) -> Any:
    """What is compared of a text or of messages: numbers and dates that a database has given to them say nothing."""
    if not isinstance(text, list):
        return text
    return [_without_numbers(one) if isinstance(one, dict) else one for one in text]


def _without_numbers(message: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in message.items() if not _is_number(key) and value is not None}


def _is_number(key: str) -> bool:
    return key != "tool_call_id" and (key in _NUMBERS or key.endswith(("_id", "_uuid", "_timestamp")))


def conversation(asked: str, system: Any = None) -> Messages:
    """A question as messages, after the system's where there is one."""
    first = [{"role": "system", "content": system}] if isinstance(system, str) and system.strip() else []
    return [*first, {"role": "user", "content": asked}]


def answered(answer: str) -> Messages:
    """An answer as messages."""
    return [{"role": "assistant", "content": answer}]


def with_roles(messages: Iterable[Any]) -> list[Any]:
    """Messages whose keys are `role` and `content`; those of ShareGPT's form have `from` and `value`, renamed as TRL does."""
    names = {"from": "role", "value": "content"}
    return [{names.get(key, key): value for key, value in one.items()} if isinstance(one, dict) else one for one in messages]


def carried(row: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of a row that go to the chat template."""
    return {key: row[key] for key in CARRIED if row.get(key) is not None}


def template_arguments(row: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of a row's chat template beside the messages, as TRL passes them: tools may be JSON."""
    found = carried(row)
    tools, more = found.get("tools"), found.get("chat_template_kwargs", {})
    told = {} if tools is None else {"tools": json.loads(tools) if isinstance(tools, str) else tools}
    return told | (json.loads(more) if isinstance(more, str) else dict(more))
