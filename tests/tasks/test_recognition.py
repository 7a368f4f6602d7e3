"""Classes of clips of the drawn world: fine-tuned, by linear heads on kept features, and by their names alone."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import small
from svilm.config import ConfigError, override
from svilm.data.class_names import readable
from svilm.data.fixed_features import FeatureBatch
from svilm.data.language import TEMPLATES, Language, Tokenizer
from svilm.data.manifest import Entry, Header, Manifest, ManifestError, write_manifest
from svilm.data.prepare import ucf101
from svilm.data.prepare.common import prepare
from svilm.data.sample import Sampling, Views, load_clip
from svilm.engine.optim import Optim, build_optimizer
from svilm.engine.trainer import Training, backward
from svilm.metrics.classification import score_classes
from svilm.metrics.submissions import aligned, read_class_scores
from svilm.models.heads import ClassHead, ProbeHeads
from svilm.recipes import recipe
from svilm.run import evaluate, execute, load_run
from svilm.start import Start
from svilm.tasks.common import Reader
from svilm.tasks.recognition import (
    Probe,
    ProbeTask,
    Recognition,
    RecognitionTask,
    class_vectors,
    classes_of,
    clip_vectors,
    fixed_features,
    labels_of,
    merged,
    recognise,
)

SMALL = (
    "training.steps=3", "training.log_every=1", "data.batch=8", "data.workers=0", "data.paste.probability=0",
    "model.video.width=32", "model.video.depth=2", "model.video.heads=2", "model.video.group_after=[1,2]",
    "model.text.width=32", "model.text.depth=1", "model.text.heads=2", "model.common=16",
)  # fmt: skip
SAMPLING = Sampling(num_frames=8, size=16, short_side=16)
LINEAR = Optim(optimizer="sgd", lr=0.5, warmup=0.0, clip_norm=0.0)


@pytest.fixture(scope="module")
def files(world, tmp_path_factory):
    """Manifests of the world's first fold."""
    place = tmp_path_factory.mktemp("actions")
    for split in ("train", "test"):
        listing = ucf101.listing(world / "ucf101", split=split)
        prepare(listing, to=place / f"{split}.jsonl", videos=world / "ucf101", check="none")
    return {split: place / f"{split}.jsonl" for split in ("train", "test")}


@pytest.fixture(scope="module")
def tuning(files):
    task = Recognition(test=str(files["test"]), views=Views(clips=2), feature="both")
    return override(
        recipe("tiny").model_copy(update={"task": task}),
        [*SMALL, f"data.manifest={files['train']}", "training.keep=best", f"training.validation={files['train']}"],
    )


@pytest.fixture(scope="module")
def tuned(tuning, tmp_path_factory):
    place = tmp_path_factory.mktemp("runs") / "tuned"
    return place, execute(tuning, place)


@pytest.fixture(scope="module")
def probing(tuning, tuned):
    """A linear probe of the encoder that was just trained."""
    task = Recognition(
        test=tuning.task.test, mode="linear", views=Views(clips=2), probe=Probe(rates=(0.1, 1.0), views=Views(clips=3))
    )
    return tuning.model_copy(
        update={
            "task": task,
            "optim": LINEAR,
            "training": Training(steps=40, keep="best", validation=tuning.training.validation),
            "start": Start(model=str(tuned[0])),
        }
    )


@pytest.fixture(scope="module")
def probed(probing, tmp_path_factory):
    place = tmp_path_factory.mktemp("runs") / "probed"
    return place, execute(probing, place)


@pytest.mark.parametrize("kind", ["tuned", "probed"])
def test_a_run_scores_the_official_clips_in_all_views(kind, files, request):
    place, scores = request.getfixturevalue(kind)
    test = Manifest(files["test"])
    handed_in = read_class_scores(place / "predictions.npz")
    assert handed_in.classes == test.header.classes and len(handed_in.classes) == 8
    found = score_classes(*aligned({entry.id: entry.labels[0] for entry in test}, handed_in))
    for name, value in found.metrics().items():
        assert scores[f"recognition/{name}"] == pytest.approx(value)
    assert scores["recognition_chance/top-1"] == 12.5 and scores["recognition_majority/top-1"] == found.majority
    assert scores["recognition/scored"] == scores["recognition/official"] == 12
    with np.load(place / "predictions.npz") as arrays:
        assert arrays["views"].shape == (12, 2, 8)
        np.testing.assert_allclose(merged(arrays["views"]), arrays["scores"])
        assert np.array_equal(arrays["confusion"], found.confusion)
    protocol = json.loads((place / "protocols.json").read_text())["recognition"]["protocol"]
    assert "ucf101 fold 1 test" in protocol and "2 x 1 views (8 frames of 64x64, uniform)" in protocol


@pytest.mark.parametrize("kind", ["tuned", "probed"])
def test_a_saved_run_scores_the_same(kind, request, monkeypatch):
    place, scores = request.getfixturevalue(kind)
    if kind == "probed":  # whose features are kept
        monkeypatch.setattr("svilm.tasks.recognition.encode_clips", None)
    assert evaluate(load_run(place), place) == scores


def test_a_linear_probe_leaves_the_encoder_as_it_is(tuned, probed, probing):
    ours, theirs = ((place / "model" / "model.safetensors").read_bytes() for place, _ in (tuned, probed))
    assert ours == theirs
    place, scores = probed
    protocol = json.loads((place / "protocols.json").read_text())["recognition"]["protocol"]
    best = scores["recognition/rate"]
    assert best in (0.05, 0.5) and f"linear probe, rate {best:g} by" in protocol
    assert f"{best:g}: {scores['recognition/held_out_top-1']:.1f} %" in protocol
    assert {"recognition_ridge/top-1", "recognition_zero_shot/top-1", "recognition_zero_shot/mean_class"} <= set(scores)
    assert len(list((place / "features").iterdir())) == 3  # for training, for testing, and for validation


def test_settings_that_would_spoil_labels_or_rates_are_refused(tuning, probing, tmp_path):
    pasted = override(tuning, ["data.paste.probability=1"])
    with pytest.raises(ConfigError, match=r"data\.paste\.probability"):
        execute(pasted, tmp_path / "pasted")
    for change in ("optim.optimizer=adamw", "optim.clip_norm=1"):
        with pytest.raises(ConfigError, match=r"needs optim\.optimizer = sgd and optim\.clip_norm = 0"):
            execute(override(probing, [change]), tmp_path / change)


@pytest.fixture(scope="module")
def reader(files):
    tokenizer = Tokenizer.train((caption for entry in Manifest(files["test"]) for caption in entry.captions), 200)
    return Reader(tokenizer, SAMPLING, Language(max_length=16), batch=5)


@pytest.fixture(scope="module")
def encoder():
    text = small.CONFIG.text.model_copy(update={"vocabulary": 200})
    return small.model(config=small.CONFIG.model_copy(update={"text": text})).eval()


def head_of(classes, width=16):
    head = ClassHead(width, classes, dropout=0.5)
    torch.nn.init.normal_(head.out.weight)
    return head


def test_each_view_of_each_clip_is_encoded(files, reader, encoder):
    test, views = Manifest(files["test"]), Views(clips=3)
    task = RecognitionTask(head_of(test.header.classes), "groups")
    found = recognise(encoder, task, test, reader, views)
    assert found.shape == (12, 3, 8)
    task.eval()
    for clip, view in ((0, 0), (4, 2), (11, 1)):
        entry = test[clip]
        frames = load_clip(test.path_of(entry), None, None, SAMPLING, None, view=views.of(SAMPLING)[view]).frames
        with torch.no_grad():
            alone = task.head(encoder.encode_video(frames[None]).groups.mean(dim=1))[0]
        np.testing.assert_allclose(found[clip, view], alone, atol=1e-5)


def test_probabilities_are_averaged_over_views():
    logits = np.array([[[1000.0, 0.0, 0.0], [0.0, np.log(3), 0.0]]], dtype=np.float32)
    np.testing.assert_allclose(merged(logits), [[(1 + 0.2) / 2, 0.6 / 2, 0.2 / 2]], atol=1e-6)


def test_vectors_of_clips(encoder):
    features = encoder.encode_video(small.batch(2).video)
    groups, tokens = features.groups.mean(dim=1), features.tokens.flatten(1, 2).mean(dim=1)
    for feature, expected in {"groups": groups, "tokens": tokens, "both": torch.cat([groups, tokens], 1)}.items():
        torch.testing.assert_close(clip_vectors(features, feature), expected)


def test_the_loss_is_the_cross_entropy_of_the_right_classes(encoder):
    classes = ("a", "b", "c")
    data = small.batch(6, paste=False)
    data = replace(data, entries=tuple(replace(e, labels=(classes[k % 3],)) for k, e in enumerate(data.entries)))
    task = RecognitionTask(head_of(classes), "groups").eval()
    terms = task.loss(encoder, task.features(encoder, data), data)
    logits = task.head(encoder.encode_video(data.video).groups.mean(dim=1))
    torch.testing.assert_close(terms.total, F.cross_entropy(logits, torch.tensor([0, 1, 2, 0, 1, 2])))


# Linear heads side by side


CLIPS, WIDTH, CLASSES = 24, 6, ("a", "b", "c")


def clips(seed=0) -> FeatureBatch:
    generator = torch.Generator().manual_seed(seed)
    return FeatureBatch(
        tuple(f"{clip}" for clip in range(CLIPS)),
        torch.randn(CLIPS, WIDTH, generator=generator),
        torch.arange(CLIPS) % 3,
        torch.arange(CLIPS) % 4 == 0,
    )


def probe_after(steps, rates, data=None, lr=0.5) -> ProbeTask:
    """The heads after some steps of SGD in the project's own manner."""
    data = data or clips()
    task = ProbeTask(rates, 0.25, ProbeHeads(2 * len(rates), CLASSES, torch.zeros(WIDTH), torch.ones(WIDTH)))
    optimizer = build_optimizer(Optim(optimizer="sgd", lr=lr, weight_decay=0.1), task.named_parameters())
    for _ in range(steps):
        backward(torch.nn.Module(), task, data, Training())
        optimizer.step()
        optimizer.zero_grad()
    return task


def test_one_run_equals_a_run_for_each_rate():
    together = probe_after(20, (0.1, 1.0, 4.0))
    for number, rate in enumerate((0.1, 1.0, 4.0)):
        apart = probe_after(20, (1.0,), lr=0.5 * rate)
        for kind in (0, 1):  # the head that chooses, and the one that is scored
            ours, theirs = together.heads.matrices[3 * kind + number], apart.heads.matrices[kind]
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
    assert together.heads.matrices.abs().amax(dim=(1, 2)).unique().numel() == 6


def test_a_head_is_what_a_linear_layer_would_be_after_the_same_steps():
    data, layer = clips(), torch.nn.Linear(WIDTH, 3)
    torch.nn.init.zeros_(layer.weight), torch.nn.init.zeros_(layer.bias)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.5, momentum=0.9)
    for _ in range(15):
        optimizer.zero_grad()
        F.cross_entropy(layer(data.vectors), data.labels).backward()
        optimizer.step()
    found = probe_after(15, (1.0,))
    torch.testing.assert_close(found.heads.matrices[1], layer.weight, atol=1e-5, rtol=1e-4)


def test_heads_that_choose_never_see_the_held_out_clips():
    plain = clips()
    other = replace(plain, labels=torch.where(plain.held_out, (plain.labels + 1) % 3, plain.labels))
    ours, theirs = probe_after(5, (1.0,), plain), probe_after(5, (1.0,), other)
    assert torch.equal(ours.heads.matrices[0], theirs.heads.matrices[0])
    assert not torch.allclose(ours.heads.matrices[1], theirs.heads.matrices[1])
    fit = replace(plain, **{name: getattr(plain, name)[~plain.held_out] for name in ("vectors", "labels", "held_out")})
    fit = replace(fit, ids=fit.ids[: len(fit.labels)])
    alone = ProbeTask((1.0,), 0.0, ProbeHeads(2, CLASSES, torch.zeros(WIDTH), torch.ones(WIDTH)))
    backward(torch.nn.Module(), alone, fit, Training())
    first = probe_after(1, (1.0,), plain, lr=1.0).heads.matrices[0]
    torch.testing.assert_close(first, -alone.heads.matrices.grad[1], atol=1e-6, rtol=1e-4)


def test_the_best_rate_on_held_out_clips_is_chosen():
    task = ProbeTask((0.1, 1.0, 10.0), 0.5, ProbeHeads(6, CLASSES, torch.zeros(3), torch.ones(3)))
    with torch.no_grad():
        task.heads.matrices[0] = -torch.eye(3)
        task.heads.matrices[1], task.heads.matrices[2] = torch.eye(3), 5 * torch.eye(3)
        task.heads.matrices[3] = 9 * torch.eye(3)  # the heads that are scored have no say
    vectors = np.eye(3, dtype=np.float32)[:, None]
    best, right = task.choose(vectors, np.arange(3))
    assert best == 2 and right == [0.0, 100.0, 100.0]  # the surer of two that are equally often right
    np.testing.assert_allclose(task.logits(0, vectors)[:, 0], 9 * np.eye(3))


def test_features_are_computed_once_for_each_way_to_make_them(files, reader, encoder, tmp_path, monkeypatch):
    test = Manifest(files["test"])
    first = fixed_features(encoder, test, reader, Views(clips=2), "tokens", tmp_path)
    entry = test[3]
    clip = load_clip(test.path_of(entry), None, None, SAMPLING, None, view=Views(clips=2).of(SAMPLING)[1])
    with torch.no_grad():
        alone = encoder.encode_video(clip.frames[None])
    assert first.ids[3] == entry.id
    np.testing.assert_allclose(first.vectors[3, 1], alone.tokens.mean(dim=(1, 2))[0], atol=1e-5)
    np.testing.assert_allclose(first.embeddings[3, 1], alone.embedding[0], atol=1e-5)
    again = fixed_features(encoder, test, reader, Views(clips=2), "tokens", tmp_path)
    assert np.array_equal(first.vectors, again.vectors)
    monkeypatch.setattr("svilm.tasks.recognition.encode_clips", computed_again)
    other = small.model(seed=1, config=encoder.config).eval()
    write_manifest(tmp_path / "less.jsonl", replace(test.header, root=str(test.root)), list(test)[:-1])
    changes = [
        (other, test, reader, Views(clips=2), "tokens"),
        (encoder, Manifest(tmp_path / "less.jsonl"), reader, Views(clips=2), "tokens"),
        (encoder, test, replace(reader, sampling=Sampling(num_frames=8, size=32)), Views(clips=2), "tokens"),
        (encoder, test, reader, Views(clips=3), "tokens"),
        (encoder, test, reader, Views(clips=2), "groups"),
    ]
    for change in changes:
        with pytest.raises(InterruptedError):
            fixed_features(*change, tmp_path)


def computed_again(*_, **__):
    raise InterruptedError


def test_class_names_become_vectors_through_all_prompts(reader, encoder):
    classes = ("moves_left", "TaiChi")
    found = class_vectors(encoder, classes, reader)
    for name, vector in zip(classes, found, strict=True):
        ids, mask = reader.tokenizer([template.format(readable(name)) for template in TEMPLATES], 16)
        with torch.no_grad():
            unit = F.normalize(encoder.text_projection(encoder.text(ids, mask)), dim=1)
        torch.testing.assert_close(vector, F.normalize(unit.mean(dim=0), dim=0), atol=1e-5, rtol=0)


def test_classes_come_from_the_header_or_from_the_labels(tmp_path):
    entries = [Entry(name, "v.avi", ("x",), ((),), labels=(name,)) for name in ("b", "a", "c")]
    write_manifest(tmp_path / "stated.jsonl", Header("test", ".", 3, classes=("c", "b", "a")), entries)
    write_manifest(tmp_path / "silent.jsonl", Header("test", ".", 3), entries)
    stated, silent = Manifest(tmp_path / "stated.jsonl"), Manifest(tmp_path / "silent.jsonl")
    assert classes_of(stated) == ("c", "b", "a") and classes_of(silent) == ("a", "b", "c")
    assert labels_of(silent, ("c", "b", "a")).tolist() == [1, 2, 0]
    write_manifest(tmp_path / "none.jsonl", Header("test", ".", 1), [Entry("a", "a.mp4", ("words",), ((),))])
    none = Manifest(tmp_path / "none.jsonl")
    with pytest.raises(ManifestError, match=r"none\.jsonl has no classes; make it with `svilm prepare ucf101`"):
        labels_of(none, classes_of(none))
    with pytest.raises(ManifestError, match=r"c: labels \['c'\] must be one of the 2 classes"):
        labels_of(silent, ("a", "b"))
