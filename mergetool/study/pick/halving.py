"""Successive halving on rows: all candidates on a few validation rows, the better half on twice as many, and so on.

A candidate's rows are added to, never measured twice. Validation rows alone are read: what is dropped here is never measured on
the test rows, and those that are left are measured on all rows of both splits by the study itself.

Source: Jamieson and Talwalkar 2016, "Non-stochastic best arm identification and hyperparameter optimization", arXiv
1502.07943.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mergetool.evaluate.interval import STATISTICS
from mergetool.study.analysis.criterion import MeanShare
from mergetool.study.analysis.differences import Differences
from mergetool.study.analysis.groups import Group, Score
from mergetool.study.analysis.row_scores import RowColumns
from mergetool.study.recipe.columns import Column

Measure = Callable[[str, int, int, Mapping[str, RowColumns] | None], dict[str, RowColumns]]
"""Of (candidate, first row, row behind the last, rows before): its rows up to there."""
SPLIT = "validation"
FACTOR = 2


@dataclass
class Halving:
    """What halving found.

    Attributes:
        kept: candidates to be measured on all rows, the best first.
        dropped: candidate -> (rows that it was measured on, its mean share there).
        ended_early: whether time was up before the last rung.
    """

    kept: list[str] = field(default_factory=list)
    dropped: dict[str, tuple[int, float]] = field(default_factory=dict)
    ended_early: bool = False


def rungs_of(rows: int, candidates: int, least: int, last: int) -> list[int]:
    """Rows of each rung: as many as are needed to come from all candidates to `last` of them, the last one below `rows`.

    Args:
        rows: validation rows that there are.
        least: rows that the first rung should have.
        last: candidates to be left.
    """
    count = 0
    while candidates > last:
        candidates, count = -(-candidates // FACTOR), count + 1
    found = [max(least, rows // FACTOR**back) for back in range(count, 0, -1)]
    return sorted({min(one, rows) for one in found})


def halve(
    inputs: Sequence[str],
    candidates: Sequence[str],
    columns: Sequence[Column],
    rungs: Sequence[int],
    last: int,
    measure: Measure,
    time_is_up: Callable[[], bool] = lambda: False,
    tell: Callable[[str], None] = lambda what: None,
) -> Halving:
    """Who is worth measuring on all rows.

    Args:
        inputs: the models that are merged; they set the scale and are never dropped.
        candidates: what competes.
        columns: the metrics that count, as `MeanShare` weighs them.
        rungs: rows of each rung, rising.
        last: candidates to be left.
        measure: makes one candidate and measures it; asked in order, rung by rung.
        time_is_up: asked before each measurement of a candidate, once `last` of them are measured in a rung: a choice
            among a few is better than none.
        tell: told what is being done.
    """
    found, rows, done = Halving(), {}, 0
    alive, shares = list(candidates), dict.fromkeys(candidates, float("nan"))
    for rung in rungs:
        measured: list[str] = []
        for name in [*inputs, *alive]:
            if len(measured) >= last and time_is_up():
                found.ended_early = True
                break
            tell(f"{name}: {rung} rows")
            rows[name] = measure(name, done, rung, rows.get(name))
            measured += [name] if name not in inputs else []
        if not measured and done:
            break  # the rung before has said what can be said
        found.dropped |= {name: (done, shares[name]) for name in alive if name not in measured}
        shares |= _shares(inputs, measured, columns, rows)
        order = sorted(measured, key=lambda name: -shares[name])
        keep = max(last, -(-len(alive) // FACTOR))
        found.dropped |= {name: (rung, shares[name]) for name in order[keep:]}
        alive, done = order[:keep], rung
        if found.ended_early or len(alive) <= last:
            break
    found.dropped |= {name: (done, shares[name]) for name in alive[last:]}
    found.kept = alive[:last]
    return found


def _shares(
    inputs: Sequence[str], names: Sequence[str], columns: Sequence[Column], rows: Mapping[str, Mapping[str, RowColumns]]
) -> dict[str, float]:
    """Each candidate's mean share between the worst and the best input, on the rows that all of them have."""
    groups = {name: _group(name, columns, rows[name]) for name in [*inputs, *names]}
    found = Differences(list(groups.values()), columns, {name: {SPLIT: rows[name]} for name in groups})
    criterion = MeanShare(columns, [groups[name] for name in inputs], SPLIT, found, SPLIT)
    return {name: criterion.value(groups[name]) for name in names}


def _group(name: str, columns: Sequence[Column], rows: Mapping[str, RowColumns]) -> Group:
    scores = {}
    for column in columns:
        held = rows[column.name].columns
        value = float(STATISTICS[column.metric.statistic](*held))
        scores[column.name] = Score(value, None, value, value, len(held[0]), (value,))
    return Group(name, name, {}, (name,), {SPLIT: scores})


class Remembered:
    """Rows that an earlier call measured, in a file, so that a pick that was killed goes on.

    Args:
        path: of the file, JSON lines.
        measure: measures what is not there.
        key: of a candidate: equal keys, equal scores.
    """

    def __init__(self, path: Path, measure: Measure, key: Callable[[str], str]) -> None:
        self._path, self._measure, self._key = path, measure, key
        self._kept: dict[tuple[str, int], dict[str, RowColumns]] = {}
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    row = json.loads(line)
                    self._kept[row["key"], row["rows"]] = {name: RowColumns.read(one) for name, one in row["scores"].items()}
                except (ValueError, KeyError, TypeError):
                    continue  # cut short by a kill

    def __call__(self, name: str, start: int, stop: int, before: Mapping[str, RowColumns] | None) -> dict[str, RowColumns]:
        key = self._key(name)
        if (key, stop) not in self._kept:
            began = time.perf_counter()
            found = self._measure(name, start, stop, before)
            self._kept[key, stop] = found
            line: dict[str, Any] = {"key": key, "name": name, "rows": stop, "seconds": round(time.perf_counter() - began, 3)}
            line["scores"] = {column: one.written() for column, one in found.items()}
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        return self._kept[key, stop]
