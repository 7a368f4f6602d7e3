"""Members of tars are found, and read exactly as the same files would be."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from make_videos import read_numbers, write_video

from svilm.data import shards
from svilm.data.decode import DecodeError, index_video, read_frames
from svilm.data.files import examine
from svilm.data.manifest import Header, Manifest, write_manifest
from svilm.data.scan import changed_files, scan
from svilm.data.shards import Member, ShardError, members, open_bytes, place_of, sample_key, write_index
from svilm.entries import Entry


def make_tar(path: Path, files: dict[str, bytes], **how: object) -> Path:
    with tarfile.open(path, "w", **how) as tar:  # type: ignore[call-overload]
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("videos")
    return {
        f"{number:03d}.{kind}": write_video(folder / f"{number}.{kind}", 10 + number, gop=4).read_bytes()
        for number, kind in enumerate(("mp4", "mkv", "mp4"))
    }


@pytest.fixture
def shard(tmp_path: Path, videos: dict[str, bytes]) -> Path:
    shards._known.cache_clear()
    texts = {name.replace(name[-3:], "txt"): name.encode() for name in videos}
    return make_tar(tmp_path / "00000.tar", dict(sorted({**videos, **texts}.items())))


@pytest.mark.parametrize("indexed", [False, True])
def test_a_member_is_read_like_the_file(indexed: bool, shard: Path, videos: dict[str, bytes], tmp_path: Path) -> None:
    if indexed:
        write_index(shard)
    for name, data in videos.items():
        (tmp_path / name).write_bytes(data)
        file, member = index_video(tmp_path / name), index_video(shard / name)
        assert np.array_equal(file.seconds, member.seconds) and np.array_equal(file.key_frames, member.key_frames)
        assert (member.duration, member.damage) == (file.duration, None)
        numbers = [len(file) - 1, 0, 6]
        assert read_numbers(read_frames(member, numbers)) == numbers
        with open_bytes(str(shard / name)) as inside:
            assert inside.read() == data
            assert inside.seek(-3, 2) == len(data) - 3 and inside.read() == data[-3:]


def test_the_index_is_the_one_that_dali_reads(shard: Path) -> None:
    text = write_index(shard).read_text()
    assert text.startswith("v1.2 3\nmp4 512 ")
    assert [line.split()[3::4] for line in text.splitlines()[1:]] == [
        ["000.mp4", "000.txt"], ["001.mkv", "001.txt"], ["002.mp4", "002.txt"],
    ]  # fmt: skip
    with_index, without = members(shard), shards.scan(str(shard))
    assert with_index == without and [member.name for member in without][:2] == ["000.mp4", "000.txt"]


def test_with_an_index_no_tar_is_scanned(shard: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_index(shard)
    monkeypatch.setattr(shards, "scan", None)
    assert len(index_video(shard / "002.mp4")) == 12


def test_without_an_index_it_is_scanned_once(shard: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scans, whole = [], shards.scan
    monkeypatch.setattr(shards, "scan", lambda path: scans.append(path) or whole(path))
    for name in ("000.mp4", "001.mkv", "002.mp4", "000.mp4"):
        index_video(shard / name)
    assert len(scans) == 1


def test_an_index_of_another_tar_is_not_believed(shard: Path, videos: dict[str, bytes]) -> None:
    write_index(shard)
    make_tar(shard, dict(reversed(videos.items())))
    shards._known.cache_clear()
    for number, name in enumerate(videos):
        assert len(index_video(shard / name)) == 10 + number
    assert [member.name for member in members(shard)] == list(reversed(videos))


@pytest.mark.parametrize(
    "text", ["", "rubbish", "v1.2 1\n", "v1.2 3\nmp4 x 5 000.mp4\n", "v1.2 1\nmp4 512 99 000.mp4\n"]
)
def test_a_broken_index_does_no_harm(text: str, shard: Path) -> None:
    shard.with_suffix(".idx").write_text(text)
    assert len(index_video(shard / "002.mp4")) == 12
    assert len(members(shard)) == 6


@pytest.mark.parametrize("name", ["a b.mp4", "é%20ü.mp4", "x" * 140 + ".mp4", "./deep/er.mp4"])
def test_odd_names(name: str, tmp_path: Path, videos: dict[str, bytes]) -> None:
    shard = make_tar(tmp_path / "odd.tar", {"first.txt": b"1", name: videos["000.mp4"], "last.txt": b"2"})
    shards._known.cache_clear()
    assert len(index_video(shard / name)) == 10
    write_index(shard)
    shards._known.cache_clear()
    assert len(index_video(shard / name)) == 10


def test_what_is_no_video_in_a_tar(shard: Path, tmp_path: Path) -> None:
    reasons = {"nope.mp4": "not_found", "000.txt": "not_a_video", "000.mp4/x": "not_found"}
    for name, reason in reasons.items():
        with pytest.raises(DecodeError) as caught:
            index_video(shard / name)
        assert caught.value.reason == reason and caught.value.path.endswith(name)
    make_tar(tmp_path / "empty.tar", {"a.mp4": b""})
    with pytest.raises(DecodeError, match="empty"):
        index_video(tmp_path / "empty.tar" / "a.mp4")
    with tarfile.open(tmp_path / "link.tar", "w") as tar:
        info = tarfile.TarInfo("a.mp4")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(info)
        up = tarfile.TarInfo("../b.mp4")
        tar.addfile(up)
    assert members(tmp_path / "link.tar") == []
    with pytest.raises(DecodeError, match="not_found"):
        index_video(tmp_path / "link.tar" / "a.mp4")


def test_a_playlist_in_a_tar_opens_nothing(tmp_path: Path, videos: dict[str, bytes]) -> None:
    (tmp_path / "000.mp4").write_bytes(videos["000.mp4"])
    playlist = f"ffconcat version 1.0\nfile '{tmp_path}/000.mp4'\n".encode()
    shard = make_tar(tmp_path / "bad.tar", {"a.mp4": playlist})
    with pytest.raises(DecodeError, match="forbidden_format"):
        index_video(shard / "a.mp4")


def test_tars_that_are_cut_short_or_none(shard: Path, tmp_path: Path) -> None:
    place = place_of(str(shard / "002.mp4"))
    cut = tmp_path / "cut.tar"
    cut.write_bytes(shard.read_bytes()[: place.offset + 100])
    with pytest.raises(DecodeError, match="cut short"):
        index_video(cut / "002.mp4")
    (tmp_path / "text.tar").write_bytes(b"no tar at all" * 100)
    with pytest.raises(ShardError, match="no plain tar"):
        members(tmp_path / "text.tar")
    with pytest.raises(DecodeError, match="damaged"):
        index_video(tmp_path / "text.tar" / "a.mp4")
    with tarfile.open(tmp_path / "z.tar", "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("a"))
    with pytest.raises(ShardError, match="unpack"):
        members(tmp_path / "z.tar")


def damaged(whole: bytes, second: int) -> dict[str, bytes]:
    """A tar whose members from the byte ``second`` on cannot be found, by what was done to it."""
    return {
        "a bit flipped in a header": whole[: second + 5] + bytes([whole[second + 5] ^ 4]) + whole[second + 6 :],
        "a header of zeros": whole[:second] + bytes(512) + whole[second + 512 :],
        "zeros to the end": whole[:second] + bytes(3 << 20),
        "cut inside a header": whole[: second + 200],
        "two tars in one file": whole + whole,
    }


def test_a_damaged_tar_does_not_end_early_in_silence(tmp_path: Path) -> None:
    whole = make_tar(tmp_path / "whole.tar", {f"{k}.mp4": bytes([k] * 20_000) for k in range(1, 4)}).read_bytes()
    for number, (what, data) in enumerate(damaged(whole, 20_992).items()):
        path = tmp_path / f"{number}.tar"
        path.write_bytes(data)
        with pytest.raises(ShardError, match=r"damaged at byte|zeros from byte|cut short.*"):
            members(path)
            pytest.fail(what)


def test_tars_end_in_many_ways(tmp_path: Path) -> None:
    whole = make_tar(tmp_path / "whole.tar", {"a.mp4": b"1" * 700, "b.txt": b"2"}).read_bytes()
    assert len(whole) == 10240 and shards.ends_as_usual(tmp_path / "whole.tar")
    ends = {2560: False, 2561: False, 3072: True, 3584: True, 7777: True, 10240: True, 1 << 16: False, 1 << 20: False}
    for size, usual in ends.items():  # without a mark, with half of it, filled up to records of all sizes
        path = tmp_path / f"{size}.tar"
        path.write_bytes(whole[:size].ljust(size, b"\0"))
        assert [member.name for member in members(path)] == ["a.mp4", "b.txt"]
        assert shards.ends_as_usual(path) == usual or size == 2561
    (tmp_path / "long.tar").write_bytes(whole.ljust(5 << 20, b"\0"))
    with pytest.raises(ShardError, match=r"5240320 zeros from byte 2560 on.*fetch it again"):
        members(tmp_path / "long.tar")


@pytest.mark.parametrize("indexed", [False, True])
def test_the_last_of_two_members_with_one_name_counts(indexed: bool, tmp_path: Path) -> None:
    """As for tar, which appends what is new (`tar -r`)."""
    shards._known.cache_clear()
    shard = make_tar(tmp_path / "a.tar", {"a.mp4": b"old", "mp4": b"no extension", "512": b"a number"})
    with tarfile.open(shard, "a") as tar:
        info = tarfile.TarInfo("a.mp4")
        info.size = 4
        tar.addfile(info, io.BytesIO(b"new!"))
    if indexed:
        write_index(shard)
    for name, data in (("a.mp4", b"new!"), ("mp4", b"no extension"), ("512", b"a number")):
        with open_bytes(str(shard / name)) as file:
            assert file.read() == data


@pytest.mark.parametrize("indexed", [False, True])
def test_names_that_are_no_text(indexed: bool, tmp_path: Path, videos: dict[str, bytes]) -> None:
    shards._known.cache_clear()
    shard = make_tar(tmp_path / "a.tar", {"caf\udce9.mp4": videos["000.mp4"]}, format=tarfile.GNU_FORMAT)
    if indexed:
        assert " caf%E9.mp4\n" in write_index(shard).read_text()
    assert [member.name for member in members(shard)] == ["caf\udce9.mp4"]
    assert len(index_video(f"{shard}/caf\udce9.mp4")) == 10


def test_a_video_ends_where_its_member_does(tmp_path: Path, videos: dict[str, bytes]) -> None:
    data = videos["000.mp4"]
    shard = make_tar(tmp_path / "half.tar", {"a.mp4": data[: len(data) - 30], "b.mp4": data})
    index = index_video(shard / "b.mp4")
    assert index.damage is None
    assert "cut short" in str(index_video(shard / "a.mp4").damage)


@pytest.mark.parametrize(
    ("name", "parts"),
    [("a.mp4", ("a", "mp4")), ("d/a.x.json", ("d/a", "x.json")), ("a", ("a", "")), ("d.e/a.txt", ("d.e/a", "txt"))],
)
def test_keys(name: str, parts: tuple[str, str]) -> None:
    assert sample_key(name) == parts


def test_scans_and_manifests_take_members(shard: Path, tmp_path: Path) -> None:
    entries = [Entry(name, f"00000.tar/{name}", ("x",), ((),)) for name in ("000.mp4", "001.mkv", "none.mp4")]
    write_manifest(tmp_path / "m.jsonl", Header("test", ".", 3), entries)
    manifest = Manifest(tmp_path / "m.jsonl")
    assert len(index_video(manifest.path_of(manifest[1]))) == 11
    rows = scan(tmp_path / "m.jsonl", tmp_path / "rows.jsonl").rows
    assert [(row.ok, row.frames, row.reason) for row in sorted(rows, key=lambda row: row.path)] == [
        (True, 10, None), (True, 11, None), (False, None, "not_found"),
    ]  # fmt: skip
    assert list(changed_files(tmp_path, rows)) == []
    assert examine(tmp_path, "00000.tar/000.mp4", False).size == place_of(str(shard / "000.mp4")).size
    make_tar(shard, {"000.mp4": b"other"})
    assert {path for path, _ in changed_files(tmp_path, rows)} == {"00000.tar/000.mp4", "00000.tar/001.mkv"}


def test_write_index_from_known_members(tmp_path: Path) -> None:
    index = write_index(tmp_path / "00007.tar", [Member("k.mp4", 512, 3), Member("k.txt", 1536, 1)])
    assert index.read_text() == "v1.2 1\nmp4 512 3 k.mp4 txt 1536 1 k.txt\n"
