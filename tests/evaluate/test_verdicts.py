"""Verdicts outlive the process and do not mix."""

import pytest

from mergetool.evaluate.verdicts import Verdicts

pytestmark = pytest.mark.usefixtures("key")


def test_several_writers_do_not_mix_their_lines(tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    kept = Verdicts(tmp_path / "v.jsonl")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda at: kept.add(Verdicts.key(at), "A"), range(200)))
    assert all(Verdicts.key(at) in Verdicts(tmp_path / "v.jsonl") for at in range(200))
