"""Steps are compiled where it pays and where it works; elsewhere the user is told once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mergetool.errors import RecipeError
from mergetool.optim import OnDARE
from mergetool.optim.compiling import compiles
from mergetool.optim.kernels import SPAN
from tests.optim.scenes import parameters, run

pytestmark = pytest.mark.slow


def test_a_small_group_is_not_compiled_by_itself_and_a_large_one_is() -> None:
    small, large = torch.zeros(1000), torch.zeros(SPAN)
    assert not compiles(None, [small])
    assert compiles(None, [large])
    assert not compiles(False, [large])
    assert compiles(True, [small])


WITHOUT = """
import sys, warnings, torch
from mergetool.errors import RecipeError
from mergetool.optim import OnDARE
p = torch.nn.Parameter(torch.zeros(5_000_000))
p.grad = torch.ones_like(p)
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    optimizer = OnDARE([("w", p)], lr=1e-3, density=0.5)
    optimizer.step(), optimizer.step()
assert 0.2 < float((p != 0).float().mean()) < 0.9
assert [str(w.message) for w in seen if "install a C++ compiler" in str(w.message)].__len__() == 1, seen
try:
    OnDARE([("w", p)], lr=1e-3, density=0.5, compile=True).step()
except RecipeError as error:
    assert "C++" in error.hint
    print("refused")
"""


def test_without_a_compiler_it_warns_once_and_goes_on_and_refuses_where_it_was_asked_to_compile(tmp_path: Path) -> None:
    environment = os.environ | {"CXX": str(tmp_path / "no-such-compiler"), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    result = subprocess.run([sys.executable, "-c", WITHOUT], env=environment, capture_output=True, text=True, timeout=240)
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.strip() == "refused"


def test_a_choice_that_is_none_is_refused() -> None:
    with pytest.raises(RecipeError, match="compile is 'yes'"):
        OnDARE(parameters(), compile="yes")


def test_a_checkpoint_from_before_there_was_the_choice_is_taken() -> None:
    ours = parameters()
    optimizer = OnDARE(ours, lr=1e-3, density=0.3)
    run(optimizer, ours, 1)
    state = optimizer.state_dict()
    del state["param_groups"][0]["compile"]
    again = OnDARE(parameters(), lr=1e-3, density=0.3)
    again.load_state_dict(state)
    assert again.param_groups[0]["compile"] is None
