"""mergetool metrics lists what can be measured."""

from __future__ import annotations

import json

from mergetool.evaluate import METRICS, SUITES
from tests.cli.shell import run


def test_every_metric_and_suite_is_listed() -> None:
    found = json.loads(run("metrics", "--json")[0])
    assert [row["metric"] for row in found["metrics"]] == list(METRICS)
    assert {row["suite"]: row["tasks"] for row in found["suites"]} == {
        name: [one.task for one in suite.benchmarks] for name, suite in SUITES.items()
    }
    table = run("metrics")[0]
    assert all(name in table for name in (*METRICS, *SUITES))
