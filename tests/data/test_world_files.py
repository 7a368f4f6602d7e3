"""Every annotation file of a drawn world, through the reader of the benchmark whose form it has."""

import csv
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from svilm.data.class_names import readable
from svilm.data.manifest import Manifest, Segment
from svilm.data.prepare import activitynet, ava, folder, hmdb51, msrvtt, msrvtt_qa, ucf101, videocc
from svilm.data.prepare.common import Listing, prepare
from svilm.data.world import World, draw_world, read_jump_cuts, read_truth, read_untrimmed
from svilm.data.world import labelled as module
from svilm.data.world.scenes import COLOURS, MOTIONS


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    place = tmp_path_factory.mktemp("files") / "world"
    return draw_world(place, clips=40, test_clips=14, untrimmed=2, seed=3, workers=1)


def prepared(listing: Listing, videos: Path, to: Path) -> Manifest:
    """The manifest, of which nothing was lost."""
    summary = prepare(listing, to=to / "m.jsonl", videos=videos, check="none")
    assert not summary.losses and summary.written == summary.rows > 0
    return Manifest(summary.manifest)


# Captions and questions


def test_the_caption_files_are_read(world: World, tmp_path: Path) -> None:
    train = prepared(videocc.listing(world.videocc), world.videos, tmp_path)
    assert [entry.video for entry in train] == [f"video{k}.mp4" for k in range(40)]
    for split, number in (("train", 40), ("test", 14)):
        assert len(prepared(msrvtt.listing(world.msrvtt, split=split), world.videos, tmp_path)) == number
    scenes = prepared(folder.listing(world.scenes, split="test"), world.videos, tmp_path)
    assert len(scenes) == sum(bool(r.scene_changes) for r in read_truth(world.folder) if r.split == "test")
    cuts = prepared(folder.listing(world.jump_cuts, split="test"), world.jump_cut_videos, tmp_path)
    assert [entry.scene_changes for entry in cuts] == [record.scene_changes for record in read_jump_cuts(world.folder)]
    assert len(cuts) == 4 and cuts.header.split == "test" and cuts.path_of(cuts[0]).is_file()


@pytest.mark.parametrize("form", ["{}_qa.json", "{}.jsonl"])
def test_the_questions_are_read_in_both_forms(world: World, tmp_path: Path, form: str) -> None:
    records = {record.id: record for record in read_truth(world.folder)}
    asked: Counter[str] = Counter()
    ids: set[str] = set()
    for split in ("train", "val", "test"):
        manifest = prepared(msrvtt_qa.listing(world.msrvtt_qa / form.format(split)), world.videos, tmp_path)
        assert manifest.header.split == split
        for entry in manifest:
            record = records[entry.video.removesuffix(".mp4")]
            told = {question.question: question for question in record.questions}[entry.captions[0]]
            assert (entry.labels, entry.category) == ((told.answer,), told.answer_type)
            validation = record.split == "train" and int(record.id[5:]) % 10 == 9
            assert split == ("val" if validation else record.split)
            asked[record.id] += 1
            ids.add(entry.id)
    assert asked == {name: len(record.questions) for name, record in records.items()}
    assert len(ids) == sum(asked.values())


def test_the_answers_are_those_of_training_numbered(world: World) -> None:
    answers = json.loads((world.msrvtt_qa / "train_ans2label.json").read_text())
    train = json.loads((world.msrvtt_qa / "train_qa.json").read_text())
    assert set(answers) == {row["answer"] for row in train}
    assert list(answers.values()) == list(range(len(answers))) and list(answers) == sorted(answers)


# Actions


def test_the_folds_of_ucf101_are_read(world: World, tmp_path: Path) -> None:
    records = {(world.folder / record.video).read_bytes(): record for record in read_truth(world.folder)}
    tested: list[set[str]] = []
    for fold in (1, 2, 3):
        parts: dict[str, set[str]] = {}
        for split in ("train", "test"):
            manifest = prepared(ucf101.listing(world.ucf101, fold=fold, split=split), world.ucf101, tmp_path)
            assert manifest.header.classes == module.CLASSES and len(module.CLASSES) == len(COLOURS)
            shown = [records[manifest.path_of(entry).read_bytes()] for entry in manifest]
            told = [f"{record.things[0].colour} thing" for record in shown]
            assert [readable(entry.labels[0]) for entry in manifest] == told
            assert [entry.captions for entry in manifest] == [(words,) for words in told]
            parts[split] = {record.id for record in shown}
        assert not parts["train"] & parts["test"] and len(parts["train"] | parts["test"]) == 54
        tested.append(parts["test"])
    assert tested[0] == {record.id for record in records.values() if record.split == "test"}
    assert not tested[1] & tested[2] and not tested[0] & (tested[1] | tested[2])
    assert min(map(len, tested)) >= 10


def test_where_there_are_no_hard_links_videos_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError

    monkeypatch.setattr(module.os, "link", refuse)
    drawn = draw_world(tmp_path, clips=2, test_clips=1, untrimmed=0, size=32, frames=4, fps=4, workers=1)
    copies = {path.read_bytes() for path in drawn.ucf101.rglob("*.mp4")}
    assert copies == {path.read_bytes() for path in drawn.videos.iterdir()} and len(copies) == 3


# Segments


def test_the_folds_of_hmdb51_are_read(world: World, tmp_path: Path) -> None:
    records = read_truth(world.folder)
    for fold in (1, 2, 3):
        parts = []
        for split in ("train", "test"):
            manifest = prepared(hmdb51.listing(world.hmdb51, fold=fold, split=split), world.hmdb51, tmp_path)
            number = {record.id: record for record in records}
            shown = [number[Path(entry.video).name.partition("_")[0]] for entry in manifest]
            assert [readable(entry.labels[0]) for entry in manifest] == [record.action for record in shown]
            assert all(manifest.path_of(entry).is_file() and "[" in entry.video for entry in manifest)
            parts.append({record.id for record in shown})
            if fold == 1:
                assert {record.split for record in shown} == {split}
        assert not parts[0] & parts[1] and len(parts[0] | parts[1]) == len(records)


def test_the_segments_of_activitynet_are_read(world: World, tmp_path: Path) -> None:
    for subset, split in (("training", "train"), ("validation", "test")):
        records = [record for record in read_untrimmed(world.folder) if record.split == split]
        listing = activitynet.listing(world.activitynet, subset=subset)
        manifest = prepared(listing, world.long_videos, tmp_path)
        assert manifest.header.classes == tuple(f"{colour} acts" for colour in sorted(COLOURS))
        assert manifest.header.split == split
        assert not listing.notes and len(records) == 1
        for entry, record in zip(manifest, records, strict=True):
            assert (entry.id, entry.duration) == (record.id, record.num_frames / record.fps)
            assert entry.segments == tuple(
                Segment(s.start, s.end, f"{s.things[0].colour} acts") for s in record.segments
            )


# Boxes


@pytest.mark.parametrize(("part", "split"), [("train", "train"), ("val", "test")])
def test_the_boxes_of_ava_are_read(world: World, tmp_path: Path, part: str, split: str) -> None:
    records = {record.id: record for record in read_truth(world.folder) if record.split == split}
    boxes = world.ava / f"ava_{part}_predicted_boxes.csv"
    listing = ava.listing(world.ava / f"ava_{part}_v2.2.csv", boxes=boxes)
    manifest = prepared(listing, world.videos, tmp_path)
    assert manifest.header.classes == tuple(f"{k} {motion}" for k, motion in enumerate(MOTIONS, start=1))
    cut = {name for name, record in records.items() if any(abs(t - 1) < 0.2 for t in record.scene_changes)}
    with open(world.ava / f"ava_{part}_excluded_timestamps_v2.2.csv", newline="") as file:
        assert {row[0] for row in csv.reader(file)} == cut
    unseen = set()
    for entry in manifest:
        record = records[entry.video.removesuffix(".mp4")]
        assert entry.id == f"{record.id},0901" and (entry.start, entry.end) == (0.0, 2.0)
        seen = [thing for thing in record.things if thing.boxes[8] is not None]
        true = [box for box in entry.boxes if box.origin == "truth"]
        assert [MOTIONS[int(box.labels[0]) - 1] for box in true] == [thing.motion for thing in seen]
        for box, thing in zip(true, seen, strict=True):
            assert np.abs(np.subtract(box.box, thing.boxes[8])).max() <= 0.0006
        unseen |= set() if seen else {record.id}
    found = {entry.id.removesuffix(",0901") for entry in manifest}
    nothing = {name for name, r in records.items() if all(thing.boxes[8] is None for thing in r.things)} - cut
    assert found == set(records) - cut - (nothing if split == "train" else set())
    assert unseen == (nothing if split == "test" else set())


def test_the_simulated_detector_is_good_but_not_perfect(world: World, tmp_path: Path) -> None:
    entries = [
        entry
        for part in ("train", "val")
        for entry in prepared(
            ava.listing(world.ava / f"ava_{part}_v2.2.csv", boxes=world.ava / f"ava_{part}_predicted_boxes.csv"),
            world.videos,
            tmp_path,
        )
    ]

    def overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
        sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
        common = float(np.maximum(sides, 0).prod())
        return common / (sum((c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)) - common)

    sure = hits = true = 0
    invented = []
    for entry in entries:
        truth = [box for box in entry.boxes if box.origin == "truth"]
        true += len(truth)
        for box in (box for box in entry.boxes if box.origin == "detector"):
            right = any(overlap(box.box, other.box) > 0.5 for other in truth)
            hits += right
            sure += right and box.score >= 0.8
            if not right:
                invented.append(box.score)
    assert true > 60 and 0.88 * true < hits < true and sure > 0.8 * true
    assert 8 < len(invented) < 0.6 * len(entries) and sum(score >= 0.8 for score in invented) < 0.3 * len(invented)


def test_clips_under_a_second_have_their_keyframe_in_the_middle(tmp_path: Path) -> None:
    drawn = draw_world(tmp_path, clips=6, test_clips=1, untrimmed=0, size=32, frames=4, fps=4, workers=1)
    manifest = prepared(ava.listing(drawn.ava / "ava_train_v2.2.csv"), drawn.videos, tmp_path)
    assert {entry.id.partition(",")[2] for entry in manifest} == {"900.5"}
    assert {(entry.start, entry.end) for entry in manifest} == {(0.0, 1.0)}
