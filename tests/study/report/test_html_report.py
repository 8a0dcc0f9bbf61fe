"""Pictures and report say what the summary says: which points are joined, what stands over a setting, what a bar is."""

import re

from mergetool.study.recipe.figures import Figure
from mergetool.study.report.html_report import write_report
from mergetool.study.report.pareto_picture import draw_pareto
from mergetool.study.report.setting_curves import draw_curve
from tests.study.lines import lines


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
