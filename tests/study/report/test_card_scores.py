"""A model card gets the test scores of the very candidate that has the result's recipe, learned ones too, or none."""

import json

import pytest

from mergetool.checkpoint.manifest import Manifest
from mergetool.errors import OutputError
from mergetool.study.report.card_scores import evaluations
from tests.study.lines import row


def merge(weight):
    models = [{"model": name, "parameters": {"weight": share}} for name, share in (("a/sft", 1 - weight), ("a/rlhf", weight))]
    return {"merge_method": "linear", "models": models}


@pytest.fixture
def out(tmp_path):
    lines = [
        row("lin", (0, 0, 1), (0, 0, 2), kind="merge", recipe=merge(0.25)),
        row("ama", (0, 0, 1), (0, 0, 3), kind="ama", recipe={"alpha": 0.5}, learned=merge(0.75)),
        row("along", (0, 0, 1), (0, 0, 4), kind="along", recipe=merge(0.5)),
    ]
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines) + '{"cut')
    return tmp_path


def nll(found):
    return next(one.value for one in found if one.metric == "nll")


def test_the_candidate_is_found_by_what_was_merged(out):
    assert nll(evaluations(out, Manifest("merge", {**merge(0.25), "name": "mine"}))) == 2
    assert nll(evaluations(out, Manifest("merge", merge(0.75)))) == 3


def test_no_other_scores_are_shown(out, tmp_path):
    for manifest in (Manifest("merge", merge(0.5)), Manifest("merge", {"merge_method": "?"})):
        with pytest.raises(OutputError, match=r"measured there: lin, ama\)"):
            evaluations(out, manifest)
    with pytest.raises(OutputError, match="holds no study"):
        evaluations(tmp_path / "nowhere", Manifest("merge", merge(0.5)))
