"""What a study names is found from the recipe's own directory, wherever the program runs."""

from mergetool.study.candidates.models import FromAlign
from tests.study import tiny


def test_sources_are_absolute_and_rlhf_is_left_out_where_the_study_makes_it(folder):
    assert tiny.study(folder).sources() == {name.upper(): folder / name for name in ("sft", "base", "rlhf")}
    entry = {"name": "adamw", "align": {"method": "adamw"}}
    made = tiny.study(folder, models={"base": "org/base@v1", "sft": "sft", "rlhf": {"align": "adamw"}}, candidates=[entry])
    assert made.sources() == {"SFT": folder / "sft", "BASE": "org/base@v1"}
    assert made.models.rlhf == FromAlign(align="adamw")


def test_a_reward_is_a_function_in_a_file_or_a_model(folder):
    study = tiny.study(folder)
    assert study.reward_source("r.py:brief") == f"{folder}/r.py:brief"
    assert study.reward_source("rlhf") == str(folder / "rlhf")
    assert study.reward_source("org/judge") == "org/judge"
