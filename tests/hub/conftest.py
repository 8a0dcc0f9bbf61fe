"""One stand-in for the Hub and one program a module; a cache of its own for each test that asks for one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers import write_triple
from tests.hub.program import Program
from tests.hub.server import StandIn


@pytest.fixture(scope="module")
def hub() -> Iterator[StandIn]:
    server = StandIn()
    yield server
    server.close()


@pytest.fixture(scope="module")
def triple(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_triple(tmp_path_factory.mktemp("triple"))


@pytest.fixture(scope="module")
def mergetool(hub: StandIn, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    root = tmp_path_factory.mktemp("home")
    program = Program(hub.url, root / "hf", root)
    yield program
    program.close()
