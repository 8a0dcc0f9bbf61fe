"""mergetool metrics: what can be measured."""

from __future__ import annotations

from typing import Annotated

import typer

from mergetool.cli.shell import echo, emit_json, print_table


def metrics(json: Annotated[bool, typer.Option("--json", help="Print the lists as JSON.")] = False) -> None:
    """List the metrics of evaluate and compare, with the rows that each reads, and the suites of public benchmarks."""
    from mergetool.evaluate import METRICS, SUITES

    rows = [
        {
            "metric": one.name, "side": one.side, "unit": one.unit, "higher_is_better": one.higher_is_better,
            "rows": one.rows, "about": one.about,
        }
        for one in METRICS.values()
    ]  # fmt: skip
    suites = [
        {"suite": name, "tasks": [one.task for one in suite.benchmarks], "source": suite.source}
        for name, suite in SUITES.items()
    ]
    if json:
        emit_json({"metrics": rows, "suites": suites})
        return
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("metric", "side", "unit", "better", "rows", "what it is"):
        table.add_column(column, no_wrap=column == "metric", overflow="fold")
    for row in rows:
        better = "higher" if row["higher_is_better"] else "lower"
        table.add_row(row["metric"], row["side"], row["unit"], better, row["rows"], row["about"])
    print_table(table)
    for suite in suites:
        echo(f"\nsuite {suite['suite']} ({suite['source']}): {', '.join(suite['tasks'])}")
    echo("\nAny task of lm-evaluation-harness too: mergetool evaluate MODEL --tasks TASK; lm-eval ls tasks lists them.")
