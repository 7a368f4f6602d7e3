"""An index is the same however it came about: at once, in parts, after a kill, by several processes."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import svilm
from svilm.search import build, ledger, watch
from svilm.search.build import build_index
from svilm.search.exact import ExactStore
from svilm.search.index import Index
from svilm.search.moments import Splitting
from tiny_models import own_model, write_checkpoint
from torture.frame import Plan
from torture.indexing import kill_indexing

sys.path.append(str(Path(__file__).parents[1] / "data"))
from make_videos import write_video

SPLITTING = Splitting(shortest=1.0, longest=4.0)
GOOD = ["scenes.mp4", "sub/deep/one frame.mp4", "sub/it's ☃.mkv", "sub/short.mp4", "upper.MP4"]
BAD = {"cut.mp4": "damaged", "empty.mp4": "empty", "link.mp4": "outside_folder", "pipe.mp4": "not_regular_file"}
BAD |= {"text.mp4": "not_a_video"}


def index(videos, to, model, **options):
    return build_index(videos, to, str(model), **({"splitting": SPLITTING, "workers": 0} | options))


def content(folder):
    """All that an index holds, by video; the numbers of a vector may differ in the last bits."""
    about = ledger.read_about(folder)
    store = ExactStore(folder / "exact", about.width)
    known = ledger.read_videos(folder)
    rows = {video: store.of(video) for video in known}
    return (
        {video: (one.reason if isinstance(one, ledger.Failure) else one) for video, one in known.items()},
        {video: one.bounds.tolist() for video, one in rows.items()},
        {video: np.round(one.vectors.astype(np.float64), 4).tolist() for video, one in rows.items()},
        store.count(),
    )


@pytest.fixture
def whole(videos, model_folder, tmp_path):
    """The index that nothing disturbed."""
    return index(videos, tmp_path / "whole", model_folder)


def test_good_videos_are_cut_and_encoded_and_bad_ones_listed(whole, videos, model_folder):
    known = ledger.read_videos(whole.folder)
    assert sorted(video.video for video in whole.videos) == GOOD
    assert {failure.video: failure.reason.partition(":")[0] for failure in whole.failures} == BAD
    with Index(whole.folder) as opened:
        assert list(opened.videos) == GOOD and opened.failures.keys() == BAD.keys()
        scenes = [moment for moment, _ in opened.timeline("a red circle", "scenes.mp4")]
        assert [(moment.start, moment.end) for moment in scenes] == [(0.0, 2.5), (2.5, 6.0)]
        assert known["scenes.mp4"].moments == 2 and known["sub/deep/one frame.mp4"].moments == 1
        assert len(opened) == sum(video.moments for video in whole.videos)
    report = str(whole)
    assert "8 files read now" in report and "1 x not_regular_file: pipe.mp4: a pipe, not a file" in report
    assert "MB per hour of video" in report


def test_a_moment_has_the_vector_that_the_model_gives(whole, videos, model_folder):
    model = svilm.load(str(model_folder), "cpu")
    store = ExactStore(whole.folder / "exact", 8)
    for video in GOOD:
        rows = store.of(video)
        wanted = [model.encode_video(videos / video, start, end)[0].numpy() for start, end in rows.bounds.tolist()]
        np.testing.assert_allclose(rows.vectors, np.stack(wanted), atol=1e-5)


def test_only_what_changed_is_encoded_again(whole, videos, model_folder, monkeypatch):
    seen = []
    through = watch.watch

    def noted(files, *rest):
        seen.extend(file.video for file in files)
        return through(files, *rest)

    monkeypatch.setattr(build, "watch", noted)
    before = content(whole.folder)
    again = index(videos, whole.folder, model_folder)
    assert not seen and again.encoded == 0 and content(whole.folder) == before
    (videos / "scenes.mp4").unlink()
    (videos / "text.mp4").unlink()
    write_video(videos / "sub" / "new.mp4", 16, rate=8)
    write_video(videos / "upper.MP4", 24, rate=8)
    shutil.copy(videos / "upper.MP4", videos / "empty.mp4")
    again = index(videos, whole.folder, model_folder)
    assert sorted(seen) == ["empty.mp4", "sub/new.mp4", "upper.MP4"]
    assert (again.encoded, again.removed) == (3, 2)
    fresh = index(videos, whole.folder.parent / "fresh", model_folder)
    assert content(again.folder) == content(fresh.folder)
    seen.clear()
    index(videos, whole.folder, model_folder, retry=True)
    assert seen == ["cut.mp4"]


def test_a_journal_cut_at_any_byte_is_made_good(whole, videos, model_folder, tmp_path, monkeypatch):
    wanted = content(whole.folder)
    monkeypatch.setattr(build, "_fold", lambda *_: None)  # as if it was killed before
    index(videos, tmp_path / "killed", model_folder)
    monkeypatch.undo()
    for number, (lines, vectors) in enumerate([(0, 0), (1, 99), (700, 99), (900, 10), (1500, 70), (9999, 9999)]):
        folder = tmp_path / f"cut {number}"
        shutil.copytree(tmp_path / "killed", folder)
        for ending, count in (("jsonl", lines), ("vectors", vectors)):
            file = folder / "journal" / f"0.{ending}"
            file.write_bytes(file.read_bytes()[:count])
        index(videos, folder, model_folder)
        assert content(folder) == wanted, (lines, vectors)
        assert not list((folder / "journal").iterdir())
    lost = tmp_path / "killed" / "journal" / "0.vectors"  # as a loss of power leaves it: long enough, but empty
    lost.write_bytes(bytes(lost.stat().st_size))
    index(videos, tmp_path / "killed", model_folder)
    assert content(tmp_path / "killed") == wanted


@pytest.mark.parametrize("where", ["write_videos", "clear_journals", "open_store"])
def test_a_death_while_folding_is_made_good(whole, videos, model_folder, tmp_path, monkeypatch, where):
    def die(*_):
        raise MemoryError

    monkeypatch.setattr(build, where, die)
    with pytest.raises(MemoryError):
        index(videos, tmp_path / "killed", model_folder)
    monkeypatch.undo()
    index(videos, tmp_path / "killed", model_folder)
    assert content(tmp_path / "killed") == content(whole.folder)


def test_what_is_done_can_be_searched_after_ctrl_c(videos, model_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(watch, "GROUP_FILES", 1)
    through = build._note

    def interrupted(journal, found, outcome):
        if found.path.startswith("text"):
            raise KeyboardInterrupt
        through(journal, found, outcome)

    monkeypatch.setattr(build, "_note", interrupted)
    with pytest.raises(KeyboardInterrupt):
        index(videos, tmp_path / "stopped", model_folder)
    with Index(tmp_path / "stopped") as opened:
        assert list(opened.videos) == GOOD[:-1] and len(opened.search("a red circle")) == len(opened)


def test_batches_groups_and_workers_change_nothing(whole, videos, model_folder, tmp_path, monkeypatch):
    wanted = content(whole.folder)
    index(videos, tmp_path / "small", model_folder, batch=1)
    monkeypatch.setattr(watch, "GROUP_SECONDS", 0.1)
    monkeypatch.setattr(watch, "CHUNK_BYTES", 1)
    index(videos, tmp_path / "pieces", model_folder, batch=3, workers=2)
    assert content(tmp_path / "small") == wanted == content(tmp_path / "pieces")


def test_a_video_that_kills_its_reader_harms_no_other(videos, model_folder, tmp_path, monkeypatch):
    through = watch.read_frames

    def deadly(index, *rest, **options):
        if "short" in index.path:
            os._exit(3)
        return through(index, *rest, **options)

    monkeypatch.setattr(watch, "read_frames", deadly)
    built = index(videos, tmp_path / "survived", model_folder, workers=1)
    assert sorted(video.video for video in built.videos) == [name for name in GOOD if name != "sub/short.mp4"]
    reasons = {failure.video: failure.reason for failure in built.failures}
    assert reasons["sub/short.mp4"].startswith("crashed: the process that read it died (DataLoader worker")


def test_a_video_with_damage_in_the_middle_is_not_indexed(tmp_path, model_folder):
    (tmp_path / "v").mkdir()
    write_video(tmp_path / "v" / "good.mp4", 8, rate=8)
    damaged = write_video(tmp_path / "v" / "damaged.mp4", 64, rate=8, gop=64)
    data = bytearray(damaged.read_bytes())
    middle = data.index(b"mdat") + 4 + 3 * (len(data) - data.index(b"mdat")) // 8
    data[middle : middle + 200] = bytes(200)
    damaged.write_bytes(data)
    built = index(tmp_path / "v", tmp_path / "i", model_folder)
    assert [video.video for video in built.videos] == ["good.mp4"]
    assert [failure.reason.partition(":")[0] for failure in built.failures] == ["damaged"]


def test_fixed_windows(videos, model_folder, tmp_path):
    index(videos, tmp_path / "fixed", model_folder, splitting=Splitting(seconds=2.0))
    rows = ExactStore(tmp_path / "fixed" / "exact", 8).of("scenes.mp4")
    np.testing.assert_array_equal(rows.bounds, [[0, 2], [2, 4], [4, 6]])


@pytest.mark.parametrize("store", ["lancedb", "qdrant"])
def test_other_stores_find_the_same(whole, videos, model_folder, tmp_path, store):
    kind = store if store == "lancedb" else f"qdrant={tmp_path / 'server'}"
    for _ in range(2):
        index(videos, tmp_path / store, model_folder, store=kind)
    with Index(whole.folder) as exact, Index(tmp_path / store) as other:
        assert len(exact) == len(other)
        for query in ("a red circle", "a blue square"):
            ours, theirs = exact.search(query, 5), other.search(query, 5)
            assert [hit.moment for hit in ours] == [hit.moment for hit in theirs]
            np.testing.assert_allclose([hit.score for hit in ours], [hit.score for hit in theirs], atol=1e-5)


def test_published_models_index_too(videos, tmp_path):
    checkpoint = write_checkpoint(tmp_path / "clip", "clip")
    built = build_index(videos, tmp_path / "i", f"hf:{checkpoint}", workers=0)
    assert sorted(video.video for video in built.videos) == GOOD
    with Index(tmp_path / "i") as opened:
        assert not opened.can_ground and opened.model_name == f"hf:{checkpoint}"
        hit = opened.search("a red circle", 1)[0]
        with pytest.raises(ValueError, match="has no group tokens, so it cannot say where 'circle' is"):
            opened.ground(hit.moment, "circle")


def test_what_does_not_belong_together_is_refused(whole, videos, model_folder, tmp_path):
    own_model(1).save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match=r"was made with weights .*choose another folder with --to"):
        index(videos, whole.folder, tmp_path / "other")
    with pytest.raises(ValueError, match="was made with splitting"):
        index(videos, whole.folder, model_folder, splitting=Splitting())
    with pytest.raises(ValueError, match="was made with store exact, not lancedb"):
        index(videos, whole.folder, model_folder, store="lancedb")
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(ValueError, match="knows 10 videos and none of them is below"):
        index(tmp_path / "elsewhere", whole.folder, model_folder)
    with pytest.raises(ValueError, match="no videos"):
        index(tmp_path / "elsewhere", tmp_path / "i", model_folder)
    with pytest.raises(ValueError, match="no such folder of videos"):
        index(tmp_path / "nowhere", tmp_path / "i", model_folder)
    with pytest.raises(ValueError, match=r"upper.MP4 is a file; give the folder of videos that it lies in: .*/videos$"):
        index(videos / "upper.MP4", tmp_path / "i", model_folder)
    before = content(whole.folder)
    videos.rename(tmp_path / "moved")
    assert index(tmp_path / "moved", whole.folder, model_folder).encoded == 0
    assert content(whole.folder) == before
    with Index(whole.folder) as opened:
        assert opened.path_of("upper.MP4") == tmp_path / "moved" / "upper.MP4"


def test_what_is_refused_leaves_nothing_behind(whole, videos, model_folder, tmp_path):
    with pytest.raises(ValueError, match="no such folder of videos"):
        index(tmp_path / "nowhere", tmp_path / "a" / "b", model_folder)
    assert not (tmp_path / "a").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes").touch()
    with pytest.raises(ValueError, match="is a file"):
        index(videos / "upper.MP4", tmp_path / "mine", model_folder)
    assert os.listdir(tmp_path / "mine") == ["notes"]
    before = sorted(os.listdir(whole.folder))
    with pytest.raises(ValueError, match="was made with splitting"):
        index(videos, whole.folder, model_folder, splitting=Splitting())
    assert sorted(os.listdir(whole.folder)) == before


@pytest.mark.skipif(os.name == "nt", reason="no such locks")
def test_a_lock_that_was_taken_away_meanwhile_is_none(tmp_path, monkeypatch):
    import fcntl

    through = fcntl.flock

    def late(file, how):
        (tmp_path / "i" / "lock").unlink()
        through(file, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(ValueError, match="another process is indexing into it"), build._alone(tmp_path / "i"):
        pass


def test_the_short_form_of_what_an_index_must_survive(tmp_path):
    outcome = kill_indexing(Plan(seed=0, fast=True, folder=tmp_path))
    assert not outcome.problems, outcome


def test_one_process_at_a_time(whole, videos, model_folder):
    with build._alone(whole.folder), pytest.raises(ValueError, match="another process is indexing into it"):
        index(videos, whole.folder, model_folder)


def test_names_that_are_no_text_are_listed(videos, model_folder, tmp_path):
    shutil.copy(videos / "upper.MP4", os.fsencode(videos) + b"/bad\xff.mp4")
    built = index(videos, tmp_path / "i", model_folder)
    reasons = {failure.video: failure.reason.partition(":")[0] for failure in built.failures}
    assert reasons["bad\\udcff.mp4"] == "name_not_text"
    index(videos, tmp_path / "i", model_folder)


def test_two_ranks_make_the_index_of_one(whole, videos, model_folder, tmp_path):
    launched = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "svilm"]
    options = [
        "--to",
        tmp_path / "ranks",
        "--model",
        model_folder,
        "--shortest",
        "1",
        "--longest",
        "4",
        "--device",
        "cpu",
    ]
    done = subprocess.run([*launched, "index", videos, *options], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("moments") == 1
    assert content(tmp_path / "ranks") == content(whole.folder)


def test_an_index_of_another_version_is_refused(whole, videos, model_folder):
    about = json.loads((whole.folder / "index.json").read_text())
    (whole.folder / "index.json").write_text(json.dumps(about | {"svilm_index": 99}))
    with pytest.raises(ValueError, match="not made by this `svilm index`"):
        index(videos, whole.folder, model_folder)
    with pytest.raises(ValueError, match="not made by this `svilm index`"):
        Index(whole.folder)
