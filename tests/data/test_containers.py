"""The same rows come out of every container that the field keeps rows in; of several splits one has to be named."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from datasets import Dataset, DatasetDict

from mergetool.data import read_rows
from mergetool.data.containers import files_of
from mergetool.errors import DataError
from mergetool.fingerprints import data_identity
from tests.data.lines import lines

ROWS = [{"prompt": f"p{index}", "chosen": 'a, "quoted"\nline', "rejected": "b"} for index in range(5)]
TALK = [{"messages": [{"role": "user", "content": "ü"}, {"role": "assistant", "content": "a"}]}]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv"])
def test_a_byte_order_mark_is_no_part_of_the_first_row(tmp_path: Path, name: str) -> None:
    text = {"a.jsonl": '{"a": "x"}\n', "a.json": '[{"a": "x"}]', "a.csv": "a\nx\n"}[name]
    (tmp_path / name).write_text(text, encoding="utf-8-sig")
    assert read_rows(tmp_path / name) == [{"a": "x"}]


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.parquet", "saved", "a.arrow"])
def test_what_datasets_writes_is_read(tmp_path: Path, name: str) -> None:
    data = Dataset.from_list(ROWS)
    path = tmp_path / name
    if name.startswith("a.csv"):
        data.to_csv(tmp_path / "plain.csv")
        content = (tmp_path / "plain.csv").read_bytes()
        path.write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    elif name == "a.parquet":
        data.to_parquet(path)
    else:
        data.save_to_disk(tmp_path / "saved", num_shards=2)
        if name == "a.arrow":
            path = next((tmp_path / "saved").glob("*.arrow"))
    assert read_rows(path) == (ROWS if name != "a.arrow" else ROWS[: len(read_rows(path))])


def test_an_arrow_file_of_random_access_is_read_as_a_stream_is(tmp_path: Path) -> None:
    import pyarrow

    table = pyarrow.Table.from_pylist(ROWS)
    with pyarrow.OSFile(str(tmp_path / "f.arrow"), "wb") as sink, pyarrow.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    assert read_rows(tmp_path / "f.arrow") == ROWS


def test_messages_and_labels_in_cells_of_csv_are_what_they_say(tmp_path: Path) -> None:
    import csv

    with (tmp_path / "a.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([("prompt", "label"), (json.dumps(TALK[0]["messages"]), "True"), ("3", "0.5")])
    assert read_rows(tmp_path / "a.csv") == [{"prompt": TALK[0]["messages"], "label": True}, {"prompt": "3", "label": "0.5"}]
    (tmp_path / "b.csv").write_text("a,b\n1\n")
    with pytest.raises(DataError, match="row 1: has not as many cells"):
        read_rows(tmp_path / "b.csv")


def test_objects_that_datasets_keeps_as_json_come_back_as_objects(tmp_path: Path) -> None:
    from datasets import Features, Json, List

    data = Dataset.from_list(TALK, features=Features({"messages": List(Json())}))
    data.to_parquet(tmp_path / "a.parquet")
    data.save_to_disk(tmp_path / "saved")
    assert read_rows(tmp_path / "a.parquet") == read_rows(tmp_path / "saved") == TALK


def test_a_directory_of_shards_and_a_pattern_are_read_in_order_and_known_by_their_bytes(tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    folder.mkdir()
    for index in (1, 0):
        (folder / f"train-0000{index}-of-00002.jsonl").write_text(lines(ROWS[3 * index : 3 * index + 3]))
    assert read_rows(folder) == read_rows(folder / "train-*.jsonl") == ROWS
    before = data_identity(folder)
    (folder / "train-00001-of-00002.jsonl").write_text(lines(ROWS[:1]))
    data_identity.cache_clear()
    assert data_identity(folder) != before
    (folder / "test-00000-of-00001.jsonl").write_text(lines(ROWS))
    with pytest.raises(DataError, match=r"holds several splits \(test, train\); give one of them: shards/test\*"):
        read_rows(folder)
    with pytest.raises(DataError, match="no file fits"):
        files_of(folder / "dev-*.jsonl")


def test_of_several_saved_splits_train_is_read_and_others_by_name(tmp_path: Path) -> None:
    splits = {"train": Dataset.from_list(ROWS[:2]), "test": Dataset.from_list(ROWS[2:])}
    DatasetDict(splits).save_to_disk(tmp_path / "both")
    assert read_rows(tmp_path / "both") == ROWS[:2]
    assert read_rows(tmp_path / "both" / "test") == ROWS[2:]
    assert [file.name for file in files_of(tmp_path / "both")] == ["data-00000-of-00001.arrow"]
    DatasetDict({"dev": splits["test"]}).save_to_disk(tmp_path / "dev")
    with pytest.raises(DataError, match="name one: dev/dev"):
        read_rows(tmp_path / "dev")


def test_a_directory_of_nothing_or_of_two_kinds_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(lines(ROWS))
    (tmp_path / "b.csv").write_text("a\n1\n")
    with pytest.raises(DataError, match="several kinds"):
        read_rows(tmp_path)
