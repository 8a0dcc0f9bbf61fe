"""What an adapter does is known by its tensors and its header, wherever its files lie."""

from __future__ import annotations

from pathlib import Path

from mergetool.checkpoint.adapter import Adapter, Factors
from mergetool.checkpoint.header import TensorInfo
from mergetool.checkpoint.place import Directory


def test_two_copies_of_an_adapter_are_equal_and_another_scale_is_not(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    info = TensorInfo("x", "F32", (2, 2), Path("x"), 0, 16)

    def made(name: str, scale: float) -> Adapter:
        return Adapter(Directory(tmp_path / name), {"w": Factors(info, info, scale, False)}, {}, (16, "h"))

    assert made("a", 1.0) == made("b", 1.0)
    assert made("a", 1.0) != made("a", 2.0)
