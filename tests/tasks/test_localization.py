"""Temporal localization as a task of a run: from features to the official score, and back to one video."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from small import CONFIG
from small import model as small_model
from svilm.config import ConfigError, override
from svilm.data.class_scores import ClassScores, ClassScoresError, write_class_scores
from svilm.data.language import Language, Tokenizer
from svilm.data.loader import Data
from svilm.data.manifest import Header, Manifest, write_manifest
from svilm.data.sample import Sampling
from svilm.data.snippets import SnippetError, Snippets, Windows
from svilm.data.world import draw_world, read_untrimmed
from svilm.engine.optim import Optim
from svilm.engine.task import Context
from svilm.engine.trainer import Training
from svilm.entries import Entry, Segment
from svilm.features.extract import Extraction, extract
from svilm.localize import NAMELESS, Timeline, detect
from svilm.metrics.activitynet import evaluate_segments, read_predictions
from svilm.metrics.proposals import ProposalConfig
from svilm.model import ModelConfig, SViLM
from svilm.models.gtad import GTADConfig
from svilm.run import Run, evaluate, execute, load_run
from svilm.start import Start
from svilm.tasks.localization import Localization, LocalizationTask

CLASSES = ("jump", "run", "sit")
NETWORK = GTADConfig(channels=8, steps=20, longest=20, width=16, wide=16, narrow=16, bins=4, context_bins=2)
ADAM = Optim(optimizer="adam", lr=4e-3, betas=(0.9, 0.999), weight_decay=1e-4, warmup=0, milestones=(0.5,), clip_norm=0)


def write_list(path, entries, split="train"):
    write_manifest(path, Header("test", ".", len(entries), "made up", split=split, classes=CLASSES), entries)
    return str(path)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Features that say where an action is (channel 0) and which (1 to 3), in noise: 24 and 12 videos."""
    place = tmp_path_factory.mktemp("plain")
    rng = np.random.default_rng(0)
    (place / "features").mkdir()
    entries = []
    for number in range(36):
        duration, rows = 40.0, rng.normal(size=(40, 8)).astype(np.float32) * 0.3
        segments, at = [], int(rng.integers(1, 6))
        while at < 30:
            length, kind = int(rng.integers(4, 12)), int(rng.integers(3))
            end = min(at + length, 39)
            segments.append(Segment(float(at), float(end), CLASSES[kind]))
            rows[at:end, [0, 1 + kind]] += 2.0
            at = end + int(rng.integers(2, 8))
        name = f"v{number:02}"
        np.save(place / "features" / f"{name}.npy", rows)
        entries.append(Entry(name, f"{name}.mp4", (name,), ((),), segments=tuple(segments), duration=duration))
    write_list(place / "train.jsonl", entries[:24])
    write_list(place / "test.jsonl", entries[24:], "test")
    return place


def run_on(place, **settings) -> Run:
    task = Localization(
        test=str(place / "test.jsonl"), features=str(place / "features"), network=NETWORK, classify="segment",
        proposals=ProposalConfig(reach_end=True),
    ).model_copy(update=settings)  # fmt: skip
    return Run(
        recipe="test",
        model=CONFIG,
        data=Data(manifest=str(place / "train.jsonl"), batch=8, workers=0),
        task=task,
        optim=ADAM,
        training=Training(steps=45, log_every=15),
    )


@pytest.fixture(scope="module")
def learned(plain, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "plain"
    return folder, execute(run_on(plain), folder)


def test_it_learns_far_more_than_the_baselines_know(learned):
    folder, scores = learned
    assert scores["localization/average_mAP"] > 50
    assert scores["localization_random/average_mAP"] < 15
    assert scores["localization_whole_video/average_mAP"] < 10
    assert (
        scores["localization/average_AP_without_classes"] > 4 * scores["localization_random/average_AP_without_classes"]
    )
    assert scores["localization/AR@10"] > 60
    assert scores["localization/scored"] == scores["localization/official"] == 12
    said = json.loads((folder / "protocols.json").read_text())["localization"]["protocol"]
    assert "own linear classifier on the mean feature of each segment" in said
    assert "features, of unknown origin" in said and "ActivityNet detection mAP" in said and said.startswith("made up")


def test_the_predictions_file_is_judged_alike(learned, plain):
    folder, scores = learned
    truth = {entry.id: [(s.start, s.end, s.label) for s in entry.segments] for entry in Manifest(plain / "test.jsonl")}
    judged = evaluate_segments(truth, read_predictions(folder / "predictions.json"), unknown_labels="ignore")
    for name, value in judged.metrics().items():
        if f"localization/{name}" in scores:
            assert scores[f"localization/{name}"] == pytest.approx(value, abs=1e-9)
    file = json.loads((folder / "predictions.json").read_text())
    assert file["version"] and file["external_data"]["used"] is True
    assert all(0 <= row["segment"][0] < row["segment"][1] <= 40 for rows in file["results"].values() for row in rows)


def test_evaluating_again_gives_the_same(learned):
    folder, scores = learned
    assert evaluate(load_run(folder), folder) == scores


def test_the_official_overlaps_can_be_changed(learned, plain, tmp_path):
    folder, _ = learned
    again = evaluate(override(load_run(folder), ["task.overlaps=[0.3,0.7]"]), folder)
    assert {name for name in again if name.startswith("localization/mAP")} == {
        "localization/mAP@0.30", "localization/mAP@0.70",
    }  # fmt: skip


def test_class_scores_of_a_file_take_the_place_of_the_classifier(plain, learned, tmp_path):
    test = Manifest(plain / "test.jsonl")
    chances = np.array([[0.9 if name == e.segments[0].label else 0.05 for name in reversed(CLASSES)] for e in test])
    scores = ClassScores(tuple(e.id for e in test), CLASSES[::-1], chances.astype(np.float32), "the first label")
    write_class_scores(tmp_path / "first.npz", scores)
    run = run_on(plain, class_scores=str(tmp_path / "first.npz"), top=1)
    run = override(run, ["training.steps=2"])
    execute(run, tmp_path / "run")
    said = json.loads((tmp_path / "run" / "protocols.json").read_text())["localization"]["protocol"]
    assert "class scores: the first label, first.npz" in said
    results = json.loads((tmp_path / "run" / "predictions.json").read_text())["results"]
    for entry in test:
        assert {row["label"] for row in results[entry.id]} <= {entry.segments[0].label}
    few = ClassScores(scores.ids[1:], scores.classes, scores.scores[1:], "all but one")
    write_class_scores(tmp_path / "few.npz", few)
    with pytest.raises(ClassScoresError, match="no class scores for video 'v24'"):
        execute(override(run, [f"task.class_scores={tmp_path / 'few.npz'}"]), tmp_path / "few")
    with pytest.raises(ClassScoresError, match="no such file"):
        execute(override(run, ["task.class_scores=nowhere.npz"]), tmp_path / "nowhere")


def test_windows_of_a_video_are_joined(plain, tmp_path):
    network = NETWORK.model_copy(update={"steps": 16, "longest": 12})
    scores = execute(run_on(plain, view="window", network=network), tmp_path)
    assert (
        scores["localization/average_AP_without_classes"] > 3 * scores["localization_random/average_AP_without_classes"]
    )
    rows = json.loads((tmp_path / "predictions.json").read_text())["results"]["v30"]
    assert max(row["segment"][1] for row in rows) > 20  # beyond the first window
    assert max(row["segment"][1] - row["segment"][0] for row in rows) <= 12


def test_a_window_longer_than_the_video_spends_no_proposal_on_its_filling():
    network = NETWORK.model_copy(update={"steps": 64, "longest": 32})
    config = ProposalConfig(candidates=False, keep=50)
    task = LocalizationTask(Localization(network=network, view="window", proposals=config), CLASSES)
    snippets = Snippets(np.random.default_rng(0).normal(size=(15, 8)).astype(np.float32), 1.0)
    found = task.propose(Entry("v", "v.mp4", ("x",), ((),), duration=15.0), snippets)
    assert len(found) == 50 and found[:, 1].max() == 15.0


def test_the_video_is_classified_as_a_whole_by_default(plain, tmp_path):
    run = override(run_on(plain, classify="video"), ["training.steps=1"])
    execute(run, tmp_path)
    results = json.loads((tmp_path / "predictions.json").read_text())["results"]
    assert all(len({row["label"] for row in rows}) <= 2 for rows in results.values())


def context_of(run, folder) -> Context:
    return Context(folder, 0, torch.device("cpu"), run.data, small_model, lambda: Tokenizer.train(["a"], 50))


def test_the_terms_add_up_and_parts_give_the_same_features(plain, tmp_path):
    run = run_on(plain)
    job = run.task.job(context_of(run, tmp_path))
    assert job.items == 24 and not list(job.model.parameters())
    batch = next(iter(job.batches(0, 1)))
    features = job.task.features(job.model, batch)
    parts = [job.task.features(job.model, batch.part(first, first + 4)) for first in (0, 4)]
    for name, whole in features.items():
        torch.testing.assert_close(torch.cat([part[name] for part in parts]), whole, atol=1e-4, rtol=1e-4)
    terms = job.task.loss(job.model, features, batch)
    assert set(terms.losses) == {"start", "end", "regression", "classification"}
    torch.testing.assert_close(terms.total.detach(), torch.stack(list(terms.losses.values())).sum())
    terms.total.backward()
    assert all(parameter.grad is not None for parameter in job.task.parameters())


def test_the_judge_is_the_average_map(learned, plain):
    folder, scores = learned
    run = load_run(folder)
    job = run.task.job(context_of(run, folder))
    from safetensors.torch import load_file

    job.task.load_state_dict(load_file(folder / "model" / "task.safetensors"))
    value = job.judge(job.model, Manifest(plain / "test.jsonl"))
    assert value == pytest.approx(scores["localization/average_mAP"])


def test_missing_features(plain, tmp_path, capsys):
    features = tmp_path / "features"
    features.mkdir()
    for file in sorted((plain / "features").glob("*.npy"))[2:]:
        (features / file.name).symlink_to(file)
    run = override(run_on(plain, features=str(features)), ["training.steps=1", "data.skip_budget=0.1"])
    assert execute(run, tmp_path / "run")["localization/scored"] == 12
    assert "2 of 24 training videos have no features" in capsys.readouterr().err
    for file in sorted(features.glob("*.npy"))[:8]:
        file.unlink()
    with pytest.raises(
        SnippetError, match=r"10 of 24 training videos .* more than data\.skip_budget = 0\.1; v00: no v00\.npy"
    ):
        execute(run, tmp_path / "few")
    whole = plain / "features"
    last = override(run_on(plain), ["training.steps=1", f"task.test={plain / 'more.jsonl'}", f"task.features={whole}"])
    entries = [*Manifest(plain / "test.jsonl"), Entry("other", "other.mp4", ("x",), ((),), duration=4.0)]
    write_list(plain / "more.jsonl", entries, "test")
    with pytest.raises(SnippetError, match=r"other: no other\.npy"):  # a score never leaves one out
        execute(last, tmp_path / "last")


def test_settings_that_do_not_fit_the_data(plain, tmp_path):
    run = run_on(plain, network=NETWORK.model_copy(update={"channels": 16}))
    with pytest.raises(ConfigError, match=re.escape("set task.network.channels=8")):
        execute(run, tmp_path / "a")
    empty = write_list(tmp_path / "empty.jsonl", [Entry("v00", "v00.mp4", ("x",), ((),), duration=4.0)])
    with pytest.raises(ConfigError, match="no entry has segments"):
        execute(override(run_on(plain), [f"data.manifest={empty}"]), tmp_path / "b")
    odd = [Entry("v00", "v00.mp4", ("x",), ((),), segments=(Segment(0.0, 1.0, "dance"),), duration=4.0)]
    with pytest.raises(ConfigError, match="labelled 'dance', which is not among its classes"):
        execute(override(run_on(plain), [f"data.manifest={write_list(tmp_path / 'odd.jsonl', odd)}"]), tmp_path / "c")


@pytest.fixture
def untrained(monkeypatch):
    """Fails where a run comes to its training."""

    def train(*arguments, **settings):
        raise AssertionError("training began")

    monkeypatch.setattr("svilm.run.train", train)


def test_what_is_wrong_with_the_test_videos_is_told_before_training(plain, tmp_path, untrained):
    known = list(Manifest(plain / "test.jsonl"))
    chances = ClassScores(tuple(e.id for e in known[1:]), CLASSES, np.full((11, 3), 0.3, np.float32), "all but one")
    write_class_scores(tmp_path / "few.npz", chances)
    few = f"task.class_scores={tmp_path / 'few.npz'}"
    dance = Entry("v23", "v23.mp4", ("x",), ((),), segments=(Segment(0.0, 1.0, "dance"),), duration=4.0)
    bare = Entry("v24", "v24.mp4", ("x",), ((),), duration=4.0)
    gone = Entry("gone", "gone.mp4", ("x",), ((),), segments=(Segment(0.0, 1.0, "run"),), duration=4.0)
    for entries, setting, message in (
        ([*known, dance], "seed=0", r"task\.test: .*: 1 of 4 classes are not those of training, such as 'dance'; pre"),
        ([bare], "seed=0", r"task\.test: .*: no entry has segments; prepare"),
        ([*known, gone], "seed=0", r"gone: no gone\.npy"),
        (known, few, "no class scores for video 'v24'"),
    ):
        test = tmp_path / "test.jsonl"
        write_manifest(test, Header("test", ".", len(entries), split="test"), entries)
        with pytest.raises(ValueError, match=message):
            execute(override(run_on(plain), [f"task.test={test}", setting]), tmp_path / "run")
    with pytest.raises(AssertionError, match="training began"):
        execute(run_on(plain), tmp_path / "sound")


def test_where_classes_are_not_stated_some_may_be_new_but_not_all(plain, tmp_path, untrained, capsys):
    entries = list(Manifest(plain / "train.jsonl"))
    write_manifest(tmp_path / "train.jsonl", Header("test", str(plain), len(entries)), entries)
    dance = Entry("v23", "v23.mp4", ("x",), ((),), segments=(Segment(0.0, 1.0, "dance"),), duration=4.0)
    for test, message in (([dance, entries[0]], "training began"), ([dance], "1 of 1 classes are not those of")):
        write_manifest(tmp_path / "test.jsonl", Header("test", ".", len(test), split="test"), test)
        lists = [f"data.manifest={tmp_path / 'train.jsonl'}", f"task.test={tmp_path / 'test.jsonl'}"]
        with pytest.raises((AssertionError, ConfigError), match=message):
            execute(override(run_on(plain), lists), tmp_path / "run")
    assert "classes are not those of training; their segments count as missed" in capsys.readouterr().err


# From videos


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Four long videos with manifests, and a saved model with random weights."""
    place = tmp_path_factory.mktemp("long")
    draw_world(place / "world", clips=1, test_clips=0, untrimmed=4, workers=1)
    for split in ("train", "test"):
        entries = [
            Entry(
                long.id, long.video, ("x",), ((),), duration=long.num_frames / long.fps,
                segments=tuple(Segment(s.start, s.end, s.label) for s in long.segments),
            )
            for long in read_untrimmed(place / "world") if long.split == split
        ]  # fmt: skip
        write_manifest(place / f"{split}.jsonl", Header("world", "world", len(entries), split=split), entries)
    sampling = Sampling(num_frames=8, size=16, short_side=16)
    tokenizer = Tokenizer.train(["a red circle moves left"], 50)
    model = SViLM(small_model(), tokenizer, ModelConfig(model=CONFIG, sampling=sampling, language=Language()))
    model.save_pretrained(place / "model")
    return place


WINDOWS = Windows(fps=4, frames=4, stride=4)
DRAWN = NETWORK.model_copy(update={"channels": 16})


@pytest.fixture(scope="module")
def finished(drawn):
    """A run that makes its own features."""
    run = Run(
        recipe="test",
        model=CONFIG,
        start=Start(model=str(drawn / "model")),
        data=Data(
            manifest=str(drawn / "train.jsonl"), batch=2, workers=0,
            sampling=Sampling(num_frames=8, size=16, short_side=16),
        ),
        task=Localization(
            test=str(drawn / "test.jsonl"), network=DRAWN, classify="segment", extraction=Extraction(windows=WINDOWS)
        ),
        optim=ADAM,
        training=Training(steps=3, log_every=1),
    )  # fmt: skip
    return drawn / "run", execute(run, drawn / "run")


def test_from_videos_to_scores(finished):
    folder, scores = finished
    assert 0 <= scores["localization/average_mAP"] <= 100 and scores["localization/scored"] == 2
    assert len(list((folder / "features").rglob("*.npy"))) == 4
    assert (folder / "model" / "model.safetensors").is_file() and (folder / "model" / "task.safetensors").is_file()
    about = json.loads((folder / "localization.json").read_text())
    assert "spins" in about["classes"] or about["classes"]
    assert evaluate(load_run(folder), folder) == scores  # features of the saved encoder are the same


def test_one_video(finished, drawn):
    folder, _ = finished
    video = drawn / "world" / "untrimmed" / "untrimmed1.mp4"
    found = detect(folder, video, device="cpu")
    assert isinstance(found, Timeline) and found.duration == pytest.approx(20, abs=20)
    wanted = json.loads((folder / "predictions.json").read_text())["results"]["untrimmed1"]
    assert len(found.detections) == len(wanted)
    for (segment, score), row in zip(found.detections, wanted, strict=True):
        assert segment.label == row["label"] and score == pytest.approx(row["score"], rel=1e-3)
        assert [segment.start, segment.end] == pytest.approx(row["segment"])
    lines = found.text(most=3).splitlines()
    assert "untrimmed1.mp4" in lines[0] and 2 <= len(lines) <= 4
    found.draw(drawn / "timeline.png", truth=[Segment(1.0, 3.0, "spins")])
    assert (drawn / "timeline.png").stat().st_size > 10_000


def test_features_made_beforehand_give_the_same_and_name_their_encoder(finished, drawn, tmp_path):
    folder, scores = finished
    model = SViLM.from_pretrained(drawn / "model", "cpu")
    for split in ("train", "test"):
        extract(
            model.encoder, Manifest(drawn / f"{split}.jsonl"), tmp_path / "features", Extraction(windows=WINDOWS),
            model.config.sampling, name=str(drawn / "model"),
        )  # fmt: skip
    run = override(load_run(folder), [f"task.features={tmp_path / 'features'}"])
    assert execute(run, tmp_path / "run") == scores
    assert not (tmp_path / "run" / "model" / "config.json").exists()  # no encoder was needed
    video = drawn / "world" / "untrimmed" / "untrimmed3.mp4"
    ours, theirs = (detect(place, video, device="cpu").detections for place in (tmp_path / "run", folder))
    assert ours == theirs
    other = SViLM(small_model(seed=3), model.tokenizer, model.config)
    other.save_pretrained(tmp_path / "other")
    with pytest.raises(ConfigError, match="is not the encoder that made the features"):
        detect(tmp_path / "run", video, encoder=str(tmp_path / "other"), device="cpu")


def test_a_video_that_cannot_be_read_is_told_before_training(drawn, finished, tmp_path, untrained):
    entries = [*Manifest(drawn / "test.jsonl"), Entry("broken", "broken.mp4", ("x",), ((),), duration=4.0)]
    (drawn / "world" / "broken.mp4").write_bytes(b"no video")
    write_manifest(drawn / "broken.jsonl", Header("world", "world", len(entries), split="test"), entries)
    with pytest.raises(SnippetError, match="broken: no features, its video could not be read"):
        execute(override(load_run(finished[0]), [f"task.test={drawn / 'broken.jsonl'}"]), tmp_path / "run")


def test_runs_that_cannot_localize_say_so(finished, learned, drawn, tmp_path):
    video = drawn / "world" / "untrimmed" / "untrimmed3.mp4"
    with pytest.raises(ConfigError, match="features of unknown origin"):
        detect(learned[0], video)
    with pytest.raises(ConfigError, match=r"no run\.json"):
        detect(tmp_path, video)
    folder = tmp_path / "young"
    folder.mkdir()
    for name in ("run.json", "localization.json"):
        (folder / name).write_text((finished[0] / name).read_text())
    with pytest.raises(ConfigError, match="has not finished"):
        detect(folder, video)
    (folder / "localization.json").write_text("{")
    with pytest.raises(ConfigError, match=r"localization\.json: damaged"):
        detect(folder, video)
    (folder / "localization.json").unlink()
    with pytest.raises(ConfigError, match=r"localization\.json: no such file"):
        detect(folder, video)
    data = json.loads((folder / "run.json").read_text())
    data["task"] = {"kind": "pretrain"}
    (folder / "run.json").write_text(json.dumps(data))
    with pytest.raises(ConfigError, match="a run of task 'pretrain'"):
        detect(folder, video)


def test_what_is_shown_does_not_overlap():
    rows = [
        ((0.0, 5.0, "a"), 0.9),
        ((0.5, 5.0, "b"), 0.8),
        ((8.0, 9.0, "b"), 0.5),
        ((6.0, 7.0, "a"), 0.3),
        ((1.0, 2.0, "c"), 0.01),
    ]
    found = Timeline(Path(__file__), 10.0, tuple((Segment(*row), score) for row, score in rows))
    assert [(s.start, score) for s, score in found.clear()] == [(0.0, 0.9), (6.0, 0.3), (8.0, 0.5)]
    assert [s.start for s, _ in found.clear(most=2)] == [0.0, 8.0]
    assert Timeline(Path(__file__), 10.0, ()).clear() == ()
    assert "█" in found.text() and NAMELESS not in found.text()
