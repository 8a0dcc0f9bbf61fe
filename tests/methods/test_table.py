"""The table is whole: every name leads to a file, every default is allowed, every online method to its class."""

from __future__ import annotations

import subprocess
import sys

import pytest

from mergetool import methods, optim
from mergetool.methods import METHODS, ONLINE, SETTINGS, TRAININGS, row
from mergetool.methods.parts import RANDOM, SUM
from mergetool.ops.consensus import Consensus, consensus
from mergetool.ops.sparsifiers import Sparsifier, sparsifier
from mergetool.optim.operators import operator


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_a_rows_parts_are_files_and_its_defaults_are_allowed(method: methods.Method) -> None:
    assert isinstance(sparsifier(method.sparsifier.name), Sparsifier)
    assert isinstance(consensus(method.consensus.name), Consensus)
    names = [option.name for option in method.options]
    assert len(names) == len(set(names))
    for option in method.options:
        assert option.required or option.read(option.default) == option.default
    defaults = {option.name: option.default for option in method.options}
    assert method.sparsifier.fits(defaults) is None
    assert method.source
    assert method.use


@pytest.mark.parametrize("online", ONLINE.values(), ids=ONLINE)
def test_an_online_method_is_an_operator_and_a_class_with_its_settings(online: methods.Online) -> None:
    assert operator(online.name).row is online
    assert getattr(optim, online.optimizer).__name__ == online.optimizer
    values = {setting.name: setting.read(online.settings[setting.name]) for setting in online.options}
    assert {setting.name for setting in SETTINGS} <= values.keys()
    assert online.fits(values) is None
    assert values.keys() == online.settings.keys()
    assert TRAININGS[online.word].online is online


def test_an_online_method_stands_in_the_row_of_its_offline_partner() -> None:
    partners = {method.online.optimizer: method.name for method in METHODS.values() if method.online}
    assert partners == {"OnDARE": "dare_linear", "OnTIES": "ties", "OnLinear": "linear", "OnNullSpace": "null_space"}


def test_what_a_row_says_of_itself() -> None:
    assert {m.name for m in METHODS.values() if not m.deterministic} == {
        "dare_linear", "dare_ties", "della", "della_linear", "null_space_dare"}  # fmt: skip
    assert {m.name for m in METHODS.values() if m.projects} == {"null_space", "null_space_dare", "null_space_ties"}
    models = {"linear", "slerp", "karcher", "nearswap", "arcee_fusion", "passthrough", "regmean", "fisher"}
    assert {m.name for m in METHODS.values() if m.of_models} == models
    assert {m.name for m in METHODS.values() if m.merges_models(None) and not m.needs_base} == {
        "linear", "karcher", "passthrough", "nuslerp", "multislerp", "regmean", "fisher"}  # fmt: skip
    assert not METHODS["nuslerp"].merges_models("base")
    assert {word for word, one in TRAININGS.items() if one.merges_delta} == {"ondare", "onties"}
    assert {word for word, one in TRAININGS.items() if one.online.calibrated} == {"onnullspace", "nspo"}
    assert {word for word, one in TRAININGS.items() if one.mixes} == {"ondare", "onties", "onlinear"}


def test_a_key_of_a_training_is_taken_by_its_optimizer() -> None:
    import inspect

    of_align = {"storage"}  # where the reference lies: an argument of Reference
    for one in TRAININGS.values():
        taken = set(inspect.signature(getattr(optim, one.online.optimizer)).parameters)
        assert one.keys - of_align <= taken, one.word
        assert set(one.given or {}) <= taken


def test_a_row_with_a_default_for_an_option_that_it_lacks_is_refused() -> None:
    with pytest.raises(ValueError, match="no option 'gamma'"):
        row("x", RANDOM, SUM, source="s", use="u", gamma=0.1)


def test_the_table_is_read_without_torch() -> None:
    code = "import sys, mergetool.methods; sys.exit(bool({'torch', 'numpy', 'transformers'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
