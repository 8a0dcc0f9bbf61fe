"""An entry measures data files or public benchmarks, and is called by its name or by its first metric."""

import pytest
from pydantic import ValidationError

from mergetool.study.recipe.metric_entries import MetricEntry

DATA = {"validation": "v.jsonl", "test": "t.jsonl"}


def test_an_entry_is_called_by_what_it_measures():
    assert MetricEntry.model_validate({"metrics": ["nll"], "data": DATA}).label == "nll"
    assert MetricEntry.model_validate({"tasks": ["gsm8k"], "limit": 3}).label == "gsm8k"
    assert MetricEntry.model_validate({"name": "n", "tasks": ["gsm8k"]}).label == "n"


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({"metrics": ["nll"], "data": DATA, "template": "no place"}, "no {prompt}"),
        ({"metrics": ["nlll"], "data": DATA}, "did you mean 'nll'"),
        ({"metrics": ["nll"], "data": DATA, "batch_size": 2}, "'batch_size' has no meaning"),
        ({"tasks": ["gsm8k"], "beta": 0.1}, "'beta' has no meaning"),
    ],
)
def test_what_does_not_fit_together_is_said(entry, says):
    with pytest.raises(ValidationError, match=says.replace("{", r"\{")):
        MetricEntry.model_validate(entry)
