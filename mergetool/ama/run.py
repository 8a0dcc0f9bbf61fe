"""AMA from recipe to recipe: reads the answers, learns the ratios for each mean, writes merge recipes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mergetool.ama.averaged import AveragedModel
from mergetool.ama.learn import Learned, Progress, learn
from mergetool.ama.output import kept, merge_recipe, output_paths, write
from mergetool.ama.recipe import AmaRecipe
from mergetool.errors import DataError
from mergetool.hub.fetch import fetch_beside, fetch_weights
from mergetool.hub.references import open_layout
from mergetool.merge.parts import Parts, parts_of

if TYPE_CHECKING:
    from mergetool.checkpoint.layout import Layout
    from mergetool.data.tokens import Coded

Note = Callable[[str], None]


@dataclass(frozen=True)
class AmaResult:
    """One mean of a recipe.

    Attributes:
        learned: the ratios and what they were measured at.
        parts: what they are the ratios of.
        path: the merge recipe; None where none was written.
        recipe: the same as plain values.
        already_done: an earlier run of the same recipe had written it.
    """

    learned: Learned
    parts: Parts
    recipe: dict[str, Any]
    path: Path | None = None
    already_done: bool = False


def check_ama(recipe: AmaRecipe) -> dict[str, Any]:
    """Checks a recipe against headers and the first rows of its data.

    Returns:
        Facts for people: models, alphas, blocks and the layers in each, parameters, steps.

    Raises:
        MergetoolError: the first thing that would stop `run_ama`.
    """
    sft, _, parts = _open(recipe)
    _rows(recipe, recipe.data.train, 8)
    if recipe.data.eval:
        _rows(recipe, recipe.data.eval, 8)
    if recipe.reward:
        from mergetool.align.reward import check_reward

        check_reward(recipe.reward, recipe.directory)
    return {
        "sft": recipe.model(recipe.sft_model),
        "rlhf": recipe.model(recipe.rlhf_model),
        "alpha": recipe.alphas,
        "blocks": parts.count,
        "layers in each": [parts.layers.count(part) for part in range(parts.count)],
        "parameters": sum(tensor.numel for tensor in sft.tensors.values()),
        "steps": recipe.training.steps,
    }


def run_ama(
    recipe: AmaRecipe,
    out: Path | None = None,
    *,
    device: str | None = None,
    progress: Progress | None = None,
    note: Note = lambda text: None,
    fresh: bool = False,
) -> list[AmaResult]:
    """Learns the ratios for each mean of a recipe.

    Args:
        recipe: from load_ama_recipe.
        out: the merge recipe to write; for a list of means one beside it for each, `NAME-alpha0.2.yaml`. None: write
            nothing. What an interrupted run of the same recipe has written is not learned again.
        device: of the live model.
        progress: told after each step.
        note: receives lines for people.
        fresh: learn again what is there.

    Returns:
        One result for each mean, in the recipe's order.

    Raises:
        MergetoolError: a model, the data or the output cannot be used.
    """
    paths = output_paths(recipe, out)
    check_ama(recipe)  # a reward that is not there should not show after all answers have been sampled
    sft, rlhf, parts = _open(recipe)
    found: dict[float, AmaResult] = {}
    for alpha, path in paths.items():
        learned = kept(recipe, path, alpha) if path is not None and not fresh else None
        if learned is not None:
            found[alpha] = AmaResult(learned, parts, merge_recipe(recipe, learned, parts, sft), path, True)
    missing = [alpha for alpha in recipe.alphas if alpha not in found]
    if missing:
        for alpha, learned in _learn_all(recipe, missing, sft, rlhf, parts, device, progress, note):
            whole = merge_recipe(recipe, learned, parts, sft)
            path = paths[alpha]
            if path is not None:
                write(path, recipe, learned, whole)
            found[alpha] = AmaResult(learned, parts, whole, path)
    return [found[alpha] for alpha in recipe.alphas]


def _open(recipe: AmaRecipe) -> tuple[Layout, Layout, Parts]:
    sft, rlhf = (open_layout(recipe.model(name)) for name in (recipe.sft_model, recipe.rlhf_model))
    return sft, rlhf, parts_of(sft, recipe.blocks, recipe.places, beside=rlhf)


def _learn_all(
    recipe: AmaRecipe,
    alphas: list[float],
    sft: Layout,
    rlhf: Layout,
    parts: Parts,
    device: str | None,
    progress: Progress | None,
    note: Note,
):
    from mergetool.checkpoint.open import open_reader
    from mergetool.hub.loading import load_model, load_tokenizer

    rows = {"train": _rows(recipe, recipe.data.train, recipe.data.limit)}
    if recipe.data.eval:
        rows["eval"] = _rows(recipe, recipe.data.eval, recipe.data.eval_limit)
    fetch_weights([sft, rlhf])
    fetch_beside(sft)
    with ExitStack() as held:
        readers = [held.enter_context(open_reader(layout)) for layout in (sft, rlhf)]
        tokenizer = load_tokenizer(sft.directory)
        model = load_model(sft.directory, device, recipe.dtype)
        averaged = AveragedModel(model, readers[0], readers[1], parts)
        if recipe.data.best_of:
            from mergetool.ama.samples import best_answers

            averaged.put([0.0] * parts.count, 0.0)  # the RLHF model
            rows = {split: best_answers(recipe, model, tokenizer, some, note) for split, some in rows.items()}
        coded = {split: _coded(recipe, some, tokenizer, split, note) for split, some in rows.items()}
        for at, alpha in enumerate(alphas):

            def told(done: int, total: int, what: str, at: int = at) -> None:
                if progress:
                    progress(at * total + done, len(alphas) * total, what)

            pad_id = tokenizer.pad_token_id or 0
            yield alpha, learn(recipe, alpha, averaged, coded["train"], coded.get("eval", coded["train"]), pad_id, told)


def _rows(recipe: AmaRecipe, text: str, limit: int | None) -> list[dict[str, Any]]:
    """prompt and completion; the chosen sides of pairs; or, with best_of, prompts and what else is in their rows."""
    from mergetool.data import completions, preferences
    from mergetool.data.messages import carried
    from mergetool.data.prompts import prompt_rows
    from mergetool.data.rows import read_rows

    source = recipe.source(text)
    if recipe.data.best_of:
        return prompt_rows(source, limit)[0]
    if "chosen" in read_rows(source, 1)[0]:
        return [{"prompt": row["prompt"], "completion": row["chosen"], **carried(row)} for row in preferences(source, limit)]
    return completions(source, limit)


def _coded(recipe: AmaRecipe, rows: list[dict], tokenizer: Any, split: str, note: Note) -> list[Coded]:
    from mergetool.data.tokens import code_completion

    found = [one for row in rows if (one := code_completion(tokenizer, row, recipe.data.max_length)) is not None]
    if not found:
        raise DataError(
            f"data.{split}: no row has a token of its answer within max_length {recipe.data.max_length}",
            "raise data.max_length",
        )
    left_out = f" ({len(rows) - len(found)} left out, their prompt fills max_length)" if len(found) < len(rows) else ""
    note(f"{split}: {len(found)} answers, {sum(one.length for one in found)} tokens{left_out}")
    return found
