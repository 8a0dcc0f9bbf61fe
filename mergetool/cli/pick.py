"""mergetool pick: two models or more and a file of what must work in, a chosen and written merge out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mergetool.cli.compare import facts, leave, print_summary
from mergetool.cli.shell import emit_json, note, progress_bar

if TYPE_CHECKING:
    from mergetool.study.pick.pick import Picked

Models = Annotated[
    list[str],
    typer.Argument(
        help="Two or more: directories, lab:NAME or Hub ids. The first is what a merge stays near to.", show_default=False
    ),
]
Tasks = Annotated[
    list[str],
    typer.Option(
        "--task",
        help="Rows of what must work (FILE or FILE:METRIC), or a task of lm-evaluation-harness; may be repeated.",
        show_default=False,
    ),
]
Base = Annotated[
    str | None, typer.Option(help="What the models were trained from: for ties, dare and sums.", show_default=False)
]
Stay = Annotated[
    str | None,
    typer.Option(help="Rows whose outputs must stay as the first model's: for null_space.", show_default=False),
]
Limit = Annotated[int | None, typer.Option(min=2, help="Rows of each half of a task at most.", show_default="500")]


def pick(
    models: Models,
    tasks: Tasks,
    base: Base = None,
    stay: Stay = None,
    budget: Annotated[str, typer.Option(help="Time to plan for: 10m, 90s, 1h. Rows and candidates are cut to it.")] = "10m",
    write: Annotated[Path, typer.Option(help="Directory for model/, its recipe, the study and the report.")] = Path("pick-out"),
    limit: Limit = None,
    device: Annotated[str | None, typer.Option(help="Where models are measured: cpu, cuda, ...", show_default=False)] = None,
    dtype: Annotated[
        str | None, typer.Option(help="Type that models are measured in; float32 on a CPU.", show_default=False)
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")] = False,
) -> None:
    """Choose a merge of models for tasks, within a time, and write it: checkpoint, recipe, report."""
    from mergetool.study.pick.budget import seconds_of
    from mergetool.study.pick.pick import pick as run

    seconds = seconds_of(budget)
    with progress_bar("pick") as update:
        found = run(
            models, tasks, write, base=base, stay=stay, budget=seconds, limit=limit, device=device, dtype=dtype, progress=update
        )
    if json:
        emit_json({**facts(found.result, found.files, []), **_facts(found)})
    else:
        _print(found, models, seconds)
    leave(found.result)


def init(
    models: Models,
    tasks: Tasks,
    base: Base = None,
    stay: Stay = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="The file to write.", show_default="standard output")] = None,
    limit: Limit = None,
) -> None:
    """Write the study that pick would run, as YAML with comments: to be changed, and run by compare."""
    from mergetool.errors import OutputError
    from mergetool.study import check_study
    from mergetool.study.pick.template import as_yaml, study_of
    from mergetool.study.recipe.study_recipe import make_study

    if out is not None and out.exists():
        raise OutputError(f"{out}: exists", "choose another name; it is left untouched")
    study = study_of(models, tasks, base, stay, Path.cwd(), limit)
    check_study(make_study(study, "init"))
    name = out or Path("study.yaml")
    text = as_yaml(study, f"mergetool compare {name} OUT --save best\n\nWritten by mergetool init; every key: docs/compare.md")
    if out is None:
        typer.echo(text, nl=False)
        return
    out.write_text(text, encoding="utf-8")
    note(f"now run: mergetool compare {out} OUT --save best")
    typer.echo(out)


def _facts(found: Picked) -> dict[str, Any]:
    dropped = found.halving.dropped if found.halving else {}
    return {
        "model": str(found.model) if found.model is not None else None,
        "plan": found.plan.written(),
        "dropped": [{"name": name, "rows": rows, "share": share} for name, (rows, share) in dropped.items()],
        "seconds": round(found.seconds, 1),
    }


def _print(found: Picked, models: list[str], budget: float) -> None:
    from mergetool.study.pick.pick import halving_notes

    called = ["sft", "rlhf", *found.recipe.select.inputs]
    for name, model in zip(called, models, strict=True):
        note(f"{name} is {model}")
    print_summary(found.result.summary)
    for name, line in found.result.failures:
        note(f"failed: {name}: {line}")
    for line in halving_notes(found.plan, found.halving):
        note(line)
    chosen = found.result.summary.group(found.result.summary.choice.group or "")
    if chosen is not None and (chosen.is_model or chosen.name in called):
        note("no merge was found to be better at these tasks than this input; what another is there for, name as a --task too")
    note(f"took {found.seconds:.0f} s of {budget:.0f}")
    for path in found.files:
        typer.echo(path)
    if found.model is not None:
        typer.echo(found.model)
