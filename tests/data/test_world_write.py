"""The drawn world on disk: the same bytes each time, official formats, videos that decode to what is true."""

import csv
import json
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from svilm.config import ConfigError
from svilm.data.world import (
    World,
    WorldError,
    draw_world,
    jump_cut,
    read_jump_cuts,
    read_truth,
    read_untrimmed,
    render,
    scene,
    untrimmed,
)
from svilm.data.world import write as module
from svilm.data.world.long import ACTIONS
from svilm.data.world.scenes import COLOURS

SMALL = {"clips": 5, "test_clips": 10, "untrimmed": 2, "seed": 4}
TINY = {"clips": 2, "test_clips": 1, "untrimmed": 0, "size": 32, "frames": 4, "fps": 4}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return draw_world(tmp_path_factory.mktemp("drawn") / "world", **SMALL, workers=1)


def decoded(path: Path) -> np.ndarray:
    with av.open(str(path)) as file:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)])


def texts(folder: Path) -> dict[str, bytes]:
    """All files but the videos."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".mp4"
    }


def videos(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.mp4")}


def rows(path: Path) -> list[list[str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


# Repetition


def test_two_processes_draw_the_same_world_as_one(world: World, tmp_path: Path):
    other = draw_world(tmp_path / "other", **SMALL, workers=2)
    assert texts(other.folder) == texts(world.folder)
    assert videos(other.folder) == videos(world.folder)
    assert replace(other, folder=world.folder, seconds=world.seconds) == world


def test_a_smaller_world_is_the_beginning_of_a_larger_one(world: World, tmp_path: Path):
    small = draw_world(tmp_path, **{**SMALL, "clips": 3, "test_clips": 4, "untrimmed": 1}, workers=1)
    larger = videos(world.folder)
    assert all(larger[name] == data for name, data in videos(small.folder).items())
    for split in ("train", "test"):
        first, all_of_them = ([r for r in read_truth(w.folder) if r.split == split] for w in (small, world))
        assert first == all_of_them[: len(first)]
    for file in ("videocc/video_cc_public.csv", "msrvtt/MSRVTT_JSFUSION_test.csv", "jump_cuts.csv"):
        lines = rows(small.folder / file)
        assert lines == rows(world.folder / file)[: len(lines)]


def test_another_seed_draws_another_world(world: World, tmp_path: Path):
    other = draw_world(tmp_path, **{**SMALL, "untrimmed": 0, "seed": 5}, workers=1)
    here, there = ({path.name: path.read_bytes() for path in w.videos.iterdir()} for w in (world, other))
    assert there.keys() == here.keys()
    assert not set(there.values()) & set(here.values())


def test_the_encoder_gives_the_same_bytes_each_time(tmp_path: Path):
    """It did not while x264 used its macroblock tree: this clip came out in many versions."""
    video = render(scene(4, "test", 0))
    found = set()
    for _ in range(20):
        module.write_video(tmp_path / "video.mp4", video, 8)
        found.add((tmp_path / "video.mp4").read_bytes())
    assert len(found) == 1


# Videos


def test_videos_are_h264_and_decode_to_the_drawn_frames(world: World):
    for record in read_truth(world.folder):
        with av.open(str(world.folder / record.video)) as file:
            stream = file.streams.video[0]
            assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
            assert (stream.height, stream.width, stream.average_rate) == (64, 64, 8)
            times = [frame.time for frame in file.decode(stream)]
        assert times == [frame / 8 for frame in range(16)]
        index = int(record.id.removeprefix("video")) % 100_000
        drawn = render(scene(SMALL["seed"], record.split, index))
        assert np.abs(decoded(world.folder / record.video).astype(int) - drawn).mean() < 5


def test_colours_survive_the_encoder(world: World):
    right = total = 0
    for record in read_truth(world.folder):
        video = decoded(world.folder / record.video)
        for thing in record.things:
            if thing.shape == "ring":  # has nothing in its middle
                continue
            for frame, box in zip(video, thing.boxes, strict=True):
                if box is not None:
                    x, y = int((box[0] + box[2]) * 32), int((box[1] + box[3]) * 32)
                    distance = {c: np.linalg.norm(frame[y, x] - np.array(v)) for c, v in COLOURS.items()}
                    right += min(distance, key=distance.__getitem__) == thing.colour
                    total += 1
    assert total > 150 and right > 0.97 * total


def test_scene_changes_are_where_neighbouring_frames_differ_most(world: World):
    changing = [record for record in read_truth(world.folder) if record.scene_changes]
    assert changing and world.scene_changes == len(changing)
    for record in changing:
        steps = np.abs(np.diff(decoded(world.folder / record.video).astype(int), axis=0)).mean(axis=(1, 2, 3))
        assert record.scene_changes == ((steps.argmax() + 1) / record.fps,)


# Annotations


def test_videocc_rows_have_no_header_and_count_microseconds(world: World):
    found = rows(world.videocc)
    assert [row[0] for row in found] == [f"video{k}.mp4" for k in range(5)]
    assert all(len(row) == 4 and row[1:3] == ["0", "2000000"] for row in found)
    assert all((world.videos / row[0]).is_file() for row in found)
    train = [record for record in read_truth(world.folder) if record.split == "train"]
    assert [row[3] for row in found] == [record.captions[0] for record in train]


def test_msrvtt_files_have_the_official_schema(world: World):
    data = json.loads((world.msrvtt / "MSRVTT_data.json").read_text())
    assert set(data) == {"videos", "sentences"}
    for video in data["videos"]:
        assert set(video) == {"category", "url", "video_id", "start time", "end time", "split", "id"}
        assert video["video_id"] == f"video{video['id']}" and video["split"] in ("train", "test")
        assert isinstance(video["category"], int) and video["end time"] == 2.0
        assert (world.videos / f"{video['video_id']}.mp4").is_file()
    for sentence in data["sentences"]:
        assert set(sentence) == {"caption", "video_id", "sen_id"}
    assert len({sentence["sen_id"] for sentence in data["sentences"]}) == len(data["sentences"]) == 15 * 5
    train = rows(world.msrvtt / "MSRVTT_train.9k.csv")
    assert train == [["video_id"], *[[v["video_id"]] for v in data["videos"] if v["split"] == "train"]]
    header, *queries = rows(world.msrvtt / "MSRVTT_JSFUSION_test.csv")
    assert header == ["key", "vid_key", "video_id", "sentence"]
    told = {(sentence["video_id"], sentence["caption"]) for sentence in data["sentences"]}
    for k, (key, msr, video_id, sentence) in enumerate(queries):
        assert (key, msr, video_id) == (f"ret{k}", f"msr{100_000 + k}", f"video{100_000 + k}")
        assert (video_id, sentence) in told
    assert len({query[3] for query in queries}) == len(queries) == 10


def test_scenes_lists_the_test_clips_that_change(world: World):
    header, *found = rows(world.scenes)
    assert header == ["video", "start", "end", "caption", "scene_changes"]
    changing = [r for r in read_truth(world.folder) if r.split == "test" and r.scene_changes]
    assert found == [[f"{r.id}.mp4", "0.0", "2.0", r.captions[0], str(r.scene_changes[0])] for r in changing]


def test_jump_cuts_are_a_quarter_of_the_test_clips_and_listed_as_scenes_are(world: World):
    header, *found = rows(world.jump_cuts)
    assert header == rows(world.scenes)[0] and len(found) == 3  # of 10 test clips
    records = read_jump_cuts(world.folder)
    assert found == [[f"cut{k}.mp4", "0.0", "2.0", r.captions[0], str(*r.scene_changes)] for k, r in enumerate(records)]
    for index, record in enumerate(records):
        assert record.split == "test" and record.backgrounds[0] == record.backgrounds[1]
        path = world.jump_cut_videos / found[index][0]
        assert path == world.folder / record.video
        assert np.abs(decoded(path).astype(int) - render(jump_cut(SMALL["seed"], index))).mean() < 5
        for thing in record.things:
            frames = [k / record.fps for k, box in enumerate(thing.boxes) if box is not None]
            assert frames and all((second >= record.scene_changes[0]) == thing.shot for second in frames)
    assert not {record.id for record in records} & {record.id for record in read_truth(world.folder)}


def test_every_annotation_file_is_explained(world: World):
    readme = (world.folder / "README.md").read_text()
    for name in texts(world.folder):
        name = re.sub(r"/\w+_test_split\d", "/{class}_test_split{1,2,3}", name)
        assert name == "README.md" or f"`{name}`" in readme, name


# Truth


def test_truth_has_a_box_for_each_noun_phrase_and_frame(world: World):
    for record in read_truth(world.folder):
        assert record.duration == 2.0 and len(record.captions) == len(record.nouns) == 5
        for noun in {noun for nouns in record.nouns for noun in nouns}:
            seen = record.boxes(noun)
            assert len(seen) == record.num_frames and any(seen)
            assert all(0 <= b[0] < b[2] <= 1 and 0 <= b[1] < b[3] <= 1 for b in seen if b is not None)
        with pytest.raises(KeyError, match=f"{record.id} has no 'grey mouse'"):
            record.boxes("grey mouse")
        for thing in record.things:  # nothing is seen outside its shot
            cuts = [0, *(round(s * record.fps) for s in record.scene_changes), record.num_frames]
            frames = [k for k, box in enumerate(thing.boxes) if box is not None]
            assert cuts[thing.shot] <= frames[0] and frames[-1] < cuts[thing.shot + 1]


def test_a_broken_truth_file_names_the_line(tmp_path: Path, world: World):
    with pytest.raises(WorldError, match=re.escape(f"{tmp_path / 'truth.jsonl'}: no such file")):
        read_truth(tmp_path)
    lines = (world.folder / "truth.jsonl").read_text().splitlines()
    for wrong in ("{}", "{", lines[1].replace('"action"', '"verb"')):
        (tmp_path / "truth.jsonl").write_text("\n".join([lines[0], wrong]))
        with pytest.raises(WorldError, match="line 2 is not a record"):
            read_truth(tmp_path)


# Long videos


def test_long_videos_have_labelled_segments_between_gaps(world: World):
    records = read_untrimmed(world.folder)
    assert [record.split for record in records] == ["train", "test"]
    for record in records:
        assert len(decoded(world.folder / record.video)) == record.num_frames
        assert 20 <= record.num_frames / record.fps <= 40
        assert len(record.segments) >= 2
        edges = [0.0, *(t for s in record.segments for t in (s.start, s.end)), record.num_frames / record.fps]
        assert all(later - earlier >= 1 for earlier, later in pairwise(edges[:-1]))
        for segment in record.segments:
            assert segment.label in ACTIONS and segment.label == segment.things[0].motion
            assert len(segment.nouns) == len(segment.things)
            for thing in segment.things:
                frames = [k for k, box in enumerate(thing.boxes) if box is not None]
                assert segment.start * record.fps <= frames[0] and frames[-1] < segment.end * record.fps


def test_nothing_moves_between_the_actions():
    for index in range(8):
        long = untrimmed(0, index)
        acting = {segment.shot.start for segment in long.segments}
        gaps = [shot for shot in long.scene.shots if shot.start not in acting]
        assert len(gaps) >= len(acting)
        assert {a.thing.motion for shot in gaps for a in shot.actors} <= {"stays still"}
        changes = long.scene.scene_changes
        assert len(changes) < len(long.scene.shots) - 1 and set(changes) <= {start / 8 for start in acting}


# The folder


def test_the_same_world_is_not_drawn_twice(world: World, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "write_video", None)
    again = draw_world(world.folder, **SMALL, workers=1)
    assert again.reused and not world.reused
    assert replace(again, reused=False, seconds=world.seconds) == world


def test_force_draws_again_and_leaves_nothing_of_the_world_before(tmp_path: Path):
    fresh = draw_world(tmp_path / "fresh", **TINY, workers=1).folder
    old = draw_world(tmp_path / "old", **{**TINY, "clips": 3, "test_clips": 5, "untrimmed": 1}, workers=1).folder
    with pytest.raises(WorldError, match=r"clips=3, test_clips=5, untrimmed=1, asked for clips=2, test_clips=1, unt"):
        draw_world(old, **TINY, workers=1)
    assert not draw_world(old, **TINY, workers=1, force=True).reused
    assert texts(old) == texts(fresh) and videos(old) == videos(fresh)
    assert [path.name for path in (old / "jump_cuts").glob("*.mp4")] == ["cut0.mp4"]


def test_a_world_cut_short_is_drawn_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as patch:
        patch.setattr(module, "write_annotations", lambda *arguments: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            draw_world(tmp_path / "cut", **TINY, workers=1)
    assert not draw_world(tmp_path / "cut", **TINY, workers=1).reused
    assert texts(tmp_path / "cut") == texts(draw_world(tmp_path / "whole", **TINY, workers=1).folder)


def test_a_folder_with_anything_else_is_refused_even_by_force(tmp_path: Path):
    (tmp_path / "thesis.txt").write_text("all my work")
    for force in (False, True):
        with pytest.raises(WorldError, match="not empty and not a drawn world"):
            draw_world(tmp_path, **TINY, workers=1, force=force)
    with pytest.raises(WorldError, match="is a file"):
        draw_world(tmp_path / "thesis.txt", **TINY, workers=1)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    "wrong",
    [{"clips": 0}, {"size": 63}, {"size": 16}, {"frames": 3}, {"fps": 0}, {"seed": -1}, {"untrimmed": -1}],
)
def test_a_setting_out_of_range_is_named_and_nothing_is_drawn(wrong: dict[str, int], tmp_path: Path):
    (name, value) = next(iter(wrong.items()))
    with pytest.raises(ConfigError, match=f"{name} = {value}"):
        draw_world(tmp_path / "new", **{**SMALL, **wrong}, workers=1)
    with pytest.raises(ValueError, match="workers is 0"):
        draw_world(tmp_path / "new", **SMALL, workers=0)
    assert not (tmp_path / "new").exists()


def test_a_world_without_test_clips_and_long_videos_is_a_world(tmp_path: Path):
    drawn = draw_world(tmp_path, **{**TINY, "clips": 1, "test_clips": 0}, workers=1)
    assert len(read_truth(drawn.folder)) == 1 and read_untrimmed(drawn.folder) == read_jump_cuts(drawn.folder) == []
    assert decoded(drawn.videos / "video0.mp4").shape == (4, 32, 32, 3)
    assert rows(drawn.videocc)[0][2] == "1000000"
