"""What a run starts from: its rows as data sets, theta_s, and its tokenizer, found fit for training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mergetool.align.beside import TEMPLATE
from mergetool.align.datasets import data_set
from mergetool.align.fisher import fisher_file
from mergetool.align.policy import load_settings
from mergetool.align.recipe import AlignRecipe
from mergetool.align.report import Report
from mergetool.align.result import layout_fits
from mergetool.align.rows import Reading, is_conversation, text_column
from mergetool.align.stay import MAX_LENGTH, Stay, tokenised
from mergetool.checkpoint.layout import read_layout
from mergetool.errors import CheckpointError, DataError
from mergetool.hub.loading import load_tokenizer, loaded


def load_rows(recipe: AlignRecipe, report: Report, folder: Path | None = None) -> tuple[dict[str, Any], dict[str, str]]:
    """The data sets, and what was kept and dropped in words.

    Args:
        recipe: says where they lie.
        report: told of each.
        folder: where they are stored meanwhile; None: in memory.
    """
    rows, told = {}, {}
    form, text = recipe.algorithm_row.rows, text_column(recipe.training)
    for name, place, limit in (
        ("train", recipe.train_data, recipe.data.limit),
        ("eval", recipe.eval_data, recipe.data.eval_limit),
    ):
        if place is not None:
            readings: list[Reading] = []

            def read(place: Path | str = place, limit: int | None = limit, readings: list[Reading] = readings) -> Reading:
                readings.append(form.reading(place, limit, text))
                return readings[-1]

            data = data_set(read, folder / f"{name}.arrow" if folder is not None else None)
            if form.mixed:
                data = data.select(form.order(len(data), int(recipe.training.get("seed", 0))))
            rows[name], told[name] = data, readings[0].told()
            report("rows", {"name": name, "told": told[name]})
    return rows, told


def load_stay(recipe: AlignRecipe, sft: Path, report: Report) -> Stay | None:
    """The rows that should stay, as theta_s reads them; None where the method needs none. No weight is read.

    Raises:
        CheckpointError: theta_s has no tokenizer that can be used.
        DataError: a source is missing, or no row of it is usable.
    """
    rows = recipe.merging.rows
    if rows is None:
        return None
    each, length = rows.read_each(recipe.directory), rows.max_length or recipe.data.max_length or MAX_LENGTH
    stay = tokenised([row for part in each for row in part], load_tokenizer(sft), length, [len(part) for part in each])
    report("rows", {"name": recipe.merging.method, "told": str(stay)})
    return stay


def load_fisher(
    recipe: AlignRecipe, sft: Path, stay: Stay | None, folder: Path, device: Any, ranks: Any, report: Report
) -> Path | None:
    """The file of theta_s' Fisher information on these rows, in the run's directory; None where the method reads none."""
    import transformers

    if stay is None or recipe.merging.baseline is None or not recipe.merging.baseline.fisher:
        return None
    kind = getattr(transformers, recipe.algorithm_row.model)
    return fisher_file(sft, kind, stay, folder / "fisher.safetensors", device, ranks, report)


def shared_by_ranks(data: Any, folder: Path, ranks: Any) -> Any:
    """The same rows from files that all processes see: there TRL hands its reference pass to the other ranks."""
    from datasets import load_from_disk

    if ranks.is_main_process:
        data.save_to_disk(folder)
    ranks.wait_for_everyone()
    return load_from_disk(folder)


def load_teacher(recipe: AlignRecipe, sft: Path, device: Any) -> Any:
    """theta_s in evaluation mode, to be learnt from."""
    import transformers

    kind = getattr(transformers, recipe.algorithm_row.model)
    return loaded(kind, sft, device, recipe.dtype, "give a causal language model that transformers can load")


def load_policy(recipe: AlignRecipe, sft: Path, rows: Any, start: Path | None = None) -> tuple[Any, Any]:
    """What is trained, and theta_s' tokenizer, fit for training. The head of a reward model is drawn at random.

    Args:
        recipe: of the run.
        sft: the directory of theta_s.
        rows: the training rows.
        start: the directory of what is trained where it is not theta_s.

    Raises:
        CheckpointError: the tokenizer lacks what training needs, or does not fit the model.
        DataError: the rows are conversations and there is no chat template.
    """
    import torch
    import transformers

    kind = getattr(transformers, recipe.algorithm_row.model)
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(sft, trust_remote_code=False)
        settings = {"dtype": getattr(torch, recipe.dtype), **load_settings(recipe.algorithm_row)}
        model = kind.from_pretrained(start or sft, use_safetensors=True, trust_remote_code=False, **settings)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(
            f"{start or sft}: transformers cannot load it ({reason[:300]})",
            "check that it is a causal language model in its standard layout",
        ) from None
    if tokenizer.eos_token is None:
        raise CheckpointError(f"{sft}: its tokenizer has no end-of-sequence token", "set eos_token in tokenizer_config.json")
    if not layout_fits(read_layout(sft), tokenizer):
        raise CheckpointError(
            f"{sft}: its tokenizer has more tokens than its embedding has rows", "take the tokenizer that belongs to this model"
        )
    if is_conversation(rows[0]) and not tokenizer.chat_template and not recipe.training.get(TEMPLATE):
        raise DataError(
            "data.train: the rows are conversations, and the tokenizer has no chat template",
            f"add chat_template.jinja to {sft}, or give the rows as text",
        )
    return model, tokenizer
