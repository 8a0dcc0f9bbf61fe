"""mergetool recipes: the ready recipes that come with the package."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Annotated

import typer

from mergetool.cli.shell import echo, guarded, note

app = typer.Typer(no_args_is_help=True, help="List, show or copy the recipes that come with the package.")


def _ls() -> None:
    """List the recipes: kind/name and what they are for."""
    from mergetool.config.packaged import list_recipes, recipe_path

    names = [f"{kind}/{name}" for kind, name in list_recipes()]
    for (kind, name), shown in zip(list_recipes(), names, strict=True):
        echo(f"{shown:{max(map(len, names))}}  {_purpose(recipe_path(kind, name).read_text())}")


def _purpose(text: str) -> str:
    """The first sentence of a recipe's opening comment, behind the command that runs it."""
    comment = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        comment.append(line.strip("# ").partition("   ")[0])
    words = " ".join(line for line in comment if line and not line.startswith("mergetool "))
    return re.split(r"\. (?=[A-Z])", words)[0].rstrip(".")


def _show(name: Annotated[str, typer.Argument(help="kind/name, e.g. merge/linear.", show_default=False)]) -> None:
    """Print a recipe."""
    echo(_find(name).read_text(), nl=False)


def _copy(
    name: Annotated[str, typer.Argument(help="kind/name, e.g. merge/linear.", show_default=False)],
    to: Annotated[Path, typer.Argument(help="A file or directory.")] = Path(),
) -> None:
    """Copy a recipe to edit it."""
    from mergetool.errors import OutputError

    source = _find(name)
    target = to / source.name if to.is_dir() else to
    if target.exists():
        raise OutputError(f"{target}: exists", "choose another name; it is left untouched")
    shutil.copyfile(source, target)
    for beside in re.findall(r"^reward: *(\w+\.py):", source.read_text(), re.MULTILINE):  # the recipe is nothing without it
        if not (target.parent / beside).exists():
            shutil.copyfile(source.parent / beside, target.parent / beside)
    note(f"now run: mergetool check {target}")
    echo(target)


def _find(name: str) -> Path:
    from mergetool.config.packaged import list_recipes, recipe_path
    from mergetool.errors import RecipeError, nearest

    known = [f"{kind}/{one}" for kind, one in list_recipes()]
    if name not in known:
        raise RecipeError(f"no recipe '{name}'", nearest(name, known))
    return recipe_path(*name.split("/", 1))


app.command("ls")(guarded(_ls))
app.command("show")(guarded(_show))
app.command("copy")(guarded(_copy))
