"""What can be known of an align recipe before any weight is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mergetool.align.beside import template_identity
from mergetool.align.datasets import data_set
from mergetool.align.policy import must_be_trainable
from mergetool.align.quiet import quiet
from mergetool.align.recipe import AlignRecipe
from mergetool.align.rehearsal import rehearse
from mergetool.align.reward import check_rewards, reward_identities
from mergetool.align.row_gradients import projection
from mergetool.align.rows import is_conversation, text_column
from mergetool.align.training import check_batch, smallest_batch, training_config
from mergetool.architecture.context import learned_positions
from mergetool.architecture.match import match
from mergetool.checkpoint.content import sha256_of
from mergetool.checkpoint.in_form import in_form_of
from mergetool.checkpoint.layout import Layout
from mergetool.data.containers import files_of
from mergetool.data.rows import data_commit
from mergetool.errors import CheckpointError, DataError, RecipeError
from mergetool.fingerprints import checkpoint_identity, digest
from mergetool.hub.fetch import missing_weights
from mergetool.hub.references import local_directory, open_layout

FIRST_ROWS = 8  # enough to see a wrong file; the rest is read when training starts


def rehearsed_check(recipe: AlignRecipe) -> dict[str, Any]:
    """As check_align, and TRL's trainer is constructed on the first rows without weights, where the SFT model is on this disk.

    `align` itself constructs it in earnest.
    """
    return check_align(recipe, rehearsed=True)


def check_align(recipe: AlignRecipe, rehearsed: bool = False) -> dict[str, Any]:
    """Checks a recipe against headers, the first rows of its data, and TRL's config.

    Args:
        recipe: from load_align_recipe.
        rehearsed: whether TRL's trainer is also constructed, without weights.

    Returns:
        What was found, ready to be printed or written as JSON: model, data, merging, optimizer steps.

    Raises:
        RecipeError, CheckpointError, DataError: the first thing that would stop `align`.
    """
    training_config(recipe, "unused")  # report a misspelt field before anything is fetched
    facts: dict[str, Any] = {"algorithm": recipe.algorithm, "method": recipe.merging.method}
    sft, base = layouts(recipe)
    facts["model"] = {
        "architecture": (sft.config.get("architectures") or [sft.config.get("model_type")])[0],
        "tensors": len(sft.tensors),
        "parameters": sum(tensor.numel for tensor in sft.tensors.values()),
        "dtype": stored_dtype(sft),
    }
    facts["sft"] = sft.name
    check_tokenizer(sft)
    must_be_trainable(recipe.algorithm_row, sft)
    config = training_config(recipe, "unused", learned_positions(sft.config))
    facts["beta"] = None if recipe.algorithm_row.beta is None else config.beta
    if recipe.policy is not None:
        facts["policy"] = recipe.policy
    if (steps := steps_known(config)) is not None:
        merges_of(recipe, steps)
        rule = None if recipe.merging.baseline is None else recipe.merging.baseline.averaged(recipe.merging)
        if rule is not None:
            rule.places(steps)
    facts["base"] = base.name if base is not None else recipe.base_model
    facts |= _on_the_hub([sft] if base is None else [sft, base])
    first: list[dict[str, Any]] = []
    for key, place in (("train", recipe.train_data), ("eval", recipe.eval_data)):
        if isinstance(place, Path):
            enough = max(FIRST_ROWS, smallest_batch(recipe.algorithm_row, config) if key == "train" else 1)
            rows, told = recipe.algorithm_row.rows.read(place, enough, text=text_column(recipe.training))
            if key == "train":
                check_batch(recipe.algorithm_row, config, len(rows))
                first = rows[:FIRST_ROWS]
            form = "messages" if is_conversation(rows[0]) else "text"
            facts[key] = {"file": str(place), "rows": f"{recipe.algorithm_row.rows.name} of {form}", "first rows": told}
        elif place is not None:
            facts[key] = {"hub": place, "commit": data_commit(place)}
    if (calibration := recipe.calibrated_on) is not None:
        calibration.check(((name, info.shape) for name, info in sft.tensors.items() if info.floating), [recipe.merging.rule()])
        facts["calibration"] = calibration.written()
        facts |= {} if calibration.file is not None else calibration.cost(recipe.sft)
    if recipe.merging.rows is not None:
        facts["rows"] = {"of": recipe.merging.rows.names, "usable": len(recipe.merging.rows.read(recipe.directory))}
    if (asked := projection(recipe, facts["model"]["parameters"])) is not None:
        facts["row_gradients"] = {"sets": asked.sets, "every": asked.every}
        facts["bytes_of_row_gradients"] = asked.bytes
    if recipe.reward:
        check_rewards(recipe)
        facts["reward"] = recipe.reward
    if rehearsed and first and isinstance(recipe.sft, Path):
        with quiet():
            rehearse(recipe, config, local_directory(recipe.sft), data_set(lambda: first, None))
    facts["batch"] = config.per_device_train_batch_size * config.gradient_accumulation_steps
    facts["options"] = recipe.merging.given()
    return facts


def _on_the_hub(layouts: list[Layout]) -> dict[str, Any]:
    """At which commits, and how much of it is not in the cache yet."""
    commits = {layout.pinned.name: layout.pinned.commit for layout in layouts if layout.pinned}
    missing = sum(size for _, _, size in missing_weights(layouts))
    return {"commits": commits, "bytes_to_fetch": missing} if commits else {}


def layouts(recipe: AlignRecipe) -> tuple[Layout, Layout | None]:
    """The headers of theta_s and of theta_b, where the recipe has one, found to match each other and the policy.

    Raises:
        CheckpointError: one is damaged, or they do not match.
        RecipeError: the policy that theta_s teaches is theta_s.
    """
    sft = open_layout(recipe.sft)
    base = open_layout(recipe.base) if recipe.base is not None else None
    if base is not None:
        match([sft, in_form_of(base, sft)])
    if recipe.policy is not None:
        if recipe.start == recipe.sft:
            raise RecipeError(
                f"policy: {recipe.policy} is the SFT model, which would be taught what it does",
                "give the model that training starts from, one that was aligned",
            )
        match([sft, in_form_of(open_layout(recipe.start), sft)])
    return sft, base


def stored_dtype(layout: Layout) -> str:
    """The dtype that most floating weights of a checkpoint are stored in, as torch names it."""
    sizes: dict[str, int] = {}
    for tensor in layout.tensors.values():
        if tensor.floating:
            sizes[tensor.dtype_name] = sizes.get(tensor.dtype_name, 0) + tensor.numel
    if not sizes:
        raise CheckpointError(f"{layout.name}: no floating-point weights", "give a checkpoint that can be trained")
    return {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}.get(max(sizes, key=lambda name: sizes[name]), "float32")


def check_tokenizer(layout: Layout) -> None:
    """Raises CheckpointError where a model has no tokenizer beside it: nothing could be trained on text."""
    assert layout.place is not None  # it was read from somewhere
    if not {"tokenizer.json", "tokenizer.model", "vocab.json"} & set(layout.place.files()):
        raise CheckpointError(
            f"{layout.name}: no tokenizer (tokenizer.json)",
            "copy the tokenizer's files from the model that it was trained from",
        )


def fingerprint(recipe: AlignRecipe) -> str:
    """The identity of a run: the recipe, and what its models, its rewards and its data hold.

    A partial run is resumed only under the same fingerprint, so that no run is ever made of two; a result is that of the
    recipe only under the same fingerprint. Models are hashed whole, see `mergetool.fingerprints`; hashes of files that have
    not changed are not computed again.

    Raises:
        CheckpointError, DataError, RecipeError: a model, a data file or a reward is missing or cannot be read.
    """
    written = {**recipe.as_written(), "beta": recipe.beta}  # in every one, also where the algorithm has none
    # Where the files lie does not matter, what they hold does: a moved run resumes.
    parts: dict[str, Any] = {
        "recipe": {key: value for key, value in written.items() if key not in ("base_model", "sft_model", "policy", "reward")},
        "models": [None if place is None else checkpoint_identity(place) for place in (recipe.base, recipe.sft)],
        "data": [None if place is None else _rows_identity(place) for place in (recipe.train_data, recipe.eval_data)],
        "rewards": reward_identities(recipe),
    }
    if recipe.policy is not None:
        parts["policy"] = checkpoint_identity(recipe.start)
    if (calibration := recipe.calibrated_on) is not None:
        parts["recipe"].pop("calibration")
        parts["calibration"] = calibration.identity()
    template = template_identity(recipe.training, recipe.directory)
    if template is not None:
        parts["template"] = template
    parts["recipe"]["data"] = {k: v for k, v in written["data"].items() if k not in ("train", "eval")}
    if recipe.merging.rows is not None:
        rows = {key: value for key, value in written["merging"]["rows"].items() if key != "data"}
        parts["recipe"]["merging"] = {**written["merging"], "rows": rows}
        parts["rows"] = recipe.merging.rows.identities(recipe.directory)
    return digest(parts)


def _rows_identity(place: Path | str) -> Any:
    if not isinstance(place, Path):
        return place, data_commit(place)
    try:
        if place.is_file():
            return sha256_of(place)
        return [sha256_of(file) for file in files_of(place)]
    except CheckpointError as error:
        raise DataError(error.message, "check the path in `data:`") from None


def steps_known(config: Any) -> int | None:
    """The optimizer steps of a run, where TRL's config alone says how many; None where it depends on the rows."""
    if config.max_steps >= 0:
        return config.max_steps
    return 0 if config.num_train_epochs == 0 else None


def merges_of(recipe: AlignRecipe, steps: int) -> tuple[int, int]:
    """(K, M): the step distance and the number of merges of a run of `steps` optimizer steps.

    Raises:
        RecipeError: the run is shorter than K, so nothing would ever be merged.
    """
    if recipe.merging.training is None:
        return 1, 0
    every = recipe.merging.every or 1
    gap = max(1, steps) if every == "total" else int(every)
    if gap > steps:
        raise RecipeError(
            f"merging.every: {gap} is more than the run's {steps} steps, so nothing would be merged",
            "lower it, train longer, or write `every: total` to merge once at the end",
        )
    return gap, steps // gap
