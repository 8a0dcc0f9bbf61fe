"""A data set gives the rows that it was made of, value by value, from memory and from disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from mergetool.align.datasets import data_set

TOOLS = [[{"name": "f", "parameters": {"a": {"type": "int"}}}], [{"name": "g", "parameters": {"b": {}}}]]
ROWS = [
    {
        "messages": [{"role": "user", "content": "u"}, {"role": "tool", "content": "1", "tool_call_id": "c"}],
        "answer": "7",
        "n": 1,
    },
    {"messages": [{"role": "user", "content": None, "tool_calls": [{"x": 1.123456789012345}]}], "answer": 7, "n": 2.5},
]


@pytest.fixture(params=["memory", "disk"])
def file(request, tmp_path: Path) -> Path | None:
    return None if request.param == "memory" else tmp_path / "rows" / "a.arrow"


def test_messages_tools_and_mixed_columns_come_back_as_they_were(file: Path | None) -> None:
    rows = [{**row, "tools": tools, "ids": [1, 2]} for row, tools in zip(ROWS, TOOLS, strict=True)]
    assert list(data_set(lambda: rows, file)) == rows


def test_what_a_row_lacks_is_none_and_settings_of_the_template_are_empty(file: Path | None) -> None:
    rows = [{"prompt": "p"}, {"prompt": "q", "tools": TOOLS[0], "chat_template_kwargs": {"think": True}}]
    first, second = data_set(lambda: rows, file)
    assert first == {"prompt": "p", "tools": None, "chat_template_kwargs": {}}
    assert second == rows[1]


def test_text_and_numbers_are_plain_columns(file: Path | None) -> None:
    from datasets import Value

    data = data_set(lambda: [{"prompt": "p", "label": True, "score": 0.5}], file)
    assert data.features == {"prompt": Value("string"), "label": Value("bool"), "score": Value("float64")}
    assert bool(data.cache_files) == (file is not None)
