"""The public constructors have the table's defaults."""

from __future__ import annotations

import inspect

import pytest

from mergetool import optim
from mergetool.methods import ONLINE, Online


@pytest.mark.parametrize("online", ONLINE.values(), ids=ONLINE)
def test_a_constructors_defaults_are_the_tables(online: Online) -> None:
    arguments = inspect.signature(getattr(optim, online.optimizer)).parameters
    shared = [name for name in online.settings if name in arguments]
    mixes = set() if online.calibrated else {"alpha", "alpha_total"}  # one that projects adds nothing to an update
    assert {"every", "seed", "rounding"} | mixes <= set(shared)
    assert {name: arguments[name].default for name in shared} == {name: online.settings[name] for name in shared}
