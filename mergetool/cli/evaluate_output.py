"""What `mergetool evaluate` prints and writes: a table a model, differences from the first, results.json, samples.jsonl."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from mergetool.cli.shell import note

if TYPE_CHECKING:
    from mergetool.evaluate.paired import Difference

Scores = dict[str, dict[str, Any]]
BY_ROW = ("rows", "clusters", "answers", "prompts")
"""Of a score: what has an entry a row."""


def without_rows(scores: Scores) -> Scores:
    """The scores alone."""
    return {name: {key: value for key, value in score.items() if key not in BY_ROW} for name, score in scores.items()}


def differences(first: Scores, other: Scores) -> dict[str, Difference]:
    """Each metric of `other` less that of `first`, on the same rows; those that are no statistic of rows are left out."""
    from mergetool.evaluate import METRICS
    from mergetool.evaluate.paired import difference, over_draws

    found = {}
    for name, score in other.items():
        theirs = first.get(name)
        if theirs is None or "rows" not in score or len(score["rows"][0]) != len(theirs["rows"][0]):
            continue
        entry, _, metric = name.rpartition(".")
        statistic = METRICS[metric].statistic if metric in METRICS else "ratio"
        one, two = (over_draws([held["rows"]], statistic, held.get("clusters"), entry) for held in (score, theirs))
        found[name] = difference(one, two)
    return found


def as_facts(found: dict[str, Scores]) -> dict[str, Any]:
    """For the next program: one model as ever, several as a list with their differences from the first."""
    from dataclasses import asdict

    each = [{"model": model, "scores": without_rows(scores)} for model, scores in found.items()]
    if len(each) == 1:
        return each[0]
    first, *others = found
    away = {model: {name: asdict(one) for name, one in differences(found[first], found[model]).items()} for model in others}
    return {"models": each, "differences_from": first, "differences": away}


def write(found: dict[str, Scores], out: Path, samples: bool) -> list[Path]:
    """results.json, and samples.jsonl: a line for each answer that a metric read."""
    out.mkdir(parents=True, exist_ok=True)
    paths = [out / "results.json"]
    paths[0].write_text(json.dumps(as_facts(found), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    if samples:
        paths.append(out / "samples.jsonl")
        lines = [json.dumps(line, ensure_ascii=False) for model, scores in found.items() for line in _samples(model, scores)]
        paths[1].write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return paths


def _samples(model: str, scores: Scores) -> list[dict[str, Any]]:
    return [
        {"model": model, "metric": name, "row": at, "prompt": prompt, "answer": answer, "score": value / (weight or 1.0)}
        for name, score in scores.items()
        if "answers" in score
        for at, (prompt, answer, value, weight) in enumerate(
            zip(score["prompts"], score["answers"], *score["rows"][:2], strict=True)
        )
    ]


def print_scores(model: str, scores: Scores) -> None:
    """One model's table, and what to know of it."""
    from rich.table import Table

    from mergetool.cli.compare import print_table

    table = Table(title=model, title_justify="left", box=None, header_style="bold", pad_edge=False)
    for name in ("metric", "value", "95 % over rows", "rows", "unit", "better"):
        table.add_column(name, justify="right" if name in ("value", "95 % over rows", "rows") else "left")
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
    for name, score in scores.items():
        if score.get("without_verdict"):
            note(f"{name}: {score['without_verdict']} replies of the judge held no verdict; their pairs count as ties")


def print_differences(found: dict[str, Scores]) -> None:
    """Every further model less the first, metric by metric."""
    from rich.table import Table

    from mergetool.cli.compare import print_table

    first, *others = found
    table = Table(title=f"less {first}, row by row", title_justify="left", box=None, header_style="bold", pad_edge=False)
    for name in ("model", "metric", "difference", "95 % over rows"):
        table.add_column(name, justify="left" if name in ("model", "metric") else "right")
    for model in others:
        for name, away in differences(found[first], found[model]).items():
            table.add_row(model, name, f"{away.mean:+.4f}", f"{away.low:+.4f} to {away.high:+.4f}")
    if table.row_count:
        typer.echo()
        print_table(table)
