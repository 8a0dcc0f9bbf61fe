"""Each form gives rows as TRL takes them, says what it kept, and knows one order by its seed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mergetool.align.algorithms import ALGORITHMS
from mergetool.align.rows import COMPLETIONS, LABELLED, PAIRS, PROMPTS
from mergetool.errors import DataError


def write(path: Path, *rows: dict) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_every_algorithm_reads_a_form_of_its_own_name(triple) -> None:
    assert {row.name: row.rows.name for row in ALGORITHMS.values()} == {
        **dict.fromkeys(("dpo", "ipo", "orpo", "cpo", "simpo", "reward"), "pairs"), "kto": "labelled", "sft": "completions",
        **dict.fromkeys(("grpo", "raft", "rloo", "online_dpo", "distillation"), "prompts"),
    }  # fmt: skip


def test_pairs_serve_as_pairs_as_labelled_rows_and_as_prompts(triple) -> None:
    path = triple / "train.jsonl"
    assert set(PAIRS.read(path, 3)[0][0]) == {"prompt", "chosen", "rejected"}
    labelled, told = LABELLED.read(path, 3, seed=1)
    assert told.endswith("3 good and 3 bad")
    assert len(labelled) == 6
    assert PROMPTS.read(path, 3)[0][0]["prompt"] == PAIRS.read(path, 3)[0][0]["prompt"]


def test_labelled_rows_are_mixed_by_their_seed(triple) -> None:
    path = triple / "train.jsonl"
    first, again, other = (LABELLED.read(path, None, seed)[0] for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert sorted(map(str, first)) == sorted(map(str, other))


def test_running_text_stays_bare_and_forms_do_not_mix(tmp_path) -> None:
    assert COMPLETIONS.read(write(tmp_path / "a.jsonl", {"text": "the cat"})) == ([{"text": "the cat"}], "1 rows")
    both = write(
        tmp_path / "b.jsonl",
        {"prompt": "p", "completion": "c"},
        {"messages": [{"role": "user", "content": "p"}, {"role": "assistant", "content": "c"}]},
    )
    with pytest.raises(DataError, match="some rows are text and some are messages"):
        COMPLETIONS.read(both)


@pytest.mark.parametrize("column", ["prompts", "completions"])
def test_a_column_of_a_name_that_trl_gives_rewards_is_refused(tmp_path: Path, column: str) -> None:
    file = tmp_path / "p.jsonl"
    file.write_text(json.dumps({"prompt": "how is the cat", column: "x", "answer": "y"}) + "\n")
    with pytest.raises(DataError, match=f"a column is called '{column}'"):
        PROMPTS.read(file)
