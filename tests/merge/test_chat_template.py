"""A chat template is text, the name of one that mergekit ships, or the one that most of the models have."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mergetool.checkpoint.place import Directory
from mergetool.errors import RecipeError
from mergetool.merge import MergeRecipe, merge_to_directory, plan_merge
from mergetool.merge.chat_template import chat_template, own_template
from tests.helpers import write_triple

ONE, OTHER = "{{ one }}", "{{ other }}"


def place(directory: Path, template: object = None, file: str | None = None) -> Directory:
    directory.mkdir()
    (directory / "tokenizer_config.json").write_text(json.dumps({} if template is None else {"chat_template": template}))
    if file is not None:
        (directory / "chat_template.jinja").write_text(file)
    return Directory(directory)


def test_text_is_itself_and_nothing_is_nothing() -> None:
    assert chat_template(ONE, []) == ONE
    assert chat_template(None, []) is chat_template("", []) is None


def test_a_name_is_a_template_that_makes_a_conversation() -> None:
    import jinja2

    text = chat_template("chatml", [])
    assert text is not None
    said = jinja2.Template(text).render(messages=[{"role": "user", "content": "hello"}], add_generation_prompt=True)
    assert said.startswith("<|im_start|>user\nhello<|im_end|>")
    for name in ("llama3", "mistral", "alpaca", "exaone"):
        assert "{" in (chat_template(name, []) or "")


def test_a_wrong_name_is_an_error_with_the_nearest_one() -> None:
    with pytest.raises(RecipeError, match=r"no template 'chatlm'.*chatml"):
        chat_template("chatlm", [])


def test_auto_is_the_one_that_most_have_the_first_of_as_many(tmp_path: Path) -> None:
    places = [
        place(tmp_path / "none"),
        place(tmp_path / "listed", [{"name": "tool", "template": "x"}, {"name": "default", "template": ONE}]),
        place(tmp_path / "in a file", "{{ old }}", OTHER),
        place(tmp_path / "plain", f"{OTHER}\n"),
    ]
    assert [own_template(one) for one in places] == [None, ONE, OTHER, OTHER]
    assert chat_template("auto", places) == OTHER
    assert chat_template("auto", places[:3]) == ONE
    assert chat_template("auto", places[:1]) is None


def test_the_result_has_the_template_and_no_other(tmp_path: Path) -> None:
    triple = write_triple(tmp_path / "in")
    models = [{"model": str(triple[name]), "parameters": {"weight": 0.5}} for name in ("sft", "rlhf")]
    recipe = {"merge_method": "linear", "models": models, "chat_template": "chatml"}
    merge_to_directory(plan_merge(MergeRecipe.model_validate(recipe)), tmp_path / "out")
    assert own_template(Directory(tmp_path / "out")) == chat_template("chatml", []).strip()
    assert "chat_template" not in json.loads((tmp_path / "out/tokenizer_config.json").read_text())
    merge_to_directory(plan_merge(MergeRecipe.model_validate({**recipe, "chat_template": "auto"})), tmp_path / "auto")
    assert own_template(Directory(tmp_path / "auto")) == own_template(Directory(triple["sft"]))
