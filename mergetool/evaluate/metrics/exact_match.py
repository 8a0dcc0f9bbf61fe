"""Whether the model's greedy answer is the reference answer."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mergetool.evaluate.metrics.base import Measured, Metric, RowValues, mean_of

if TYPE_CHECKING:
    from mergetool.data.tokens import Coded

# A minus behind a digit is a range or a difference; a comma is one of thousands only where the last group has three digits.
_NUMBER = re.compile(r"((?<!\d)-)?\$?(\d{1,3}(?:,\d{2,3})*,\d{3}(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)")
_MINUS = "\u2212"


def hits(measured: Measured) -> RowValues:
    """1 where the answer is right."""
    return mean_of(is_hit(text, done, row) for (text, done), row in zip(measured.answers, measured.rows, strict=True))


def normalise(text: str) -> str:
    """Unicode-normalised, case-folded, single spaces, no final full stop."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split()).removesuffix(".").rstrip()


def final_number(text: str) -> str | None:
    """The number after the first '####' (GSM8K's mark for the answer), else the last number, as lm-evaluation-harness' filters
    `strict-match` and `flexible-extract` take it, without currency and commas of thousands; but compared by its value.
    """
    marked = text.replace(_MINUS, "-").split("####", 1)
    found = _NUMBER.findall(marked[1])[:1] if len(marked) == 2 else _NUMBER.findall(marked[0])[-1:]
    if not found:
        return None
    sign, digits = found[0]
    whole, _, fraction = digits.replace(",", "").partition(".")
    number, fraction = whole.lstrip("0") or "0", fraction.rstrip("0")
    number += f".{fraction}" if fraction else ""
    return number if number == "0" else sign + number


def is_hit(answer: str, finished: bool, row: dict) -> bool:
    """Whether `answer` is right.

    A row with a `target` (GSM8K's number) is right when the answer's number equals it. Any other row is right when the
    answer is the completion, both normalised; an answer that was still going on at the limit is not.
    """
    if row.get("target") is not None:
        return final_number(answer) is not None and final_number(answer) == final_number(str(row["target"]))
    return finished and normalise(answer) == normalise(_text(row["completion"]))


def answer_end(rows: Sequence[dict[str, Any]], completions: Sequence[Coded]) -> tuple[int | None, bool]:
    """No longer than the longest reference answer, where no row has a target alone to be reached; one line if all are."""
    some_target = any(row.get("target") is not None for row in rows)
    longest = None if some_target else max(one.length for one in completions)
    return longest, not any("\n" in _text(row["completion"]).strip() for row in rows)


def _text(content: str | list) -> str:
    return content if isinstance(content, str) else content[-1]["content"]


def _all_have_prompts(kind: str, rows: Sequence[dict[str, Any]]) -> bool:
    return all(row["prompt"] for row in rows)


METRIC = Metric(
    name="exact_match",
    side="tax",
    unit="share of rows",
    higher_is_better=True,
    rows="completions",
    short="exact match",
    about="share of greedy answers equal to the reference answer after normalisation",
    measure=hits,
    reads_answers=True,
    answer_end=answer_end,
    by_default=_all_have_prompts,
    order=7,
)
