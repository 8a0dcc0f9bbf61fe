"""mergetool schema: what a recipe may say, for an editor."""

from __future__ import annotations

from typing import Annotated

import typer

from mergetool.cli.completion import recipe_kinds
from mergetool.cli.shell import emit_json


def schema(
    kind: Annotated[str, typer.Argument(help="merge, align, ama or study.", show_default=False, autocompletion=recipe_kinds)],
) -> None:
    """Print the JSON Schema of a kind of recipe, for completion and checks in an editor."""
    from mergetool.recipe_kinds import schema as made

    emit_json(made(kind))
