"""Pictures and report say what the summary says: which points are joined, what stands over a knob, what a bar is."""

import re

import pytest

from mergetool.errors import MergetoolError
from mergetool.study import check_study, summarise
from mergetool.study.analysis.categories import by_category
from mergetool.study.candidates.align import AlignCandidate
from mergetool.study.candidates.merge import MergeCandidate
from mergetool.study.candidates.model import ModelCandidate
from mergetool.study.candidates.run_checkpoint import RunCheckpoint
from mergetool.study.recipe.figures import Figure
from mergetool.study.report.html_report import write_report
from mergetool.study.report.knob_curves import _spans_decades, _spelled, _ticks, draw_curve
from mergetool.study.report.pareto_picture import draw_pareto
from mergetool.study.report.picture_points import bar_of, points_of, polylines
from mergetool.study.report.style import what_bars_are
from tests.study import tiny
from tests.study.analysis.test_choose import row


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.triple(tmp_path_factory.mktemp("triple"))


def candidates():
    found = [ModelCandidate("sft", "sft", "sft"), ModelCandidate("rlhf", "rlhf", "rlhf")]
    found += [
        AlignCandidate(f"o K={k} seed={seed}", f"o K={k}", "o", "o", {"every": k}, seed)
        for k in ("total", 10, 1)
        for seed in (0, 1)
    ]
    run = AlignCandidate("run", "run", "run", "run", recipe={"merging": {"method": "adamw"}})
    found += [run]
    found += [
        RunCheckpoint(f"run step={s}", f"run step={s}", "run along", "run", {"step": s}, 0, {"a": 1}, run) for s in (30, 4)
    ]
    found += [
        MergeCandidate(f"t {n}", f"t {n}", "t", "t", {"weight": n / 8, "density": 1 / 3}, recipe={"models": "<b>"}, trial=n)
        for n in range(1, 8)
    ]
    return found


def lines():
    found = []
    for at, one in enumerate(candidates()):
        reward = {"sft": 0.5, "rlhf": 0.9}.get(one.name, 0.55 + 0.02 * at)
        made = row(one.name, (reward, 0, 1 + at / 10), (reward, 0, 1 + at / 10), kind=one.kind, settings=one.settings)
        made["recipe"] = one.recipe
        for score in (made["scores"]["test"]["pairs.preference_accuracy"], made["scores"]["test"]["skills.nll"]):
            score["low"], score["high"] = score["value"] - 0.1, score["value"] + 0.2
        made["scores"]["test"]["skills.nll"]["by"] = {"odd": 1.0 + at, "even": 0.5}
        found.append(made)
    return found


@pytest.fixture(scope="module")
def summary(folder):
    return summarise(tiny.study(folder), candidates(), lines())


def test_lines_join_k_in_its_order_and_a_training_from_sft_to_its_end_and_no_trials(summary):
    joined = [[point.group.name for point in line] for line in polylines(points_of(summary, "test"))]
    assert joined == [["o K=1", "o K=10", "o K=total"], ["sft", "run step=4", "run step=30", "run"]]


def test_a_bar_is_the_spread_over_seeds_or_the_interval_over_rows(summary):
    seeds, one = (summary.group(name).scores["test"]["skills.nll"] for name in ("o K=1", "run"))
    assert bar_of(seeds) == (seeds.sd, seeds.sd)
    assert bar_of(one) == pytest.approx((0.1, 0.2))
    assert "thin bars of one seed: 95 % over rows" in what_bars_are(summary)


def test_a_word_stands_to_the_right_of_every_number_and_decades_are_logarithmic():
    ticks = _ticks(["total", 1, 25, 5])
    assert list(ticks) == [1, 5, 25, "total"]
    assert ticks["total"] == 50
    assert _spans_decades(ticks)
    assert not _spans_decades(_ticks([0.3, 0.5, 1.0]))
    assert not _spans_decades(_ticks([0.0, 0.5, 1.0]))
    assert [_spelled(value) for value in (5e-4, 1e-6, 0.005, 25, "total")] == ["5·10⁻⁴", "10⁻⁶", "0.005", "25", "total"]


def test_pictures_are_drawn_and_the_report_holds_them_and_needs_nothing_else(summary, tmp_path):
    pareto = draw_pareto(summary, tmp_path / "pareto.png", "title")
    figure = Figure(over="every", metrics=["pairs.preference_accuracy", "skills.nll", "pairs.reward_margin"])
    curve = draw_curve(summary, figure, tmp_path / "every.png", "title")
    failed = {"name": "broken", "error": "a <bad> thing", "kind": "merge", "settings": {}}
    rows = [*lines(), failed]
    page = write_report(summary, rows, pareto, [curve], tmp_path / "report.html", "<title>").read_text()
    assert len(re.findall(r'src="data:image/png;base64,', page)) == 2
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    assert "https:" not in page
    assert "@import" not in page
    assert "<title>&lt;title&gt;" in page
    assert "a &lt;bad&gt; thing" in page
    assert "&lt;b&gt;" in page
    assert "The model after step 30 of this training." in page
    assert "Over every" in page
    assert page.count('class="copy"') == sum(bool(one["recipe"]) for one in lines())
    for name in (one.name for one in summary.groups):
        assert name in page


def test_category_bars_are_means_over_seeds_as_shares_of_the_widest(summary):
    (found,) = by_category(summary, lines())
    assert found["models"] == ["SFT", "RLHF", f"chosen ({summary.choice.group})"][: len(found["models"])]
    odd = next(one for one in found["categories"] if one["name"] == "odd")
    assert [bar["text"] for bar in odd["bars"]][:2] == ["1.000", "2.000"]
    assert max(bar["width"] for one in found["categories"] for bar in one["bars"]) == 1


@pytest.mark.parametrize(
    ("figure", "says"),
    [
        ({"over": "densty"}, "did you mean 'density'"),
        ({"over": "every"}, "no candidate sweeps 'every'"),
        ({"over": "density", "metrics": ["skills.nl"]}, "did you mean 'skills.nll'"),
        ([{"over": "density"}, {"over": "density"}], "two figures over 'density'"),
        ({"of": "density"}, "figure"),
    ],
)
def test_a_figure_that_cannot_be_drawn_is_said_in_one_line(folder, figure, says):
    with pytest.raises(MergetoolError) as caught:
        check_study(tiny.study(folder, figure=figure))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_study_writes_its_figure(folder, tmp_path):
    from mergetool.study import run_study, write_outputs

    study = tiny.study(folder, figure={"over": "density"})
    paths = write_outputs(study, run_study(study, tmp_path / "out"))
    assert [path.name for path in paths] == ["results.jsonl", "pareto.png", "density.png", "report.html"]
    assert all(path.stat().st_size for path in paths)
