"""What the page asks, and what it is answered."""

import base64
import io
import shutil
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from fake_index import FakeIndex
from PIL import Image
from served import get, serving

from svilm.app import pictures
from svilm.app.server import MOST_RESULTS, create_app
from svilm.data.decode import index_video
from svilm.data.sample import Sampling
from svilm.search.examples import read_example
from svilm.search.records import Moment


def _ids(port: int) -> dict[str, str]:
    return {each["video"]: each["id"] for each in get(port, "/api/index").json["starts"]}


def _row(film: dict[str, Any]) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(film["row"].partition(",")[2])))


def test_about_the_index(port: int, index: FakeIndex) -> None:
    said = get(port, "/api/index").json
    assert (said["moments"], said["videos"], said["failures"]) == (len(index), 5, 1)
    assert said["folders"] == [{"folder": "shapes", "videos": 2}, {"folder": "shapes/more", "videos": 1}]
    assert said["model"] == "made-up"  # without the folders of this machine
    [failed] = said["failed"]
    assert failed["video"] == "notes.mp4"
    assert str(index.root) not in failed["reason"]
    assert set(said["ideas"]) == {"long", "old", "red circle", "two squares"}
    assert {"id", "video", "duration", "width", "height"} == set(said["starts"][0])


def test_the_page_and_its_files(port: int) -> None:
    assert b"Find a moment" in get(port, "/").body
    kinds = {"/app.js": "text/javascript", "/style.css": "text/css", "/icon.svg": "image/svg+xml", "/": "text/html"}
    for path, kind in kinds.items():
        answer = get(port, path)
        assert answer.status == 200
        assert answer.headers["content-type"].startswith(kind)
    for path in ("/index.html", "/docs", "/openapi.json", "/server.py", "/api", "/api/"):
        assert get(port, path).status == 404


def test_search(port: int, index: FakeIndex) -> None:
    said = get(port, "/api/search?q=%20a%20red%20circle%20%20turns&k=3").json
    assert said["query"] == "a red circle turns"
    assert said["nouns"] == ["red circle"]
    assert said["more"] is True
    assert [hit["rank"] for hit in said["hits"]] == [1, 2, 3]
    best = index.search("a red circle turns", 3)
    shown = [(hit["video"], hit["start"], hit["end"]) for hit in said["hits"]]
    assert shown == [(hit.moment.video, hit.moment.start, hit.moment.end) for hit in best]
    everything = get(port, f"/api/search?q=a&k={MOST_RESULTS}").json
    assert (len(everything["hits"]), everything["more"]) == (len(index), False)


def test_filters(port: int) -> None:
    hits = get(port, "/api/search?q=a&k=50&folder=shapes/more").json["hits"]
    assert {hit["video"] for hit in hits} == {"shapes/more/two-squares.mp4"}
    hits = get(port, "/api/search?q=a&k=50&shortest=1.5&longest=2.5").json["hits"]
    assert hits
    assert all(1.5 <= hit["end"] - hit["start"] <= 2.5 for hit in hits)
    assert get(port, "/api/search?q=a&folder=nowhere").json["hits"] == []


def test_time_lines(port: int, index: FakeIndex) -> None:
    ids = _ids(port)
    said = get(port, f"/api/timelines?q=a&video={ids['long.mp4']}&video={ids['old.avi']}").json
    assert set(said) == {ids["long.mp4"], ids["old.avi"]}
    expected = index.timeline("a", "long.mp4")
    assert [point[:2] for point in said[ids["long.mp4"]]] == [[moment.start, moment.end] for moment, _ in expected]
    assert get(port, "/api/timelines?q=a").status == 422
    wrong = get(port, f"/api/timelines?q=a&video={ids['long.mp4']}&video=1")
    assert wrong.status == 422 and wrong.json["error"].startswith("video '1': String should match")
    assert wrong.json["remedy"] == "change video in the address"
    assert "1" * 41 not in get(port, "/api/timelines?q=a&video=" + "1" * 41).json["error"]
    assert get(port, "/api/timelines?q=a&video=" + "0" * 18).status == 404
    assert get(port, "/api/timelines?q=a" + f"&video={ids['old.avi']}" * 25).status == 422


def test_heat_lies_where_the_model_looked(port: int) -> None:
    path = f"/api/heat?video={_ids(port)['video7.mp4']}&start=0&end=2&noun=red%20circle"
    film = get(port, path).json
    assert film["box"] == [0.25, 0.0, 0.75, 1.0]
    assert film["seconds"] == pytest.approx(np.arange(8) / 4)
    row = _row(film)
    assert row.mode == "RGBA"
    assert row.size == (8 * 32, 32)
    alpha = np.asarray(row)[..., 3].reshape(32, 8, 32)
    hottest = alpha.transpose(1, 0, 2).reshape(8, -1).argmax(axis=1) % 32
    assert hottest[0] < 10
    assert hottest[-1] > 22  # it moves to the right
    assert alpha.min() < 10


@pytest.mark.parametrize("noun", ["%20", "%00", "%20%09"])
def test_a_noun_without_letters_is_refused(port: int, noun: str) -> None:
    answer = get(port, f"/api/heat?video={_ids(port)['video7.mp4']}&start=0&end=2&noun={noun}")
    assert (answer.status, answer.json["error"]) == (422, "the noun is empty")


def test_a_model_without_groups_says_so(drawn: Path) -> None:
    with serving(create_app(FakeIndex(drawn, can_ground=False))) as port:
        said = get(port, "/api/index").json
        assert said["canGround"] is False
        answer = get(port, f"/api/heat?video={said['starts'][0]['id']}&start=0&end=1&noun=circle")
    assert answer.status == 404
    assert "made-up has no group tokens" in answer.json["error"]
    assert "/home/" not in answer.json["error"]
    assert answer.json["remedy"]


@pytest.mark.parametrize("name", ["video7.mp4", "old.avi"])
def test_posters_and_films(port: int, name: str) -> None:
    video = _ids(port)[name]
    answer = get(port, f"/poster/{video}?at=1.2")
    assert answer.headers["content-type"] == "image/webp"
    assert Image.open(io.BytesIO(answer.body)).size == (64, 64)
    film = get(port, f"/api/film?video={video}&start=0.5&end=2.5").json
    assert film["seconds"] == pytest.approx(0.5 + np.arange(0.125, 2, 0.25))
    row = np.asarray(_row(film).convert("RGB"), dtype=float)
    assert row.shape == (64, 8 * 64, 3)
    assert np.abs(row[:, :64] - row[:, -64:]).mean() > 1  # something moves


def test_a_poster_shows_the_frame_of_its_second(port: int, index: FakeIndex) -> None:
    from svilm.app.pictures import _exact_frames

    video = _ids(port)["long.mp4"]
    for second in (0.0, 4.55, 9.9, 500.0):
        shown = np.asarray(Image.open(io.BytesIO(get(port, f"/poster/{video}?at={second}").body)), dtype=float)
        exact = _exact_frames(index.root / "long.mp4", [second], 64)[0].astype(float)
        assert np.abs(shown - exact).mean() < 6, second


def test_a_poster_is_the_frame_that_comes_on_screen_at_its_second(tmp_path: Path) -> None:
    path = tmp_path / "levels.mp4"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mpeg4", rate=Fraction(30000, 1001))
        stream.width = stream.height = 64
        stream.pix_fmt, stream.bit_rate = "yuv420p", 10**6
        for number in range(60):
            grey = np.full((64, 64, 3), 255 * (number % 2), np.uint8)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
        file.mux(stream.encode(None))
    for number, second in enumerate(index_video(path).seconds):
        shown = np.asarray(Image.open(io.BytesIO(pictures.poster(path, float(second)))))
        assert (shown.mean() > 128) == bool(number % 2), (number, second)


def test_like_a_moment(port: int, index: FakeIndex) -> None:
    video = _ids(port)["long.mp4"]
    said = get(port, f"/api/like?video={video}&start=1&end=3&k=2").json
    assert said["like"]["video"] == "long.mp4"
    assert len(said["hits"]) == 2
    assert index.asked[-1] == f"like {index.root / 'long.mp4'} {{'start': 1.0, 'end': 3.0}}"
    assert set(said["timelines"]) == {hit["id"] for hit in said["hits"]}
    scores = {start: score for start, _, score in said["timelines"][said["hits"][0]["id"]]}
    assert scores[said["hits"][0]["start"]] == said["hits"][0]["score"]


@pytest.mark.parametrize(("first", "last"), [(-1.0, 0.8), (0.2, 0.4)])
def test_a_stretch_behind_the_end_is_no_moment(drawn: Path, first: float, last: float) -> None:
    class Reading(FakeIndex):
        def encode_like(self, example: Any, **span: Any) -> Any:
            read_example(example, Sampling(num_frames=2, size=16), **span)
            return super().encode_like(example, **span)

    with serving(create_app(Reading(drawn))) as port:
        [video] = [each for each in get(port, "/api/index").json["starts"] if each["video"] == "long.mp4"]
        start, end = video["duration"] + first, video["duration"] + last
        answer = get(port, f"/api/like?video={video['id']}&start={start}&end={end}")
        assert answer.status == 422
        assert "does not lie in the video, which lasts 10.00 s" in answer.json["error"]
        assert "within the video" in answer.json["remedy"]
        assert str(drawn) not in answer.body.decode()


def test_like_a_picture(port: int, index: FakeIndex) -> None:
    out = io.BytesIO()
    Image.new("P", (1000, 500)).save(out, format="png")
    answer = get(port, "/api/picture?k=2", {"Content-Type": "image/png"}, method="POST", body=out.getvalue())
    assert len(answer.json["hits"]) == 2 and answer.json["timelines"]
    assert index.asked[-1] == "like (1, 500, 1000, 3) {}"


def test_a_picture_is_searched_with_as_it_is_seen(port: int, index: FakeIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[np.ndarray] = []
    monkeypatch.setattr(index, "encode_like", lambda example: given.append(example) or np.ones(1))

    def send(picture: Image.Image, kind: str = "png", **options: Any) -> np.ndarray:
        out = io.BytesIO()
        picture.save(out, format=kind, **options)
        answer = get(port, "/api/picture", {"Content-Type": f"image/{kind}"}, method="POST", body=out.getvalue())
        assert answer.status == 200
        return given[-1]

    turned = Image.Exif()
    turned[0x0112] = 6
    assert send(Image.new("RGB", (2000, 1400), "red"), "jpeg", exif=turned).shape == (1, 914, 640, 3)
    assert send(Image.new("RGB", (4000, 12), "red")).shape == (1, 12, 4000, 3)
    assert (send(Image.fromarray(np.full((8, 8), 128 * 257, np.uint16))) == 128).all()
    assert (send(Image.new("RGBA", (8, 8), (0, 0, 0, 0))) == 255).all()


def _state(port: int) -> str:
    for _ in range(200):
        state = get(port, "/api/index").json["modelState"]
        if state != "loading":
            return state
        time.sleep(0.02)
    return "loading"


def test_the_model_is_loaded_while_the_page_is_there_already(drawn: Path) -> None:
    index = FakeIndex(drawn, seconds=0.2)
    with serving(create_app(index)) as port:
        assert get(port, "/").status == 200
        assert _state(port) == "ready"


def test_a_model_that_cannot_be_loaded(drawn: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(FakeIndex):
        def search(self, *asked: Any, **more: Any) -> list:
            raise ValueError(f"no model in {self.root}")

    with serving(create_app(Broken(drawn))) as port:
        assert _state(port) == "failed"
        answer = get(port, "/api/search?q=a")
        assert answer.status == 500
        assert str(drawn) not in answer.body.decode()
    assert "no model in" in caplog.text


def test_what_is_indexed_while_the_page_is_open(drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "videos"
    shutil.copytree(drawn, folder)
    monkeypatch.setattr("svilm.app.server.LOOK_SECONDS", 0.02)
    index = FakeIndex(folder)
    with serving(create_app(index)) as port:
        before, version = _ids(port), get(port, "/api/index").json["version"]
        old = get(port, f"/poster/{before['video7.mp4']}?at=0").body
        (folder / "video7.mp4").unlink()
        shutil.copy(folder / "shapes" / "red_circle.mp4", folder / "video7.mp4")
        (folder / "long.mp4").rename(folder / "longer.mp4")
        index.stale = True
        deadline = time.monotonic() + 20
        while (after := _ids(port)).keys() == before.keys():
            assert time.monotonic() < deadline, "the page did not notice"
            time.sleep(0.02)
        assert after["old.avi"] == before["old.avi"]
        assert after["video7.mp4"] != before["video7.mp4"]  # no browser shows pictures of what was there before
        assert get(port, f"/poster/{before['video7.mp4']}?at=0").status == 404
        new = get(port, f"/poster/{after['video7.mp4']}?at=0").body
        assert new == get(port, f"/poster/{after['shapes/red_circle.mp4']}?at=0").body != old
        found = {hit["video"] for hit in get(port, f"/api/search?q=a&k={MOST_RESULTS}").json["hits"]}
        assert found == set(after)
        assert get(port, "/api/index").json["version"] != version


def test_answers_tell_of_which_reading_of_the_index_they_are(port: int) -> None:
    version = get(port, "/api/index").json["version"]
    video = _ids(port)["long.mp4"]
    for path in ("/api/index", "/api/search?q=a", f"/api/like?video={video}&start=1&end=3"):
        assert get(port, path).json["version"] == version


def test_a_hit_that_the_page_does_not_know_yet_is_left_out(drawn: Path) -> None:
    index = FakeIndex(drawn)
    with serving(create_app(index)) as port:
        index.moments.append(Moment("new.mp4", 0.0, 1.0))
        hits = get(port, f"/api/search?q=a&k={MOST_RESULTS}").json["hits"]
    assert len(hits) == len(index) - 1


def test_an_index_that_cannot_be_read_again_is_told_once(
    drawn: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("svilm.app.server.LOOK_SECONDS", 0.01)
    index, tries = FakeIndex(drawn), []

    def refresh() -> bool:
        tries.append(1)
        raise ValueError("another index")

    monkeypatch.setattr(index, "refresh", refresh)
    with serving(create_app(index)) as port:
        deadline = time.monotonic() + 20
        while len(tries) < 5:
            assert time.monotonic() < deadline, "it does not look again"
            time.sleep(0.02)
        assert get(port, "/api/search?q=a&k=1").status == 200
    assert [record.getMessage() for record in caplog.records].count(
        "the index cannot be read again: another index"
    ) == 1


def test_ideas_that_are_given(drawn: Path) -> None:
    with serving(create_app(FakeIndex(drawn), ideas=["a yellow star"])) as port:
        assert get(port, "/api/index").json["ideas"][0] == "a yellow star"
