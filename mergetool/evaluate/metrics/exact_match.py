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
    wanted = [text_of(row["completion"]) for row in measured.rows]
    if None in wanted:  # a call of a tool is compared as the template writes it
        wanted = [read if text is None else text for text, read in zip(wanted, measured.references, strict=True)]
    rows = zip(measured.answers, measured.rows, wanted, strict=True)
    return mean_of(is_hit(text, done, row, reference) for (text, done), row, reference in rows)


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


def is_hit(answer: str, finished: bool, row: dict, reference: str | None = None) -> bool:
    """Whether `answer` is right.

    Args:
        answer: what the model wrote.
        finished: whether it ended by itself.
        row: with the completion, and perhaps a target.
        reference: what stands for the completion where it has no text of its own.

    A row with a `target` (GSM8K's number) is right when the answer's number equals it. Any other row is right when the
    answer is the completion, both normalised; an answer that was still going on at the limit is not.
    """
    if row.get("target") is not None:
        return final_number(answer) is not None and final_number(answer) == final_number(str(row["target"]))
    wanted = text_of(row["completion"]) if reference is None else reference
    return finished and wanted is not None and normalise(answer) == normalise(wanted)


def answer_end(rows: Sequence[dict[str, Any]], completions: Sequence[Coded]) -> tuple[int | None, bool]:
    """No longer than the longest reference answer, where no row has a target alone to be reached; one line if all are."""
    some_target = any(row.get("target") is not None for row in rows)
    longest = None if some_target else max(one.length for one in completions)
    texts = [text_of(row["completion"]) for row in rows]
    return longest, not any(text is None or "\n" in text.strip() for text in texts)


def text_of(completion: str | list) -> str | None:
    """What an answer says; None of one without content, a call of a tool. Parts of a content are joined."""
    content = completion if isinstance(completion, str) else completion[-1].get("content")
    if isinstance(content, list):
        content = "".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
    return content or None


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
