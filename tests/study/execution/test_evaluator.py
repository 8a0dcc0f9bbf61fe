"""A candidate's key is what it is: it moves with the study, and changes with what its files hold."""

from tests.study import tiny


def test_a_study_and_its_results_may_move_and_a_changed_reward_or_file_is_another_candidate(folder, tmp_path):
    import shutil

    from mergetool.fingerprints import data_identity
    from mergetool.study.execution.evaluator import Evaluator

    def keys(place):
        study = tiny.study(
            place,
            align_defaults={"data": {"train": "pairs_validation.jsonl"}, "reward": "rewards.py:brief"},
            candidates=[
                {"name": "plain", "align": {"method": "adamw"}},
                {"name": "sampled", "align": {"method": "adamw", "algorithm": "raft"}},
            ],
        )
        evaluator = Evaluator(study, place / "out")
        return {one.name: evaluator.key(one) for one in evaluator.candidates}

    shutil.copytree(folder, tmp_path / "here")
    (tmp_path / "here/rewards.py").write_text("brief = len")
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    assert keys(tmp_path / "here") == keys(tmp_path / "there")
    before = keys(tmp_path / "here")
    (tmp_path / "there/rewards.py").write_text("brief = max")
    data_identity.cache_clear()  # read once in a process
    changed = {name for name, key in keys(tmp_path / "there").items() if key != before[name]}
    assert changed == {"sampled"}
