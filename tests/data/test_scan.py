"""A scan judges every file of a folder, keeps what it knows, and takes the bad entries out of a manifest."""

import json
import os
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest
from make_videos import read_numbers, set_display_matrix, write_video

from svilm.data import scan as scanning
from svilm.data.decode import DecodeError, index_video, intact_frames, read_frames
from svilm.data.files import Found, examine, find_files
from svilm.data.manifest import Entry, Header, Manifest, ManifestError, write_manifest
from svilm.data.sample import clip_bounds
from svilm.data.scan import Row, changed_files, read_rows, scan, write_verified


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two videos, one of them damaged in its middle, and a text."""
    videos = tmp_path / "videos"
    (videos / "below").mkdir(parents=True)
    write_video(videos / "good.mp4", 20, gop=5)
    write_video(videos / "below" / "bad.mp4", 20, gop=5, change_packet=lambda n, data: data[:9] if n == 7 else data)
    (videos / "notes.txt").write_text("hello")
    return videos


def rows_of(path: Path) -> dict[str, dict[str, Any]]:
    return {row["path"]: row for row in map(json.loads, path.read_text("ascii").splitlines())}


def test_a_row_for_each_file(folder: Path, tmp_path: Path) -> None:
    found = scan(folder, tmp_path / "scan.jsonl")
    rows = rows_of(tmp_path / "scan.jsonl")
    assert list(rows) == ["below/bad.mp4", "good.mp4", "notes.txt"]
    assert [list(row)[:6] for row in rows.values()] == [["path", "ok", "reason", "frames", "width", "height"]] * 3
    good, bad, text = rows["good.mp4"], rows["below/bad.mp4"], rows["notes.txt"]
    assert (good["ok"], good["reason"], good["frames"], good["width"], good["height"]) == (True, None, 20, 64, 48)
    assert good["size"] == (folder / "good.mp4").stat().st_size and good["duration"] == pytest.approx(2.0)
    assert (bad["ok"], bad["reason"], bad["frames"]) == (False, "damaged", 15)
    assert bad["unreadable"] == [[pytest.approx(0.5), pytest.approx(1.0)]]
    assert "5 of 20 frames" in bad["message"]
    assert (text["ok"], text["reason"], text["frames"], text["sha256"]) == (False, "not_a_video", None, None)
    assert "1 x not_a_video: notes.txt" in str(found) and "1  videos with 20 frames" in str(found)
    assert tuple(read_rows(tmp_path / "scan.jsonl")) == found.rows


def test_frames_that_are_called_intact_can_be_read(folder: Path) -> None:
    index = index_video(folder / "below" / "bad.mp4")
    intact = intact_frames(index).tolist()
    assert intact == [not 5 <= number < 10 for number in range(20)]
    for number, good in enumerate(intact):
        if good:
            assert read_numbers(read_frames(index, [number])) == [number]
        elif number >= 7:  # what comes before can be read by itself
            with pytest.raises(scanning.DecodeError):
                read_frames(index, [number])


def test_a_second_scan_decodes_what_is_new_or_changed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, decoded = tmp_path / "scan.jsonl", list[str]()
    real = scanning.each

    def each(work: Any, tasks: Any, **more: Any) -> Any:
        decoded.extend(task.file.path for task in tasks)
        return real(work, tasks, **more)

    monkeypatch.setattr(scanning, "each", each)

    def again(**more: Any) -> list[str]:
        decoded.clear()
        scan(folder, out, **more)
        return decoded

    first = again()
    assert len(first) == 3
    rows = out.read_bytes()
    assert again() == [] and out.read_bytes() == rows
    write_video(folder / "new.mp4", 3)
    write_video(folder / "good.mp4", 12)
    (folder / "notes.txt").unlink()
    assert again() == ["good.mp4", "new.mp4"]
    assert rows_of(out)["good.mp4"]["frames"] == 12 and "notes.txt" not in rows_of(out)
    assert len(again(fresh=True)) == 3


def test_an_interrupted_scan_goes_on(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = scan(folder, tmp_path / "whole.jsonl").rows
    out, real = tmp_path / "scan.jsonl", scanning.each

    def dies(work: Any, tasks: Any, **more: Any) -> Any:
        for count, result in enumerate(real(work, tasks, **more)):
            if count == 2:
                raise KeyboardInterrupt
            yield result

    monkeypatch.setattr(scanning, "each", dies)
    with pytest.raises(KeyboardInterrupt):
        scan(folder, out)
    part = tmp_path / "scan.jsonl.part"
    assert not out.exists() and len(part.read_bytes().splitlines()) == 2
    part.write_bytes(part.read_bytes() + b'{"path": "cut sho')  # killed while writing
    monkeypatch.setattr(scanning, "each", real)
    found = scan(folder, out)
    assert found.kept == 2 and found.rows == whole
    assert not part.exists()


@pytest.mark.parametrize("fresh", [False, True])
def test_another_file_is_not_overwritten(fresh: bool, folder: Path, tmp_path: Path) -> None:
    for text in ('{"svilm_manifest": 1}\n', "hello\n", "[]\n", "one line without an end", '{"svilm_man'):
        (tmp_path / "other").write_text(text)
        with pytest.raises(ValueError, match=r"line 1 is not a row of a scan; give --out another name"):
            scan(folder, tmp_path / "other", fresh=fresh)
        assert (tmp_path / "other").read_text() == text


def test_a_scan_that_a_crash_has_damaged_goes_on_or_is_made_anew(folder: Path, tmp_path: Path) -> None:
    out, part = tmp_path / "scan.jsonl", tmp_path / "scan.jsonl.part"
    whole = len(scan(folder, out).rows)
    lines = out.read_bytes().splitlines(keepends=True)
    for journal in (lines[0] + bytes(300), lines[0] + lines[1][:40]):
        out.unlink()
        part.write_bytes(journal)
        assert len(scan(folder, out).rows) == whole
    out.write_bytes(lines[0] + bytes(300) + b"\n" + lines[1])
    with pytest.raises(ValueError, match=r"line 2 is not a row of a scan"):
        scan(folder, out)
    assert len(scan(folder, out, fresh=True).rows) == whole


def test_its_own_rows_are_no_files_to_scan(folder: Path) -> None:
    out = folder / "scan.jsonl"
    assert len(scan(folder, out).rows) == len(scan(folder, out).rows) == 3


def test_a_file_that_is_written_to_meanwhile(folder: Path) -> None:
    file = examine(folder, "good.mp4", False)
    task = scanning._Task(str(folder), file)
    assert scanning._look(task)["ok"]
    write_video(folder / "good.mp4", 12)
    assert scanning._look(task)["reason"] == "changed"


def test_a_file_that_takes_too_long(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scanning, "_look", sleep)
    [row] = scan(folder / "below", tmp_path / "x", seconds=0.1).rows
    assert (row.ok, row.reason) == (False, "too_slow") and row.size and "not done within" in (row.message or "")


def sleep(_: Any) -> None:
    import time

    time.sleep(600)


def test_how_pictures_are_turned(tmp_path: Path) -> None:
    for name, matrix, expected in (
        ("turned", (0, 1, -1, 0), (90, False)),
        ("mirrored", (-1, 0, 0, 1), (0, True)),
        ("upside", (1, 0, 0, -1), (180, True)),
    ):
        set_display_matrix(write_video(tmp_path / f"{name}.mp4", 2, width=96), *matrix)
        found = scanning._decode(str(tmp_path / f"{name}.mp4"))
        assert (found["rotation"], found["mirrored"]) == expected
        assert (found["width"], found["height"]) == ((48, 96) if name == "turned" else (96, 48))


def test_changes_are_found_by_content(folder: Path, tmp_path: Path) -> None:
    for name in ("same", "shorter", "gone", "folder"):
        shutil.copy(folder / "good.mp4", folder / f"{name}.mp4")
    rows = scan(folder, tmp_path / "scan.jsonl").rows
    assert not list(changed_files(folder, rows))
    status, data = (folder / "same.mp4").stat(), bytearray((folder / "same.mp4").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "same.mp4").write_bytes(data)
    os.utime(folder / "same.mp4", ns=(status.st_atime_ns, status.st_mtime_ns))
    os.truncate(folder / "shorter.mp4", 100)
    (folder / "gone.mp4").unlink()
    (folder / "folder.mp4").unlink()
    (folder / "folder.mp4").mkdir()
    assert dict(changed_files(folder, rows)) == {
        "same.mp4": "has the same size but another content",
        "shorter.mp4": f"has 100 bytes instead of {len(data)}",
        "gone.mp4": "cannot be read: No such file or directory",
        "folder.mp4": "is no file any more",
    }


# Folders


def found_in(root: Path, follow_links: bool = False) -> dict[str, str]:
    return {file.path: file.reason for file in find_files(root, follow_links, lambda _: None)}


def test_links(folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    shutil.copy(folder / "good.mp4", outside / "far.mp4")
    links = {"near.mp4": "good.mp4", "far.mp4": "../outside/far.mp4", "dir": "../outside", "up": ".", "self": "self"}
    for name, target in links.items():
        (folder / name).symlink_to(target)
    own = {"good.mp4": "", "notes.txt": "", "below/bad.mp4": "", "near.mp4": "", "self": "not_found"}
    assert found_in(folder) == own | {"far.mp4": "outside_folder", "dir": "outside_folder", "up": "not_regular_file"}
    assert found_in(folder, follow_links=True) == own | {"far.mp4": "", "dir/far.mp4": ""}


def test_a_folder_behind_a_link_is_scanned(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    assert set(found_in(tmp_path / "link").values()) == {""}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list everything")
def test_a_folder_that_may_not_be_listed(folder: Path, tmp_path: Path) -> None:
    (folder / "below").chmod(0)
    found = scan(folder, tmp_path / "x")
    (folder / "below").chmod(0o700)
    assert found.unseen == ("below",) and "no permission to look into below" in str(found)


# Manifests


def manifest_of(folder: Path, split: str = "train") -> Manifest:
    """Clips of both videos: two of them touch what is damaged in the second."""
    spans: dict[str, tuple[str, float | None, float | None]] = {
        "whole": ("good.mp4", None, None),
        "late": ("good.mp4", 9.0, 10.0),
        "before": ("below/bad.mp4", 0.0, 0.5),
        "into": ("below/bad.mp4", 0.2, 0.6),
        "after": ("below/bad.mp4", 1.0, 2.0),
        "all": ("below/bad.mp4", None, None),
        "absent": ("absent.mp4", None, None),
        "outside": ("../outside.mp4", None, None),
    }
    entries = [Entry(name, video, ("text",), ((),), start, end) for name, (video, start, end) in spans.items()]
    path = folder.parent / f"{split}.jsonl"
    write_manifest(path, Header("test", "videos", len(entries), split=split, struck=("x: gone",)), entries)
    return Manifest(path)


def test_a_manifest_without_its_bad_entries(folder: Path, tmp_path: Path) -> None:
    manifest = manifest_of(folder)
    found = scan(manifest.path, tmp_path / "scan.jsonl")
    reasons = {row.path: row.reason for row in found.rows}
    assert reasons == {
        "../outside.mp4": "outside_folder",
        "absent.mp4": "not_found",
        "below/bad.mp4": "damaged",
        "good.mp4": None,
    }
    lost = write_verified(manifest, found, tmp_path / "verified.jsonl")
    verified = Manifest(tmp_path / "verified.jsonl")
    assert [entry.id for entry in verified] == ["whole", "before", "after"]
    assert lost == {"outside_clip": 1, "damaged": 2, "not_found": 1, "outside_folder": 1}
    assert verified.header == manifest.header and verified.root == folder
    write_verified(manifest, found, tmp_path / "elsewhere" / "verified.jsonl")
    assert Manifest(tmp_path / "elsewhere" / "verified.jsonl").root == folder


def test_a_test_split_shrinks_in_the_open_only(folder: Path, tmp_path: Path) -> None:
    manifest = manifest_of(folder, "test")
    found = scan(manifest.path, tmp_path / "scan.jsonl")
    with pytest.raises(ManifestError, match=r"5 of 8 test clips cannot be read: late: outside_clip; .*--allow-missing"):
        write_verified(manifest, found, tmp_path / "verified.jsonl")
    assert not (tmp_path / "verified.jsonl").exists()
    write_verified(manifest, found, tmp_path / "verified.jsonl", allow_missing=True)
    header = Manifest(tmp_path / "verified.jsonl").header
    assert header.official == 8 and len(header.struck) == 6 and header.struck[:2] == ("x: gone", "late: outside_clip")


def test_nothing_left(folder: Path, tmp_path: Path) -> None:
    manifest = manifest_of(folder)
    (folder / "good.mp4").unlink()
    (folder / "below" / "bad.mp4").unlink()
    with pytest.raises(ManifestError, match="none of its 8 clips can be read"):
        write_verified(manifest, scan(manifest.path, tmp_path / "x"), tmp_path / "y")


@pytest.mark.parametrize(
    ("row", "start", "end", "covered"),
    [
        (Row("x", True, duration=2.0), None, None, True),
        (Row("x", True, frames=20, duration=2.0), 1.9, 9.0, False),
        (Row("x", True, frames=20, duration=2.0), 0.5, 2.5, True),
        (Row("x", True, frames=20, duration=2.0), 0.5, 2.6, False),
        (Row("x", True, frames=2, duration=2.0), 0.5, 2.9, True),
        (Row("x", True, duration=2.0), 2.0, 3.0, False),
        (Row("x", False, "not_a_video"), None, None, False),
        (Row("x", False, "damaged", duration=2.0), 0.0, 2.4, True),
        (Row("x", False, "damaged", duration=2.0), 0.0, 2.6, False),
        (Row("x", False, "damaged", duration=2.0), 0.0, None, False),
        (Row("x", False, "damaged", duration=2.0, unreadable=((0.5, 1.0),)), 0.0, 0.5, True),
        (Row("x", False, "damaged", duration=2.0, unreadable=((0.5, 1.0),)), 0.9, 1.5, False),
        (Row("x", False, "damaged", duration=2.0, unreadable=((0.5, 1.0),)), None, 1.5, False),
        (Row("x", False, "damaged", duration=2.0, unreadable=((0.5, 1.0),)), 1.0, 1.5, True),
    ],
)
def test_which_clips_can_be_read(row: Row, start: float | None, end: float | None, covered: bool) -> None:
    assert row.covers(start, end) is covered


def test_verified_clips_are_those_that_evaluation_takes(folder: Path, tmp_path: Path) -> None:
    index = index_video(folder / "good.mp4")
    row = next(row for row in scan(folder, tmp_path / "x").rows if row.path == "good.mp4")
    for start in (0.0, index.duration / 2, index.duration):
        for late in (-0.1, 0.0, 0.3, 0.5, 0.51, 1.0, 7.0):
            end = index.duration + late
            try:
                taken = end > start and bool(clip_bounds(index, start, end))
            except DecodeError:
                taken = False
            assert end <= start or row.covers(start, end) == taken


def test_a_tar_that_is_damaged_later_hides_no_other(tmp_path: Path) -> None:
    data = write_video(tmp_path / "v.mp4", 3).read_bytes()
    (tmp_path / "s").mkdir()
    for name in ("0.tar", "1.tar"):
        with tarfile.open(tmp_path / "s" / name, "w") as tar:
            tar.add(tmp_path / "v.mp4", arcname="v.mp4")
    entries = [Entry(name, f"{name}/v.mp4", (), ()) for name in ("0.tar", "1.tar")]
    write_manifest(tmp_path / "s" / "m.jsonl", Header("test", ".", 2), entries)
    rows = scan(tmp_path / "s" / "m.jsonl", tmp_path / "rows").rows
    os.truncate(tmp_path / "s" / "0.tar", 512 + len(data) // 2)
    (tmp_path / "s" / "1.tar").unlink()
    found = dict(changed_files(tmp_path / "s", rows))
    assert list(found) == ["0.tar/v.mp4", "1.tar/v.mp4"] and "cut short" in found["0.tar/v.mp4"]


def test_what_may_not_be_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    assert examine(tmp_path, "pipe.mp4", False) == Found(
        "pipe.mp4", reason="not_regular_file", message="a pipe, not a file"
    )
    assert examine(tmp_path, "a\0b.mp4", False).reason == "not_found"
    assert examine(tmp_path, "../x.mp4", False).reason == "not_found"
    assert examine(tmp_path / "below", "../pipe.mp4", False).reason in ("outside_folder", "not_found")
