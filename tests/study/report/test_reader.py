"""A stranger reads what the words mean, on how many rows, and what to type next."""

from __future__ import annotations

from mergetool.study.report.reader import compared_sentence, glossary, next_steps
from tests.study.lines import AWAY, MEANS, lines, outcome_by_rows


def test_the_glossary_is_three_sentences_and_names_both_axes(summary) -> None:
    text = glossary(summary)
    assert text.count(". ") == 2
    assert summary.reward.name in text
    assert summary.tax.name in text


def test_what_was_compared_is_counted_and_dated(summary) -> None:
    dated = [{**row, "time": f"2026-01-0{1 + at % 2}T00:00:00Z"} for at, row in enumerate(lines())]
    told = compared_sentence(summary, dated)
    assert told.startswith(f"{len(summary.groups)} candidates, measured 2026-01-01 to 2026-01-02: ")
    assert "pairs 9 rows to choose on and 9 to report" in told
    assert compared_sentence(summary, [{"error": "x"}]) == "Nothing was measured."


def test_the_next_command_fits_what_is_there(small_study, tmp_path) -> None:
    summary = outcome_by_rows(small_study, MEANS, AWAY)
    (step,) = next_steps(summary, tmp_path)
    assert step["command"] == f"mergetool compare STUDY.yaml {tmp_path.name} --save best"
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    assert [one["command"].split()[1] for one in next_steps(summary, tmp_path)] == ["merge", "push"]
