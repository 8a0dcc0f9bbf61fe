"""A study is checked from headers: shapes of its models, recipes of its candidates."""

import pytest

from mergetool.errors import MergetoolError
from mergetool.study import check_study
from tests.study import tiny


def test_a_sound_study_is_checked_from_headers(folder):
    found = check_study(tiny.study(folder))
    assert found["merges"] == 4
    assert found["rows"] == {"pairs": {"validation": 12, "test": 12}, "skills": {"validation": 12, "test": 12}}


def test_two_widths_are_told_apart_by_their_headers(folder, tmp_path):
    from transformers import LlamaForCausalLM

    from tests.evaluate import tiny as models

    config = models.llama().config
    config.hidden_size, config.head_dim = 32, 16
    LlamaForCausalLM(config).save_pretrained(tmp_path / "wide")
    with pytest.raises(MergetoolError, match="wide: tensor"):
        check_study(tiny.study(folder, candidates=[{"name": "x", "checkpoint": str(tmp_path / "wide")}]))
