"""`training:` in a recipe: any field of TRL's config, told apart, typed and checked before anything is loaded."""

from __future__ import annotations

import dataclasses
import typing
import warnings
from pathlib import Path
from typing import Any

from mergetool.align.algorithm_row import Algorithm
from mergetool.align.beside import located
from mergetool.align.recipe import AlignRecipe
from mergetool.align.refusals import first_line
from mergetool.errors import RecipeError, nearest

# Fields of TRL's that a recipe says elsewhere, or that would break what `align` promises.
ELSEWHERE = {
    "output_dir": "OUT on the command line says where",
    "beta": "write `beta:` at the top of the recipe",
    "optim": "`merging.method` chooses the optimizer",
    "optim_args": "`merging:` holds the optimizer's options",
    "model_init_kwargs": "`dtype:` at the top of the recipe says how the model is loaded",
    "resume_from_checkpoint": "a rerun resumes by itself, and --fresh starts again",
    "push_to_hub": "push the result with `mergetool push`",
    "trust_remote_code": "mergetool runs no code from a model repository",
    "teacher_model_name_or_path": "the SFT model is the teacher",
    "teacher_model_revision": "the SFT model is the teacher",
    "teacher_model_init_kwargs": "`dtype:` at the top of the recipe says how models are loaded",
    "reward_model_path": "write `reward:` at the top of the recipe",
    "auto_find_batch_size": "a changed batch size would change the number of merges; set per_device_train_batch_size",
    "ignore_data_skip": "a resumed run sees the rows that the uninterrupted run would have seen",
    "save_only_model": "a checkpoint without the optimizer's state cannot be resumed",
}


def training_config(recipe: AlignRecipe, output_dir: str | Path, positions: int | None = None) -> Any:
    """TRL's config for a recipe.

    Args:
        recipe: `training` may hold any field of the algorithm's TRL config that is not in ELSEWHERE.
        output_dir: where the trainer keeps its checkpoints.
        positions: the longest sequence that the model can read; None: any.

    Raises:
        RecipeError: a field is unknown (the nearest known one is named), has a value of the wrong kind, or TRL
            refuses it.
    """
    algorithm = recipe.algorithm_row
    config_class = algorithm.config_class()
    given = located(_checked(recipe, config_class), recipe.directory)
    if given.get("report_to", "none") is None:  # YAML's null, which TRL takes for a service of that name
        given["report_to"] = "none"
    clash = sorted(set(given) & set(algorithm.sets))
    if clash:
        raise RecipeError(f"training.{clash[0]}: algorithm {algorithm.name} sets it", "remove it, or change `algorithm:`")
    if recipe.data.max_length is not None:
        if "max_length" in given:
            raise RecipeError("training.max_length: data.max_length is given too", "keep one of them")
        if algorithm.sampling is not None:
            raise RecipeError(
                f"data.max_length: {algorithm.name} cuts no prompt", f"set training.{algorithm.sampling.length} for its answers"
            )
        given["max_length"] = recipe.data.max_length
    values = {**_defaults(given), **_reference(algorithm.config_defaults(), given), **given, **algorithm.sets, **_beta(recipe)}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            config: Any = config_class(**values, output_dir=str(output_dir))
    except (ValueError, TypeError, ImportError, RuntimeError) as error:
        hint = f"see TRL's {config_class.__name__} for what may be combined"
        raise RecipeError(f"training: {first_line(error)}", hint) from None
    if algorithm.samples:
        _saved_between_samplings(config)
    if algorithm.on_policy and updates_per_sampling(config) > 1:
        raise RecipeError(
            f"training.steps_per_generation: {algorithm.name} learns from answers of the policy as it is",
            "leave it out, or make it gradient_accumulation_steps",
        )
    _reported(config)
    _moving(recipe, config)
    if positions is not None:
        _within(algorithm, config, positions, "max_length" in given)
    if recipe.data.eval is not None and not algorithm.evaluates:
        raise RecipeError(
            f"data.eval: TRL's {config_class.__name__.removesuffix('Config')}Trainer cannot be evaluated",
            "remove it, and measure the result with `mergetool evaluate`",
        )
    if recipe.data.eval is None and config.eval_strategy != "no":
        raise RecipeError("training.eval_strategy: there are no rows to evaluate on", "add `data.eval`")
    return config


def _within(algorithm: Algorithm, config: Any, positions: int, given: bool) -> None:
    """Cuts rows where the model's positions end, unless the recipe says where.

    Raises:
        RecipeError: it says so, and too far; or sampled answers alone are longer.
    """
    if hasattr(config, "max_length"):
        if given and (config.max_length is None or config.max_length > positions):
            raise RecipeError(
                f"data.max_length: {config.max_length} tokens, and the model has learned {positions} positions",
                f"give at most {positions}",
            )
        config.max_length = min(config.max_length or positions, positions)
    field = algorithm.sampling.length if algorithm.sampling is not None else "max_completion_length"
    answers = getattr(config, field, None)
    if answers is not None and answers >= positions:
        raise RecipeError(
            f"training.{field}: {answers} tokens, and the model has learned {positions} positions",
            f"give less than {positions}, so that a prompt fits before the answer",
        )


def _reported(config: Any) -> None:
    """Raises RecipeError where `report_to` names what is not installed: its callback would say so after the models are read."""
    from transformers.integrations.integration_utils import get_available_reporting_integrations

    here = get_available_reporting_integrations()
    for name in [config.report_to] if isinstance(config.report_to, str) else config.report_to or []:
        if name not in here:
            raise RecipeError(f"training.report_to: {name} is not installed", f"pip install {name}, or remove the field")


def _moving(recipe: AlignRecipe, config: Any) -> None:
    """Raises RecipeError where TRL's reference is to move along and there is none that could."""
    if not getattr(config, "sync_ref_model", False):
        return
    field, baseline = "training.sync_ref_model", recipe.merging.baseline
    if getattr(config, "precompute_ref_log_probs", False):
        raise RecipeError(f"{field}: precompute_ref_log_probs scores the rows once, with a reference that stays", "keep one")
    if config.beta == 0:
        raise RecipeError(f"{field}: without a KL term there is no reference", "give `beta:` at the top of the recipe")
    if baseline is not None and baseline.adapter is not None:
        raise RecipeError(f"{field}: the reference of {baseline.name} is the model without its adapter", "remove the field")


def smallest_batch(algorithm: Algorithm, config: Any) -> int:
    """Rows that the training data must have for a first batch; 1 where an incomplete batch is trained on."""
    if algorithm.sampling is not None and algorithm.sampling.in_wholes:  # a sampling is never of fewer prompts
        answers = getattr(config, "generation_batch_size", None)
        answers = answers or config.train_batch_size * max(1, config.world_size) * config.gradient_accumulation_steps
        return max(1, answers // getattr(config, "num_generations", 1))
    return config.train_batch_size * max(1, config.world_size) if config.dataloader_drop_last else 1


def check_batch(algorithm: Algorithm, config: Any, rows: int) -> None:
    """Raises RecipeError where there are fewer rows than the first batch needs, so that nothing would be trained on."""
    needed = smallest_batch(algorithm, config)
    if rows < needed:
        sampled = "num_generations" if hasattr(config, "num_generations") else "gradient_accumulation_steps"
        field = sampled if algorithm.samples else "dataloader_drop_last"
        raise RecipeError(
            f"training.{field}: a batch needs {needed} rows, and there are {rows}",
            "lower per_device_train_batch_size, or give more rows",
        )


def _beta(recipe: AlignRecipe) -> dict[str, float]:
    """The recipe's `beta`, where the algorithm has one.

    Raises:
        RecipeError: it has none, and the recipe gives one.
    """
    use, written = recipe.algorithm_row.beta, "beta" in recipe.model_fields_set
    if use is None and written:  # nothing to be pulled to
        raise RecipeError(f"beta: algorithm {recipe.algorithm} has no reference model", "remove it")
    return {"beta": recipe.beta} if use == "always" or written else {}


def updates_per_sampling(config: Any) -> int:
    """Optimizer steps that TRL takes on one sampling of answers; 1 for algorithms that sample none."""
    reused = getattr(config, "steps_per_generation", 1) * getattr(config, "num_iterations", 1)
    return max(1, reused // config.gradient_accumulation_steps) if hasattr(config, "steps_per_generation") else 1


def _saved_between_samplings(config: Any) -> None:
    """Answers under way are in no checkpoint, so one that is saved in their midst would not resume to the same run."""
    updates = updates_per_sampling(config)
    if config.save_strategy == "steps" and config.save_steps % updates:
        raise RecipeError(
            f"training.save_steps: answers are sampled every {updates} steps, and {config.save_steps:g} is no multiple of it",
            f"set save_steps to a multiple of {updates}",
        )


def _defaults(given: dict[str, Any]) -> dict[str, Any]:
    """Where ours differ from TRL's; anything in the recipe wins.

    TRL turns on bf16 autocast and gradient checkpointing everywhere; on a CPU both only cost time.
    """
    import torch

    on_gpu = torch.cuda.is_available() and not given.get("use_cpu", False)
    return {
        "bf16": on_gpu and torch.cuda.is_bf16_supported() and not given.get("fp16", False),
        "gradient_checkpointing": on_gpu,
        "report_to": "none",
        "disable_tqdm": True,  # progress is the command line's business
        "save_total_limit": 2,  # two, so that a kill while one is rotated away leaves another
        "logging_nan_inf_filter": False,
        "dataloader_pin_memory": on_gpu,
        "ddp_find_unused_parameters": False,  # every weight of a causal language model has a gradient
    }


def _reference(defaults: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """An algorithm's defaults; a reference that moves is not scored once for all."""
    scored = "precompute_ref_log_probs"
    return {**defaults, scored: False} if given.get("sync_ref_model") and scored in defaults else defaults


def _checked(recipe: AlignRecipe, config_class: type) -> dict[str, Any]:
    fields = {field.name for field in dataclasses.fields(config_class) if field.init}
    unknown = sorted(set(recipe.training) - fields)
    if unknown:
        open_fields = fields - set(ELSEWHERE)
        raise RecipeError(
            f"training.{unknown[0]}: no field of TRL's {config_class.__name__}",
            nearest(unknown[0], open_fields)
            if _close(unknown[0], open_fields)
            else f"https://huggingface.co/docs/trl lists the fields of {config_class.__name__}",
        )
    for key in recipe.training:
        if key in ELSEWHERE:
            raise RecipeError(f"training.{key}: not set here", ELSEWHERE[key])
    hints = typing.get_type_hints(config_class)
    return {key: _typed(key, value, hints.get(key, Any)) for key, value in recipe.training.items()}


def _close(word: str, known: set[str]) -> bool:
    return nearest(word, known).startswith("did you mean")


def _typed(key: str, value: Any, hint: Any) -> Any:
    """The value as the field's own annotation reads it: dataclasses check nothing themselves."""
    from pydantic import ConfigDict, PydanticSchemaGenerationError, TypeAdapter, ValidationError

    try:
        adapter = TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True))
    except (PydanticSchemaGenerationError, TypeError):
        return value  # a type that pydantic does not know; TRL's own checks follow
    if isinstance(value, str) and typing.get_origin(hint) is list:
        value = [value]  # `loss_type: hinge`, which TRL takes too
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]["msg"].removeprefix("Input ").split(",")[0]
        raise RecipeError(f"training.{key}: {problem}, not {value!r}", f"the field is {_spelled(hint)}") from None


def _spelled(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")
