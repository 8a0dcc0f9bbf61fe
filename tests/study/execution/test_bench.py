"""A category's value is the metric over its own rows alone; a reference comes back from JSON bit for bit."""

import json

import pytest
import torch

from mergetool.evaluate import METRICS, Reference
from mergetool.study.execution.bench import _by_category, _read, _written


def test_a_category_has_the_metric_of_its_rows():
    rows = ({"skill": "a"}, {"skill": "b"}, {"skill": "a"})
    columns = ([2.0, 5.0, 4.0], [1.0, 1.0, 2.0])
    assert _by_category(rows, METRICS["nll"], columns) == {"a": pytest.approx(2.0), "b": pytest.approx(5.0)}
    assert _by_category(({"prompt": "x"},), METRICS["nll"], ([1.0], [1.0])) == {}


def test_a_reference_survives_json():
    scores = tuple(torch.randn(5, dtype=torch.float64) for _ in range(2))
    back = _read(json.loads(json.dumps(_written(Reference(scores, ("a", "b"))))))
    assert all(torch.equal(one, other) for one, other in zip(back.log_probs, scores, strict=True))
    assert back.answers == ("a", "b")
    assert _read(_written(Reference(None, None))) == Reference(None, None)
