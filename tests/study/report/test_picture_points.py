"""Which points a line joins, and how far a bar reaches."""

import pytest

from mergetool.study.report.picture_points import bar_of, points_of, polylines
from mergetool.study.report.style import what_bars_are
from tests.study.lines import AWAY, MEANS, SCORES, outcome, outcome_by_rows


def test_lines_join_k_in_its_order_and_a_training_from_sft_to_its_end_and_no_trials(summary):
    joined = [[point.group.name for point in line] for line in polylines(points_of(summary, "test"))]
    assert joined == [["o K=1", "o K=10", "o K=total"], ["sft", "run step=4", "run step=30", "run"]]


def test_a_bar_is_the_spread_over_seeds_or_the_interval_over_rows(summary):
    seeds, one = (summary.group(name).scores["test"]["skills.nll"] for name in ("o K=1", "run"))
    assert bar_of(seeds) == (seeds.sd, seeds.sd)
    assert bar_of(one) == pytest.approx((0.1, 0.2))
    assert "thin bars of one seed: 95 % over rows" in what_bars_are(summary)


def test_the_bar_of_one_seed_is_of_its_difference_from_sft(small_study):
    summary = outcome_by_rows(small_study, MEANS, AWAY)
    by_name = {point.group.name: point for point in points_of(summary, "test")}
    assert bar_of(by_name["sft"].x) == (0.0, 0.0), "nothing differs from itself"
    down, up = bar_of(by_name["ties w=0.9"].y)
    away = summary.differences["test"]["ties w=0.9"]["sft"]["skills.nll"]
    assert (down, up) == (pytest.approx(away.mean - away.low), pytest.approx(away.high - away.mean))
    assert "difference from SFT" in what_bars_are(summary)
    old = outcome(small_study, **SCORES)
    assert what_bars_are(old) == "thin bars: 95 % over rows"
