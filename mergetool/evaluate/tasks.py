"""A task: data rows, the metrics to take on them, and limits. Tokenised once, measured on any number of models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from mergetool.errors import DataError, RecipeError
from mergetool.evaluate.metrics import Metric, metric
from mergetool.evaluate.tokens import Coded, code_completion, code_pair, code_prompt

MAX_LENGTH = 1024  # tokens; TRL's own default, so that a study scores what training saw
MAX_NEW_TOKENS_FOR_TARGETS = 256


@dataclass(frozen=True)
class Task:
    """What to measure on which rows.

    Attributes:
        name: appears before each metric's name: `skills.nll`.
        metrics: names from METRICS, all of one kind of rows.
        rows: preference rows (prompt, chosen, rejected) or completion rows (prompt, completion, optional target).
        beta: scale of the reward margin, 1; DPO's beta.
        max_length: tokens of prompt and completion together; what is longer loses its end.
        max_new_tokens: limit of a greedy answer; None: the longest reference answer (256 where rows have a target).
        chat: put string prompts and completions through the tokenizer's chat template as user and assistant turns.
        template: text of the prompt, with {prompt} where the row's own goes.
    """

    name: str
    metrics: tuple[str, ...]
    rows: Sequence[dict] = field(repr=False)
    beta: float = 0.1
    max_length: int = MAX_LENGTH
    max_new_tokens: int | None = None
    chat: bool = False
    template: str = "{prompt}"


@dataclass(frozen=True)
class Prepared:
    """A task after tokenisation.

    Attributes:
        task: where it comes from.
        rows: the rows that are scored, in order.
        pairs: (chosen, rejected) per row of a preference task, else empty.
        completions: one per row of a completion task, else empty.
        prompts: token ids per row where something is generated, else empty.
        max_new_tokens: limit of a greedy answer, tokens.
        stop_at_newline: whether a line break ends an answer: when no reference answer contains one.
        left_out: rows whose prompt alone fills max_length; TRL leaves them out as well.
    """

    task: Task
    rows: tuple[dict, ...] = field(repr=False)
    pairs: tuple[tuple[Coded, Coded], ...] = field(default=(), repr=False)
    completions: tuple[Coded, ...] = field(default=(), repr=False)
    prompts: tuple[list[int], ...] = field(default=(), repr=False)
    max_new_tokens: int = 0
    stop_at_newline: bool = False
    left_out: int = 0

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return tuple(metric(name) for name in self.task.metrics)


def prepare(task: Task, tokenizer) -> Prepared:
    """Tokenises the rows of `task`.

    Raises:
        RecipeError: the metrics want different kinds of rows, or none is named.
        DataError: there are no rows, or none fits into max_length.
    """
    kinds = {metric(name, task.name).rows for name in task.metrics}
    if len(kinds) != 1:
        what = "names no metric" if not kinds else "mixes metrics of preference pairs and of completions"
        raise RecipeError(f"{task.name}: {what}", "make one entry for each kind of data")
    if not task.rows:
        raise DataError(f"{task.name}: no rows", "give a data file with at least one row")
    if kinds == {"preferences"}:
        rows = [_in_chat_form(task, row, ("chosen", "rejected")) for row in task.rows]
        coded = [code_pair(tokenizer, row, task.max_length) for row in rows]
        kept = _kept(task, coded)
        return Prepared(
            task, tuple(rows[at] for at in kept), pairs=tuple(coded[at] for at in kept), left_out=len(rows) - len(kept)
        )
    rows = [_in_chat_form(task, row, ("completion",)) for row in task.rows]
    coded = [code_completion(tokenizer, row, task.max_length) for row in rows]
    kept = _kept(task, coded)
    rows_kept = tuple(rows[at] for at in kept)
    completions = tuple(coded[at] for at in kept)
    if not any(metric(name).needs == "greedy_hits" for name in task.metrics):
        return Prepared(task, rows_kept, completions=completions, left_out=len(rows) - len(kept))
    if empty := sum(not row["prompt"] for row in rows_kept):
        raise DataError(
            f"{task.name}: exact_match needs prompts, and {empty} rows have none",
            "take nll on running text, or give prompt/completion rows",
        )
    targets = any(row.get("target") is not None for row in rows_kept)
    limit = task.max_new_tokens or (MAX_NEW_TOKENS_FOR_TARGETS if targets else max(one.length for one in completions))
    return Prepared(
        task,
        rows_kept,
        completions=completions,
        prompts=tuple(code_prompt(tokenizer, row) for row in rows_kept),
        max_new_tokens=limit,
        stop_at_newline=not any("\n" in _text(row["completion"]).strip() for row in rows_kept),
        left_out=len(rows) - len(kept),
    )


def _kept(task: Task, coded: list) -> list[int]:
    kept = [at for at, one in enumerate(coded) if one is not None]
    if not kept:
        raise DataError(f"{task.name}: no row has a completion token within max_length {task.max_length}", "raise max_length")
    return kept


def _text(content: str | list) -> str:
    return content if isinstance(content, str) else content[-1]["content"]


def _in_chat_form(task: Task, row: dict, sides: tuple[str, ...]) -> dict:
    """The row with the task's template, and as chat turns where the task asks for them."""
    if not isinstance(row["prompt"], str):
        return row
    row = dict(row)
    if row["prompt"]:
        row["prompt"] = task.template.replace("{prompt}", row["prompt"])
    if task.chat:
        row["prompt"] = [{"role": "user", "content": row["prompt"]}]
        for side in sides:
            row[side] = [{"role": "assistant", "content": row[side].strip()}]
    return row
