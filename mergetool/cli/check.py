"""mergetool check: everything about a recipe that can be known without weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mergetool.cli.shell import emit_json, naming, size


def check(
    recipe: Annotated[Path, typer.Argument(help="A merge, align, AMA or study recipe.", show_default=False)],
    json: Annotated[bool, typer.Option("--json", help="Print what was found as JSON.")] = False,
) -> None:
    """Check a recipe from headers alone: exit 0, or 2 and one line."""
    from mergetool.merge.recipe_source import recipe_source

    kind = _kind(recipe_source(str(recipe)).content, recipe)
    with naming(recipe):
        facts = {"merge": _merge, "align": _align, "ama": _ama, "study": _study}[kind](recipe)
    if json:
        emit_json({"recipe": str(recipe), "kind": kind, **facts})
        return
    typer.echo(f"{recipe}: a valid {kind} recipe")
    for key, value in facts.items():
        typer.echo(f"  {key.replace('_', ' ')}: {size(value) if key.startswith('bytes_') else _shown(value)}")


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{key} {_shown(inner)}" for key, inner in value.items())
    return ", ".join(map(_shown, value)) if isinstance(value, (list, tuple)) else str(value)


def _kind(content: dict[str, Any], recipe: Path) -> str:
    """Which of the four languages a recipe is written in, by the key that each must have."""
    from mergetool.errors import RecipeError, nearest

    marks = {"merge_method": "merge", "models": "merge", "slices": "merge", "sft_model": "align", "merging": "align"}
    marks |= {"algorithm": "align", "data": "align", "training": "align"}
    if "candidates" in content:
        return "study"
    if "rlhf_model" in content:
        return "ama"
    found = [kind for key, kind in marks.items() if key in content]
    if not found:
        first = next(iter(content), "")
        raise RecipeError(
            f"{recipe}: neither merge_method, nor sft_model, nor candidates is given",
            f"'{first}': " + nearest(str(first), [*marks, "candidates"]),
        )
    return found[0]


def _merge(recipe: Path) -> dict[str, Any]:
    from mergetool.merge import load_merge_recipe, plan_merge
    from mergetool.merge.describe import describe

    return describe(plan_merge(load_merge_recipe(recipe)))


def _align(recipe: Path) -> dict[str, Any]:
    from mergetool.align import check_align, load_align_recipe

    return dict(check_align(load_align_recipe(recipe)))


def _ama(recipe: Path) -> dict[str, Any]:
    from mergetool.ama import check_ama, load_ama_recipe

    return check_ama(load_ama_recipe(recipe))


def _study(recipe: Path) -> dict[str, Any]:
    from mergetool.study import check_study, load_study_recipe

    return dict(check_study(load_study_recipe(recipe)))
