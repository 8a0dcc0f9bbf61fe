"""One thread: matrices this small only wait for a second one, and on a busy machine they wait long."""

import pytest

from tests.evaluate import endpoint, public, tiny


@pytest.fixture(scope="package", autouse=True)
def one_thread():
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Local tasks of lm-evaluation-harness."""
    return public.tasks(tmp_path_factory.mktemp("tasks"))


@pytest.fixture(scope="module")
def model():
    """A live policy."""
    return tiny.llama(1)


@pytest.fixture
def key(monkeypatch):
    """The judge's key in the environment, and no proxy before its endpoint."""
    monkeypatch.setenv("OPENAI_API_KEY", endpoint.KEY)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
