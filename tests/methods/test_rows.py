"""What a row says of itself follows from its parts."""

from __future__ import annotations

import pytest

from mergetool.methods import METHODS, SETTINGS, Method, Online


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_a_method_is_what_its_parts_are(method: Method) -> None:
    assert method.parameters == {option.name for option in method.options}
    assert method.deterministic != method.sparsifier.random
    assert method.projects == (method.projection is not None)
    assert method.merges_models("base") == method.of_models
    assert method.merges_models(None) == (method.of_models or not method.needs_base)


def test_a_method_refuses_what_its_projection_or_its_sparsifier_refuses() -> None:
    values = {option.name: option.default for option in METHODS["null_space"].options}
    assert METHODS["null_space"].fits(values) is None
    assert METHODS["null_space"].fits(values | {"kind": "hard"}) is not None
    della = {option.name: option.default for option in METHODS["della"].options}
    assert METHODS["della"].fits(della | {"density": 0.1, "epsilon": 0.2}) is not None


def test_an_online_method_has_the_settings_of_all_and_its_own() -> None:
    plain = Online("x", "OnX", "onx")
    assert plain.options == SETTINGS
    assert plain.settings == {setting.name: setting.default for setting in SETTINGS}
    assert Online("x", "OnX", "onx", defaults={"density": 1.0}).settings["density"] == 1.0
