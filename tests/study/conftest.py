"""One thread: matrices this small only wait for a second one, and on a busy machine they wait long."""

import pytest

from mergetool.study import summarise
from tests.study import tiny
from tests.study.lines import candidates, lines


@pytest.fixture(scope="package", autouse=True)
def one_thread():
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="package", autouse=True)
def own_cache(tmp_path_factory):
    """Tests neither read nor fill the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MERGETOOL_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """base, sft and rlhf, and data files of both splits; tests may put more beside them, under names of their own."""
    return tiny.triple(tmp_path_factory.mktemp("triple"))


@pytest.fixture
def small_study(tmp_path):
    """Two merges by linear, one by TIES; its files are never opened."""
    return tiny.study(
        tmp_path,
        candidates=[
            {"name": "linear", "merge": {"merge_method": "linear", "weight": [0.5, 0.9]}},
            {"name": "ties", "merge": {"merge_method": "ties", "weight": 0.9, "density": 0.5}},
        ],
    )


@pytest.fixture(scope="module")
def summary(folder):
    """Every kind of candidate: seeds, a training and its checkpoints, a search."""
    return summarise(tiny.study(folder), candidates(), lines())
