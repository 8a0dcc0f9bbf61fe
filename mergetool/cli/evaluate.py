"""mergetool evaluate: reward and tax of one model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mergetool.cli.shell import emit_json, note


def evaluate(
    model: Annotated[str, typer.Argument(help="A checkpoint directory, lab:NAME or a Hub id.", show_default=False)],
    reward: Annotated[str | None, typer.Option(help="Preference pairs; needs --reference.", show_default=False)] = None,
    reference: Annotated[
        str | None, typer.Option(help="The SFT model that rewards are relative to.", show_default=False)
    ] = None,
    tax: Annotated[
        list[str] | None, typer.Option(help="Prompts and completions, or text; may be repeated.", show_default=False)
    ] = None,
    tasks: Annotated[
        str | None, typer.Option(help="Metrics, separated by commas; default: all that the data allow.", show_default=False)
    ] = None,
    beta: Annotated[float, typer.Option(help="Scale of the reward margin.")] = 0.1,
    limit: Annotated[int | None, typer.Option(min=1, help="Use no more rows than this.", show_default=False)] = None,
    max_length: Annotated[int, typer.Option(min=2, help="Tokens of prompt and completion together.")] = 1024,
    max_new_tokens: Annotated[int | None, typer.Option(min=1, help="Limit of a greedy answer.", show_default=False)] = None,
    template: Annotated[str, typer.Option(help="Prompt text; {prompt} is the row's own.")] = "{prompt}",
    chat: Annotated[bool, typer.Option("--chat", help="Put prompts through the chat template.")] = False,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, ...", show_default=False)] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the metrics as JSON.")] = False,
) -> None:
    """Measure one model: implicit reward on preference pairs, and nll and exact match on task text."""
    from mergetool.errors import RecipeError
    from mergetool.sources import resolve_source

    if not reward and not tax:
        raise RecipeError("nothing to measure", "give --reward PAIRS with --reference SFT, or --tax FILE")
    if reward and not reference:
        raise RecipeError("--reward needs --reference", "give the SFT model that the reward is relative to")
    limits = {"max_length": max_length, "max_new_tokens": max_new_tokens, "template": template, "chat": chat}
    asked = _tasks(reward, tax or [], tasks, limit, beta, limits)
    from mergetool.evaluate import evaluate as run

    here = Path.cwd()
    judge = resolve_source(reference, here) if reference else None
    found = run(resolve_source(model, here), asked, judge, device=device)
    shown = {name: {key: value for key, value in score.items() if key != "rows"} for name, score in found.items()}
    if json:
        emit_json({"model": model, "scores": shown})
        return
    _print(model, shown)


def _tasks(
    reward: str | None, tax: list[str], tasks: str | None, limit: int | None, beta: float, limits: dict[str, Any]
) -> list:
    """One task per data file, with the metrics that are asked for and that its rows allow."""
    from mergetool.data import completions, preference_rows
    from mergetool.errors import RecipeError
    from mergetool.evaluate import METRICS, Task
    from mergetool.evaluate.metrics import metric

    wanted = [metric(name.strip(), "--tasks").name for name in tasks.split(",")] if tasks else list(METRICS)
    found = []
    if reward:
        rows, counts = preference_rows(reward, limit)
        note(f"{reward}: {counts}")
        names = tuple(name for name in wanted if METRICS[name].rows == "preferences")
        found += [Task(_name(reward), names, rows, beta=beta, **limits)] if names else []
    for file in tax:
        rows = completions(file, limit)
        names = tuple(
            name
            for name in wanted
            if METRICS[name].rows == "completions"
            and (METRICS[name].needs != "greedy_hits" or tasks or all(row["prompt"] for row in rows))
        )
        found += [Task(_name(file), names, rows, **limits)] if names else []
    if not found:
        raise RecipeError(f"--tasks {tasks}: none of these can be taken on the data given", "add --reward or --tax")
    if len({task.name for task in found}) < len(found):
        found = [Task(**{**vars(task), "name": f"{task.name}#{at}"}) for at, task in enumerate(found, 1)]
    return found


def _name(source: str) -> str:
    return Path(source.removeprefix("lab:")).name.partition(".")[0]


def _print(model: str, scores: dict[str, dict[str, Any]]) -> None:
    from rich.table import Table

    from mergetool.cli.compare import print_table

    table = Table(title=model, title_justify="left", box=None, header_style="bold", pad_edge=False)
    for name, justify in (
        ("metric", "left"),
        ("value", "right"),
        ("95 % over rows", "right"),
        ("rows", "right"),
        ("unit", "left"),
        ("better", "left"),
    ):
        table.add_column(name, justify=justify)
    for name, score in scores.items():
        table.add_row(
            name,
            f"{score['value']:.4f}",
            f"{score['low']:.4f} to {score['high']:.4f}",
            str(score["n"]),
            score["unit"],
            "higher" if score["higher_is_better"] else "lower",
        )
    print_table(table)
    for left_out in {score["left_out"] for score in scores.values() if score["left_out"]}:
        note(f"{left_out} rows left out: their prompt alone fills max_length")
