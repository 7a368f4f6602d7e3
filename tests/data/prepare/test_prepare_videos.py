"""Finding videos by name without ever leaving the folder, and looking into them."""

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from svilm.data.prepare import videos
from svilm.data.prepare.common import Clip, Listing, prepare
from svilm.data.prepare.tables import BadRow, PrepareError
from svilm.data.prepare.videos import VideoFolder, check_videos

Names = Callable[..., Path]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("a.mp4", "a.mp4"),
        ("a", "a.mp4"),
        ("sub/b.mkv", "sub/b.mkv"),
        ("sub/b", "sub/b.mkv"),
        ("b", "sub/b.mkv"),
        ("b.mp4", "sub/b.mkv"),  # re-encoded
        ("./sub/../a.mp4", "a.mp4"),
        ("c.1", "c.1.mp4"),
        ("c", None),
        ("a.3", None),
        ("d.ts", "d.ts.mp4"),
        ("[1] x! (2)#.avi", "[1] x! (2)#.avi"),
        ("Trip: day 1.mp4", "Trip: day 1.mp4"),
        ("upper", "upper.MP4"),
        ("twice", "twice.mp4"),
        ("sub", None),
        ("notes", None),
        ("notes.txt", None),
        ("..", None),
        ("", None),
        ("concat:a.mp4|b.mp4", None),
        ("data:video/mp4;base64", None),
        ("nowhere/a.mp4", None),
    ],
)
def test_find(names: Names, name: str, found: str | None) -> None:
    root = names(
        "a.mp4", "sub/b.mkv", "c.1.mp4", "d.ts.mp4", "[1] x! (2)#.avi", "Trip: day 1.mp4", "upper.MP4",
        "twice.webm", "twice.mp4", "twice.avi", "notes.txt",
    )  # fmt: skip
    assert VideoFolder(root).find(name) == found


@pytest.mark.parametrize(
    "name",
    ["../secret.mp4", "/etc/passwd", "sub/../../secret.mp4", "http://127.0.0.1/a.mp4", "file:///a.mp4"],
)
def test_names_that_lead_out(names: Names, name: str) -> None:
    names("../secret.mp4")
    with pytest.raises(BadRow, match=r"outside the folder|an address"):
        VideoFolder(names("a.mp4")).find(name)


def test_an_absolute_path_inside_is_inside(names: Names) -> None:
    root = names("sub/a.mp4")
    assert VideoFolder(root).find(str(root / "sub" / "a.mp4")) == "sub/a.mp4"


def test_a_name_that_several_videos_bear(names: Names) -> None:
    folder = VideoFolder(names("x/1.mp4", "y/1.mp4", "y/2.mp4", "2.mp4"))
    assert folder.find("x/1") == "x/1.mp4"
    assert folder.find("2") == "2.mp4"  # a path below the root before a bare name
    with pytest.raises(BadRow, match="several videos"):
        folder.find("1")


def test_links_are_followed_but_not_for_ever(names: Names, tmp_path: Path) -> None:
    root = names("a.mp4")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "b.mp4").touch()
    (root / "loop").symlink_to(root)
    (root / "more").symlink_to(tmp_path / "elsewhere")
    (root / "broken.mp4").symlink_to(tmp_path / "nothing.mp4")
    (root / "self.mp4").symlink_to(root / "self.mp4")
    os.mkfifo(root / "pipe.mp4")
    assert list(VideoFolder(root)) == ["a.mp4", "more/b.mp4"]


def test_names_that_are_no_text_are_passed_over(names: Names) -> None:
    root = names("a.mp4")
    try:
        (root / os.fsdecode(b"\xff.mp4")).touch()
    except OSError:
        pytest.skip("this file system takes no such names")
    assert list(VideoFolder(root)) == ["a.mp4"]


def scandir_without(*closed: Path) -> Callable[[Any], Any]:
    """``os.scandir`` for somebody who may not look into these folders."""
    scandir = os.scandir

    def scan(path: Any) -> Any:
        if Path(path) in closed:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    return scan


def test_folders_that_may_not_be_listed_are_named(
    names: Names, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = names("a.mp4", "lost+found/b.mp4", "c/d/e.mp4", "c/f.mp4")
    monkeypatch.setattr(videos.os, "scandir", scandir_without(root / "lost+found", root / "c" / "d"))
    folder = VideoFolder(root)
    assert list(folder) == ["a.mp4", "c/f.mp4"] and sorted(folder.unseen) == ["c/d", "lost+found"]

    def listing(*found: str) -> Listing:
        clips = [Clip(name, (name,), ("a cat",), "row") for name in found]
        return Listing("test", Path("list.csv"), lambda: iter(clips), "test", "val")

    told = rf"2 folders in {root} could not be looked into: (c/d, lost\+found|lost\+found, c/d)"
    summary = prepare(listing("a"), to=tmp_path / "m", videos=root, check="none")
    assert re.search(told, str(summary))
    for missing in (["b"], ["a", "b"]):
        with pytest.raises(PrepareError, match=rf"video not found(?s:.*){told}"):
            prepare(listing(*missing), to=tmp_path / "m", videos=root, check="none", allow_missing=missing == ["b"])
    monkeypatch.setattr(videos.os, "scandir", scandir_without(root))
    with pytest.raises(PrepareError, match="cannot be looked into; change its permissions"):
        VideoFolder(root)


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(PrepareError, match="no such folder of videos"):
        VideoFolder(tmp_path / "nothing")


@pytest.mark.parametrize("check", ["index", "full"])
def test_check(video: Callable[..., Path], check: videos.Check) -> None:
    good = video("good.mp4", seconds=2.0)
    (good.parent / "empty.mp4").touch()
    (good.parent / "cut.mp4").write_bytes(good.read_bytes()[:200])
    verdicts = check_videos(good.parent, ["good.mp4", "empty.mp4", "cut.mp4"], check, workers=0)
    assert verdicts["good.mp4"].duration == pytest.approx(2.0) and not verdicts["good.mp4"].reason
    assert verdicts["empty.mp4"].reason == "empty" and verdicts["cut.mp4"].reason
    assert "cut.mp4: " in verdicts["cut.mp4"].message


def test_no_check_knows_nothing(names: Names) -> None:
    assert check_videos(names("a.mp4"), ["a.mp4"], "none", workers=0) == {}


def test_only_a_full_check_sees_damage_in_the_middle(video: Callable[..., Path]) -> None:
    path = video("a.mp4", seconds=4.0)
    content = bytearray(path.read_bytes())
    start = content.index(b"mdat") + 4
    middle = start + (content.index(b"moov") - start) // 2
    content[middle : middle + 200] = bytes(200)
    path.write_bytes(content)
    assert not check_videos(path.parent, ["a.mp4"], "index", workers=0)["a.mp4"].reason
    assert check_videos(path.parent, ["a.mp4"], "full", workers=0)["a.mp4"].reason == "damaged"


def _crash_on_bad(root: str, check: str, path: str) -> videos.Verdict:
    if path.startswith("bad"):
        os.kill(os.getpid(), signal.SIGKILL)
    return videos.Verdict(1.0)


def test_a_video_that_kills_its_process_is_found_out(names: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(videos, "_look", _crash_on_bad)
    paths = ["a.mp4", "bad1.mp4", "b.mp4", "bad2.mp4", "c.mp4"]
    verdicts = check_videos(names(*paths), paths, "index", workers=2)
    assert {path for path, verdict in verdicts.items() if verdict.reason == "crash"} == {
        "bad1.mp4",
        "bad2.mp4",
    }
    assert list(verdicts) == paths
