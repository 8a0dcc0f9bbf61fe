"""A study leaves its results, its pictures and its page."""

from tests.study import tiny


def test_a_study_writes_its_figure(folder, tmp_path):
    from mergetool.study import run_study, write_outputs

    study = tiny.study(folder, figure={"over": "density"})
    paths = write_outputs(study, run_study(study, tmp_path / "out"))
    assert [path.name for path in paths] == ["results.jsonl", "pareto.png", "density.png", "report.html"]
    assert all(path.stat().st_size for path in paths)
