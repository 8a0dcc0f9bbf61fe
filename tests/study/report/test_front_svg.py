"""Better is right and up; every candidate near by is a point that tells its scores; what is far away is named."""

from __future__ import annotations

from mergetool.study.report.front_svg import HEIGHT, WIDTH, front_svg
from tests.study.lines import AWAY, MEANS, outcome_by_rows


def test_better_is_right_and_up_and_all_lies_in_the_frame(small_study) -> None:
    drawn = front_svg(outcome_by_rows(small_study, MEANS, AWAY))
    at = {point["name"]: point for point in drawn["points"]}
    assert at["sft"]["x"] < at["linear w=0.5"]["x"] < at["rlhf"]["x"], "more accurate"
    assert at["sft"]["y"] < at["linear w=0.5"]["y"] < at["rlhf"]["y"], "fewer nats are up, where pixels are smaller"
    for point in drawn["points"]:
        for x1, y1, x2, y2 in point["bars"]:
            assert 0 < min(x1, x2) <= max(x1, x2) < WIDTH
            assert 0 < min(y1, y2) <= max(y1, y2) < HEIGHT
    assert drawn["outside"] == ["base"]
    assert [point["name"] for point in drawn["points"] if point["chosen"]] == ["linear w=0.9"]


def test_a_point_tells_scores_and_differences(small_study) -> None:
    drawn = front_svg(outcome_by_rows(small_study, MEANS, AWAY))
    (point,) = [one for one in drawn["points"] if one["name"] == "linear w=0.5"]
    assert "skills.nll 1.200" in point["told"]
    assert any(line.startswith("less sft: pairs.preference_accuracy +0.100 [") for line in point["told"])


def test_ticks_are_round_numbers_in_the_frame(small_study) -> None:
    drawn = front_svg(outcome_by_rows(small_study, MEANS, AWAY))
    for axis in ("x", "y"):
        places = [place for place, _ in drawn[axis]["ticks"]]
        assert 3 <= len(places) <= 8
        assert len(set(places)) == len(places)
    assert [text for _, text in drawn["x"]["ticks"]] == ["0.50", "0.55", "0.60", "0.65", "0.70"]
