"""A pair of tiny Llamas with data."""

from pathlib import Path

import pytest

from tests.ama.small import make_pair


@pytest.fixture(scope="package")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """See `make_pair`; not to be written to."""
    return make_pair(tmp_path_factory.mktemp("ama"))
