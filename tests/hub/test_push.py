"""A finished merge goes to the Hub whole, private unless asked, once, and with a card that draws its tree."""

from __future__ import annotations

import json
import shutil
from hashlib import sha256
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file, save_file

from tests.helpers import random_weights, write_checkpoint
from tests.hub.program import Program
from tests.hub.server import Fault, StandIn
from tests.hub.store import OTHER, OWNER, Repository

BIG = {"num_hidden_layers": 1, "hidden_size": 512, "vocab_size": 24_000}
UPLOADS = r"^PUT /large/"


@pytest.fixture(scope="module")
def recipe(hub: StandIn, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A merge of two repositories of 50 MB, of which one is of another licence."""
    root = tmp_path_factory.mktemp("inputs")
    sft = random_weights(0, **BIG)
    licences = {"sft": {"license": "apache-2.0"}, "rlhf": {"license": "other", "license_name": "research-only"}}
    for seed, name in enumerate(("sft", "rlhf")):
        near = sft if seed == 0 else random_weights(1, near=sft, **BIG)
        hub.store.add(f"lab/{name}", write_checkpoint(root / name, near, **BIG), card=licences[name])
    models = [{"model": f"lab/{m}", "parameters": {"weight": 0.5}} for m in ("sft", "rlhf")]
    path = root / "recipe.yaml"
    path.write_text(yaml.safe_dump({"merge_method": "linear", "models": models}))
    return path


@pytest.fixture(scope="module")
def merged(mergetool: Program, recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("merged") / "out"
    assert mergetool("merge", recipe, out).code == 0
    return out


@pytest.fixture
def result(merged: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(merged, tmp_path / "out"))


@pytest.fixture
def small(mergetool: Program, hub: StandIn, triple: dict[str, Path], tmp_path: Path) -> Path:
    """The result of a merge of small directories, in several shards."""
    models = [{"model": str(triple[m]), "parameters": {"weight": 0.5}} for m in ("sft", "rlhf")]
    (tmp_path / "small.yaml").write_text(yaml.safe_dump({"merge_method": "linear", "models": models}))
    result = mergetool("merge", tmp_path / "small.yaml", tmp_path / "small", "--shard-size", "40kB")
    assert result.code == 0, result
    return tmp_path / "small"


def repository(hub: StandIn, name: str) -> Repository:
    return hub.store.repositories["models", name]


def received(asked: list) -> int:
    return sum(one.received for one in asked if one.path.startswith("/large/"))


def test_a_merge_is_one_flag_from_being_published_and_comes_back_byte_for_byte(
    hub: StandIn, mergetool: Program, recipe: Path, merged: Path, tmp_path: Path
) -> None:
    done = mergetool("merge", recipe, merged, "--push", "me/whole", token=OWNER)  # it is there already: it is only pushed
    assert done.code == 0, done
    assert done.out.splitlines() == [str(merged), f"{hub.url}/me/whole"]
    assert repository(hub, "me/whole").private
    fetch = f"snapshot_download('me/whole', local_dir={str(tmp_path / 'back')!r})"
    mergetool.python(f"from huggingface_hub import snapshot_download; {fetch}", token=OWNER)
    files = sorted(p.name for p in merged.iterdir())
    assert sorted(p.name for p in (tmp_path / "back").iterdir() if not p.name.startswith(".")) == files
    assert all((tmp_path / "back" / name).read_bytes() == (merged / name).read_bytes() for name in files)
    with hub.counted() as asked:
        names = "sorted(get_safetensors_metadata('me/whole').files_metadata['model.safetensors'].tensors)"
        found = mergetool.python(f"from huggingface_hub import get_safetensors_metadata; result = {names}", token=OWNER)
    assert found == sorted(random_weights(0, **BIG))
    assert sum(one.sent for one in asked) < 150_000  # of 50 MB: it is read by the Hub's own client as any model


def test_a_second_push_of_the_same_bytes_uploads_nothing(hub: StandIn, mergetool: Program, result: Path) -> None:
    assert mergetool("push", result, "me/twice", token=OWNER).code == 0
    commits = len(repository(hub, "me/twice").log)
    with hub.counted() as asked:
        again = mergetool("push", result, "me/twice", token=OWNER)
    assert again.code == 0
    assert "nothing was uploaded" in again.err
    assert received(asked) == 0
    assert len(repository(hub, "me/twice").log) == commits
    (result / "README.md").write_text((result / "README.md").read_text() + "\nA word of mine.\n")
    with hub.counted() as asked:
        assert json.loads(mergetool("push", result, "me/twice", "--json", token=OWNER).out)["uploaded"] == ["README.md"]
    assert received(asked) == 0
    assert repository(hub, "me/twice").tree()["README.md"].data.endswith(b"A word of mine.\n")


def test_the_card_draws_the_tree_and_warns_where_licences_differ(hub: StandIn, mergetool: Program, merged: Path) -> None:
    text = (merged / "README.md").read_text()
    block = yaml.safe_load(text.split("---")[1])
    assert block["base_model"] == ["lab/sft", "lab/rlhf"]
    assert block["base_model_relation"] == "merge"
    assert block["library_name"] == "transformers"
    assert {"merge", "mergetool", "linear"} <= set(block["tags"])
    assert "license" not in block
    assert "the licences of the inputs differ (lab/sft: apache-2.0, lab/rlhf: research-only)" in text
    manifest = json.loads((merged / "mergetool.json").read_text())
    assert any("licences" in warning for warning in manifest["warnings"])
    assert manifest["outputs_sha256"]["model.safetensors"] in text
    assert "merge_method: linear" in text
    assert "seed 0" in text


def test_one_licence_of_all_inputs_is_the_results(hub: StandIn, mergetool: Program, triple: dict, tmp_path: Path) -> None:
    for name in ("sft", "rlhf"):
        hub.store.add(f"lab/mit-{name}", triple[name], card={"license": "mit"})
    models = [{"model": f"lab/mit-{m}", "parameters": {"weight": 0.5}} for m in ("sft", "rlhf")]
    (tmp_path / "r.yaml").write_text(yaml.safe_dump({"merge_method": "linear", "models": models}))
    assert mergetool("merge", tmp_path / "r.yaml", tmp_path / "mit").code == 0
    text = (tmp_path / "mit" / "README.md").read_text()
    assert yaml.safe_load(text.split("---")[1])["license"] == "mit"
    assert "Licence:" not in text


def test_nothing_becomes_public_without_being_asked(hub: StandIn, mergetool: Program, small: Path, triple: dict) -> None:
    open_one = hub.store.add("me/open", triple["sft"])
    commits = len(open_one.log)
    refused = mergetool("push", small, "me/open", token=OWNER)
    assert refused.code == 2
    assert "is public" in refused.line
    assert "--public" in refused.line
    assert len(open_one.log) == commits
    assert mergetool("push", small, "me/open", "--public", token=OWNER).code == 0
    assert mergetool("push", small, "lab/shown", "--public", token=OWNER).code == 0
    assert not repository(hub, "lab/shown").private


def test_a_branch_and_a_pull_request(hub: StandIn, mergetool: Program, small: Path) -> None:
    assert mergetool("push", small, "me/branches", token=OWNER).code == 0
    (small / "README.md").write_text((small / "README.md").read_text() + "\nChanged.\n")
    there = repository(hub, "me/branches")
    before = there.refs["main"]
    assert mergetool("push", small, "me/branches", "--revision", "v2", token=OWNER).code == 0
    assert b"Changed." in there.tree("v2")["README.md"].data
    asked = mergetool("push", small, "me/branches", "--pr", token=OWNER)
    assert asked.code == 0, asked
    assert asked.out.strip() == f"{hub.url}/me/branches/discussions/1"
    assert b"Changed." in there.tree("refs/pr/1")["README.md"].data
    assert there.requests[0].status == "open"
    assert there.refs["main"] == before
    again = mergetool("push", small, "me/branches", "--pr", token=OWNER)  # not a second one of the same result
    assert "nothing was uploaded" in again.err
    assert len(there.requests) == 1
    assert "does not exist" in mergetool("push", small, "me/nowhere", "--pr", token=OWNER).line
    assert ("models", "me/nowhere") not in hub.store.repositories


def test_shards_of_an_earlier_result_do_not_stay_behind(hub: StandIn, mergetool: Program, small: Path, tmp_path: Path) -> None:
    assert mergetool("push", small, "me/shards", token=OWNER).code == 0
    assert "model.safetensors.index.json" in repository(hub, "me/shards").tree()
    assert mergetool("merge", tmp_path / "small.yaml", tmp_path / "one").code == 0
    assert mergetool("push", tmp_path / "one", "me/shards", token=OWNER).code == 0
    weights = [name for name in repository(hub, "me/shards").tree() if "safetensors" in name]
    assert weights == ["model.safetensors"]


@pytest.mark.parametrize(
    ("repo", "token", "said"),
    [
        ("me/new", "hf_" + "Wrong" * 7, "does not accept the token"),
        ("me/new", None, "no token"),
        ("me/new", OTHER, "guest's, who is not in 'me'"),
        ("new", OWNER, "write me/new"),
        ("me/a b", OWNER, "is not a Hub id"),
    ],
    ids=lambda value: str(value).replace(OWNER, "owner").replace(OTHER, "other").replace("Wrong" * 7, "wrong"),
)
def test_who_may_not_push_is_told_before_any_work(
    hub: StandIn, mergetool: Program, small: Path, tmp_path: Path, repo: str, token: str | None, said: str
) -> None:
    with hub.counted() as asked:
        for command in (["push", small, repo], ["merge", tmp_path / "small.yaml", tmp_path / "again", "--push", repo]):
            result = mergetool(*command, token=token)
            assert result.code == 2, result
            assert said in result.line
            assert ";" in result.line
    assert not (tmp_path / "again").exists()
    assert all(one.method == "GET" for one in asked)


def spoil_weights(folder: Path) -> None:
    name = next(folder.glob("model*.safetensors"))
    weights = load_file(name)
    next(iter(weights.values())).add_(1)
    save_file(weights, name, metadata={"format": "pt"})


def interrupt(folder: Path) -> None:
    folder.rename(folder.parent / f".{folder.name}.mergetool-partial")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: shutil.rmtree(folder), "no such directory"),
        (interrupt, "is not complete, its run was interrupted"),
        (lambda folder: (folder / "mergetool.json").unlink(), "has no mergetool.json"),
        (lambda folder: (folder / "mergetool.json").write_text("{"), "cannot be read"),
        (lambda folder: (folder / "config.json").unlink(), "has no config.json"),
        (lambda folder: next(folder.glob("model-*.safetensors")).unlink(), "a shard is missing"),
        (spoil_weights, "is not what mergetool.json says"),
        (lambda folder: (folder / "journal.jsonl").write_text("{}"), "unfinished"),
        (lambda folder: (folder / "README.md").write_text("---\ntags: [a\n---\n"), "metadata cannot be read"),
        (lambda folder: (folder / "README.md").write_text("---\nbase_model: ['a b']\n---\n"), "base_model"),
    ],
    ids=["nothing", "interrupted", "no-manifest", "manifest", "config", "shard", "weights", "journal", "card", "invalid-card"],
)
def test_nothing_is_pushed_from_a_directory_that_is_not_complete(
    hub: StandIn, mergetool: Program, small: Path, spoil: object, said: str
) -> None:
    spoil(small)
    with hub.counted() as asked:
        result = mergetool("push", small, "me/spoilt", token=OWNER)
    assert result.code == 2, result
    assert said in result.line
    assert received(asked) == 0
    assert len(repository(hub, "me/spoilt").log) == 1 if ("models", "me/spoilt") in hub.store.repositories else True


def test_an_upload_that_is_cut_is_taken_up(hub: StandIn, mergetool: Program, result: Path) -> None:
    """The connection drops in the middle of 50 MB, the Hub is busy once, and the answer to the commit is lost."""
    hub.store.large.clear()
    with hub.counted() as asked:
        hub.faults += [Fault(UPLOADS, "cut", after=20_000_000), Fault("preupload", "busy"), Fault("/commit/main", "lost")]
        done = mergetool("push", result, "me/cut", token=OWNER)
    assert done.code == 0, done
    assert not hub.fault("POST", "/commit/main")
    there = repository(hub, "me/cut")
    assert [message.startswith("Upload") for _, message in there.log] == [False, True]  # the commit that was lost is the one
    assert there.tree()["model.safetensors"].data == (result / "model.safetensors").read_bytes()
    assert [one.status for one in asked].count(429) == 1


def test_a_push_that_fails_goes_on_with_the_files_that_are_missing(hub: StandIn, mergetool: Program, small: Path) -> None:
    hub.store.large.clear()
    shards = sorted(small.glob("model-*.safetensors"))
    last = sha256(shards[-1].read_bytes()).hexdigest()
    with hub.counted():
        hub.faults.append(Fault(f"PUT /large/{last}", "refused", times=99))
        failed = mergetool("push", small, "me/again", token=OWNER)
    assert failed.code == 2, failed
    assert "run the same command again" in failed.line or "use a token" in failed.line
    assert len(repository(hub, "me/again").log) == 1  # nothing half is to be seen
    with hub.counted() as asked:
        assert mergetool("push", small, "me/again", token=OWNER).code == 0
    assert received(asked) == shards[-1].stat().st_size
