"""A checkpoint that cannot be loaded is one line."""

import pytest

from mergetool.errors import CheckpointError
from mergetool.evaluate import Task, evaluate
from tests.evaluate.tiny import SKILLS


def test_a_directory_without_config_is_a_checkpoint_error(tmp_path):
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        evaluate(tmp_path, [Task("t", ("nll",), SKILLS)])
