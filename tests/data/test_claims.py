"""Headers are read for what they claim, before a decoder believes them."""

import random
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from make_videos import write_video

from svilm.data import claims
from svilm.data.claims import Claims, read_claims
from svilm.data.container import MAX_SAMPLES, DecodeError
from svilm.data.decode import index_video
from torture.make_corpus import FASTSTART, FRAGMENTS, box, grainy, patched

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "list at the end": ("mp4", {}),
    "list in front": ("mp4", FASTSTART),
    "fragments": ("mp4", FRAGMENTS),
    "matroska": ("mkv", {}),
    "avi": ("avi", {"codec": "mpeg4"}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_ends_where_it_says_unless_it_was_cut(kind: str, tmp_path: Path) -> None:
    suffix, arguments = KINDS[kind]
    path = write_video(tmp_path / f"whole.{suffix}", 24, turn=grainy, **arguments)
    data = path.read_bytes()
    assert read_claims(str(path)) == Claims(24 if suffix == "mp4" else 0, len(data))
    assert index_video(path).damage is None
    for rubbish in (b"\0" * 40, random.Random(0).randbytes(40)):
        path.write_bytes(data + rubbish)
        assert read_claims(str(path)).end == len(data)
    for place in (len(data) - 1, len(data) * 3 // 4):
        path.write_bytes(data[:place])
        assert read_claims(str(path)).end > place
        if kind != "list at the end":
            assert "cut short" in str(index_video(path).damage) or "incomplete" in str(index_video(path).damage)


NOTHING = {
    "nothing": b"",
    "text": b"text" * 40,
    "a bare EBML header": b"\x1a\x45\xdf\xa3",
    "a bare RIFF": b"RIFF",
    "a RIFF written to a pipe": b"RIFF\xff\xff\xff\xffAVI ",
    "a live Matroska": b"\x1a\x45\xdf\xa3\x82ab\x18\x53\x80\x67\x01" + b"\xff" * 7 + bytes(50),
    "a Matroska that starts with something else": b"\x1a\x45\xdf\xa3\x82ab\x18\x53\x80\x68\x81" + bytes(50),
}


@pytest.mark.parametrize("name", NOTHING)
def test_kinds_that_do_not_say(name: str, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(NOTHING[name])
    assert read_claims(str(path)) == Claims(0, 0)


def test_lengths_of_one_to_eight_bytes(tmp_path: Path) -> None:
    path = tmp_path / "x.mkv"
    for width in range(1, 9):
        length = (1000 | 1 << 7 * width).to_bytes(width, "big") if width > 1 else b"\xe8"  # 104
        path.write_bytes(b"\x1a\x45\xdf\xa3\x82ab\x18\x53\x80\x67" + length + bytes(50))
        assert read_claims(str(path)).end == 11 + width + (1000 if width > 1 else 104)


def test_an_avi_in_several_pieces(tmp_path: Path) -> None:
    path = tmp_path / "x.avi"
    pieces = [b"RIFF" + struct.pack("<I", size) + b"AVI " + bytes(size - 4) for size in (100, 51)]
    path.write_bytes(pieces[0] + pieces[1] + b"\0" + pieces[0][:40])
    assert read_claims(str(path)).end == 108 + 60 + 108


def test_large_boxes_and_boxes_to_the_end(tmp_path: Path) -> None:
    path = tmp_path / "x.mp4"
    path.write_bytes(box(b"ftyp", b"isom") + struct.pack(">I4sQ", 1, b"mdat", 1 << 40))
    assert read_claims(str(path)).end == 12 + (1 << 40)
    path.write_bytes(box(b"ftyp", b"isom") + struct.pack(">I4s", 0, b"mdat") + bytes(500))
    assert read_claims(str(path)).end == 12 + 508


def test_raw_sound_may_have_many_samples(tmp_path: Path) -> None:
    def track(kind: bytes, ticks: int) -> bytes:
        times = box(b"stts", struct.pack(">IIII", 0, 1, 1, ticks))
        sizes = box(b"stsz", struct.pack(">III", 0, 2, 90_000_000))
        media = box(b"hdlr", bytes(8) + kind) + box(b"minf", box(b"stbl", sizes + times))
        return box(b"trak", box(b"mdia", media))

    path = tmp_path / "x.mov"
    for kind, ticks, samples in ((b"soun", 1, 0), (b"soun", 1024, 90_000_000), (b"vide", 1, 90_000_000)):
        path.write_bytes(box(b"ftyp", b"qt  ") + box(b"moov", track(kind, ticks) * 2))
        assert read_claims(str(path)).samples == 2 * samples


@pytest.mark.parametrize(("arguments", "patch"), [({}, (b"stsz", 4, 1)), (FRAGMENTS, (b"trun", 0, 1))])
def test_more_frames_than_memory_are_refused_unopened(
    arguments: dict[str, Any], patch: tuple[bytes, int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_video(tmp_path / "x.mp4", 12, **arguments)
    whole = path.read_bytes()
    path.write_bytes(patched(whole, *patch, MAX_SAMPLES))
    assert read_claims(str(path)).samples == MAX_SAMPLES
    path.write_bytes(patched(whole, *patch, MAX_SAMPLES + 1))
    monkeypatch.setattr("av.open", None)
    with pytest.raises(DecodeError, match=r"it claims 4000001 frames.*too_large"):
        index_video(path)


@given(data=st.binary(max_size=300), kinds=st.lists(st.sampled_from(["moov", "trak", "mdia", "moof", "traf", "stsz"])))
@settings(max_examples=100)
def test_any_bytes_can_be_looked_at(data: bytes, kinds: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    for kind in kinds:
        data = box(kind.encode(), data)
    path = tmp_path_factory.getbasetemp() / "bytes.mp4"
    for head in (box(b"ftyp", b"isom"), b"\x1a\x45\xdf\xa3", b"RIFF"):
        path.write_bytes(head + data)
        found = read_claims(str(path))
        assert found.samples >= 0 <= found.end


def test_the_look_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "MAX_BOXES", 50)
    path = tmp_path / "x.mp4"
    path.write_bytes(box(b"ftyp", b"isom") + box(b"free", b"") * 100)
    assert read_claims(str(path)).end == 12 + 49 * 8
