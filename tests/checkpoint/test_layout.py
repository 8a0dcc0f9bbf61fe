"""A damaged or hostile checkpoint ends in one line that names the file, never in a crash, a hang or a huge allocation."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mergetool.checkpoint.layout import read_layout
from mergetool.checkpoint.reader import Reader
from mergetool.errors import CheckpointError
from tests.helpers import random_weights, write_checkpoint

QUICK = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def put(directory: Path, header: object, data: bytes = b"") -> Path:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    (directory / "config.json").write_text("{}")
    (directory / "model.safetensors").write_bytes(struct.pack("<Q", len(raw)) + raw + data)
    return directory


def refused(directory: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        read_layout(directory)
    assert "\n" not in str(caught.value)
    assert caught.value.hint
    return str(caught.value)


@pytest.mark.parametrize("shards", [1, 4])
def test_reading_gives_what_was_written(tmp_path: Path, shards: int) -> None:
    weights = random_weights(0)
    layout = read_layout(write_checkpoint(tmp_path / "m", weights, torch.bfloat16, shards))
    with Reader(layout) as reader:
        assert layout.tensors.keys() == weights.keys()
        for name, expected in weights.items():
            assert torch.equal(reader.tensor(name), expected.bfloat16())
            assert torch.equal(reader.block(name, 3, 9), expected.bfloat16().flatten()[3:9])


def test_a_missing_directory_or_config_is_named(tmp_path: Path) -> None:
    assert "no such model directory" in refused(tmp_path / "nothing")
    assert "config.json" in refused(tmp_path)
    (tmp_path / "config.json").write_text("{")
    assert "not valid JSON" in refused(tmp_path)


def test_a_directory_without_weights_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert "has no weights" in refused(tmp_path)
    (tmp_path / "shard.safetensors").write_bytes(b"x")
    assert "shard.safetensors but neither" in refused(tmp_path)


def test_a_truncated_shard_is_named(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, random_weights(0), shards=3)
    shard = tmp_path / "model-00002-of-00003.safetensors"
    shard.write_bytes(shard.read_bytes()[:-5])
    assert "model-00002-of-00003.safetensors: is truncated" in refused(tmp_path)
    shard.unlink()
    assert "no such weight file" in refused(tmp_path)


@pytest.mark.parametrize("file", ["../evil.safetensors", "/etc/passwd", "a/b.safetensors", "..", "", 3])
def test_an_index_may_not_point_outside_its_directory(tmp_path: Path, file: object) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"w": file}}))
    assert "outside" in refused(tmp_path)


def test_an_index_and_its_shards_must_agree(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, random_weights(0), shards=2)
    index = tmp_path / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    name, file = content["weight_map"].popitem()
    index.write_text(json.dumps(content))
    assert "the index does not list" in refused(tmp_path)
    content["weight_map"] |= {name: file, "ghost": file}
    index.write_text(json.dumps(content))
    assert "ghost" in refused(tmp_path)


def entry(begin: int, end: int, dtype: str = "F32", shape: tuple[int, ...] = (2,)) -> dict:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    ("header", "data", "says"),
    [
        ({"a": entry(0, 8), "b": entry(4, 12)}, 12, "overlaps"),
        ({"a": entry(0, 8), "b": entry(12, 20)}, 20, "gap"),
        ({"a": entry(0, 8)}, 4, "truncated"),
        ({"a": entry(0, 8)}, 12, "after its last tensor"),
        ({"a": entry(0, 12)}, 12, "needs 8 bytes"),
        ({"a": entry(8, 0)}, 8, "impossible"),
        ({"a": entry(0, 8, "Q3")}, 8, "not supported"),
        ({"a": entry(0, 8, shape=(-2, -1))}, 8, "impossible"),
        ({"a": entry(0, 0, shape=(1 << 61, 8, 0))}, 0, None),
        ({"a": entry(0, 8, shape=(1 << 70,))}, 8, "impossible"),
        ({"a": {"dtype": "F32"}}, 0, "lacks"),
        ({"a": 7}, 0, "lacks"),
        ([1], 0, "not a JSON object"),
        (b'{"a":1,"a":2}', 0, "occurs twice"),
        (b"\xff\xfe{", 0, "damaged"),
        (b"[" * 100_000, 0, "nests too deeply"),
        ({}, 0, "no tensors"),
    ],
)
def test_a_header_that_contradicts_itself_is_refused(tmp_path: Path, header: object, data: int, says: str | None) -> None:
    put(tmp_path, header, b"\0" * data)
    if says is None:
        assert read_layout(tmp_path).tensors["a"].numel == 0
    else:
        assert says in refused(tmp_path)


def test_an_absurd_header_length_allocates_nothing(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", 1 << 62) + b"{}")
    assert "claims" in refused(tmp_path)


@QUICK
@given(data=st.data())
def test_any_damage_to_a_file_ends_in_one_line_or_a_layout(tmp_path: Path, data: st.DataObject) -> None:
    directory = tmp_path / "m"
    if not (tmp_path / "good").exists():
        write_checkpoint(directory, random_weights(0, num_hidden_layers=1))
        (directory / "model.safetensors").rename(tmp_path / "good")
    content = bytearray((tmp_path / "good").read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, 1500))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.one_of(st.none(), st.integers(0, len(content))))
    (directory / "model.safetensors").write_bytes(content[:cut])
    try:
        layout = read_layout(directory)
    except CheckpointError as error:
        assert "\n" not in str(error)  # noqa: PT017 — either outcome is right
    else:
        with Reader(layout) as reader:
            for name in layout.tensors:
                reader.tensor(name)


@QUICK
@given(text=st.one_of(st.text(max_size=80), st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(
        st.sampled_from(["a", "dtype", "shape", "data_offsets", "__metadata__"]), inner, max_size=3)),
).map(json.dumps)))  # fmt: skip
def test_any_header_text_ends_in_one_line_or_a_layout(tmp_path: Path, text: str) -> None:
    put(tmp_path, text.encode())
    try:
        read_layout(tmp_path)
    except CheckpointError as error:
        assert "\n" not in str(error)  # noqa: PT017
