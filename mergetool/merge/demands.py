"""What a method demands of a recipe, and what of the recipe it does not read."""

from __future__ import annotations

from mergetool.errors import RecipeError, nearest
from mergetool.merge.dialect import PARAMETERS
from mergetool.merge.recipe import MergeRecipe
from mergetool.methods import METHODS, Method

_CALIBRATED = " or ".join(sorted(name for name, method in METHODS.items() if method.consensus.calibrated))


def must_suit(method: Method, one: MergeRecipe, recipe: MergeRecipe | None = None) -> list[str]:
    """Refuse what the method cannot do.

    Args:
        method: of the recipe.
        one: a recipe in models form.
        recipe: the whole one, where `one` is a slice or a module of it.

    Returns:
        A line on parameters that the method does not read, though mergekit knows them; or none.

    Raises:
        RecipeError: something lacks, is too many, or has no meaning for the method.
    """
    part, recipe = recipe is not None, recipe or one
    if method.needs_base and not one.base_model:
        raise RecipeError(f"merge_method {method.name} needs base_model", "add `base_model:` to the recipe")
    if method.projects and recipe.calibration is None:
        raise RecipeError(
            f"merge_method {method.name} needs to know what should stay",
            "add `calibration: {data: ROWS}`, or the path of a file of mergetool calibrate",
        )
    _must_have_calibrations(method, one, recipe)
    if recipe.calibrated and part:
        raise RecipeError(
            "slices and modules: a calibration is of a whole model, whose layers are where they are", "merge first, then slice"
        )
    if method.merges_models(one.base_model):
        relative = next((i for i, m in enumerate(one.models) if m.relative_to), None)
        if relative is not None:
            raise RecipeError(
                f"models[{relative}].relative_to has no meaning for {method.name}, which merges models, not deltas",
                "remove it, or use task_arithmetic, ties or a dare method",
            )
    others = [m for m in one.models if m.relative_to or m.model != one.base_model]
    if method.consensus.pair:
        if len({m.model for m in others}) != 1:
            raise RecipeError(
                f"{method.name} takes base_model and one other model, found {len({m.model for m in others})} others",
                "list exactly two",
            )
    else:
        count = len(one.models if method.merges_models(one.base_model) else others)
        least, most = method.consensus.models
        if count < least or (most is not None and count > most):
            wanted = f"{least}" if least == most else f"at least {least}" if most is None else f"{least} to {most}"
            beside = " beside base_model" if one.base_model else ""
            noun = "model" if most == 1 else "models"
            raise RecipeError(f"{method.name} takes {wanted} {noun}{beside}, found {count}", "list as many under `models:`")
    unread: dict[str, None] = {}
    places = [("parameters", one.parameters)]
    places += [(f"models[{i}].parameters", m.parameters) for i, m in enumerate(one.models)]
    for place, parameters in places:
        for name in parameters:
            if name in PARAMETERS - method.parameters:
                unread[name] = None
            elif name not in method.parameters:
                raise RecipeError(f"{place}.{name}: {method.name} has no parameter '{name}'", nearest(name, method.parameters))
    return [f"{method.name} does not read {', '.join(unread)}: left out"] if unread else []


def _must_have_calibrations(method: Method, one: MergeRecipe, recipe: MergeRecipe) -> None:
    """Refuse calibrations that lack, are too many, or have no meaning for the method."""
    own = [i for i, model in enumerate(one.models) if model.calibration is not None]
    shared = recipe.calibration if method.consensus.calibrated and len(own) < len(one.models) else None
    if shared is not None and shared.file is not None:
        raise RecipeError(
            f"calibration: {shared.file}: merge_method {method.name} reads one of each model, and a file is of one model",
            "give rows (`calibration: {data: ROWS}`), or a file beside each `model:`",
        )
    if method.consensus.calibrated and len(own) < len(one.models) and shared is None:
        lacking = next(i for i in range(len(one.models)) if i not in own)
        raise RecipeError(
            f"merge_method {method.name} needs to know what each model reads, and models[{lacking}] has no calibration",
            "add `calibration: {data: ROWS}` beside `model:`, rows of what that model is good at, or once for all models",
        )
    if own and not method.consensus.calibrated:
        raise RecipeError(
            f"models[{own[0]}].calibration has no meaning for {method.name}", f"remove it, or use merge_method: {_CALIBRATED}"
        )
    if recipe.calibration is not None and shared is None and not method.projects:
        hint = (
            "each model has its own: remove it" if method.consensus.calibrated else "remove it, or use merge_method: null_space"
        )
        raise RecipeError(f"calibration has no meaning for {method.name}", hint)
