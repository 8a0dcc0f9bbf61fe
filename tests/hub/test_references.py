"""What a reference stands for is opened where it is, and what is missing is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from mergetool.errors import CheckpointError
from mergetool.hub.references import local_directory, local_tokenizer, open_layout, open_place


def test_a_directory_needs_no_network(triple: dict[str, Path]) -> None:
    assert local_directory(triple["sft"]) == local_tokenizer(str(triple["sft"])) == triple["sft"]
    assert open_place(triple["sft"]).pinned is None
    assert len(open_layout(triple["sft"]).tensors) == 29


def test_what_is_missing_is_named(triple: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such model directory"):
        open_layout(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="lora: no such adapter directory; check the path after the"):
        open_layout(f"{triple['sft']}+{tmp_path / 'lora'}")
