"""What becomes of lists that are malformed or hostile: manifests, and the annotation files that they are made from."""

import contextlib
import json
import os
import random
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from svilm.data.decode import DecodeError, index_video
from svilm.data.manifest import Manifest, ManifestError
from svilm.data.prepare import activitynet_captions, msrvtt_qa, webvid
from svilm.data.prepare.common import Clip, Listing, PrepareError, Refusal, prepare
from torture.corpus import quiet_scan
from torture.frame import Check, Outcome, Plan, first

from make_videos import write_video  # isort: skip  # found through corpus

HEADER = b'{"svilm_manifest": 1, "source": "torture", "root": "videos", "official": 1}\n'
REFUSED_TEXTS: dict[str, bytes] = {
    "not JSON": b"a,b,c",
    "nothing": b"",
    "not an object": b'["a"]',
    "cut short": b'{"id": "x", "video": "x.mp',
    "open quote": b'{"id": "x, "video": "x.mp4", "captions": ["c"], "nouns": [[]]}',
    "not UTF-8": b'{"id": "\xff", "video": "x.mp4", "captions": ["c"], "nouns": [[]]}',
    "NUL": b'{"id": "\x00", "video": "x.mp4", "captions": ["c"], "nouns": [[]]}',
    "key twice": b'{"id": "x", "video": "x.mp4", "video": "../y.mp4", "captions": ["c"], "nouns": [[]]}',
    "half a character": b'{"id": "\\ud83d", "video": "x.mp4", "captions": ["c"], "nouns": [[]]}',
    "halves the wrong way": b'{"id": "x", "video": "x.mp4", "captions": ["\\ude00\\ud83d"], "nouns": [[]]}',
    "a million digits": b'{"id": "x", "start": ' + b"9" * 1_000_000 + b"}",
    "deep": b"[" * 100_000 + b"]" * 100_000,
    "mark in the middle": b'\xef\xbb\xbf{"id": "x", "video": "x.mp4", "captions": ["c"], "nouns": [[]]}',
}
"""Lines that are refused wherever JSON Lines are read."""
REFUSED_FIELDS: dict[str, dict[str, Any]] = {
    "field too few": {"captions": None},
    "field too many": {"vidoe": "x.mp4"},
    "no id": {"id": ""},
    "no video": {"video": ""},
    "number for id": {"id": 7},
    "out of the root": {"video": "../../etc/passwd"},
    "absolute": {"video": "/etc/passwd"},
    "NUL in the path": {"video": "good 0.mp4\0.jpg"},
    "NaN": {"start": float("nan")},
    "infinite end": {"end": float("inf")},
    "infinite duration": {"duration": float("inf")},
    "negative duration": {"duration": -1},
    "end before start": {"start": 2, "end": 1},
    "text for time": {"start": "1"},
    "true for time": {"end": True},
    "text for captions": {"captions": "a dog"},
    "nouns of another caption": {"nouns": [[], []]},
    "segment without label": {"segments": [{"start": 0, "end": 1}]},
    "box outside": {"boxes": [{"box": [0, 0, 2, 1]}]},
}
"""What is wrong with an otherwise good line of a manifest; None takes the field away."""
FOREIGN_PATHS = (
    "http://127.0.0.1:PORT/a.mp4", "tcp://127.0.0.1:PORT", "concat:good 0.mp4|good 1.mp4", "pipe:0", "data:video/mp4,x",
    "subfile,,start,0,end,99,,:good 0.mp4", "file:good 0.mp4", "async:good 0.mp4", "crypto:good 0.mp4", "link.mp4",
)  # fmt: skip
"""Videos that are no files of the root, whatever FFmpeg would make of them."""
CAPTIONS = (
    "a dog", "ein Bär", "two\u2028lines", "next\u0085line", "犬", "\U0001f600 grin", 'he says "no"', "comma, comma",
    "x" * 300, "5' screen", "-1", "=1+1", "tab\there",
)  # fmt: skip


def manifests(plan: Plan) -> Outcome:
    """Each line of a manifest is read right or refused by number; no path leads out of the root or to a server."""
    rng, problems, counts = random.Random(f"manifests {plan.seed}"), list[str](), {"right": 0, "refused": 0}
    videos = plan.folder / "videos"
    videos.mkdir()
    for number in range(2):
        write_video(videos / f"good {number}.mp4", 4, width=32, height=32)
    write_video(videos / "Trip: day 1.mp4", 4, width=32, height=32)
    write_video(plan.folder / "outside.mp4", 4, width=32, height=32)
    (videos / "link.mp4").symlink_to(plan.folder / "outside.mp4")
    for round_ in range(plan.number(20, 2)):
        lines = [*map(_refused_line, [*REFUSED_TEXTS, *REFUSED_FIELDS]), *(_right_line(rng, n) for n in range(40))]
        rng.shuffle(lines)
        mark, end = rng.choice((b"", b"\xef\xbb\xbf")), rng.choice((b"\n", b"\r\n"))
        path = plan.folder / f"{round_}.jsonl"
        path.write_bytes(mark + HEADER + b"".join(line.content + end for line in lines))
        manifest = Manifest(path)
        problems += [] if len(manifest) == len(lines) else [f"{len(manifest)} rows of {len(lines)}"]
        for number, line in enumerate(lines):
            verdict = _verdict_on_line(manifest, number)
            counts["right" if verdict is None else "refused"] += 1
            problems += line.judged(verdict, f"line {number + 2}")
    problems += _whole_files(plan.folder, rng)
    hits, scanned = _foreign_paths(plan.folder, videos)
    problems += scanned + ([f"{hits} connections were made"] if hits else [])
    words = f"{counts['right']} lines read right, {counts['refused']} refused with their number"
    return Outcome(f"{words}; {len(FOREIGN_PATHS)} foreign paths refused, {hits} connections made", first(problems))


def annotations(plan: Plan) -> Outcome:
    """Each row of an annotation file is read right or refused with its place: rows in = accepted + refused."""
    rng, problems, counts = random.Random(f"annotations {plan.seed}"), list[str](), [0, 0, 0]
    videos = plan.folder / "videos"
    videos.mkdir()
    for number in range(40):
        (videos / f"good{number}.mp4").touch()
    for round_ in range(plan.number(20, 2)):
        for kind in (_csv, _json_lines, _json_object):
            rows, listing = kind(plan.folder / f"{round_}", rng)
            with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
                summary = prepare(listing, to=plan.folder / "out.jsonl", videos=videos, check="none")
            found = {row.place: row for row in listing.read()}
            for place, row in rows.items():
                problems += row.judged(found.get(place), f"{listing.path.name} {place}")
            lost = summary.refused + summary.missing + summary.undecodable
            written = len(list(Manifest(summary.manifest)))
            if not summary.rows == len(found) == len(rows) == written + lost:
                problems.append(f"{listing.path.name}: {len(rows)} rows in, {len(found)} found, {written} + {lost} out")
            counts = [counts[0] + len(rows), counts[1] + written, counts[2] + lost]
    fuzzed = plan.number(3_000, 60)
    for number in range(fuzzed):
        problems += _fuzzed(
            plan.folder / "fuzzed", random.Random(f"list {plan.seed} {number}"), f"fuzzed file {number}"
        )
    words = f"{counts[0]} rows = {counts[1]} written + {counts[2]} refused or without video; {fuzzed} files fuzzed"
    return Outcome(words, first(problems))


CHECKS: tuple[Check, ...] = (manifests, annotations)


# Manifests


@dataclass(frozen=True)
class Line:
    """A row and what must become of it."""

    content: bytes
    right: Any = None
    """The value to be read; None where the row must be refused."""
    name: str = ""

    def judged(self, found: Any, place: str) -> Iterator[str]:
        """What is wrong with what was read, or with the refusal."""
        refused = isinstance(found, (str, Refusal))
        if self.right is None and not refused:
            yield f"{place}: {self.name} was read as {str(found)[:200]}"
        elif self.right is not None and refused:
            yield f"{place}: {self.content[:200]!r} was refused: {found}"
        elif isinstance(found, str) and f"{place}" not in found:
            yield f"{place}: another line is named: {found[:200]}"


def _refused_line(name: str) -> Line:
    if name in REFUSED_TEXTS:
        return Line(REFUSED_TEXTS[name], name=name)
    data = {**_entry("x", "good 0.mp4", "a dog"), **REFUSED_FIELDS[name]}
    return Line(json.dumps({k: v for k, v in data.items() if v is not None}).encode(), name=name)


def _right_line(rng: random.Random, number: int) -> Line:
    caption = rng.choice((*CAPTIONS, "x" * 10_000_000 if number == 0 else "short"))
    data = _entry(f"{number} {rng.choice(CAPTIONS[:8])}", rng.choice(("good 0.mp4", "Trip: day 1.mp4")), caption)
    text = json.dumps(data, ensure_ascii=rng.random() < 0.5, indent=None)
    return Line(b" " * rng.randrange(3) + text.encode(), right=data)


def _entry(name: str, video: str, caption: str) -> dict[str, Any]:
    return {"id": name, "video": video, "captions": [caption], "nouns": [[]]}


def _verdict_on_line(manifest: Manifest, number: int) -> str | None:
    """Why a line is refused, or None where it names a video inside the root."""
    try:
        manifest.path_of(manifest[number])
    except ManifestError as error:
        return str(error)
    return None


def _whole_files(folder: Path, rng: random.Random) -> Iterator[str]:
    """What is wrong with how files are refused that are bad as a whole, or whose lines do not go together."""
    good = b"".join(_right_line(rng, n + 1).content + b"\n" for n in range(9))
    double = json.dumps(_entry("double", "good 0.mp4", "a dog")).encode() + b"\n"
    for content, words in (
        (b"", "empty file"),
        (b"\n", "line 1 is not JSON"),
        (HEADER + good[:-1], "cut short"),
        (HEADER.replace(b"1,", b"2,", 1) + good, "line 1 must be a header"),
        (good, "line 1 must be a header"),
        (HEADER + good + double + double, "line 12: id 'double' is that of line 11"),
        (HEADER + double + good + double, "line 12: id 'double' is that of line 2"),
    ):
        (folder / "whole.jsonl").write_bytes(content)
        try:
            list(Manifest(folder / "whole.jsonl"))
            yield f"{content[:60]!r}...: is read"
        except ManifestError as error:
            if words not in str(error):
                yield f"{content[:60]!r}...: {error}"


def _foreign_paths(folder: Path, videos: Path) -> tuple[int, list[str]]:
    """Connections made while videos of these names are looked for, and names under which one was found."""
    hits, problems, over = list[Any](), list[str](), threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def listen() -> None:
            server.settimeout(0.1)
            while not over.is_set():
                with contextlib.suppress(TimeoutError):
                    hits.append(server.accept())

        canary = threading.Thread(target=listen)
        canary.start()
        names = [name.replace("PORT", str(server.getsockname()[1])) for name in FOREIGN_PATHS]
        rows = [json.dumps(_entry(str(number), name, "a dog")).encode() for number, name in enumerate(names)]
        (folder / "foreign.jsonl").write_bytes(HEADER + b"".join(row + b"\n" for row in rows))
        scanned = quiet_scan(folder / "foreign.jsonl", folder / "foreign-scan.jsonl", 1)
        problems += [f"{row.path}: was read" for row in scanned.rows if row.ok]
        for entry in Manifest(folder / "foreign.jsonl"):
            if entry.video != "link.mp4":  # which only a scan refuses
                with contextlib.suppress(DecodeError):
                    index_video(videos / entry.video)
                    problems.append(f"{entry.video}: was decoded")
        over.set()
        canary.join()
    return len(hits), problems


# Annotation files


def _csv(path: Path, rng: random.Random) -> tuple[dict[str, Line], Listing]:
    """A table as WebVid's, with rows as they should not be among good ones."""
    rows = [
        *(Line(b"good%d,http://x,PT10S,,%s" % (n, _cell(rng)), right=True) for n in range(30)),
        Line(b"good30,http://x,PT10S,", name="too few columns"),
        Line(b"good30,http://x,PT10S,,a dog,more", name="too many columns"),
        Line(b'good30,http://x,PT10S,,"a dog', name="open quote"),
        Line(b'good30,http://x,PT10S,,"a" dog', name="text behind a quote"),
        Line(b"good30,http://x,PT10S,,a \x00 dog", name="NUL"),
        Line(b"good30,http://x,PT10S,,a \xff dog", name="not UTF-8"),
        Line(b"good30,http://x,PT10S,," + b"x" * 10_000_000, name="10 MB"),
        Line(b'good30,http://x,PT10S,,"' + b"x" * 200_000 + b'"', name="200 kB in quotes"),
        Line(b"good30,http://x,PT10S,,...", name="nothing said"),
        Line(b",http://x,PT10S,,a dog", name="no video"),
        Line(b"a\tb,http://x,PT10S,,a dog", name="control character"),
    ]
    rng.shuffle(rows)
    end, mark = rng.choice((b"\n", b"\r\n")), rng.choice((b"", b"\xef\xbb\xbf"))
    header = b"videoid,contentUrl,duration,page_dir,name"
    file = path.with_suffix(".csv")
    file.write_bytes(mark + end.join([header, *(row.content for row in rows)]) + rng.choice((b"", end)))
    return {f"line {number + 2}": row for number, row in enumerate(rows)}, webvid.listing(file)


def _cell(rng: random.Random) -> bytes:
    caption = rng.choice(CAPTIONS)
    quoted = any(mark in caption for mark in ',"') or rng.random() < 0.3
    return ('"' + caption.replace('"', '""') + '"' if quoted else caption).encode() + b" words"[: 0 if quoted else 6]


def _json_lines(path: Path, rng: random.Random) -> tuple[dict[str, Line], Listing]:
    """Questions as ClipBERT keeps them, with lines as they should not be among good ones."""

    def asked(n: int, **changed: Any) -> bytes:
        row = {"video_id": f"good{n}", "question": f"what is {n}? {rng.choice(CAPTIONS)}", "answer": "dog", "id": n}
        return json.dumps({**row, **changed}, ensure_ascii=rng.random() < 0.5).encode()

    rows = [
        *(Line(asked(n), right=True) for n in range(30)),
        *(Line(content, name=name) for name, content in REFUSED_TEXTS.items() if content),
        Line(asked(30, answer=""), name="no answer"),
        Line(asked(30, video_id=["a"]), name="a list for the video"),
        Line(asked(30, video_id="a\0b"), name="NUL in the video"),
        Line(asked(30, question=float("nan")), name="NaN"),
        Line(asked(30)[:-1] + b', "more": 1e999}', name="a number too large"),
        Line(asked(30, question=None), name="no question"),
    ]
    first, *rest = rows  # by the first line they are known from a list in brackets
    rng.shuffle(rest)
    rows = [first, *rest]
    end, mark = rng.choice((b"\n", b"\r\n")), rng.choice((b"", b"\xef\xbb\xbf"))
    file = path.with_suffix(".jsonl")
    file.write_bytes(mark + end.join(row.content for row in rows) + rng.choice((b"", end)))
    return {f"line {number + 1}": row for number, row in enumerate(rows)}, msrvtt_qa.listing(file, split="train")


def _json_object(path: Path, rng: random.Random) -> tuple[dict[str, Line], Listing]:
    """Sentences with their times as in ActivityNet Captions."""
    times = {f"good{n}": Line(b"", right=[n, n + rng.random() + 0.01]) for n in range(30)}
    bad = ([2, 1], [-1, 1], ["x", 1], [None, 1], [1], [1, 1e300], [1, True], 5, [1, [2]])
    times |= {f"bad{n}": Line(b"", name=str(value)) for n, value in enumerate(bad)}
    order = sorted(times, key=lambda _: rng.random())
    data = {
        name: {
            "duration": 99,
            "timestamps": [times[name].right or bad[int(name[3:])]],
            "sentences": [rng.choice(CAPTIONS)],
        }
        for name in order
    }
    data["bad list"] = {"duration": 9, "timestamps": [], "sentences": ["a dog"]}
    file = path.with_suffix(".json")
    file.write_text(json.dumps(data, indent=rng.choice((None, 1))))
    rows = {f"{name}, sentence 1": times[name] for name in order}
    return {**rows, "bad list": Line(b"", name="times for no sentence")}, activitynet_captions.listing(
        file, split="train"
    )


def _fuzzed(folder: Path, rng: random.Random, name: str) -> Iterator[str]:
    """What goes wrong, beyond refusals, with a small file that was changed at random."""
    kind, content, listing = rng.choice(SMALL)
    data = bytearray(content)
    for _ in range(rng.choice((1, 2, 8))):
        at, what = rng.randrange(len(data) + 1), rng.randrange(4)
        if what == 0 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif what == 1:
            del data[at : at + rng.choice((1, 10, 100))]
        elif what == 2:
            data[at:at] = rng.choice(SPANNERS)
        else:
            data[at:at] = data[at : at + rng.choice((3, 30, 300))]
    folder.mkdir(exist_ok=True)
    path = folder / f"train.{kind}"
    path.write_bytes(data)
    try:
        rows = list(listing(path, split="train").read())
        words = [(row.id, row.captions, row.labels) for row in rows if isinstance(row, Clip)]
        json.dumps(words, ensure_ascii=False).encode()
    except PrepareError as error:
        rows = []
        if path.name not in str(error):
            yield f"{name}: {error}"
    except Exception as error:  # noqa: BLE001  # whatever it is, it is the finding
        yield f"{name}: {type(error).__name__}: {error}"
        return
    places = [row.place for row in rows]
    if len(set(places)) != len(places) or not all(places):
        yield f"{name}: rows without places of their own: {places}"


SPANNERS = (
    b'"',
    b"\n",
    b"\r",
    b"\0",
    b"{",
    b"\\ud800",
    b"\xff",
    b"NaN",
    b"1e999",
    b",",
    b"-",
    b"[",
    b"\xef\xbb\xbf",
    b": ",
)
SMALL: tuple[tuple[str, bytes, Callable[..., Listing]], ...] = (
    (
        "csv",
        b"videoid,name,page_dir\n" + b"".join(b'good%d,"a dog, number %d",\n' % (n, n) for n in range(9)),
        webvid.listing,
    ),
    (
        "jsonl",
        b"".join(
            b'{"video_id": "good%d", "question": "what?", "answer": "dog", "id": %d}\n' % (n, n) for n in range(9)
        ),
        msrvtt_qa.listing,
    ),
    (
        "json",
        json.dumps({f"good{n}": {"timestamps": [[0, n + 0.5]], "sentences": ["a dog"]} for n in range(9)}).encode(),
        activitynet_captions.listing,
    ),
)
"""Good files, by kind and reader."""
