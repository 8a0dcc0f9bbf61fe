"""Tests neither read nor fill the user's cache."""

import pytest


@pytest.fixture(scope="package", autouse=True)
def own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MERGETOOL_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
