"""IFEval's checkers (Zhou et al. 2023, arXiv 2311.07911), as lm-evaluation-harness has them: for a metric, and for a reward.

A row has `instruction_id_list` ("punctuation:no_comma", ...) and `kwargs`, one mapping for each, as IFEval's own data have.
"""

from __future__ import annotations

from typing import Any

from mergetool.errors import DataError, RecipeError, nearest


def _registry() -> Any:
    try:
        from lm_eval.tasks.ifeval import instructions_registry
    except ImportError as error:
        raise RecipeError(
            f"instruction_following: lm-evaluation-harness with ifeval is missing ({error})", 'pip install "mergetool[eval]"'
        ) from None
    return instructions_registry.INSTRUCTION_DICT


def check_row(row: dict[str, Any]) -> None:
    """Refuses a row that names no instruction, or one that is not known.

    Raises:
        DataError: one line with the key.
        RecipeError: lm-evaluation-harness is not installed.
    """
    names, given = row.get("instruction_id_list"), row.get("kwargs")
    if not names or not isinstance(names, list) or not isinstance(given, list) or len(names) != len(given):
        raise DataError(
            "instruction_following: a row lacks 'instruction_id_list' and 'kwargs', lists of one length",
            "give rows as IFEval has them: google/IFEval",
        )
    if unknown := next((name for name in names if name not in _registry()), None):
        raise DataError(f"unknown instruction '{unknown}' in a row", nearest(str(unknown), _registry()))


def follows(row: dict[str, Any], answer: str) -> bool:
    """Whether an answer follows every instruction of its row: IFEval's strict check of a whole prompt."""
    return all(followed(row, answer))


def followed(row: dict[str, Any], answer: str) -> list[bool]:
    """Whether an answer follows each instruction of its row; an empty answer follows none."""
    found = []
    for name, given in zip(row["instruction_id_list"], row["kwargs"], strict=True):
        checker = _registry()[name](name)
        checker.build_description(**{key: value for key, value in (given or {}).items() if value is not None})
        if "prompt" in (checker.get_instruction_args() or {}):
            checker.build_description(prompt=row["prompt"])
        found.append(bool(answer.strip()) and bool(checker.check_following(answer)))
    return found


def instruction_reward(
    *, prompts: list, completions: list, instruction_id_list: list, kwargs: list, **columns: Any
) -> list[float]:
    """The share of its row's instructions that each completion follows, in the form of TRL's reward functions.

    Args:
        prompts, completions: texts, or lists of messages.
        instruction_id_list, kwargs: the rows' columns.
        columns: the others; not read.
    """
    rewards = []
    for prompt, completion, names, given in zip(prompts, completions, instruction_id_list, kwargs, strict=True):
        row = {"prompt": _text(prompt), "instruction_id_list": names, "kwargs": given}
        kept = followed(row, _text(completion))
        rewards.append(sum(kept) / len(kept))
    return rewards


def _text(content: Any) -> str:
    return content if isinstance(content, str) else content[-1]["content"] or ""
