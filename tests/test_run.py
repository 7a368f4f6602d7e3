"""The real path from mp4 files to scores, on a small drawn world."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import svilm
from svilm.config import ConfigError, build, override
from svilm.data.augment import CutPaste
from svilm.data.language import TEMPLATES
from svilm.data.manifest import Manifest, verified
from svilm.data.prepare import folder, msrvtt, videocc
from svilm.data.prepare.common import prepare
from svilm.engine.optim import Optim
from svilm.engine.trainer import Training
from svilm.model import SViLM
from svilm.models.dual import SIZES, DualEncoder
from svilm.recipes import recipe
from svilm.run import Run, evaluate, evaluate_only, execute, load_run, place_of
from svilm.start import Start, tokenizer_of
from svilm.tasks.pretrain import Pretrain

SMALL = (
    "training.steps=3", "training.log_every=1", "training.save_every=2", "data.batch=8", "data.workers=0",
    "model.video.width=32", "model.video.depth=2", "model.video.heads=2", "model.video.group_after=[1,2]",
    "model.text.width=32", "model.text.depth=1", "model.text.heads=2", "model.common=16",
)  # fmt: skip


@pytest.fixture(scope="module")
def manifests(world, tmp_path_factory):
    """Manifests of the three official files of the drawn world."""
    place = tmp_path_factory.mktemp("manifests")
    listings = {
        "data": videocc.listing(world / "videocc" / "video_cc_public.csv"),
        "retrieval": msrvtt.listing(world / "msrvtt", split="test"),
        "temporal": folder.listing(world / "scenes.csv", split="test"),
    }
    for name, listing in listings.items():
        prepare(listing, to=place / f"{name}.jsonl", videos=world / "videos", check="none")
    return {name: place / f"{name}.jsonl" for name in listings}


@pytest.fixture(scope="module")
def jump_cuts(world, tmp_path_factory):
    """Manifest of the jump cuts of the drawn world."""
    path = tmp_path_factory.mktemp("cuts") / "cuts.jsonl"
    prepare(folder.listing(world / "jump_cuts.csv", split="test"), to=path, videos=world / "jump_cuts", check="none")
    return path


@pytest.fixture(scope="module")
def run(manifests, jump_cuts) -> Run:
    files = [f"{name}.manifest={path}" for name, path in manifests.items()]
    files += [f"{name}={manifests['retrieval']}" for name in ("grounding.manifest", "temporal.pasted")]
    files += [f"temporal.jump_cuts={jump_cuts}"]
    return override(recipe("tiny"), [*SMALL, *files])


@pytest.fixture(scope="module")
def finished(run, tmp_path_factory):
    """A finished run folder with its scores."""
    place = tmp_path_factory.mktemp("runs") / "one"
    return place, execute(run, place)


def test_a_run_leaves_everything_that_explains_its_numbers(finished, run):
    place, scores = finished
    names = {path.name for path in place.iterdir()}
    assert names >= {
        "run.json", "environment.json", "metrics.jsonl", "first_batch.png", "scores.json", "protocols.json",
        "tokenizer.json", "checkpoints", "model", "grounding.json",
    }  # fmt: skip
    assert json.loads((place / "scores.json").read_text()) == scores
    assert all(isinstance(value, float) for value in scores.values())
    for family in ("retrieval", "retrieval_untrained", "retrieval_chance"):
        for direction in ("text_to_video", "video_to_text"):
            assert 0 <= scores[f"{family}/{direction}/R@10"] <= 100
    assert scores["retrieval/scored"] == scores["retrieval/official"] == 12
    assert {"temporal/within", "temporal/across", "temporal_untrained/gap"} <= set(scores)
    for family in ("grounding", "grounding_untrained", "grounding_contrast", "grounding_chance"):
        assert 0 <= scores[f"{family}/pointing"] <= 100
    for family in ("temporal", "temporal_untrained", "temporal_pixels"):
        assert 0 <= scores[f"{family}/assignment_accuracy"] <= 100
    for family in ("temporal_cuts", "temporal_cuts_untrained", "temporal_cuts_pixels"):
        assert {f"{family}/{name}" for name in ("gap", "told_apart", "boundary_f1_half")} <= set(scores)
    assert scores["temporal_cuts/scored"] == 3
    environment = json.loads((place / "environment.json").read_text())
    assert environment["torch"] == torch.__version__ and environment["svilm"] == svilm.__version__


def test_run_json_rebuilds_the_run(finished, run):
    place, _ = finished
    rebuilt = load_run(place)
    vocabulary = rebuilt.model.text.vocabulary
    assert vocabulary < run.model.text.vocabulary  # what the tokenizer really has
    assert override(run, [f"model.text.vocabulary={vocabulary}"]) == rebuilt


def test_the_same_run_again_gives_the_same_weights_and_scores(finished, run, tmp_path):
    place, scores = finished
    assert execute(run, tmp_path) == scores
    ours, theirs = ((p / "model" / "model.safetensors").read_bytes() for p in (place, tmp_path))
    assert ours == theirs


def test_a_finished_run_can_be_called_again(finished, run):
    place, scores = finished
    trained = (place / "environment.json").read_bytes()
    assert execute(run, place) == scores
    assert (place / "environment.json").read_bytes() == trained  # with the date: nothing was trained now


def test_a_folder_with_another_run_is_refused(finished, run):
    place, _ = finished
    with pytest.raises(ConfigError, match=r"seed: 0 there, 1 now"):
        execute(override(run, ["seed=1"]), place)


def test_a_refused_run_leaves_the_word_pieces_of_the_other(finished, run, manifests, tmp_path):
    place, _ = finished
    lines = manifests["data"].read_text().splitlines()
    other = manifests["data"].with_name("half.jsonl")
    other.write_text("\n".join(lines[: len(lines) // 2]) + "\n")
    before = (place / "tokenizer.json").read_bytes()
    assert tokenizer_of(run.start, Manifest(other), run.model.text.vocabulary).save(tmp_path) is None
    assert (tmp_path / "tokenizer.json").read_bytes() != before  # it would be another
    with pytest.raises(ConfigError, match=r"data\.manifest"):
        execute(override(run, [f"data.manifest={other}"]), place)
    assert (place / "tokenizer.json").read_bytes() == before


def test_a_wrong_list_is_told_before_anything_is_written(run, tmp_path):
    (tmp_path / "clips.csv").write_text("video,caption\n")
    for name, path, said in (
        ("retrieval.manifest", tmp_path / "nope.jsonl", "no such manifest"),
        ("temporal.pasted", tmp_path / "clips.csv", "line 1"),
        ("training.validation", tmp_path, "a folder"),
    ):
        with pytest.raises(ConfigError, match=rf"{name}: .*{path.name}.*{said}"):
            execute(override(run, [f"{name}={path}"]), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_refused_first_try_leaves_the_folder_to_the_next(run, tmp_path):
    with pytest.raises(ConfigError, match=r"items to train on, fewer than data.batch = 5000; add --set data.batch="):
        execute(override(run, ["data.batch=5000"]), tmp_path)
    assert not (tmp_path / "run.json").exists()
    execute(override(run, ["training.steps=1"]), tmp_path)


def test_a_run_that_is_stopped_while_its_parts_are_made_can_go_on(run, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(Pretrain, "job", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            execute(run, tmp_path)
    execute(load_run(tmp_path), tmp_path)


def test_a_run_does_not_go_on_with_another_list_under_the_same_name(finished, run, tmp_path):
    place = tmp_path / "run"
    shutil.copytree(finished[0], place)
    lists = tmp_path / "data.jsonl"
    lines = Path(run.data.manifest).read_text().splitlines()
    header = {**json.loads(lines[0]), "root": str(Manifest(run.data.manifest).root)}
    lists.write_text("\n".join([json.dumps(header), *lines[1:]]) + "\n")
    moved = override(load_run(place), [f"data.manifest={lists}"])
    (place / "run.json").write_text(moved.model_dump_json())
    (place / "data.json").unlink()
    assert execute(moved, place) == finished[1]  # of a time before data.json was kept
    lists.write_text("\n".join([json.dumps({**header, "protocol": "the same clips"}), *lines[1:]]) + "\n")
    assert execute(moved, place) == finished[1]
    lists.write_text("\n".join([json.dumps(header), *lines[1:-1]]) + "\n")
    with pytest.raises(
        ConfigError, match=rf"data.jsonl has other clips .*\({len(lines) - 1} then, {len(lines) - 2} now"
    ):
        execute(moved, place)


def test_lists_of_retrieval_need_captions(run, manifests, tmp_path):
    lines = manifests["retrieval"].read_text().splitlines()
    silent = {**json.loads(lines[2]), "captions": [], "nouns": []}
    header = {**json.loads(lines[0]), "root": str(Manifest(manifests["retrieval"]).root)}
    (tmp_path / "silent.jsonl").write_text("\n".join([json.dumps(header), lines[1], json.dumps(silent)]) + "\n")
    for name in ("retrieval.manifest", "training.validation"):
        with pytest.raises(ConfigError, match=rf"{name}: .*silent.jsonl: {silent['id']} has no caption"):
            execute(override(run, [f"{name}={tmp_path / 'silent.jsonl'}"]), tmp_path / "run")


def test_no_training_manifest(tmp_path):
    with pytest.raises(ConfigError, match=r"data\.manifest is empty"):
        execute(recipe("tiny"), tmp_path)


def test_a_folder_without_a_run(tmp_path):
    with pytest.raises(ConfigError, match=r"no run\.json"):
        load_run(tmp_path)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(ConfigError, match=r"run\.json"):
        load_run(tmp_path)


def test_evaluating_a_saved_model_gives_the_scores_of_the_run(finished):
    place, scores = finished
    assert evaluate(load_run(place), place) == scores


def test_one_evaluation_alone_takes_its_place_among_the_scores(finished, tmp_path):
    place, scores = finished
    copy = tmp_path / "copy"
    shutil.copytree(place, copy)
    (copy / "scores.json").write_text(json.dumps({**scores, "temporal/gap": 9.0, "temporal_old/gap": 9.0}))
    run = load_run(copy)
    alone = evaluate_only(run, copy, "temporal")
    assert alone == {name: value for name, value in scores.items() if name.startswith("temporal")}
    assert json.loads((copy / "scores.json").read_text()) == scores
    assert set(json.loads((copy / "protocols.json").read_text())) == {
        "retrieval", "temporal", "temporal_cuts", "grounding",
    }  # fmt: skip
    with pytest.raises(ConfigError, match=r"grounding\.manifest is empty"):
        evaluate_only(override(run, ["grounding.manifest="]), copy, "grounding")
    cuts = evaluate_only(override(run, ["temporal.manifest="]), copy, "temporal")
    assert cuts == {name: value for name, value in scores.items() if name.startswith("temporal_cuts")}
    with pytest.raises(ConfigError, match=r"temporal\.manifest is empty"):
        evaluate_only(override(run, ["temporal.manifest=", "temporal.jump_cuts="]), copy, "temporal")


def test_scores_on_another_list_do_not_replace_those_of_the_run(finished, manifests, tmp_path):
    place = tmp_path / "run"
    shutil.copytree(finished[0], place)
    own = {file.name: file.read_bytes() for file in place.iterdir() if file.is_file()}
    other = override(load_run(place), [f"retrieval.manifest={manifests['data']}", "grounding.manifest="])
    scores = evaluate(other, place)
    assert place_of(other, place) == place / "on-data"
    assert json.loads((place / "on-data" / "scores.json").read_text()) == scores
    assert scores["retrieval/scored"] == len(Manifest(manifests["data"]))
    assert load_run(place / "on-data") == other
    alone = evaluate_only(override(load_run(place), [f"grounding.manifest={manifests['data']}"]), place, "grounding")
    assert (place / "on-data-2" / "grounding.json").is_file() and "grounding/pointing" in alone
    assert place_of(other, place) == place / "on-data"
    relative = os.path.relpath(manifests["retrieval"])
    assert place_of(override(load_run(place), [f"retrieval.manifest={relative}"]), place) == place
    read = verified(manifests["retrieval"])  # what a scan could read is no other list
    assert place_of(override(load_run(place), [f"retrieval.manifest={read}"]), place) == place
    assert {file.name: file.read_bytes() for file in place.iterdir() if file.is_file()} == own


def test_five_lines_of_python(finished, world):
    place, _ = finished
    model = svilm.load(str(place), device="cpu")
    file = next((world / "videos").glob("*.mp4"))
    video = model.encode_video(str(file))
    text = model.encode_text(["a red circle", "a blue star"])
    assert video.shape == (1, 16) and text.shape == (2, 16)
    torch.testing.assert_close(torch.cat([video, text]).norm(dim=1), torch.ones(3))
    for kind in ("group", "mixture"):
        found = model.ground(str(file), "red circle", kind=kind)
        assert found.heat.shape == (8, 64, 64) and found.frames.shape == (8, 64, 64, 3)
        assert found.heat.min() >= 0 and found.heat.max() <= 1
        assert found.group in range(model.config.model.video.groups)


def test_in_a_model_with_regions_no_group_is_named(finished, world):
    place, _ = finished
    plain = svilm.load(str(place), device="cpu")
    config = override(plain.config, ["model.regions.depth=1"])
    model = SViLM(DualEncoder(config.model), plain.tokenizer, config)
    file = next((world / "videos").glob("*.mp4"))
    found, by_group = (model.ground(str(file), "red circle", kind=kind) for kind in ("auto", "group"))
    assert found.group is None and by_group.group is not None
    regions = model.encoder.encode_video(torch.from_numpy(found.frames)[None]).region_embedding[0].flatten(0, 1)
    word = torch.nn.functional.normalize(
        model.encode_text([each.format("red circle") for each in TEMPLATES]).mean(0), dim=0
    )
    assert found.similarity == pytest.approx((regions @ word).max().item(), abs=1e-5)
    assert found.similarity != pytest.approx(by_group.similarity, abs=1e-3)


def test_files_frames_and_arrays_are_all_videos(finished, world):
    place, _ = finished
    model = svilm.load(str(place), device="cpu")
    file = next((world / "videos").glob("*.mp4"))
    frames = model.ground(file, "circle").frames  # what the model saw of the file
    alone = model.encode_video(file)
    torch.testing.assert_close(model.encode_video(frames), alone, atol=1e-5, rtol=0)
    torch.testing.assert_close(
        model.encode_video([torch.from_numpy(frames), file]), alone.repeat(2, 1), atol=1e-5, rtol=0
    )
    with pytest.raises(ValueError, match=r"uint8 of shape \(T, H, W, 3\), got torch.float64"):
        model.encode_video(np.zeros((8, 64, 64, 3)))


def test_a_saved_model_is_the_model(finished, tmp_path):
    place, _ = finished
    model = svilm.load(str(place), device="cpu")
    model.save_pretrained(tmp_path / "copy")
    again = svilm.load(str(tmp_path / "copy"), device="cpu")
    words = ["a red circle moves left"]
    assert torch.equal(model.encode_text(words), again.encode_text(words))
    assert {p.name for p in (tmp_path / "copy").iterdir()} == {
        "config.json", "model.safetensors", "tokenizer.json", "README.md",
    }  # fmt: skip


def test_a_model_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match=r"config\.json"):
        svilm.load(str(tmp_path))


def test_published_weights_start_a_run(run, tmp_path):
    """A tiny ViViT and BERT, saved as transformers saves them, become the start and the shape of the encoders."""
    from transformers import BertConfig, BertModel, VivitConfig, VivitModel

    vivit = VivitConfig(
        image_size=64, num_frames=8, tubelet_size=[2, 16, 16], hidden_size=48, num_hidden_layers=2,
        num_attention_heads=2, intermediate_size=192,
    )  # fmt: skip
    theirs = VivitModel(vivit)
    theirs.save_pretrained(tmp_path / "vivit")
    bias_of_vivit = theirs.embeddings.patch_embeddings.projection.bias.detach()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "circle"]
    bert = BertConfig(
        vocab_size=len(words), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=128
    )
    theirs = BertModel(bert)
    theirs.save_pretrained(tmp_path / "bert")
    words_of_bert = theirs.embeddings.word_embeddings.weight.detach()
    (tmp_path / "bert" / "vocab.txt").write_text("\n".join(words))
    started = override(
        run,
        [
            f"start.video={tmp_path / 'vivit'}", f"start.text={tmp_path / 'bert'}", "training.steps=1",
            "retrieval.manifest=", "temporal.manifest=", "temporal.jump_cuts=", "grounding.manifest=",
            "optim.lr_video=0", "optim.lr_text=0",
        ],
    )  # fmt: skip
    execute(started, tmp_path / "run")
    model = svilm.load(str(tmp_path / "run"), device="cpu").encoder
    # the rates of these parts are zero, so the start is still there
    torch.testing.assert_close(model.text.bert.state_dict()["embeddings.word_embeddings.weight"], words_of_bert)
    torch.testing.assert_close(model.video.state_dict()["patch.bias"], bias_of_vivit)
    assert "vivit" in (tmp_path / "run" / "model" / "README.md").read_text()


def test_pushing_uploads_the_saved_model(finished, monkeypatch):
    place, _ = finished
    seen = {}

    class Hub:
        def create_repo(self, name, *, private, exist_ok):
            seen["repository"] = (name, private, exist_ok)
            return f"https://hub/{name}"

        def upload_folder(self, *, repo_id, folder_path):
            seen["files"] = sorted(os.listdir(folder_path))

    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    address = svilm.load(str(place), device="cpu").push_to_hub("me/model", card="More words.")
    assert address == "https://hub/me/model"
    assert seen == {
        "repository": ("me/model", True, True),
        "files": ["README.md", "config.json", "model.safetensors", "tokenizer.json"],
    }


def test_a_run_starts_from_another(finished, run, tmp_path):
    place, before = finished
    tuned = run.model_copy(
        update={
            "start": Start(model=str(place)),
            "model": SIZES["small"],  # the weights bring their own shape
            "task": Pretrain(grounding=0.0, grouping=0.0),
            "data": run.data.model_copy(update={"paste": CutPaste(probability=0.0), "captions": "expand"}),
            "optim": Optim(optimizer="sgd", lr=1e-12),
            "training": Training(steps=1, keep="best", validation=run.retrieval.manifest),
        }
    )
    scores = execute(tuned, tmp_path / "tuned")
    assert load_run(tmp_path / "tuned").model == load_run(place).model
    after = {name: value for name, value in scores.items() if name.startswith("retrieval/")}
    assert after == {name: value for name, value in before.items() if name.startswith("retrieval/")}
    protocols = json.loads((tmp_path / "tuned" / "protocols.json").read_text())
    assert "CHOSEN ON A TEST SPLIT" in protocols["retrieval"]["protocol"]


def test_the_task_of_a_run_is_known_by_its_kind(run):
    data = json.loads(run.model_dump_json())
    assert build(Run, data) == run
    assert build(Run, {**data, "task": {"kind": "pretrain", "grouping": 0.5}}).task == Pretrain(grouping=0.5)
    with pytest.raises(ConfigError, match=r"no module svilm\.tasks\.nothing"):
        build(Run, {**data, "task": {"kind": "nothing"}})
    with pytest.raises(ConfigError, match=r"did you mean 'task\.grouping'"):
        build(Run, {**data, "task": {"kind": "pretrain", "groupin": 1.0}})
    with pytest.raises(ConfigError, match=r"did you mean 'task\.grounding'"):
        override(run, ["task.groundin=1"])
    assert override(run, ["task.grounding=0.25"]).task == run.task.model_copy(update={"grounding": 0.25})
