import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import small
from svilm.config import ConfigError, override
from svilm.data.augment import CutPaste
from svilm.data.language import Language, Tokenizer
from svilm.data.manifest import Header, Manifest, write_manifest
from svilm.data.prepare import ava
from svilm.data.prepare.common import prepare
from svilm.data.sample import Sampling, load_clip
from svilm.engine.trainer import Training, backward
from svilm.metrics.ava import evaluate_boxes, read_classes, read_detections, read_excluded, read_truth
from svilm.models.ava_heads import BoxHeadConfig
from svilm.recipes import recipe
from svilm.run import evaluate, execute, load_run
from svilm.tasks.ava import (
    Ava,
    AvaTask,
    NamedBoxes,
    detected_boxes,
    detections,
    iou,
    judged,
    name_actions,
    score,
    token_map,
    training_boxes,
    visible_boxes,
)
from svilm.tasks.common import Reader
from svilm.types import Entry, LabelledBox

HEAD = BoxHeadConfig(size=3, heads=2, dropout=0.0)
ACTIONS = ("4", "12", "80")
WHOLE = torch.tensor([0.0, 0.0, 1.0, 1.0])


def truth(*corners, labels=("12",)):
    return LabelledBox(corners, labels)


def guess(*corners, score=0.95, labels=()):
    return LabelledBox(corners, labels, score, "detector")


def entry(*boxes, id="film,0902"):
    return Entry(id, "film.mp4", ("stand",), ((),), boxes=boxes)


PEOPLE = (
    (truth(0.1, 0.1, 0.5, 0.9), truth(0.5, 0.2, 0.9, 0.8, labels=("4", "80"))),
    (truth(0.0, 0.0, 1.0, 0.5, labels=("80",)),),
    (),
    (truth(0.2, 0.2, 0.3, 0.4, labels=("33",)), guess(0.2, 0.2, 0.3, 0.4)),
)


def batch(clips=4, seed=0):
    found = small.batch(clips, seed=seed, paste=False)
    rows = tuple(replace(each, boxes=PEOPLE[n % 4]) for n, each in enumerate(found.entries))
    return replace(found, entries=rows)


def make(**options):
    torch.manual_seed(0)
    return AvaTask(Ava(**{"head": HEAD, "num_boxes": 4, **options}), 16, ACTIONS)


# Which boxes


def test_detected_boxes_take_the_actions_of_the_person_they_lie_on():
    drawn, other = truth(0.0, 0.0, 0.5, 1.0, labels=("4",)), truth(0.1, 0.0, 0.6, 1.0, labels=("80",))
    close, far, unsure = guess(0.0, 0.0, 0.5, 0.95), guess(0.0, 0.0, 0.4, 0.9), guess(0.0, 0.0, 0.5, 0.99, score=0.8)
    both = entry(unsure, drawn, far, other, close)
    assert training_boxes(both, Ava(train_boxes="truth")) == [drawn, other]
    assert training_boxes(both, Ava()) == [drawn, other, replace(close, labels=("4",))]
    surest_first = [replace(unsure, labels=("4",)), replace(far, labels=()), replace(close, labels=("4",))]
    found = training_boxes(both, Ava(negatives=True, train_score=0.5))[2:]
    assert sorted(found, key=repr) == sorted(surest_first, key=repr) and found[-1].score == 0.8
    assert training_boxes(both, Ava(same_person=0.7))[2:] == [replace(b, labels=("4",)) for b in (far, close)]


def test_a_detected_box_with_actions_of_its_own_keeps_them():
    found = training_boxes(entry(truth(0.0, 0.0, 0.5, 1.0), guess(0.0, 0.0, 0.5, 1.0, labels=("80",))), Ava())
    assert [each.labels for each in found] == [("12",), ("80",)]


def test_rows_of_one_box_are_one_box_with_several_actions():
    rows = [guess(0.0, 0.0, 0.5, 1.0, labels=(action,)) for action in ("4", "80")]
    assert detected_boxes(entry(*rows), 0.8) == [guess(0.0, 0.0, 0.5, 1.0, labels=("4", "80"))]


def test_detected_boxes_are_those_sure_enough_the_surest_first():
    scores = (0.8, 0.99, 0.79, 0.9)
    boxes = [guess(0.1 * n, 0.0, 0.5, 1.0, score=each) for n, each in enumerate(scores)]
    assert [each.score for each in detected_boxes(entry(truth(0.0, 0.0, 1.0, 1.0), *boxes), 0.8)] == [0.99, 0.9, 0.8]


def test_overlap():
    assert iou((0.0, 0.0, 0.5, 1.0), (0.25, 0.0, 0.75, 1.0)) == pytest.approx(1 / 3)
    assert iou((0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)) == 0
    assert iou((0.1, 0.2, 0.3, 0.4), (0.1, 0.2, 0.3, 0.4)) == pytest.approx(1)


# What is seen of them


def test_boxes_are_cut_to_the_crop_and_left_out_beyond_it():
    view = torch.tensor([0.25, 0.0, 0.75, 1.0])
    boxes = [
        truth(0.25, 0.5, 0.5, 1.0),
        truth(0.5, 0.0, 1.0, 1.0),
        truth(0.75, 0.0, 1.0, 1.0),
        truth(0.0, 0.0, 0.2, 1.0),
    ]
    assert [each.box for each in visible_boxes(boxes, view, 0.0)] == [(0.0, 0.5, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)]
    assert [each.box for each in visible_boxes(boxes, view, 0.5)] == [(0.0, 0.5, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)]
    assert [each.box for each in visible_boxes(boxes, view, 0.51)] == [(0.0, 0.5, 0.5, 1.0)]


def test_boxes_of_a_mirrored_clip_are_mirrored():
    mirrored = torch.tensor([0.75, 0.0, 0.25, 1.0])
    assert visible_boxes([truth(0.25, 0.5, 0.375, 1.0)], mirrored, 0.0)[0].box == (0.75, 0.5, 1.0, 1.0)


corner = st.floats(0, 1, width=32)


@given(st.tuples(corner, corner, corner, corner), st.tuples(corner, corner), st.floats(0.2, 0.9), st.booleans())
def test_a_point_of_a_box_is_seen_where_the_pixels_are(corners, at, side, mirrored):
    """The box of what is seen holds just those points of the picture that the box holds and the crop shows."""
    x0, x1 = sorted(corners[:2])
    y0, y1 = sorted(corners[2:])
    left, top = at[0] * (1 - side), at[1] * (1 - side)
    view = torch.tensor([left, top, left + side, top + side])
    if mirrored:
        view = view[[2, 1, 0, 3]]
    if x1 - x0 < 1e-3 or y1 - y0 < 1e-3:
        return
    found = visible_boxes([truth(x0, y0, x1, y1)], view, 0.0)
    for u, v in ((0.5, 0.5), (0.2, 0.9), (0.99, 0.01)):
        x = view[0] + u * (view[2] - view[0])
        y = view[1] + v * (view[3] - view[1])
        gaps = [float(abs(each)) for each in (x - x0, x - x1, y - y0, y - y1)]
        if min(gaps) > 1e-4:
            held = [a <= u <= c and b <= v <= d for a, b, c, d in (each.box for each in found)]
            assert any(held) == bool(x0 < x < x1 and y0 < y < y1)


# The loss


def test_the_loss_is_the_sum_over_actions_averaged_over_boxes():
    task, model, clips = make(), small.model(), batch()
    features = task.features(model, clips)
    assert features["logits"].shape == (4, 4, 3)
    assert features["valid"].sum(dim=1).tolist() == [2, 1, 0, 2]
    wanted = torch.zeros(4, 4, 3, dtype=torch.bool)
    for clip, box, action in ((0, 0, 1), (0, 1, 0), (0, 1, 2), (1, 0, 2)):
        wanted[clip, box, action] = True
    assert torch.equal(features["targets"], wanted)  # action 33 is none of the classes
    chances = features["logits"].sigmoid()
    total = 0.0
    for clip, box in ((0, 0), (0, 1), (1, 0), (3, 0), (3, 1)):
        for action in range(3):
            chance = chances[clip, box, action]
            total -= torch.log(chance if wanted[clip, box, action] else 1 - chance)
    terms = task.loss(model, features, clips)
    torch.testing.assert_close(terms.total, total / 5)
    assert terms.watched["boxes/per_clip"] == 5 / 4


def test_the_head_is_asked_about_the_boxes_that_are_seen():
    task, model = make(), small.model().eval()
    clips = replace(batch(), view=torch.tensor([0.5, 0.0, 0.0, 1.0]).expand(4, 4))  # the left half, mirrored
    features = task.features(model, clips)
    maps = token_map(model, model.encode_video(clips.video).tokens, 16)
    assert maps.shape == (4, 4, 2, 2, 16)
    found = task.head(maps, torch.tensor([[0.0, 0.1, 0.8, 0.9]]).expand(4, 1, 4))
    torch.testing.assert_close(features["logits"][0, 0], found[0, 0])
    assert features["valid"][:, 0].tolist() == [True, True, False, True]
    assert features["valid"][0].tolist() == [True, False, False, False]  # the second person is in the right half


def test_more_boxes_than_fit_leave_out_the_least_sure():
    clips = batch(4)
    people = [truth(0.1, 0.1, 0.9, 0.9)] + [guess(0.1, 0.1, 0.9, 0.9 - n / 1000, score=0.9 + n / 100) for n in range(5)]
    clips = replace(clips, entries=(replace(clips.entries[0], boxes=tuple(people)), *clips.entries[1:]))
    features = make(num_boxes=2).features(small.model(), clips)
    assert features["logits"].shape == (4, 2, 3) and features["valid"].all(dim=1).tolist() == [True, False, False, True]


@pytest.mark.parametrize("kind", ["roi", "transformer"])
def test_parts_of_a_batch_give_the_gradient_of_the_whole(kind):
    gradients = []
    for size in (0, 3):
        model, task = small.model().double(), make(head=HEAD.model_copy(update={"kind": kind})).double()
        for module in (model, task):
            module.eval()  # no Gumbel noise
        backward(model, task, batch(8), Training(micro_batch=size))
        gradients.append([p.grad for p in (*model.video.parameters(), *task.parameters()) if p.grad is not None])
    assert len(gradients[0]) > 20
    for whole, parts in zip(*gradients, strict=True):
        torch.testing.assert_close(whole, parts, rtol=1e-6, atol=1e-9)


def test_a_batch_without_people_costs_nothing_and_harms_nothing():
    task, model, clips = make(), small.model(), batch()
    clips = replace(clips, entries=tuple(replace(each, boxes=()) for each in clips.entries))
    terms = task.loss(model, task.features(model, clips), clips)
    terms.total.backward()
    assert terms.total == 0
    assert all(p.grad is None or p.grad.isfinite().all() for p in (*task.parameters(), *model.parameters()))


def test_training_learns_who_does_what():
    task, model, clips = make(), small.model(), batch()
    optimizer = torch.optim.Adam([*task.parameters(), *model.parameters()], lr=0.01)
    losses = []
    for _ in range(40):
        terms = task.loss(model, task.features(model, clips), clips)
        optimizer.zero_grad()
        terms.total.backward()
        optimizer.step()
        losses.append(float(terms.losses["actions"]))
    assert losses[0] > 1.5 and losses[-1] < 0.3


# Scores


def write(path, *entries, classes=("4 dance", "12 stand", "80 watch (a person)"), split="test"):
    write_manifest(path, Header("ava", "videos", len(entries), "ava-2.2 val", split=split, classes=classes), entries)
    return Manifest(path)


@pytest.fixture
def manifest(tmp_path):
    return write(
        tmp_path / "val.jsonl",
        entry(truth(0.1, 0.1, 0.5, 0.9), guess(0.1, 0.1, 0.5, 0.8), guess(0.1, 0.1, 0.5, 0.85, score=0.85)),
        entry(truth(0.5, 0.2, 0.9, 0.8, labels=("4", "33")), guess(0.5, 0.2, 0.9, 0.9, score=0.9), id="film,0903"),
        entry(truth(0.5, 0.2, 0.9, 0.8, labels=("80",)), id="a,b,1000"),
    )


def named(manifest, chances):
    """Boxes of every keyframe with the probabilities that a function of the box gives."""
    found = []
    for each in manifest:
        people = (*detected_boxes(each, 0.8), *(box for box in each.boxes if box.origin == "truth"))
        rows = np.array([chances(box) for box in people], dtype=np.float32).reshape(-1, 3)
        video, _, second = each.id.rpartition(",")
        found.append(NamedBoxes((video, second), people, rows))
    return found


def test_knowing_the_actions_of_true_boxes_is_a_full_score(manifest):
    found = named(manifest, lambda box: [float(action in box.labels) for action in ACTIONS])
    assert judged(found, make(), "truth_boxes").mean_ap == 1


def test_the_score_of_the_box_ranks_detections_unless_switched_off(manifest):
    """Everybody is told alike, so that only the scores of the boxes, or the rule for ties, rank the keyframes."""
    found = named(manifest, lambda box: [0.1, 0.5, 0.2])
    weighed, plain = make(), make(weigh_by_box=False)
    np.testing.assert_allclose(detections(found, weighed, "detected").scores[1::3], [0.475, 0.425, 0.45])
    np.testing.assert_allclose(detections(found, plain, "detected").scores[1::3], 0.5)
    assert judged(found, weighed, "detected").ap == {4: 0.5, 12: 1.0, 80: 0.0}
    assert judged(found, plain, "detected").ap == {4: 1.0, 12: 0.5, 80: 0.0}  # the later one first


def test_scores_stand_beside_the_frequencies_and_the_file_gives_the_same(manifest, tmp_path):
    rng = np.random.default_rng(0)
    found = named(manifest, lambda box: rng.random(3))
    frequencies = np.array([0.3, 0.6, 0.1])
    truth_file = tmp_path / "truth.csv"
    rows = [
        [*each.id.rsplit(",", 1), *box.box, action, 1]
        for each in manifest
        for box in each.boxes
        for action in box.labels
        if box.origin == "truth"
    ]
    with open(truth_file, "w", newline="") as file:
        csv.writer(file).writerows(rows)
    for column, boxes in (("detected", 3), ("truth_boxes", 3)):
        scores = score(found, manifest, make(), column, frequencies, tmp_path)
        file = tmp_path / f"ava_{column}.csv"
        again = evaluate_boxes(read_truth(truth_file), read_detections(file), classes=(4, 12, 80))
        assert scores.metrics[f"ava_{column}/mAP@0.50"] == 100 * again.mean_ap
        assert 0 <= scores.metrics[f"ava_{column}_frequency/mAP@0.50"] < 100
        assert (scores.scored, scores.official) == (3, 3)
        assert "ava-2.2 val" in scores.protocol and "at most 50 detections" in scores.protocol
        assert len(file.read_text().splitlines()) == boxes * 3
    assert (tmp_path / "ava_detected.csv").read_text().startswith("film,0902,0.1,0.1,0.5,0.8,4,")
    assert '"a,b",1000,' in (tmp_path / "ava_truth_boxes.csv").read_text()


# A whole run


@pytest.fixture(scope="module")
def manifests(world, tmp_path_factory):
    """Manifests of the AVA files of the drawn world."""
    place = tmp_path_factory.mktemp("ava")
    for split, part in (("train", "train"), ("test", "val")):
        files = world / "ava" / f"ava_{part}_v2.2.csv", world / "ava" / f"ava_{part}_predicted_boxes.csv"
        prepare(
            ava.listing(files[0], boxes=files[1]), to=place / f"{split}.jsonl", videos=world / "videos", check="none"
        )
    return place


@pytest.fixture
def run(manifests):
    settings = (
        "training.steps=2", "training.log_every=1", "data.batch=8", "data.workers=0", "model.common=16",
        "model.video.width=32", "model.video.depth=2", "model.video.heads=2", "model.video.group_after=[1,2]",
        "model.text.width=32", "model.text.depth=1", "model.text.heads=2", "data.flip=0.5", "device=cpu",
        f"data.manifest={manifests / 'train.jsonl'}",
    )  # fmt: skip
    tiny = recipe("tiny")
    paste = tiny.data.model_copy(update={"paste": CutPaste(probability=0.0)})
    task = Ava(test=str(manifests / "test.jsonl"), num_boxes=4, head=BoxHeadConfig(heads=2))
    return override(tiny.model_copy(update={"task": task, "data": paste}), settings)


def rewritten(manifest, path, change=lambda entry: entry, **header):
    """A copy of a manifest with other entries or another header."""
    whole = Manifest(manifest)
    header = replace(whole.header, root=str(whole.root), **header)
    write_manifest(path, header, [change(each) for each in whole])
    return path


def test_each_box_is_named_by_itself_on_the_whole_picture(world, tmp_path):
    """A crop, as the training may make it, would miss what stands at the sides."""
    video = next((world / "videos").glob("*.mp4")).name
    people = (truth(0.0, 0.1, 0.2, 0.9), guess(0.7, 0.0, 1.0, 0.5, score=0.9), guess(0.1, 0.0, 0.9, 1.0, score=0.99))
    rows = [Entry(f"film,{n}", video, ("a",), (("a",),), boxes=people[n:]) for n in range(4)]
    write_manifest(tmp_path / "m.jsonl", Header("ava", str(world / "videos"), 4, split="test"), rows)
    sampling = Sampling(num_frames=8, size=16, short_side=24)
    reader = Reader(Tokenizer.train(["a word"], 50), sampling, Language(), batch=3)
    model, task = small.model(), make(head=HEAD.model_copy(update={"dropout": 0.9}))
    found = name_actions(model, task, Manifest(tmp_path / "m.jsonl"), reader)
    whole = load_clip(world / "videos" / video, None, None, sampling.model_copy(update={"fit": "squash"}), None)
    with torch.no_grad():
        maps = token_map(model, model.eval().encode_video(whole.frames[None]).tokens, 16)
        wanted = {box: task.eval().head(maps, torch.tensor([[box.box]]))[0, 0].sigmoid().numpy() for box in people}
    assert [each.keyframe for each in found] == [("film", str(n)) for n in range(4)]
    assert [len(each.boxes) for each in found] == [3, 2, 1, 0]
    for each in found:
        for box, chances in zip(each.boxes, each.chances, strict=True):
            np.testing.assert_allclose(chances, wanted[box], rtol=1e-4)
    assert [found[0].rows_of(column) for column in ("detected", "truth_boxes")] == [[0, 1], [2]]


def test_a_run_from_clips_to_both_columns(run, world, tmp_path):
    place = tmp_path / "run"
    scores = execute(run, place)
    test = Manifest(run.task.test)
    actions = len(test.header.classes)
    wanted = {"detected": 0, "truth_boxes": 0}
    for each in test:
        wanted["detected"] += len(detected_boxes(each, 0.8))
        wanted["truth_boxes"] += sum(box.origin == "truth" for box in each.boxes)
    for column, boxes in wanted.items():
        assert 0 < scores[f"ava_{column}/mAP@0.50"] < 100
        assert 0 < scores[f"ava_{column}_frequency/mAP@0.50"] < 100
        assert scores[f"ava_{column}/scored"] == scores[f"ava_{column}/official"] == len(test)
        assert len((place / f"ava_{column}.csv").read_text().splitlines()) == boxes * actions
        official = evaluate_boxes(
            read_truth(world / "ava" / "ava_val_v2.2.csv"),
            read_detections(place / f"ava_{column}.csv"),
            classes=read_classes(world / "ava" / "ava_action_list_v2.2_for_activitynet_2019.pbtxt"),
            excluded=read_excluded(world / "ava" / "ava_val_excluded_timestamps_v2.2.csv"),
        )
        assert 100 * official.mean_ap == scores[f"ava_{column}/mAP@0.50"]
    protocols = json.loads((place / "protocols.json").read_text())
    assert "detected boxes with a score of 0.8 or more" in protocols["ava_detected"]["protocol"]
    before = (place / "ava_detected.csv").read_bytes()
    (place / "ava_detected.csv").unlink()
    assert evaluate(load_run(place), place) == scores
    assert (place / "ava_detected.csv").read_bytes() == before


def test_the_best_weights_are_judged_by_the_annotated_boxes(run, manifests, tmp_path):
    keep = [f"training.validation={manifests / 'train.jsonl'}", "training.keep=best", "training.evaluate_every=1"]
    execute(override(run, keep), tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    judged_at = {row["step"]: row["keep/best"] for row in rows if "keep/best" in row}
    assert judged_at.keys() == {1, 2} and all(0 < value < 1 for value in judged_at.values())


def test_without_a_detector_there_is_one_column(run, tmp_path):
    def bare(entry):
        return replace(entry, boxes=tuple(box for box in entry.boxes if box.origin == "truth"))

    test = rewritten(run.task.test, tmp_path / "bare.jsonl", bare)
    scores = execute(override(run, [f"task.test={test}", "training.steps=1"]), tmp_path / "run")
    assert "ava_truth_boxes/mAP@0.50" in scores and not [name for name in scores if name.startswith("ava_detected")]


def test_what_cannot_be_trained_is_refused(run, tmp_path):
    with pytest.raises(ConfigError, match=r"data\.paste\.probability must be 0"):
        execute(override(run, ["data.paste.probability=1.0"]), tmp_path / "pasted")
    words = rewritten(run.data.manifest, tmp_path / "words.jsonl", classes=("dance", "stand"))
    with pytest.raises(ConfigError, match='classes must be "id name", found dance, stand'):
        execute(override(run, [f"data.manifest={words}"]), tmp_path / "words")
    fewer = rewritten(run.task.test, tmp_path / "fewer.jsonl", classes=("4 dance",))
    with pytest.raises(ConfigError, match="other classes than in the training manifest"):
        execute(override(run, [f"task.test={fewer}"]), tmp_path / "fewer")
    unnamed = rewritten(
        run.task.test, tmp_path / "unnamed.jsonl", lambda entry: replace(entry, id=entry.id.replace(",", "-"))
    )
    with pytest.raises(ConfigError, match="id must be"):
        execute(override(run, [f"task.test={unnamed}"]), tmp_path / "unnamed")
