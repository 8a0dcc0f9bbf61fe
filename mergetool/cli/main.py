"""The program's entry: which command runs what."""

from __future__ import annotations

import atexit
import contextlib
import gc
import io
import os
import sys
import traceback
from typing import Annotated

import typer

from mergetool.cli import (
    align,
    ama,
    calibrate,
    check,
    compare,
    demo,
    env,
    evaluate,
    extract,
    inspect,
    merge,
    methods,
    metrics,
    pick,
    push,
    recipes,
    schema,
)
from mergetool.cli.shell import guarded
from mergetool.errors import without_tokens
from mergetool.version import __version__

app = typer.Typer(
    name="mergetool",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Merge base, SFT and RLHF checkpoints, offline or inside the optimizer, and see what each costs and gains.",
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"mergetool {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    # transformers and datasets draw bars and warnings of their own over ours
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


for command in (
    demo.demo, pick.pick, pick.init, merge.merge, extract.extract, align.align, compare.compare, ama.ama, calibrate.calibrate,
    evaluate.evaluate, check.check, inspect.inspect, push.push, methods.methods, metrics.metrics, schema.schema, env.env,
):  # fmt: skip
    app.command()(guarded(command))
app.add_typer(recipes.app, name="recipes")


def main() -> None:
    """Entry point of the `mergetool` program."""
    # importing torch makes some million objects that live to the end; to walk them again and again while it goes on, and
    # once more at the exit, costs a third of the start
    gc.set_threshold(100_000, 20, 100)
    atexit.register(gc.freeze)
    os.environ["PYTHONSAFEPATH"] = "1"  # of the programs that are started from here: none imports from the working directory
    for stream in (sys.stdout, sys.stderr):  # a terminal or a pipe that is not UTF-8 is shown \u2013 for what it cannot show
        if isinstance(stream, io.TextIOWrapper):
            with contextlib.suppress(OSError):
                stream.reconfigure(errors="backslashreplace")
    try:
        app(prog_name="mergetool")  # also under `python -m mergetool`
    except Exception:  # a bug of ours: its traceback may hold what a library put into its message
        sys.stderr.write(without_tokens(traceback.format_exc()))
        sys.exit(1)


if __name__ == "__main__":
    main()
