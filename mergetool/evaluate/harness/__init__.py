"""Public benchmarks: tasks of lm-evaluation-harness, and the suites of papers made of them.

suites.py      named lists of benchmarks, and what of each is missing
index.py       which tasks there are, from their YAML files alone
names.py       what each measures: metric, unit, direction
tasks.py       what to measure
halves.py      a benchmark's documents in two halves
live.py        the live model through them
scores.py      the harness's numbers, with intervals over rows
isolation.py   its prints and seeds kept from the program
"""

from __future__ import annotations

from mergetool.evaluate.harness.live import Harness
from mergetool.evaluate.harness.suites import SUITES
from mergetool.evaluate.harness.tasks import HarnessTask

__all__ = ["SUITES", "Harness", "HarnessTask"]
