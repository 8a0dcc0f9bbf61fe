"""mergetool push tells what was uploaded and where it lies; the pushing itself is tested in tests/hub."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mergetool.cli.push import tell_pushed
from mergetool.hub.push import Pushed
from tests.cli.shell import refusal

PUSHED = Pushed("me/m", "https://hub/me/m", "main", "0123456789abcdef", ["model.safetensors", "README.md"], 1_500_000, True)


def test_what_was_uploaded_goes_to_stderr_and_the_address_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    tell_pushed(PUSHED)
    out, err = capsys.readouterr()
    assert out == "https://hub/me/m\n"
    assert err == "uploaded 2 files, 1.5 MB: model.safetensors, README.md\nme/m is private; main is at 0123456789ab\n"


def test_a_pull_request_is_the_address_and_nothing_new_is_said_so(capsys: pytest.CaptureFixture[str]) -> None:
    tell_pushed(replace(PUSHED, uploaded=[], pull_request="https://hub/me/m/discussions/1", private=False))
    out, err = capsys.readouterr()
    assert out == "https://hub/me/m/discussions/1\n"
    assert err.startswith("the repository has all of it already; nothing was uploaded\nme/m is public")


def test_without_the_network_nothing_is_begun(tmp_path: Path) -> None:
    assert "HF_HUB_OFFLINE is set, so nothing can be pushed" in refusal("push", tmp_path, "me/m")
    assert list(tmp_path.iterdir()) == []
