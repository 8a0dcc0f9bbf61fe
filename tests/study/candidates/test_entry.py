"""A line of candidates has a name; its family is that name unless it is given one."""

import pytest
from pydantic import ValidationError

from mergetool.study.candidates.entry import Entry


def test_a_family_is_the_name_where_none_is_given():
    assert Entry(name="a").family_name == "a"
    assert Entry(name="a", family="b").family_name == "b"
    for wrong in ({"name": ""}, {"name": "a", "famly": "b"}):
        with pytest.raises(ValidationError):
            Entry.model_validate(wrong)
