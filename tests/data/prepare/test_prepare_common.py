"""The contract of all readers: every row accounted for, nothing shrinks in silence."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from svilm.data.manifest import Manifest, ManifestError
from svilm.data.prepare import common
from svilm.data.prepare.common import Clip, Listing, PrepareError, Refusal, prepare, unique

Names = Callable[..., Path]


def clip(name: str, *captions: str, **more: Any) -> Clip:
    return Clip(
        name,
        more.pop("names", (name,)),
        captions or ("a dog runs",),
        more.pop("place", f"row {name}"),
        **more,
    )


def listing(rows: Sequence[Clip | Refusal], **more: Any) -> Listing:
    def read() -> Iterator[Clip | Refusal]:
        return iter(rows)

    return Listing("test", Path("list.csv"), read, protocol="test list", **more)


def test_manifest_of_a_listing(video: Callable[..., Path], tmp_path: Path) -> None:
    root = video("sub/a.mp4", seconds=2.0).parents[1]
    rows = [
        clip("a", "Two red cars", "the sky", start=0.5, end=1.5, scene_changes=(1.0,)),
        clip("late", names=("nothing", "a"), start=1.0, end=9.0),
    ]
    summary = prepare(listing(rows), to=tmp_path / "m.jsonl", videos=root, extractor="rules")
    manifest = Manifest(tmp_path / "m.jsonl")
    first, second = manifest
    assert (first.id, first.video, first.start, first.end) == ("a", "sub/a.mp4", 0.5, 1.5)
    assert first.captions == ("Two red cars", "the sky") and first.nouns == (("red cars",), ("sky",))
    assert first.scene_changes == (1.0,)
    assert second.end == pytest.approx(2.0)  # where its video ends
    assert manifest.path_of(first).is_file()
    header = manifest.header
    assert (header.source, header.protocol, header.official) == ("test", "test list", 2)
    assert (header.nouns, header.root, header.struck) == ("textblob+repairs", "videos", ())
    assert (summary.written, summary.captions, summary.phrases, summary.without_nouns) == (2, 3, 3, 0)
    assert any("1 clips end over 1 s after their video does" in note for note in summary.notes)


def test_every_row_is_accounted_for(video: Callable[..., Path], tmp_path: Path) -> None:
    root = video("a.mp4", seconds=2.0).parent
    (root / "empty.mp4").touch()
    (root / "x").mkdir()
    (root / "y").mkdir()
    (root / "x" / "twin.mp4").touch()
    (root / "y" / "twin.mp4").touch()
    rows = [
        clip("a"),
        clip("a", "another caption", place="line 7"),
        clip("gone", place="line 8"),
        clip("empty"),
        clip("after", names=("a",), start=5.0, end=6.0),
        clip("twin"),
        clip("out", names=("../../x.mp4",)),
        Refusal("line 3", "not a time", "abc"),
    ]
    summary = prepare(listing(rows), to=tmp_path / "m.jsonl", videos=root, extractor="rules")
    assert summary.rows == 8 == summary.written + summary.refused + summary.missing + summary.undecodable
    assert {key: tally.count for key, tally in summary.losses.items()} == {
        ("refused", "id of an earlier row"): 1,
        ("missing", "video not found"): 1,
        ("undecodable", "empty"): 1,
        ("undecodable", "starts after the end of its video"): 1,
        ("refused", "several videos of that name"): 1,
        ("refused", "lies outside the folder of videos"): 1,
        ("refused", "not a time"): 1,
    }
    report = str(summary)
    for expected in [
        "official           8",
        "1 x video not found: line 8 (gone)",
        "1 x not a time: line 3 (abc)",
        f"note: where videos were looked for: {root} has 4 videos; --videos names another folder",
    ]:
        assert expected in report
    assert [entry.id for entry in Manifest(tmp_path / "m.jsonl")] == ["a"]
    assert Manifest(tmp_path / "m.jsonl").header.official == 8
    assert Manifest(tmp_path / "m.jsonl").header.struck == ()  # a training split: counted, not named


@pytest.mark.parametrize("split", ["val", "test"])
def test_a_test_split_does_not_shrink_in_silence(names: Names, tmp_path: Path, split: str) -> None:
    rows = [clip("a"), clip("gone", place="line 3"), Refusal("line 4", "empty caption")]
    found = listing(rows, split=split)
    with pytest.raises(PrepareError) as error:
        prepare(found, to=tmp_path / "m.jsonl", videos=names("a.mp4"), check="none", extractor="rules")
    for part in [
        "2 of 3",
        split,
        "line 3 (gone): video not found",
        "line 4: empty caption",
        f"{tmp_path / 'videos'} has 1 videos; --videos names another folder",
        "--allow-missing",
    ]:
        assert part in str(error.value)
    assert not (tmp_path / "m.jsonl").exists()

    summary = prepare(
        found,
        to=tmp_path / "m.jsonl",
        videos=names("a.mp4"),
        check="none",
        allow_missing=True,
        extractor="rules",
    )
    header = Manifest(tmp_path / "m.jsonl").header
    assert summary.written == 1 and header.official == 3
    assert header.struck == ("gone: video not found", "line 4: empty caption")


def test_a_long_list_of_losses_is_cut(names: Names, tmp_path: Path) -> None:
    rows = [clip("a"), *(clip(f"v{k}") for k in range(50))]
    with pytest.raises(PrepareError) as error:
        prepare(listing(rows, split="test"), to=tmp_path / "m.jsonl", videos=names("a.mp4"), check="none")
    assert "v19" in str(error.value) and "v20" not in str(error.value) and "and 30 more" in str(error.value)


def test_nothing_left(names: Names, tmp_path: Path) -> None:
    with pytest.raises(PrepareError, match=r"list\.csv: no rows"):
        prepare(listing([]), to=tmp_path / "m.jsonl", videos=names("a.mp4"))
    with pytest.raises(
        PrepareError, match=r"none of 2 rows can be used \(2 x video not found: row b\).*has 1 videos"
    ) as error:
        prepare(listing([clip("b"), clip("c")]), to=tmp_path / "m.jsonl", videos=names("a.mp4"))
    assert str(names()) in str(error.value)
    assert not (tmp_path / "m.jsonl").exists()


def test_where_all_videos_are_found_no_folder_is_named(names: Names, tmp_path: Path) -> None:
    summary = prepare(listing([clip("a")]), to=tmp_path / "m.jsonl", videos=names("a.mp4"), check="none")
    assert "looked for" not in str(summary)


def test_videos_that_are_longer_than_those_of_the_list(video: Callable[..., Path], tmp_path: Path) -> None:
    root = video("a.mp4", seconds=2.0).parent
    video("b.mp4", seconds=4.0)
    clips = [clip("a"), clip("b", start=0.0, end=1.0)]
    found = listing(clips, longest=3.0, too_long="whole films; take --whole")
    with pytest.raises(PrepareError, match=r"1 of 2 videos .* 3 s, b\.mp4 has 4 s: whole films; take --whole"):
        prepare(found, to=tmp_path / "m.jsonl", videos=root)
    assert not (tmp_path / "m.jsonl").exists()
    assert prepare(listing(clips, longest=4.0), to=tmp_path / "m.jsonl", videos=root).written == 2
    assert prepare(found, to=tmp_path / "m.jsonl", videos=root, check="none").written == 2


def test_the_manifest_is_no_folder(names: Names, tmp_path: Path) -> None:
    with pytest.raises(PrepareError, match="is a folder; give the manifest a file name"):
        prepare(listing([clip("a")]), to=tmp_path, videos=names("a.mp4"))


def test_where_nothing_can_be_written_is_found_out_before_the_videos(
    names: Names, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    videos, to = names("a.mp4"), tmp_path / "new" / "far" / "m.jsonl"
    monkeypatch.setattr(common, "VideoFolder", lambda _: pytest.fail("looked through the videos first"))
    (tmp_path / "file").touch()
    with pytest.raises(ManifestError, match=r"cannot write .*file/x/m\.jsonl: .*file is a file, not a folder; choose"):
        prepare(listing([clip("a")]), to=tmp_path / "file" / "x" / "m.jsonl", videos=videos)

    def refuse(dir: Path) -> None:
        raise PermissionError(13, "Permission denied", str(dir))

    monkeypatch.setattr("svilm.data.manifest.TemporaryFile", refuse)  # mode bits do not stop an administrator
    with pytest.raises(ManifestError, match=r"cannot write .*m\.jsonl \(permission denied\); choose another --to"):
        prepare(listing([clip("a")]), to=to, videos=videos)
    assert not (tmp_path / "new").exists()


def test_a_split_of_which_nothing_is_there_is_told_in_one_line(names: Names, tmp_path: Path) -> None:
    found = listing([clip(f"gone{k}", place=f"line {k}") for k in range(30)], split="test")
    with pytest.raises(PrepareError) as error:
        prepare(found, to=tmp_path / "m.jsonl", videos=names("a.mp4"), check="none")
    text = str(error.value)
    assert "none of 30 rows can be used (30 x video not found: line 0 (gone0))" in text
    assert "1 videos; --videos names another folder" in text
    assert "\n" not in text and "--allow-missing" not in text


def test_nothing_but_an_earlier_manifest_is_replaced(names: Names, tmp_path: Path) -> None:
    videos, to = names("a.mp4"), tmp_path / "m.jsonl"
    how: dict[str, Any] = {"videos": videos, "check": "none"}
    rows = '{"video": "a.mp4", "caption": "a cat", "license": "cc"}\n'
    to.write_text(rows)
    with pytest.raises(PrepareError, match=r"m\.jsonl is the list of clips itself and would be replaced"):
        prepare(replace(listing([clip("a")]), path=to), to=to, **how)
    with pytest.raises(ManifestError, match=r"m\.jsonl is there and no manifest; write to another file"):
        prepare(listing([clip("a")]), to=to, **how)
    assert to.read_text() == rows
    to.write_text("")
    for rest in ([], [clip("b", names=("a",))]):
        assert prepare(listing([clip("a"), *rest]), to=to, **how).written == 1 + len(rest)


def test_size_of_the_published_list(names: Names, tmp_path: Path) -> None:
    root = names("a.mp4")
    for published, told in [(1, False), (1000, True), (None, False)]:
        found = listing([clip("a")], published=published)
        summary = prepare(found, to=tmp_path / "m.jsonl", videos=root, check="none", extractor="rules")
        assert any("do not compare with published ones" in note for note in summary.notes) == told


def test_videos_elsewhere_are_named_by_their_absolute_path(names: Names, tmp_path: Path) -> None:
    to = tmp_path / "far" / "m.jsonl"
    prepare(listing([clip("a")]), to=to, videos=names("a.mp4"), check="none", extractor="rules")
    assert Manifest(to).header.root == str(tmp_path / "videos")
    assert Manifest(to).path_of(Manifest(to)[0]) == tmp_path / "videos" / "a.mp4"


def test_workers_give_the_same_manifest(names: Names, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = names("a.mp4")
    monkeypatch.setattr(common, "pool", ThreadPoolExecutor)  # processes take seconds to load the extractor
    monkeypatch.setattr(common, "FEW_CLIPS", 0)
    monkeypatch.setattr(common, "NOUN_CHUNK", 2)
    rows = [clip(f"c{k}", *(f"a dog number {j} and a cat" for j in range(k % 3 + 1)), names=("a",)) for k in range(9)]
    for workers in (0, 2):
        prepare(
            listing(rows),
            to=tmp_path / f"{workers}.jsonl",
            videos=root,
            check="none",
            workers=workers,
            extractor="rules",
        )
    assert (tmp_path / "0.jsonl").read_bytes() == (tmp_path / "2.jsonl").read_bytes()
    assert all(len(entry.captions) == len(entry.nouns) for entry in Manifest(tmp_path / "0.jsonl"))


def test_unknown_extractor_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="choose one of"):
        prepare(listing([]), to=tmp_path / "m.jsonl", videos=tmp_path, extractor="parser")


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["x", "y", "z"]))))
def test_unique_ids(rows: list[tuple[str, str]]) -> None:
    """As many ids as different rows; each repetition is refused."""
    found = list(unique(clip(name, caption, place=str(k)) for k, (name, caption) in enumerate(rows)))
    kept = [row for row in found if isinstance(row, Clip)]
    assert len({row.id for row in kept}) == len(kept) == len(set(rows))
    assert len(found) == len(rows)
    assert all(row.id == name or row.id.startswith(f"{name}#") for row in kept for name in row.names)
