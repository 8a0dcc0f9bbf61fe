"""A task: data rows, the metrics to take on them, and limits. Tokenised once, measured on any number of models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from mergetool.errors import DataError, RecipeError
from mergetool.evaluate.judge import JudgeSettings
from mergetool.evaluate.metrics import GENERATING, METRICS, Metric, kind_of_rows, metric
from mergetool.evaluate.scripts import expected_scripts
from mergetool.evaluate.tokens import Coded, code_completion, code_pair, code_prompt

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

    def needs(self, *passes: str) -> bool:
        """Whether one of its metrics is fed by one of these passes."""
        return any(METRICS[name].needs in passes for name in self.metrics)


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
        return tuple(metric(name) for name in self.task.metrics)


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
    from mergetool.data import completions, preferences, prompt_rows

    kind = kind_of_rows(list(names))
    if kind == "prompts":
        return prompt_rows(source, limit)[0]
    return preferences(source, limit) if kind == "preferences" else completions(source, limit)


def prepare(task: Task, tokenizer) -> Prepared:
    """Tokenises the rows of `task`.

    Raises:
        RecipeError: the metrics want different kinds of rows, none is named, or one lacks what it asks.
        DataError: there are no rows, or none fits into max_length.
    """
    kind = kind_of_rows(task.metrics, task.name)
    for row in map(metric, task.metrics):
        if row.asks and getattr(task, row.asks) is None:
            raise RecipeError(f"{task.name}: {row.name} needs {row.asks}", f"say which under {row.asks}:")
    if not task.rows:
        raise DataError(f"{task.name}: no rows", "give a data file with at least one row")
    if kind == "preferences":
        rows = [_in_chat_form(task, row, ("chosen", "rejected")) for row in task.rows]
        coded = [code_pair(tokenizer, row, task.max_length) for row in rows]
    elif kind == "completions":
        rows = [_in_chat_form(task, row, ("completion",)) for row in task.rows]
        coded = [code_completion(tokenizer, row, task.max_length) for row in rows]
    else:
        rows = [_in_chat_form(task, row, ()) for row in task.rows]
        coded = [ids if len(ids := code_prompt(tokenizer, row)) < task.max_length else None for row in rows]
    kept = _kept(task, coded)
    used = tuple(coded[at] for at in kept)
    prepared = Prepared(
        task,
        tuple(rows[at] for at in kept),
        pairs=used if kind == "preferences" else (),
        completions=used if kind == "completions" else (),
        left_out=len(rows) - len(kept),
    )
    return _with_prompts(prepared, tokenizer) if task.needs(*GENERATING) else prepared


def _with_prompts(prepared: Prepared, tokenizer) -> Prepared:
    """What generation starts from, and where it ends."""
    task, rows = prepared.task, prepared.rows
    if empty := sum(not row["prompt"] for row in rows):
        name = next(row.name for row in prepared.metrics if row.needs in GENERATING)
        raise DataError(
            f"{task.name}: {name} needs prompts, and {empty} rows have none",
            "take nll on running text, or give prompt/completion rows",
        )
    if task.needs("answer_scripts"):
        for row in rows:
            expected_scripts(row)  # a misspelt script should not show after an hour of answers
    limit, one_line = task.max_new_tokens or MAX_NEW_TOKENS, False
    if task.needs("greedy_hits"):
        if not any(row.get("target") is not None for row in rows):
            limit = task.max_new_tokens or max(one.length for one in prepared.completions)
        one_line = not any("\n" in _text(row["completion"]).strip() for row in rows)
    prompts = tuple(code_prompt(tokenizer, row) for row in rows)
    return replace(prepared, prompts=prompts, max_new_tokens=limit, stop_at_newline=one_line)


def _kept(task: Task, coded: list) -> list[int]:
    kept = [at for at, one in enumerate(coded) if one is not None]
    if not kept:
        raise DataError(f"{task.name}: no row fits into max_length {task.max_length}", "raise max_length")
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
