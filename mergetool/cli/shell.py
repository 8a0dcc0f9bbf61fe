"""What every command shares: errors as one line, progress bars, numbers for people."""

from __future__ import annotations

import functools
import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from mergetool.errors import MergetoolError, RecipeError, explained, plain

if TYPE_CHECKING:
    from rich.table import Table

Settings: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Set a value of the recipe, e.g. training.learning_rate=1e-5. May be repeated.",
        show_default=False,
    ),
]


def guarded(command: Callable[..., Any]) -> Callable[..., Any]:
    """Turn the user's errors into one line and exit code 2, an interruption into 130; a bug keeps its traceback."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except BrokenPipeError:  # the reader of our output has gone; that is its business
            sys.stderr.close()
            raise typer.Exit(141) from None
        except KeyboardInterrupt:
            typer.echo("mergetool: interrupted; run the same command again to go on from what is on disk", err=True)
            raise typer.Exit(130) from None
        except Exception as error:
            known = explained(error)
            if known is None:
                raise
            typer.echo(f"mergetool: {known}", err=True)
            raise typer.Exit(2) from None

    return run


@contextmanager
def naming(recipe: Path) -> Iterator[None]:
    """Errors about what a recipe says name the recipe's file, also where they show only in its plan."""
    try:
        yield
    except RecipeError as error:
        if error.message.startswith((str(recipe), recipe.name, "--")):
            raise
        raise RecipeError(f"{recipe}: {error.message}", error.hint) from None


def echo(text: object, nl: bool = True) -> None:
    """A line of a command's answer; what would steer the terminal is written out."""
    typer.echo(plain(str(text)), nl=nl)


def note(text: str) -> None:
    """A line for the person at the terminal."""
    typer.echo(plain(text), err=True)


def print_table(table: Table) -> None:
    """A table to stdout, uncut where that is a file or a pipe, which have no width; brackets in a name are no markup."""
    from rich.console import Console

    console = Console(markup=False, emoji=False, highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, 160)
    console.print(table)


def emit_json(value: Any) -> None:
    """Data for the next program."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    typer.echo(re.sub(r"[\x7f-\x9f]", lambda found: f"\\u{ord(found[0]):04x}", text))


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int, str], None]]:
    """A bar on stderr, off where stderr is no terminal. Yields ``update(done, total, label)``."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = [TextColumn(what), BarColumn(), TextColumn("{task.percentage:>3.0f}%"), TimeRemainingColumn()]
    columns.append(TextColumn("{task.fields[label]}", markup=False))
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None, label="")

        def update(done: int, total: int, label: str) -> None:
            bar.update(task, completed=done, total=total, label=plain(label))

        yield update


def tell_adapter(manifest: dict[str, Any]) -> None:
    """What an adapter holds of a change."""
    facts = manifest["adapter"]
    note(f"  adapter of {facts['base']}: {facts['layers']} layers of rank {facts['rank']} at most")
    note(f"  keeps {facts['norm_kept']:.4f} of the norm of the change; the least of a layer {facts['least_norm_kept']:.4f}")
    if whole := facts["saved_whole"]:
        note(f"  saved whole: {', '.join(whole[:5])}" + (f" and {len(whole) - 5} more" if len(whole) > 5 else ""))
    for warning in manifest["warnings"]:
        note(f"warning: {warning}")


def size(count: float, unit: str = "B") -> str:
    """1234567 -> '1.2 MB'."""
    for prefix in ("", "k", "M", "G", "T"):
        if abs(count) < 1000 or prefix == "T":
            return f"{count:.3g} {prefix}{unit}"
        count /= 1000
    raise AssertionError  # the loop always returns


def parse_size(text: str, option: str) -> int:
    """'5GB', '500MB' or a number of bytes -> bytes."""
    units = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
    digits = text.strip().upper()
    number = digits.rstrip("KMGIB ")
    try:
        value = int(float(number) * units[digits[len(number) :].strip()])
    except (KeyError, ValueError):
        value = 0
    if value <= 0:
        raise MergetoolError(f"{option} {text!r} is not a size", "write it as 5GB, 500MB or a number of bytes")
    return value
