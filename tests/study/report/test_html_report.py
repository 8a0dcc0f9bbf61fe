"""Pictures and report say what the summary says: which points are joined, what stands over a setting, what a bar is."""

import re
import shutil
import subprocess

import pytest

from mergetool.study.analysis.doubts import shown
from mergetool.study.recipe.figures import Figure
from mergetool.study.report.html_report import write_report
from mergetool.study.report.pareto_picture import draw_pareto
from mergetool.study.report.setting_curves import draw_curve
from tests.study.lines import AWAY, MEANS, lines, outcome_by_rows, row


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


def test_a_difference_that_leaves_out_zero_is_marked_and_another_is_not(small_study, tmp_path):
    summary = outcome_by_rows(small_study, MEANS, AWAY)
    rows = [row(name, *(((one[0], 0, one[1])) for one in both)) for name, both in MEANS.items()]
    pareto = draw_pareto(summary, tmp_path / "pareto.png", "title")
    page = write_report(summary, rows, pareto, [], tmp_path / "report.html", "title", ["Few rows."]).read_text()
    away = summary.differences["test"]
    clear = away["ties w=0.9"]["sft"]["skills.nll"]
    assert clear.is_clear
    assert not away["ties w=0.9"]["linear"]["skills.nll"].is_clear
    assert f'class="clear">{shown(clear)}<' in page
    marked = re.findall(r'<td data-v="[^"]+"( class="clear")?>[+-][\d.]+ \[([+-][\d.]+), ([+-][\d.]+)\]', page)
    assert marked
    for mark, low, high in marked:
        assert bool(mark) == (float(low) > 0 or float(high) < 0)
    assert "Few rows." in page
    assert "Runner-up: ties w=0.9." in page


WATCH = "<script>onerror = (what) => { document.documentElement.dataset.error = what; };</script>"
ACT = """<script>addEventListener("load", () => {
  const point = document.querySelector('.point[data-name="ties w=0.9"]'), page = document.documentElement;
  point.focus();
  page.dataset.told = document.getElementById("told").textContent;
  point.dispatchEvent(new MouseEvent("click", {bubbles: true, cancelable: true}));
  page.dataset.opened = [...document.querySelectorAll("details[id][open] summary")].map((one) => one.textContent).join();
});</script>"""


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium")
def test_in_a_browser_a_point_tells_its_differences_and_opens_its_recipe(small_study, tmp_path):
    summary = outcome_by_rows(small_study, MEANS, AWAY)
    rows = [row(name, *((one[0], 0, one[1]) for one in both), recipe={"merge_method": "x"}) for name, both in MEANS.items()]
    pareto = draw_pareto(summary, tmp_path / "pareto.png", "title")
    report = write_report(summary, rows, pareto, [], tmp_path / "report.html", "title")
    report.write_text(report.read_text().replace("<head>", f"<head>{WATCH}").replace("</body>", f"{ACT}</body>"))
    words = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    page = subprocess.run([*words, report.as_uri()], capture_output=True, text=True, timeout=120, check=True).stdout
    found = dict(re.findall(r'data-(\w+)="([^"]*)"', page[: page.index("<head>")]))
    assert "error" not in found
    assert found["told"].startswith("ties w=0.9\npairs.preference_accuracy 0.690")
    assert "less sft: pairs.preference_accuracy +0.190 [" in found["told"]
    assert found["opened"] == "ties w=0.9"
