"""A share is 0 at the worst input and 1 at the best; a metric in which the inputs are equal scales by its noise."""

from __future__ import annotations

import pytest

from mergetool.evaluate.paired import least_seen
from mergetool.study.analysis.criterion import MeanShare, OneMetric
from mergetool.study.analysis.differences import Differences
from tests.study.lines import AWAY, MEANS, outcome_by_rows, row_scores


def parts(small_study, means=MEANS):
    summary = outcome_by_rows(small_study, means, AWAY)
    scores = {
        name: {"validation": dict(zip(("pairs.preference_accuracy", "skills.nll"), both[0], strict=True))}
        for name, both in means.items()
    }
    found = Differences(summary.groups, summary.columns, row_scores(scores))
    return summary, found, [summary.group(name) for name in ("sft", "rlhf")]


def test_a_metric_is_turned_so_that_more_is_better(small_study) -> None:
    summary, found, (sft, rlhf) = parts(small_study)
    nll = OneMetric(summary.tax, "validation", found)
    assert nll.value(sft) - nll.value(rlhf) == pytest.approx(1.0)
    assert nll.between(sft, rlhf).mean == pytest.approx(1.0)
    assert nll.sign == -1


def test_the_mean_share_goes_from_the_worst_input_to_the_best(small_study) -> None:
    summary, found, inputs = parts(small_study)
    share = MeanShare([summary.reward, summary.tax], inputs, "validation", found, "validation")
    assert [share.value(one) for one in inputs] == [pytest.approx(0.5), pytest.approx(0.5)]
    half = summary.group("linear w=0.5")
    assert share.value(half) == pytest.approx((0.5 + 0.8) / 2)
    assert share.drawn(half).value == pytest.approx(share.value(half))


def test_inputs_that_cannot_be_told_apart_scale_by_the_noise(small_study) -> None:
    means = {**MEANS, "rlhf": ((0.7, 1.0001), (0.7, 1.0001))}
    summary, found, inputs = parts(small_study, means)
    share = MeanShare([summary.tax], inputs, "validation", found, "validation")
    noise = least_seen(OneMetric(summary.tax, "validation", found).between(*inputs))
    assert share.value(summary.group("linear w=0.5")) == pytest.approx(-(1.2 - 1.0001) / noise, rel=1e-3)
