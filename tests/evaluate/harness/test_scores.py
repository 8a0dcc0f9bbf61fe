"""Groups are averaged as they say; the average of all tells its categories."""

import numpy as np
import pytest

from mergetool.evaluate import Harness
from tests.evaluate import tiny
from tests.evaluate.public import task


def test_a_group_is_averaged_as_it_says(folder, model):
    found = Harness(task(folder, "pooled")).measure(model, tiny.tokenizer())["pooled"]
    parts = found["by"]
    assert found["value"] == pytest.approx((20 * parts["quiz_a"] + 10 * parts["quiz_b"]) / 30)
    plain = Harness(task(folder, "plain")).measure(model, tiny.tokenizer())["plain"]
    assert plain["value"] == pytest.approx((parts["quiz_a"] + parts["quiz_b"]) / 2)
    assert plain["low"] < plain["value"] < plain["high"]


def test_an_average_tells_its_categories():
    from mergetool.evaluate.harness.names import Asked
    from mergetool.evaluate.harness.scores import average
    from mergetool.evaluate.metrics import Metric

    metrics = [
        Metric(name, "tax", "x", True, "harness", name, "", perfect=top) for name, top in (("a", 1.0), ("b", 1.0), ("c", 100.0))
    ]
    asked = [Asked("a", "a", category="one"), Asked("b", "b", category="one"), Asked("c", "c", category="two")]
    found = {name: {"value": value, "n": 2} for name, value in (("a", 0.2), ("b", 0.4), ("c", 90.0))}
    drawn = [np.array([0.1, 0.3]), np.array([0.4, 0.4]), np.array([80.0, 100.0])]
    score = average(asked, metrics, found, drawn)
    assert score["value"] == pytest.approx((0.2 + 0.4 + 0.9) / 3)
    assert score["by"] == pytest.approx({"one": 0.3, "two": 0.9})
    assert score["low"] < score["value"] < score["high"]
    plain = [Asked("a", "a"), Asked("b", "b"), Asked("c", "c")]
    assert average(plain, metrics, found, drawn)["by"] == pytest.approx({"a": 0.2, "b": 0.4, "c": 0.9})
