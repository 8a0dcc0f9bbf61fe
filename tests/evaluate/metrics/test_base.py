"""The table of metrics: every row is whole, and adding a metric is adding a file."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import mergetool
from mergetool.evaluate import METRICS


def test_every_metric_states_unit_direction_and_side():
    for row in METRICS.values():
        assert row.unit
        assert row.side in ("reward", "tax")
        assert row.rows in ("preferences", "completions", "prompts")


ANSWER_LENGTH = """
from mergetool.evaluate.metrics.base import Measured, Metric, RowValues, mean_of


def letters(measured: Measured) -> RowValues:
    return mean_of(len(text) for text in measured.texts)


METRIC = Metric(
    name="answer_length", side="tax", unit="letters", higher_is_better=False, rows="prompts", short="answer length",
    about="letters of a greedy answer", measure=letters, reads_answers=True,
)
"""
USE = """
from mergetool.evaluate import METRICS, Task, evaluate
from tests.evaluate import tiny

found = evaluate(tiny.llama(), [Task("t", ("answer_length",), [{"prompt": "a"}], max_new_tokens=5)], tokenizer=tiny.tokenizer())
assert list(METRICS)[-1] == "answer_length"
assert found["t.answer_length"]["unit"] == "letters" and found["t.answer_length"]["value"] > 0
"""


def test_adding_a_metric_is_adding_a_file(tmp_path):
    package = Path(mergetool.__file__).parent
    shutil.copytree(package, tmp_path / "mergetool", ignore=shutil.ignore_patterns("__pycache__", "triple"))
    (tmp_path / "mergetool/evaluate/metrics/answer_length.py").write_text(ANSWER_LENGTH)
    places = f"{tmp_path}{os.pathsep}{Path(__file__).parents[3]}"
    environment = {**os.environ, "PYTHONPATH": places}
    done = subprocess.run(
        [sys.executable, "-c", USE], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
