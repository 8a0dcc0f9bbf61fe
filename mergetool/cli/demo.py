"""mergetool demo: a study on the embedded triple, through the same code as compare."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mergetool.cli.compare import leave, run_and_report
from mergetool.cli.shell import note


def demo(
    out: Annotated[Path, typer.Argument(help="Directory for results, picture and report.")] = Path("demo-out"),
    fresh: Annotated[bool, typer.Option("--fresh", help="Train and measure everything anew.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")] = False,
) -> None:
    """Measure the alignment tax of a small triple, and what merging does about it: a few minutes on two CPU cores."""
    import os

    from mergetool.config.packaged import recipe_path
    from mergetool.study import load_study_recipe

    path = recipe_path("study", "demo")
    # a model this small gains more from a second candidate at the same time than from a second thread
    workers = max(1, min(4, os.cpu_count() or 1))
    note(f"this is: mergetool compare {path} {out} --workers {workers}")
    leave(run_and_report(load_study_recipe(path), out, fresh, json, workers=workers))
