"""Every online method's row names a file here, and its operator knows its row."""

from __future__ import annotations

import pytest

from mergetool.methods import ONLINE
from mergetool.optim.operators import operator


@pytest.mark.parametrize("name", sorted(ONLINE))
def test_a_row_has_its_operator(name: str) -> None:
    assert operator(name).row is ONLINE[name]
    assert operator(name) is operator(name)
