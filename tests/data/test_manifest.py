"""Manifests: what is written is read; what is damaged is named by its line."""

import json
import pickle
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from svilm.data.manifest import (
    Entry,
    Header,
    LabelledBox,
    Manifest,
    ManifestError,
    Segment,
    hold_out,
    merge_manifests,
    write_manifest,
)

HEADER = Header(source="test", root="videos", official=3, protocol="a list", nouns="rules", struck=("x: missing",))
LINE = {"id": "a", "video": "a.mp4", "captions": ["a dog"], "nouns": [["dog"]]}


def entry(name: str = "a", **more: Any) -> Entry:
    return Entry(**{"id": name, "video": f"{name}.mp4", "captions": ("a dog",), "nouns": (("dog",),), **more})


def written(path: Path, *lines: Any) -> Path:
    """A manifest of a good header and these lines, as JSON unless they are text."""
    header = {"svilm_manifest": 1, "source": "test", "root": ".", "official": 1}
    texts = [line if isinstance(line, str) else json.dumps(line) for line in (header, *lines)]
    path.write_text("".join(text + "\n" for text in texts))
    return path


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
CAPTIONS = st.lists(st.tuples(TEXTS, st.lists(TEXTS, max_size=3).map(tuple)), max_size=3)
SPANS = st.tuples(st.none() | st.floats(0, 1e6), st.none() | st.floats(1e-3, 1e6)).map(
    lambda pair: (pair[0], None if pair[1] is None else (pair[0] or 0.0) + pair[1])
)


@settings(max_examples=25)
@given(st.lists(st.tuples(CAPTIONS, SPANS, st.lists(st.floats(0, 1e6), max_size=2).map(tuple)), max_size=5))
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, rows: list[Any]) -> None:
    entries = [
        Entry(
            f"id {k}",
            f"{k}.mp4",
            tuple(c for c, _ in texts),
            tuple(n for _, n in texts),
            *times,
            scene_changes=cuts,
        )
        for k, (texts, times, cuts) in enumerate(rows)
    ]
    path = tmp_path_factory.getbasetemp() / "round.jsonl"
    assert write_manifest(path, HEADER, entries) == len(entries)
    manifest = Manifest(path)
    assert manifest.header == HEADER
    assert list(manifest) == entries and len(manifest) == len(entries)
    assert all(manifest[k] == manifest[k - len(entries)] == entries[k] for k in range(len(entries)))


def test_index_beyond_the_end(tmp_path: Path) -> None:
    write_manifest(tmp_path / "m.jsonl", HEADER, [entry()])
    for index in (1, -2):
        with pytest.raises(IndexError, match="has 1 entries"):
            Manifest(tmp_path / "m.jsonl")[index]


def test_pickling_opens_the_file_again(tmp_path: Path) -> None:
    write_manifest(tmp_path / "m.jsonl", HEADER, [entry(), entry("b")])
    manifest = Manifest(tmp_path / "m.jsonl")
    data = pickle.dumps(manifest)
    assert len(data) < 1000
    assert list(pickle.loads(data)) == list(manifest)


def test_a_cut_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    write_manifest(path, HEADER, [entry(), entry("b")])
    content = path.read_bytes()
    for size in range(len(content)):
        path.write_bytes(content[:size])
        if content[:size].endswith(b"\n"):
            assert len(Manifest(path)) < 2  # cut between lines: only the header's counts can tell
        else:
            with pytest.raises(ManifestError, match=r"m\.jsonl: (empty file|last line has no end)"):
                Manifest(path)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no such manifest; make one with `svilm prepare`"):
        Manifest(tmp_path / "m.jsonl")


@pytest.mark.parametrize(
    "line",
    [
        "not json",
        "[1]",
        '{"id": "a"',
        '{"start": ' + "9" * 5000 + "}",
        "[" * 100_000,
        {**LINE, "vidoe": "a.mp4"},
        {k: v for k, v in LINE.items() if k != "captions"},
        {**LINE, "id": ""},
        {**LINE, "id": 5},
        {**LINE, "video": "a\0.mp4"},
        {**LINE, "captions": "a dog", "nouns": "a dog"},
        {**LINE, "captions": [5]},
        {**LINE, "nouns": [[5]]},
        {**LINE, "nouns": []},
        {**LINE, "start": -1},
        {**LINE, "start": "0"},
        {**LINE, "start": True},
        {**LINE, "start": 5, "end": 5},
        {**LINE, "end": float("nan")},
        {**LINE, "end": float("inf")},
        {**LINE, "scene_changes": ["1"]},
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: Any) -> None:
    manifest = Manifest(written(tmp_path / "m.jsonl", LINE, line, {**LINE, "id": "c"}))
    assert manifest[0].id == "a" and manifest[2].id == "c"
    with pytest.raises(ManifestError, match=r"m\.jsonl: line 3"):
        manifest[1]


def test_an_unknown_field_is_named_with_those_there_are(tmp_path: Path) -> None:
    manifest = Manifest(written(tmp_path / "m.jsonl", {**LINE, "vidoe": "x"}))
    with pytest.raises(ManifestError, match=r"line 2 has unknown field 'vidoe'; known: .*'video'"):
        manifest[0]


@pytest.mark.parametrize(
    "header",
    [
        '{"svilm_manifest": 2}',
        "{}",
        '{"svilm_manifest": 1, "source": "x"}',
        '{"svilm_manifest": 1, "a": 1}',
        "x",
    ],
)
def test_another_header_is_refused(tmp_path: Path, header: str) -> None:
    (tmp_path / "m.jsonl").write_text(header + "\n")
    with pytest.raises(ManifestError, match=r"m\.jsonl: line 1"):
        Manifest(tmp_path / "m.jsonl")


@pytest.mark.parametrize("video", ["../x.mp4", "/etc/passwd", "a/../../x.mp4", "http:../../../x.mp4"])
def test_paths_stay_inside_the_root(tmp_path: Path, video: str) -> None:
    manifest = Manifest(written(tmp_path / "m.jsonl", {**LINE, "video": video}))
    with pytest.raises(ManifestError, match="lies outside"):
        manifest.path_of(manifest[0])


def test_the_root_is_relative_to_the_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in").mkdir()
    write_manifest(tmp_path / "in" / "m.jsonl", HEADER, [entry(video="sub/a: 1.mp4")])
    monkeypatch.chdir(tmp_path)
    manifest = Manifest("in/m.jsonl")
    assert manifest.path_of(manifest[0]) == tmp_path / "in" / "videos" / "sub" / "a: 1.mp4"


def test_a_double_id_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    write_manifest(path, HEADER, [entry()])
    before = path.read_bytes()
    with pytest.raises(ValueError, match="id 'b' occurs twice"):
        write_manifest(path, HEADER, [entry("b"), entry("b")])
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["m.jsonl"]


def test_labels_segments_and_boxes_come_back_as_they_were(tmp_path):
    entry = Entry(
        "v", "v.mp4", ("what is it?",), ((),), labels=("cat", "pet"), category="what", duration=9.5,
        segments=(Segment(1.0, 2.5, "jump"), Segment(2.0, 3.0, "sleep")),
        boxes=(LabelledBox((0.1, 0.2, 0.5, 1.0), ("12", "80"), 0.75, "detector"), LabelledBox((0.0, 0.0, 1.0, 1.0))),
    )  # fmt: skip
    header = Header("test", ".", 1, split="test", classes=("jump", "sleep"))
    write_manifest(tmp_path / "m.jsonl", header, [entry])
    again = Manifest(tmp_path / "m.jsonl")
    assert again.header == header and list(again) == [entry]


@pytest.mark.parametrize(
    "part",
    [
        '"segments": [{"start": 2, "end": 1, "label": "x"}]',
        '"segments": [{"start": 1, "end": 2}]',
        '"segments": [3]',
        '"boxes": [{"box": [0.5, 0, 0.2, 1]}]',
        '"boxes": [{"box": [0, 0, 1.2, 1]}]',
        '"boxes": [{"box": [0, 0, 1]}]',
        '"labels": [3]',
    ],
)
def test_a_wrong_label_segment_or_box_is_refused_with_its_line(tmp_path, part):
    write_manifest(tmp_path / "m.jsonl", HEADER, [])
    with open(tmp_path / "m.jsonl", "a") as file:
        file.write('{"id": "v", "video": "v.mp4", "captions": [], "nouns": [], ' + part + "}\n")
    with pytest.raises(ManifestError, match="line 2"):
        Manifest(tmp_path / "m.jsonl")[0]


def many(path: Path, count: int = 30, split: str = "train") -> Path:
    """A manifest of two clips of each video."""
    entries = [Entry(f"{k}", f"{k // 2}.mp4", ("x",), ((),)) for k in range(count)]
    write_manifest(path, Header("test", "videos", count, "a list", split=split), entries)
    return path


def test_clips_are_held_out_by_whole_videos(tmp_path: Path) -> None:
    whole = Manifest(many(tmp_path / "m.jsonl"))
    rest, held = tmp_path / "rest.jsonl", tmp_path / "other" / "held.jsonl"
    assert hold_out(whole.path, 7, rest=rest, held=held) == (22, 8)
    one, other = Manifest(rest), Manifest(held)
    assert sorted(e.id for m in (one, other) for e in m) == sorted(e.id for e in whole)
    assert not {e.video for e in one} & {e.video for e in other}
    assert one.root == other.root == whole.root and (one.header.split, other.header.split) == ("train", "val")
    assert (one.header.official, other.header.official) == (22, 8) and "8 held out" in other.header.protocol
    hold_out(whole.path, 7, rest=rest, held=held)
    assert list(Manifest(held)) == list(other)  # the seed decides
    with pytest.raises(ValueError, match="test split"):
        hold_out(many(tmp_path / "t.jsonl", split="test"), 7, rest=rest, held=held)
    with pytest.raises(ValueError, match="cannot be held out"):
        hold_out(whole.path, 30, rest=rest, held=held)


def test_manifests_are_merged_below_their_common_root(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    paths = [many(tmp_path / "a" / "m.jsonl", 4), many(tmp_path / "b" / "m.jsonl", 2)]
    assert merge_manifests(paths, tmp_path / "joined.jsonl") == 6
    joined = Manifest(tmp_path / "joined.jsonl")
    assert [e.id for e in joined] == ["0", "1", "2", "3", "test:0", "test:1"]
    wanted = [tmp_path / "a" / "videos" / f"{k}.mp4" for k in (0, 0, 1, 1)] + [tmp_path / "b" / "videos" / "0.mp4"] * 2
    assert [joined.path_of(e) for e in joined] == wanted and joined.header.official == 6


def test_an_id_of_three_manifests_is_told_apart(tmp_path: Path) -> None:
    paths = [many(tmp_path / f"{k}.jsonl", 2) for k in range(3)]
    assert merge_manifests(paths, tmp_path / "joined.jsonl") == 6
    assert [e.id for e in Manifest(tmp_path / "joined.jsonl")] == [
        "0",
        "1",
        "test:0",
        "test:1",
        "test:test:0",
        "test:test:1",
    ]


def test_manifests_that_make_no_list_together(tmp_path: Path) -> None:
    first, test, to = many(tmp_path / "a.jsonl"), many(tmp_path / "t.jsonl", split="test"), tmp_path / "joined.jsonl"
    with pytest.raises(ManifestError, match=r"t\.jsonl is a test split and .*a\.jsonl a train split"):
        merge_manifests([first, test], to)
    write_manifest(tmp_path / "c.jsonl", replace(Manifest(first).header, classes=("run",)), [])
    with pytest.raises(ManifestError, match=r"c\.jsonl has other classes \(1\) than .*a\.jsonl \(0\)"):
        merge_manifests([first, tmp_path / "c.jsonl"], to)
    with pytest.raises(ManifestError, match=r"a\.jsonl is to be joined twice"):
        merge_manifests([first, tmp_path / "." / "a.jsonl"], to)
    with pytest.raises(ManifestError, match=r"t\.jsonl is one of the manifests to join"):
        merge_manifests([first, test], test)
    with pytest.raises(ManifestError, match=r"a\.jsonl to join; give two manifests or more"):
        merge_manifests([first], to)
    assert not to.exists()


def test_a_file_of_another_kind_is_not_called_cut_short(tmp_path: Path) -> None:
    (tmp_path / "film.mp4").write_bytes(b"\x00\x00\x00\x20ftypisom")
    with pytest.raises(ManifestError, match=r"film\.mp4: no manifest, it does not begin with \{"):
        Manifest(tmp_path / "film.mp4")
    for start in ("", "\ufeff"):
        (tmp_path / "m.jsonl").write_text(start + '{"svilm_manifest": 1, "sou')
        with pytest.raises(ManifestError, match="cut short"):
            Manifest(tmp_path / "m.jsonl")


@pytest.mark.parametrize(
    "text",
    [
        '{"id": "a", "id": "b", "video": "a.mp4", "captions": ["a dog"], "nouns": [["dog"]]}',
        '{"id": "\\ud83d", "video": "a.mp4", "captions": ["a dog"], "nouns": [["dog"]]}',
        '{"id": "a", "video": "a.mp4", "captions": ["a dog"], "nouns": [["dog"]], "duration": 1e999}',
        '{"id": "a", "video": "a.mp4", "captions": ["a dog"], "nouns": [["dog"]], "duration": -1}',
        '{"id": "a", "video": "a.mp4", "captions": [], "nouns": [], "segments": [{"start": 0, "end": 1, "label": 5}]}',
        '\ufeff{"id": "a", "video": "a.mp4", "captions": ["a dog"], "nouns": [["dog"]]}',
    ],
)  # fmt: skip
def test_what_pythons_json_lets_pass_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ManifestError, match=r"m\.jsonl: line 3"):
        Manifest(written(tmp_path / "m.jsonl", LINE, text))[1]


def test_characters_of_two_halves_are_read(tmp_path: Path) -> None:
    line = json.dumps({**LINE, "captions": ["\U0001f600"]}, ensure_ascii=True)
    assert "\\ud83d" in line
    assert Manifest(written(tmp_path / "m.jsonl", line))[0].captions == ("\U0001f600",)


def test_an_id_of_two_lines_is_named_by_both(tmp_path: Path) -> None:
    path = written(tmp_path / "m.jsonl", *({**LINE, "id": name} for name in "abcbca"))
    with pytest.raises(ManifestError, match=r"m\.jsonl: line 5: id 'b' is that of line 3"):
        list(Manifest(path))


def test_a_path_out_of_the_root_is_named_by_its_line(tmp_path: Path) -> None:
    manifest = Manifest(written(tmp_path / "m.jsonl", LINE, {**LINE, "id": "b", "video": "../é.mp4"}))
    with pytest.raises(ManifestError, match=r"m\.jsonl: line 3: b: video '\.\./é\.mp4' lies outside"):
        manifest.path_of(manifest[1])


def test_an_open_manifest_takes_eight_bytes_for_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("svilm.data.manifest._PIECE", 1 << 16)
    lines = [{**LINE, "id": f"é{number}", "captions": ["x" * 90]} for number in range(20_000)]
    path = written(tmp_path / "m.jsonl", *lines)
    tracemalloc.start()
    try:
        manifest = Manifest(path)
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 8 * len(manifest) + 20_000 and peak < 16 * len(manifest) + 600_000 < path.stat().st_size
    for number in (0, 1, 517, 518, 9_999, -1):
        assert manifest[number].id == lines[number]["id"]
    assert [entry.id for entry in manifest] == [line["id"] for line in lines]


def test_what_is_no_manifest_is_told_how_to_become_one(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("video,caption\na.mp4,a dog\n")
    with pytest.raises(ManifestError, match=r"line 1 is not JSON .*; it is no manifest; make one with `svilm prep"):
        Manifest(tmp_path / "x.csv")
    with pytest.raises(ManifestError, match=r"is a folder, no manifest; .*`svilm prepare folder .* --to FILE\.jsonl`"):
        Manifest(tmp_path)
