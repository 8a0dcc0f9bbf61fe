"""What an adapter does is known by its tensors and its header, wherever its files lie."""

from __future__ import annotations

from pathlib import Path

from mergetool.checkpoint.adapter import Adapter, Change, Factors
from mergetool.checkpoint.header import TensorInfo
from mergetool.checkpoint.place import Directory


def test_two_copies_of_an_adapter_are_equal_and_another_scale_is_not(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    info = TensorInfo("x", "F32", (2, 2), Path("x"), 0, 16)

    def made(name: str, scale: float) -> Adapter:
        return Adapter(
            Directory(tmp_path / name), {"w": Change((2, 2), factors=Factors(info, info, scale, False))}, {}, (16, "h")
        )

    assert made("a", 1.0) == made("b", 1.0)
    assert made("a", 1.0) != made("a", 2.0)


def test_the_rank_of_factors_of_several_experts_is_each_ones() -> None:
    a, b = TensorInfo("a", "F32", (8, 5), Path("x"), 0, 160), TensorInfo("b", "F32", (3, 8), Path("x"), 160, 96)
    assert Factors(a, b, 1.0, False).rank == 8
    assert Factors(a, b, 1.0, False, experts=4).rank == 2
