"""The rule chooses on validation rows alone; the front is what nothing beats; labels never overlap."""

import pytest

from mergetool.study.analysis.choose import pareto, summarise
from mergetool.study.candidates.align import AlignCandidate
from mergetool.study.candidates.model import ModelCandidate
from mergetool.study.recipe.expand import expand
from mergetool.study.report.label_placement import place_labels
from tests.study import tiny


def row(name, validation, test, **more):
    """A line of results; (accuracy, margin, nll) per split."""
    names = ("pairs.preference_accuracy", "pairs.reward_margin", "skills.nll")
    return {
        "name": name,
        "error": None,
        **more,
        "scores": {
            split: {
                key: {"value": value, "low": value, "high": value, "n": 9} for key, value in zip(names, values, strict=True)
            }
            for split, values in (("validation", validation), ("test", test))
        },
    }


@pytest.fixture
def study(tmp_path):
    return tiny.study(
        tmp_path,
        candidates=[
            {"name": "linear", "merge": {"merge_method": "linear", "weight": [0.5, 0.9]}},
            {"name": "ties", "merge": {"merge_method": "ties", "weight": 0.9, "density": 0.5}},
        ],
    )


def outcome(study, **scores):
    candidates = expand(study)
    rows = [row(one.name, *scores[one.name.replace(" ", "_").replace("=", "").replace(".", "")]) for one in candidates]
    return summarise(study, candidates, rows)


SCORES = {
    "sft": ((0.5, 0, 1.0), (0.5, 0, 1.0)),
    "base": ((0.4, 0, 3.0), (0.4, 0, 3.0)),
    "rlhf": ((0.7, 0, 2.0), (0.7, 0, 2.0)),
    "linear_w05": ((0.6, 0, 1.2), (0.7, 0, 1.0)),
    "linear_w09": ((0.69, 0, 1.8), (0.69, 0, 1.9)),
    "ties_w09": ((0.68, 0, 1.5), (0.6, 0, 2.5)),
}


def test_the_best_tax_among_those_that_keep_the_reward_is_chosen_on_validation(study):
    found = outcome(study, **SCORES)
    assert found.choice.needed == pytest.approx(0.68)
    assert found.choice.group == "ties w=0.9", "linear w=0.5 is better on the test rows, which must not matter"
    assert found.choice.by_family == {"rlhf": "rlhf", "linear": "linear w=0.9", "ties": "ties w=0.9"}


def test_a_lower_nll_is_better_on_the_front(study):
    assert outcome(study, **SCORES).front == ["linear w=0.5"]


def test_nothing_is_chosen_where_alignment_gained_nothing(study):
    found = outcome(study, **{**SCORES, "rlhf": ((0.5, 0, 2.0), (0.9, 0, 2.0))})
    assert found.choice.group is None
    assert "did not raise" in found.choice.why


def test_the_tax_is_the_loss_whichever_way_the_metric_points(study):
    assert outcome(study, **SCORES).tax_paid() == (pytest.approx(1.0), None)


def test_seeds_become_mean_and_sample_deviation(study):
    candidates = [
        ModelCandidate("sft", "sft", "sft"),
        AlignCandidate("a 0", "a", "a", seed=0),
        AlignCandidate("a 1", "a", "a", seed=1),
    ]
    rows = [row("sft", *SCORES["sft"]), row("a 0", (0.6, 0, 1), (0.6, 0, 1)), row("a 1", (0.8, 0, 1), (0.8, 0, 1))]
    group = summarise(study, candidates, rows).group("a")
    score = group.scores["test"]["pairs.preference_accuracy"]
    assert (score.mean, score.sd) == (pytest.approx(0.7), pytest.approx(0.02**0.5))


def test_the_front_is_what_nothing_beats():
    points = [("a", 0, 3), ("b", 1, 2), ("c", 1, 1), ("d", 2, 0), ("e", 0.5, 1.9)]
    assert pareto(points) == ["a", "b", "d"]


def test_labels_overlap_neither_each_other_nor_a_marker():
    points = [(100 + 7 * at, 100 + 5 * (at % 3)) for at in range(20)]
    labels = place_labels(points, [(40, 10)] * 20, range(20), (0, 0, 400, 300), [4.0] * 20)
    assert len(labels) == 20
    boxes = [label.box for label in labels]
    for at, one in enumerate(boxes):
        for other in boxes[:at]:
            assert one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
        for x, y in points:
            assert not (one[0] < x < one[2] and one[1] < y < one[3])
