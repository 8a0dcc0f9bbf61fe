"""A Ray cluster gives the same lines; one that is not there is one line."""

import pytest

from mergetool.errors import MergetoolError
from mergetool.study import run_study
from tests.study import tiny
from tests.study.execution.deadly import deadly, same_lines


@pytest.mark.slow
def test_a_ray_cluster_gives_the_same_lines_and_a_dead_actor_is_replaced(folder, tmp_path, monkeypatch):
    ray = pytest.importorskip("ray")
    monkeypatch.setenv("HOME", str(tmp_path))  # Ray leaves its token there
    linear = tiny.mapping()["candidates"][0]
    try:
        result = run_study(deadly(folder, tmp_path, 1, linear), tmp_path / "ray", workers=2, ray="local")
        assert not ray.is_initialized()
    finally:
        ray.shutdown()
    assert (tmp_path / "tries").read_text() == "2"
    [(name, error)] = result.failures
    assert name == "deadly"
    assert "this time it only fails" in error
    same_lines(result, run_study(tiny.study(folder, candidates=[linear]), tmp_path / "alone"))


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nonsense"])
def test_a_cluster_that_is_not_there_is_one_line(folder, tmp_path, address):
    pytest.importorskip("ray")
    with pytest.raises(MergetoolError, match="no Ray cluster answers") as caught:
        run_study(tiny.study(folder), tmp_path / "out", ray=address)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_without_ray_the_extra_is_named(folder, tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MergetoolError, match=r"Ray is not installed; pip install \"mergetool\[ray\]\""):
        run_study(tiny.study(folder), tmp_path / "out", ray="local")
