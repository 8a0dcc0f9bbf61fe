"""mergetool recipes: the ready recipes that come with the package."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from mergetool.cli.completion import recipe_names
from mergetool.cli.shell import echo, emit_json, guarded, note

Name = Annotated[str, typer.Argument(help="kind/name, e.g. merge/linear.", show_default=False, autocompletion=recipe_names)]
_MODELINE = "yaml-language-server: $schema="
app = typer.Typer(no_args_is_help=True, help="List, show or copy the recipes that come with the package.")


def _ls(json: Annotated[bool, typer.Option("--json", help="Print the list as JSON.")] = False) -> None:
    """List the recipes: kind/name and what they are for; a terminal shows one line of each."""
    from mergetool.config.packaged import list_recipes, recipe_path

    found = {f"{kind}/{name}": _purpose(recipe_path(kind, name).read_text()) for kind, name in list_recipes()}
    if json:
        emit_json([{"recipe": name, "purpose": purpose} for name, purpose in found.items()])
        return
    width = max(map(len, found))
    room = shutil.get_terminal_size().columns - width - 2 if sys.stdout.isatty() else None
    for name, purpose in found.items():
        echo(f"{name:{width}}  {_shortened(purpose, room)}")


def _shortened(text: str, room: int | None) -> str:
    """The text, cut at a word where it has more characters than there is room for."""
    if room is None or len(text) <= max(room, 20):
        return text
    return text[: max(room, 20) - 1].rpartition(" ")[0] + "…"


def _purpose(text: str) -> str:
    """The first sentence of a recipe's opening comment, behind the command that runs it."""
    comment = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        comment.append(line.strip("# ").partition("   ")[0])
    words = " ".join(line for line in comment if line and not line.startswith(("mergetool ", _MODELINE)))
    return re.split(r"\. (?=[A-Z])", words)[0].rstrip(".")


def _show(
    name: Name,
) -> None:
    """Print a recipe."""
    echo(_as_copied(_find(name)), nl=False)


def _copy(
    name: Name,
    to: Annotated[Path, typer.Argument(help="A file or directory.")] = Path(),
) -> None:
    """Copy a recipe to edit it."""
    from mergetool.errors import OutputError

    source = _find(name)
    target = to / source.name if to.is_dir() else to
    if target.exists():
        raise OutputError(f"{target}: exists", "choose another name; it is left untouched")
    target.write_text(_as_copied(source))
    for beside in re.findall(r"^reward: *(\w+\.py):", source.read_text(), re.MULTILINE):  # the recipe is nothing without it
        if not (target.parent / beside).exists():
            shutil.copyfile(source.parent / beside, target.parent / beside)
    note(f"now run: mergetool check {target}")
    echo(target)


def _as_copied(recipe: Path) -> str:
    """A recipe's text; the schema that it names for editors lies with the package, wherever the copy goes."""
    schema = re.compile(rf"(?m)^# {re.escape(_MODELINE)}(\S+)$")
    return schema.sub(lambda found: f"# {_MODELINE}{(recipe.parent / found[1]).resolve().as_posix()}", recipe.read_text())


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
