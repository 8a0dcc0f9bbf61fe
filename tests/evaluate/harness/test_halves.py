"""Equal documents share a half."""

import numpy as np
import pytest

from mergetool.evaluate.harness.halves import halves


def test_equal_documents_share_a_half_and_the_halves_are_about_equal():
    rows = [{"q": at // 2, "a": "x"} for at in range(2000)]
    found = halves(rows)
    assert {at // 2 for at in found["validation"]}.isdisjoint({at // 2 for at in found["test"]})
    assert len(found["validation"]) == pytest.approx(1000, abs=4 * np.sqrt(2000))
    assert halves(rows) == found
    assert found["validation"] != sorted(found["validation"]), "a limit takes documents at random"
