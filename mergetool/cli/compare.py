"""mergetool compare: many candidates through the same metrics, chosen on validation rows, reported on test rows."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mergetool.cli.shell import Settings, echo, emit_json, naming, note, print_table, progress_bar

if TYPE_CHECKING:
    from mergetool.study.analysis.choose import Summary
    from mergetool.study.execution.run import StudyResult
    from mergetool.study.execution.save import Saved
    from mergetool.study.recipe.study_recipe import StudyRecipe


def compare(
    study: Annotated[Path, typer.Argument(help="A study recipe.", show_default=False)],
    out: Annotated[Path, typer.Argument(help="Directory for results, picture and report.", show_default=False)],
    fresh: Annotated[bool, typer.Option("--fresh", help="Train and measure everything anew.")] = False,
    device: Annotated[str | None, typer.Option(help="Where models are measured: cpu, cuda, ...", show_default=False)] = None,
    dtype: Annotated[
        str | None, typer.Option(help="Type that models are measured in; float32 on a CPU.", show_default=False)
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Candidates at a time, each in a process with a model (and a GPU) of its own. Default: 1; with --ray one "
            "for each GPU or node.",
            show_default=False,
        ),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Make candidates on a Ray cluster: auto, HOST:PORT, or local to start one.",
            show_default=False,
        ),
    ] = None,
    save: Annotated[
        str | None,
        typer.Option(
            metavar="best|front|all", help="Write the checkpoints of these candidates to OUT/candidates.", show_default=False
        ),
    ] = None,
    settings: Settings = None,
    json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")] = False,
) -> None:
    """Merge, train and measure every candidate of a study; what is in OUT already is not done again."""
    from mergetool.study import check_study, load_study_recipe

    if save is not None:
        _check_save(save)
    with naming(study):
        recipe = load_study_recipe(study, settings or ())
        found = check_study(recipe)  # a misspelt method should not show after an hour of training
    for suite, benchmarks in found.get("not_run", {}).items():
        note(f"{suite} runs without {'; '.join(benchmarks)}")
    leave(run_and_report(recipe, out, fresh, json, device, dtype, workers, ray, save))


def _check_save(which: str) -> None:
    from mergetool.errors import RecipeError, nearest
    from mergetool.study.execution.save import WHICH

    if which not in WHICH:
        raise RecipeError(f"--save {which} is not known", nearest(which, WHICH))


def run_and_report(
    recipe: StudyRecipe,
    out: Path,
    fresh: bool = False,
    json: bool = False,
    device: str | None = None,
    dtype: str | None = None,
    workers: int | None = None,
    ray: str | None = None,
    save: str | None = None,
) -> StudyResult:
    """Runs a study, writes picture and report, prints the outcome; writes what is to be saved."""
    from mergetool.study import run_study, write_outputs
    from mergetool.study.execution.save import save as save_candidates

    with progress_bar(recipe.name) as update:
        result = run_study(recipe, out, fresh, update, device, dtype, workers, ray)
    paths = write_outputs(recipe, result)
    if json:
        saved = save_candidates(recipe, result, save) if save else []
        emit_json(facts(result, paths, saved))
        return result
    print_summary(result.summary)
    for name, line in result.failures:
        note(f"failed: {name}: {line}")
    if silent := sum(score.get("without_verdict", 0) for row in result.rows for score in _test_scores(row)):
        note(f"{silent} replies of the judge on the test rows held no verdict; their pairs count as ties")
    note(f"{result.ran} of {len(result.rows)} candidates made and measured in {result.seconds:.0f} s")
    for path in paths:
        echo(path)
    for one in save_candidates(recipe, result, save) if save else []:
        note(f"{one.name}: {'written' if one.written else 'there already'}")
        echo(one.path)
    return result


def _test_scores(row: dict[str, Any]) -> list[dict[str, Any]]:
    """A candidate's scores on the test rows; none where it failed."""
    return list(row.get("scores", {}).get("test", {}).values())


def leave(result: StudyResult) -> None:
    """The exit code: 0, or 2 where a candidate failed (1 where that is our bug)."""
    if result.failures:
        note(f"{len(result.failures)} of {len(result.rows)} candidates failed; run again to retry them")
        raise typer.Exit(1 if result.bugs else 2)


def facts(result: StudyResult, paths: list[Path], saved: list[Saved]) -> dict[str, Any]:
    """The outcome for the next program."""
    from dataclasses import asdict

    from mergetool.study.analysis.hypervolume import as_facts
    from mergetool.study.report.choice_words import differences_as_facts

    summary = result.summary
    return {
        "out": str(result.out),
        "files": [str(path) for path in paths],
        "saved": [{"name": one.name, "path": str(one.path), "written": one.written} for one in saved],
        "ran": result.ran,
        "chosen": asdict(summary.choice),
        "front": summary.front,
        "hypervolume": as_facts(summary),
        "against": summary.against,
        "differences": differences_as_facts(summary),
        "without_row_scores": summary.without_rows,
        "rlhf": summary.rlhf,
        "axes": {"reward": summary.reward.name, "tax": summary.tax.name},
        "groups": [
            {
                "name": group.name,
                "family": group.family,
                "settings": group.settings,
                "members": group.members,
                "scores": {
                    split: {name: asdict(score) for name, score in scores.items()} for split, scores in group.scores.items()
                },
            }
            for group in summary.groups
        ],
        "failures": [{"name": name, "error": line} for name, line in result.failures],
    }


def print_summary(summary: Summary) -> None:
    """The table, the differences, what was chosen and how sure that is; warnings come first."""
    from rich.table import Table

    from mergetool.study.analysis.hypervolume import cover_sentence
    from mergetool.study.report.choice_words import certainty, chosen_sentence
    from mergetool.study.report.html_report import shown, tax_sentence

    for warning in summary.choice.warnings:
        typer.echo(f"warning: {warning}")
    table = Table(title="scores on the test rows", title_justify="left", box=None, header_style="bold", pad_edge=False)
    table.add_column("candidate", no_wrap=True)
    table.add_column("seeds", justify="right")
    for column in summary.columns:
        arrow = "↑" if column.metric.higher_is_better else "↓"
        entry, _, name = column.name.rpartition(".")
        table.add_column(f"{entry}\n{name.replace('_', ' ')}\n{column.metric.unit} {arrow}", justify="right")
    table.add_column("")
    family = None
    for group in summary.groups:
        if family not in (None, group.family) and not group.is_model:
            table.add_section()
        family = group.family
        marks = ["RLHF"] if group.name == summary.rlhf != "rlhf" else []
        marks += ["front"] if group.name in summary.front else []
        marks += ["chosen"] if group.name == summary.choice.group else []
        table.add_row(
            group.name,
            str(len(group.members)),
            *(shown(group.scores["test"][column.name]) for column in summary.columns),
            ", ".join(marks),
            style="bold" if "chosen" in marks else None,
        )
    print_table(table)
    print_differences(summary)
    echo("\n" + tax_sentence(summary))
    if sentence := cover_sentence(summary):
        echo(sentence)
    choice = summary.choice
    echo(chosen_sentence(summary))
    for line in certainty(summary):
        echo(line)
    if choice.group:
        group = summary.group(choice.group)
        assert group is not None
        scores = ", ".join(f"{column.name} {shown(group.scores['test'][column.name])}" for column in summary.columns)
        echo(f"On the test rows it has {scores}.")


def print_differences(summary: Summary) -> None:
    """Each candidate against SFT, RLHF and the yardstick on the test rows, paired row by row; nothing without row scores."""
    from rich.table import Table

    from mergetool.study.analysis.doubts import shown
    from mergetool.study.report.choice_words import compared_with, difference_rows

    compared, rows = compared_with(summary), difference_rows(summary)
    if not rows:
        return
    title = "\ndifferences on the test rows, row by row, with 95 % intervals over rows and seeds"
    table = Table(title=title, title_justify="left", box=None, header_style="bold", pad_edge=False)
    table.add_column("candidate", no_wrap=True)
    for _, heading, columns in compared:
        for column in columns:
            table.add_column(
                f"{heading}\n{column.name.rpartition('.')[2].replace('_', ' ')}", justify="right", vertical="bottom"
            )
    for name, cells in rows:
        style = "bold" if name == summary.choice.group else None
        table.add_row(name, *(shown(away) if away else "" for away in cells), style=style)
    print_table(table)
