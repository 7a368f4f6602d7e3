"""Windows of frames over a whole video, and folders of features, ours and others'."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from svilm.data.decode import index_video, read_frames
from svilm.data.sample import Sampling, load_clip
from svilm.data.snippets import (
    FILE,
    FeatureFolder,
    Origin,
    SnippetError,
    Windows,
    read_origin,
    read_windows,
    video_name,
    write_origin,
    write_rows,
)
from svilm.entries import Entry

ORIGIN = Origin(
    model="runs/tiny", weights="0123456789abcdef", vector="groups", width=3, dtype="float32", fps=8.0, frames=4,
    stride=2, size=64, short_side=64, fit="crop", version="0.1", unreadable={"bad": "damaged: cut short"},
)  # fmt: skip


def entry(video="v_a.mp4", name="a", duration=None) -> Entry:
    return Entry(name, video, (), (), duration=duration)


def test_a_snippet_looks_at_the_frames_around_the_centre_of_its_step():
    seconds = np.arange(8) / 8
    plain = Windows(fps=8, frames=2, stride=2)
    assert plain.frame_numbers(seconds, 1.0).tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]]
    wide = Windows(fps=8, frames=4, stride=2)  # edges repeat the first and the last frame
    assert wide.frame_numbers(seconds, 1.0).tolist() == [[0, 0, 1, 2], [1, 2, 3, 4], [3, 4, 5, 6], [5, 6, 7, 7]]
    slow = Windows(fps=4, frames=2, stride=2)  # every other frame
    assert slow.frame_numbers(seconds, 1.0).tolist() == [[1, 3], [5, 7]]


def test_there_are_as_many_snippets_as_centres_in_the_video():
    windows = Windows(fps=15, frames=16, stride=16)
    assert windows.step_seconds == pytest.approx(1.0667, abs=1e-4)
    assert [windows.count(seconds) for seconds in (0.1, 1.0, 1.5, 1.7, 106.7)] == [1, 1, 1, 2, 100]


@given(
    st.floats(0.5, 60), st.integers(1, 32), st.integers(1, 32), st.floats(0.01, 300), st.integers(1, 40),
)  # fmt: skip
def test_every_window_is_made_of_frames_of_the_video(fps, frames, stride, duration, count):
    seconds = np.sort(np.random.default_rng(count).random(count)) * duration
    numbers = Windows(fps=fps, frames=frames, stride=stride).frame_numbers(seconds, duration)
    assert numbers.shape[1] == frames and len(numbers) >= 1
    assert numbers.min() >= 0 and numbers.max() < count
    assert (np.diff(numbers, axis=1) >= 0).all() and (np.diff(numbers[:, 0]) >= 0).all()


def test_windows_are_read_as_the_frames_they_name(world):
    index = index_video(next((world / "untrimmed").glob("*.mp4")))
    windows, sampling = Windows(fps=8, frames=8, stride=4), Sampling(num_frames=8, size=32, short_side=40)
    chunks = list(read_windows(index, windows, sampling, at_once=7))
    together = np.concatenate(chunks)
    assert {len(chunk) for chunk in chunks[:-1]} == {7}
    assert together.shape == (windows.count(index.duration), 8, 32, 32, 3)
    numbers = windows.frame_numbers(index.seconds, index.duration)
    plain = read_frames(index, numbers[5], resize=(40, 40), crop=(4, 4, 32, 32))
    np.testing.assert_array_equal(together[5], plain)
    one_second = load_clip(index.path, 1.75, 2.75, sampling, None)  # snippet 4 is centred on 2.25 s
    np.testing.assert_array_equal(together[4], one_second.frames.numpy())


def test_what_is_written_is_read(tmp_path):
    rows = np.arange(12, dtype=np.float16).reshape(4, 3)
    write_origin(tmp_path, ORIGIN)
    write_rows(tmp_path, video_name("sub/v_a.mp4"), rows)
    folder = FeatureFolder(tmp_path)
    assert folder.origin == ORIGIN and read_origin(tmp_path) == ORIGIN
    snippets = folder.read(entry("sub/v_a.mp4", duration=77.0))
    np.testing.assert_array_equal(snippets.rows, rows.astype(np.float32))
    assert snippets.step_seconds == 0.25 and snippets.covered == 1.0
    assert not list(tmp_path.rglob("*.part"))
    words = json.loads((tmp_path / FILE).read_text())
    assert words["first_centre_seconds"] == 0.125 and "around the centre" in words["layout"]
    assert "groups of runs/tiny" in str(folder) and "4 frames at 8 per second, every 2" in str(folder)


@pytest.mark.parametrize("name", ["v_a.npy", "a.npy", "v_a.npz", "v_a.csv"])
def test_features_of_others_divide_the_duration(tmp_path, name):
    rows = np.arange(6.0).reshape(2, 3)
    if name.endswith("npy"):
        np.save(tmp_path / name, rows)
    elif name.endswith("npz"):
        np.savez(tmp_path / name, anything=rows)
    else:
        np.savetxt(tmp_path / name, rows, delimiter=",", header="f0,f1,f2", comments="")
    folder = FeatureFolder(tmp_path)
    snippets = folder.read(entry("videos/v_a.mp4", duration=30.0))
    np.testing.assert_array_equal(snippets.rows, rows)
    assert snippets.step_seconds == 15.0 and "unknown origin" in str(folder)
    with pytest.raises(SnippetError, match="no duration in the manifest"):
        folder.read(entry("v_a.mp4"))


def test_what_cannot_be_read_says_why(tmp_path):
    with pytest.raises(SnippetError, match="make one with `svilm features`"):
        FeatureFolder(tmp_path / "nowhere")
    with pytest.raises(SnippetError, match=r"no b\.npy"):
        FeatureFolder(tmp_path).read(entry("b.mp4", "b", 1.0))
    for name, content in (("a", np.zeros(3)), ("b", np.zeros((0, 3))), ("c", np.array([[np.nan]]))):
        np.save(tmp_path / f"{name}.npy", content)
        with pytest.raises(SnippetError, match=rf"{name}\.npy: must be snippets x width"):
            FeatureFolder(tmp_path).read(entry(f"{name}.mp4", name, 1.0))
    (tmp_path / "d.npy").write_bytes(b"")
    with pytest.raises(SnippetError, match=r"d\.npy: no table"):
        FeatureFolder(tmp_path).read(entry("d.mp4", "d", 1.0))
    (tmp_path / "all.h5").touch()
    with pytest.raises(SnippetError, match=r"HDF5 is not read; unpack all\.h5.*\n.*import h5py"):
        FeatureFolder(tmp_path).read(entry("e.mp4", "e", 1.0))
    write_origin(tmp_path, ORIGIN)
    with pytest.raises(SnippetError, match=r"could not be read .damaged: cut short"):
        FeatureFolder(tmp_path).read(entry("bad.mp4", "bad", 1.0))


def test_no_other_videos_features_stand_in(tmp_path):
    for name in ("1", "e", "v_e"):
        write_rows(tmp_path, name, np.zeros((2, 3)))
    assert FeatureFolder(tmp_path).find(entry("a/1.mp4", "e")).name == "1.npy"  # others' folders are flat
    write_origin(tmp_path, replace(ORIGIN, unreadable={"a/1": "damaged: cut short"}))
    with pytest.raises(SnippetError, match=r"could not be read .damaged: cut short"):
        FeatureFolder(tmp_path).read(entry("a/1.mp4", "e"))
    write_rows(tmp_path, "a/1", np.ones((2, 3)))
    assert FeatureFolder(tmp_path).read(entry("a/1.mp4", "e")).rows.all()


def test_damaged_files_say_why(tmp_path):
    np.savez(tmp_path / "a.npz", a=np.zeros((3, 2)))
    whole = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(whole[: len(whole) // 2])
    np.savez(tmp_path / "b.npz", a=np.zeros((3, 2)), b=np.zeros((3, 2)))
    np.save(tmp_path / "c.npy", np.array([["a", "b"]]))
    np.save(tmp_path / "d.npy", np.zeros((3, 2)))
    (tmp_path / "d.npy").rename(tmp_path / "d.npz")
    folder = FeatureFolder(tmp_path)
    for name, message in (("a", r"no table of features \("), ("b", "has 2 arrays"), ("c", r"has shape .1, 2. of <U1")):
        with pytest.raises(SnippetError, match=rf"{name}\.np[yz]: .*{message}"):
            folder.read(entry(f"{name}.mp4", name, 1.0))
    assert folder.read(entry("d.mp4", "d", 1.0)).rows.shape == (3, 2)


@pytest.mark.parametrize("change", [{"svilm_features": 2}, {"fps": 0}, {"fit": "stretch"}, {"width": None}])
def test_another_features_json_is_refused(tmp_path, change):
    write_origin(tmp_path, ORIGIN)
    data = json.loads((tmp_path / FILE).read_text())
    data.update(change)
    if "width" in change:
        del data["width"]
    (tmp_path / FILE).write_text(json.dumps(data))
    with pytest.raises(SnippetError, match=r"features\.json: not made by this"):
        FeatureFolder(tmp_path)


def test_origins_differ_by_what_makes_other_numbers():
    assert ORIGIN.differs(replace(ORIGIN, model="x", version="9", unreadable={})) == []
    assert ORIGIN.differs(replace(ORIGIN, vector="tokens", fps=15.0)) == [
        "vector 'tokens', not 'groups'",
        "fps 15.0, not 8.0",
    ]
    assert Origin(**asdict(ORIGIN)) == ORIGIN


@pytest.mark.parametrize(
    ("video", "name"),
    [("a.mp4", "a"), ("a/b.c.mkv", "a/b.c"), ("/a/b.mp4", "a/b"), ("../../b.mp4", "b"), ("//x.mp4", "x")],
)
def test_a_video_never_names_a_file_outside_of_the_folder(video, name):
    assert video_name(video) == name
