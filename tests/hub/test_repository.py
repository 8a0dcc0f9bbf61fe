"""A repository is read by its headers: a few bytes of each weight file, and those are the ones of the file."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers import random_weights, write_checkpoint
from tests.hub.program import Program
from tests.hub.server import StandIn

OPEN = "from mergetool import hub\nfrom mergetool.hub.repository import Repository, read_range\nhub.forget()\n"


@pytest.fixture(scope="module")
def weights(hub: StandIn, triple: dict[str, Path]) -> Path:
    hub.store.add("lab/read", triple["sft"])
    return triple["sft"] / "model.safetensors"


@pytest.mark.parametrize(("start", "stop"), [(0, 8), (8, 1000), (5000, 5001), (7, 7)])
def test_a_range_is_those_bytes_of_the_file_and_no_more_come(
    hub: StandIn, mergetool: Program, weights: Path, start: int, stop: int
) -> None:
    code = OPEN + f"result = list(read_range(hub.pin('lab/read'), 'model.safetensors', {start}, {stop}))"
    with hub.counted() as asked:
        assert bytes(mergetool.python(code)) == weights.read_bytes()[start:stop]
    assert sum(one.sent for one in asked if "resolve" in one.path) == stop - start


LAYOUT = (
    "from mergetool.hub.references import open_layout\n"
    "layout = open_layout({source!r})\n"
    "result = [layout.headers, {{n: [i.dtype_name, list(i.shape), i.nbytes] for n, i in layout.tensors.items()}}]"
)


def test_headers_read_by_ranges_are_those_of_the_directory_and_no_weights_come(
    hub: StandIn, mergetool: Program, weights: Path
) -> None:
    with hub.counted() as asked:
        remote = mergetool.python(OPEN + LAYOUT.format(source="lab/read"))
    assert remote == mergetool.python(LAYOUT.format(source=str(weights.parent)))
    assert sum(one.weights for one in asked) == 0


def test_a_weight_file_that_the_index_names_and_the_repository_lacks_is_told(
    hub: StandIn, mergetool: Program, tmp_path: Path
) -> None:
    folder = write_checkpoint(tmp_path / "lacking", random_weights(1), shards=3)
    (folder / "model-00002-of-00003.safetensors").unlink()
    hub.store.add("lab/lacks", folder)
    line = mergetool("inspect", "lab/lacks").line
    assert "lab/lacks: the repository lacks the weight file model-00002-of-00003.safetensors; use another revision" in line
