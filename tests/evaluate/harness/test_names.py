"""What a task measures is known without its data, and what decides its scores is in its identity."""

from mergetool.evaluate.harness.names import expand, identity
from tests.evaluate import public
from tests.evaluate.public import task


def test_columns_are_known_without_data(tmp_path):
    folder = public.tasks(tmp_path)
    for file in folder.glob("*.jsonl"):
        file.unlink()
    found = {one.name: one for one in task(folder, "pooled", "say_em", "say_bleu:bleu").metrics("reward")}
    assert list(found) == ["average", "pooled", "say_em", "say_bleu:bleu"]
    assert {one.side for one in found.values()} == {"reward"}
    assert all(one.higher_is_better and one.unit for one in found.values())
    assert found["pooled"].unit == "share of rows"


def test_metrics_of_different_scales_have_no_average(folder):
    (folder / "odd.yaml").write_text(
        (folder / "say_em.yaml").read_text().replace("say_em", "odd").replace("exact_match", "ter")
    )
    found = task(folder, "quiz_a", "odd").metrics()
    assert [one.name for one in found] == ["quiz_a", "odd"]
    assert not found[1].higher_is_better


def test_what_decides_the_scores_is_in_the_identity(tmp_path):
    folder = public.tasks(tmp_path)
    before = identity(expand(["pooled"]), (folder,))
    assert identity(expand(["pooled"]), (folder,)) == before
    (folder / "b.jsonl").write_text((folder / "a.jsonl").read_text())
    assert identity(expand(["pooled"]), (folder,)) != before
    (folder / "plain.yaml").write_text((folder / "pooled.yaml").read_text().replace("pooled", "plain"))
    one_way = identity(expand(["plain"]), (folder,))
    (folder / "plain.yaml").write_text((folder / "plain.yaml").read_text().replace("true", "false"))
    assert identity(expand(["plain"]), (folder,)) != one_way, "how a group averages"
    (folder / "quiz_a.yaml").write_text((folder / "quiz_a.yaml").read_text().replace("A:", "Answer:"))
    after = identity(expand(["quiz_a"]), (folder,))
    (folder / "quiz_a.yaml").write_text((folder / "quiz_a.yaml").read_text().replace("Answer:", "A:"))
    assert identity(expand(["quiz_a"]), (folder,)) != after
