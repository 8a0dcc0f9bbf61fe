"""Every metric reads a kind of rows that is in the table, and each kind is read and tokenised as it says."""

import json

import pytest

from mergetool.evaluate import METRICS
from mergetool.evaluate.rows import ANY_ROWS, ROW_KINDS
from tests.evaluate import tiny

ROWS = {
    "preferences": {"prompt": "q", "chosen": " yes", "rejected": " no"},
    "completions": {"prompt": "q", "completion": " yes"},
    "prompts": {"prompt": "q", "topic": "small talk"},
}


def test_metrics_name_kinds_of_the_table():
    assert {row.rows for row in METRICS.values()} == set(ROW_KINDS) == set(ROWS)


@pytest.mark.parametrize("name", ROWS)
def test_a_kind_reads_its_rows_and_any_kind_serves_as_prompts(name, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text((json.dumps(ROWS[name]) + "\n") * 3)
    assert ROW_KINDS[name].read(path, 2) == [ROWS[name]] * 2
    assert [row["prompt"] for row in ROW_KINDS[ANY_ROWS].read(path, None)] == ["q"] * 3


@pytest.mark.parametrize("name", ROWS)
def test_a_row_that_its_prompt_fills_has_no_tokens(name):
    kind, tokenizer = ROW_KINDS[name], tiny.tokenizer()
    assert kind.encode(tokenizer, ROWS[name], 64) is not None
    assert kind.encode(tokenizer, {**ROWS[name], "prompt": "q" * 64}, 64) is None
