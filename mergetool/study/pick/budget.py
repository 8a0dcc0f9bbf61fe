"""How many rows and how many candidates fit into a time."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any

from mergetool.errors import RecipeError
from mergetool.study.pick.halving import FACTOR, rungs_of

LEAST = 16  # rows of the first rung, and of a half that is cut short
LAST = 3  # candidates that are measured on all rows, at least
_SLACK = 0.85  # of the time that is left; a machine is never as fast twice
_ALL_METRICS = 1.4  # what all metrics of an entry cost, where its first one costs 1
_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


def seconds_of(text: str) -> float:
    """'10m', '90s', '1.5h' or a number of seconds.

    Raises:
        RecipeError: it is none of these.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smh]?)\s*", text)
    if not found or not float(found[1]):
        raise RecipeError(f"--budget {text!r} is no time", "write it as 10m, 90s, 1h or a number of seconds")
    return float(found[1]) * _UNITS[found[2]]


@dataclass(frozen=True)
class Plan:
    """What fits.

    Attributes:
        rows: of each half of each task.
        rungs: rows of each rung of halving; none where everything can be measured on all rows.
        last: candidates that are measured on all rows.
        seconds: that it is thought to take.
    """

    rows: int
    rungs: list[int]
    last: int
    seconds: float

    def written(self) -> dict[str, Any]:
        return asdict(self)


def plan_for(seconds: float, rows: int, inputs: int, candidates: int, put: float, row: float) -> Plan:
    """The most rows that fit; halving only where not everything does.

    Args:
        seconds: that are left.
        rows: of each half that there are.
        inputs: models that are merged; they are measured at every rung.
        candidates: that compete.
        put: seconds to bring a candidate's weights into the model.
        row: seconds for a row of every task.
    """
    able = seconds * _SLACK

    def final(count: int, some: int) -> float:
        return (count + inputs) * (put + 2 * some * row * _ALL_METRICS)

    if (whole := final(candidates, rows)) <= able:
        return Plan(rows, [], candidates, whole)
    last = min(candidates, max(LAST, candidates // 4))

    def halved(some: int) -> Plan:
        rungs, alive, done, cost = rungs_of(some, candidates, LEAST, last), candidates, 0, 0.0
        for rung in rungs:
            cost += (alive + inputs) * (put + (rung - done) * row)
            alive, done = max(last, -(-alive // FACTOR)), rung
        return Plan(some, rungs, last, cost + final(last, some))

    low, high = min(LEAST, rows), rows
    while low < high:  # the most rows that fit, or the fewest that make sense
        middle = -(-(low + high) // 2)
        low, high = (middle, high) if halved(middle).seconds <= able else (low, middle - 1)
    return halved(low)
