"""A task: data rows, the metrics to take on them, and limits. Tokenised once, measured on any number of models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mergetool.data.tokens import Coded, code_prompt
from mergetool.errors import DataError, RecipeError
from mergetool.evaluate.judge import JudgeSettings
from mergetool.evaluate.metrics import Metric, kind_of_rows, metric
from mergetool.evaluate.rows import ROW_KINDS

MAX_LENGTH = 1024  # tokens; TRL's own default, so that a study scores what training saw
MAX_NEW_TOKENS = 256  # of an answer, where no reference answers say how long one is


@dataclass(frozen=True)
class Task:
    """What to measure on which rows.

    Attributes:
        name: appears before each metric's name: `skills.nll`.
        metrics: names from METRICS, all of one kind of rows; those that need prompts alone go with any.
        rows: preference rows (prompt, chosen, rejected), completion rows (prompt, completion, optional target), or rows
            with a prompt.
        beta: scale of the reward margin, 1; DPO's beta.
        max_length: tokens of prompt and completion together; what is longer loses its end.
        max_new_tokens: limit of a greedy answer; None: the longest reference answer for exact_match (256 where rows have
            a target), else 256.
        chat: put string prompts and completions through the tokenizer's chat template as user and assistant turns.
        template: text of the prompt, with {prompt} where the row's own goes.
        reward_model: directory or Hub id of the model that the metric `reward_model` asks.
        judge: whom the metric `win_rate` asks.
    """

    name: str
    metrics: tuple[str, ...]
    rows: Sequence[dict] = field(repr=False)
    beta: float = 0.1
    max_length: int = MAX_LENGTH
    max_new_tokens: int | None = None
    chat: bool = False
    template: str = "{prompt}"
    reward_model: Path | str | None = None
    judge: JudgeSettings | None = None

    @property
    def table_rows(self) -> tuple[Metric, ...]:
        """The rows of the table that its metrics are."""
        return tuple(metric(name) for name in self.metrics)

    def compares_with(self, *parts: str) -> bool:
        """Whether one of its metrics reads one of these parts of the SFT model; see `Metric.compares_with`."""
        return any(one.compares_with in parts for one in self.table_rows)

    def asks(self, instrument: str) -> bool:
        """Whether one of its metrics asks a "reward_model" or a "judge"."""
        return any(one.asks == instrument for one in self.table_rows)

    @property
    def reads_answers(self) -> bool:
        """Whether one of its metrics reads greedy answers."""
        return any(one.reads_answers for one in self.table_rows)

    @property
    def samples(self) -> int:
        """Samples for each prompt that its metrics read."""
        return max((one.samples for one in self.table_rows), default=0)


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
        stop_at_newline: whether a line break ends an answer: for exact_match, when no reference answer contains one.
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
        return self.task.table_rows


def read_for(names: Sequence[str], source: str | Path, limit: int | None = None) -> list[dict]:
    """The rows of a data file as these metrics need them.

    Args:
        names: metrics that go together.
        source: as `mergetool.data.read_rows` takes it.
        limit: no more than this many rows.

    Raises:
        RecipeError: the metrics want different kinds of rows.
        DataError: the file is missing or empty, or has an unusable row.
    """
    return ROW_KINDS[kind_of_rows(list(names))].read(source, limit)


def prepare(task: Task, tokenizer: Any, positions: int | None = None) -> Prepared:
    """Tokenises the rows of `task`.

    Args:
        task: rows and metrics.
        tokenizer: of the model.
        positions: the longest sequence that the model can read; None: any. Rows are cut there, and answers end there.

    Raises:
        RecipeError: the metrics want different kinds of rows, none is named, or one lacks what it asks.
        DataError: there are no rows, or none fits into max_length.
    """
    kind = ROW_KINDS[kind_of_rows(task.metrics, task.name)]
    if positions is not None:
        task = replace(task, max_length=min(task.max_length, positions))
    for row in task.table_rows:
        if row.asks and getattr(task, row.asks) is None:
            raise RecipeError(f"{task.name}: {row.name} needs {row.asks}", f"say which under {row.asks}:")
    if not task.rows:
        raise DataError(f"{task.name}: no rows", "give a data file with at least one row")
    rows = [_in_chat_form(task, row, kind.answers) for row in task.rows]
    encoded = [kind.encode(tokenizer, row, task.max_length) for row in rows]
    kept = _kept(task, encoded)
    prepared = Prepared(task, tuple(rows[at] for at in kept), left_out=len(rows) - len(kept))
    if kind.stored_as is not None:
        prepared = replace(prepared, **{kind.stored_as: tuple(encoded[at] for at in kept)})
    return _with_prompts(prepared, tokenizer, positions) if task.reads_answers or task.samples else prepared


def _with_prompts(prepared: Prepared, tokenizer: Any, positions: int | None) -> Prepared:
    """What generation starts from, and where it ends."""
    task, rows = prepared.task, prepared.rows
    if empty := sum(not row["prompt"] for row in rows):
        name = next(row.name for row in prepared.metrics if row.reads_answers or row.samples)
        raise DataError(
            f"{task.name}: {name} needs prompts, and {empty} rows have none",
            "take nll on running text, or give prompt/completion rows",
        )
    limit, one_line = task.max_new_tokens or MAX_NEW_TOKENS, False
    for one in prepared.metrics:
        if one.check_row is not None:
            for row in rows:
                one.check_row(row)  # what is misspelt should not show after an hour of answers
        if one.answer_end is not None:
            longest, one_line = one.answer_end(rows, prepared.completions)
            limit = task.max_new_tokens or longest or MAX_NEW_TOKENS
    prompts = tuple(code_prompt(tokenizer, row) for row in rows)
    if positions is not None:
        limit = max(1, min(limit, positions - max(map(len, prompts))))
    return replace(prepared, prompts=prompts, max_new_tokens=limit, stop_at_newline=one_line)


def _kept(task: Task, coded: list) -> list[int]:
    kept = [at for at, one in enumerate(coded) if one is not None]
    if not kept:
        raise DataError(f"{task.name}: no row fits into max_length {task.max_length}", "raise max_length")
    return kept


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
