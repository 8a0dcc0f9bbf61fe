"""Codes become numbers in any block, and words of any width are taken apart; `test_dequantised` holds it against the peers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mergetool.checkpoint.dequantised import as_numbers
from mergetool.checkpoint.dequantised_reader import DequantisedReader, unpacked
from mergetool.checkpoint.layout import read_layout
from mergetool.checkpoint.reader import Reader
from tests.checkpoint.test_dequantised import fp8_config, packed_as_words, put, random_codes, scales


@pytest.mark.parametrize("bits", range(1, 9))
def test_codes_of_any_width_are_unpacked(bits: int) -> None:
    codes = torch.randint(-(1 << (bits - 1)), 1 << (bits - 1), (3, 45))
    for start, stop in ((0, 45), (7, 40), (44, 45)):
        assert torch.equal(unpacked(packed_as_words(codes, bits), bits, start, stop), codes[:, start:stop].float())


@pytest.mark.parametrize(("start", "stop"), [(0, 1), (39, 41), (17, 640), (1435, 1440)])
def test_a_block_that_begins_and_ends_within_rows_is_that_part_of_codes_times_scales(
    tmp_path: Path, start: int, stop: int
) -> None:
    codes, scale = random_codes(36, 40), scales(3, 3)
    layout = read_layout(put(tmp_path, {"m.weight": codes, "m.weight_scale_inv": scale}, **fp8_config()))
    whole = codes.float() * scale.repeat_interleave(16, 0)[:36].repeat_interleave(16, 1)[:, :40]
    with DequantisedReader(as_numbers(layout), Reader(layout)) as reader:
        assert torch.equal(reader.block("m.weight", start, stop), whole.view(-1)[start:stop])
