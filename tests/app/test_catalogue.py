"""Names, folders and ideas of an index."""

import itertools
from pathlib import Path

import pytest
from fake_index import FakeIndex

from svilm.app.catalogue import COMMON, MOST_POINTS, ideas_of_model, ideas_of_names, points
from svilm.search.records import Filter, Hit, Moment


@pytest.mark.parametrize(
    ("name", "idea"),
    [
        ("trips/two_dogs-running.mp4", "two dogs running"),
        ("birthdayCake.MOV", "birthday cake"),
        ("pancake.mkv", "pancake"),
        ("VID_20240101_123456.mp4", None),
        ("IMG_1234.mov", None),
        ("video1000.mp4", None),
        ("clip.mp4", None),
        ("dQw4w9WgXcQ.mp4", None),
        ("kočka_na_stole.mp4", "kočka stole"),
    ],
)
def test_ideas_of_names(name: str, idea: str | None) -> None:
    assert ideas_of_names([name]) == ([idea] if idea else [])


def test_few_of_many_ideas() -> None:
    names = [
        f"folder/{first}{second} thing.mp4" for first in ("red", "blue", "green") for second in ("moon", "sun", "sea")
    ]
    assert len(ideas_of_names(names * 100)) == 6


def test_ideas_of_the_model_are_those_that_stand_out(drawn: Path) -> None:
    class Knowing(FakeIndex):
        def search(self, query: str, k: int = 10, where: Filter = Filter()) -> list[Hit]:  # noqa: B008
            return [Hit(1, 0.6 if "circle" in query else 0.58 if "star" in query else 0.4, self.moments[0])]

    assert ideas_of_model(Knowing(drawn)) == ["a red circle", "a yellow star"]
    assert len(COMMON) == len(set(COMMON))


def test_points_of_long_time_lines() -> None:
    timeline = [(Moment("v", float(n), n + 1.0), n / 1000) for n in range(1000)]
    short = points(timeline)
    assert len(short) <= MOST_POINTS
    assert (short[0][0], short[-1][1], short[-1][2]) == (0.0, 1000.0, 0.999)
    assert all(one[1] == other[0] for one, other in itertools.pairwise(short))
    assert points(timeline[:3]) == [(0.0, 1.0, 0.0), (1.0, 2.0, 0.001), (2.0, 3.0, 0.002)]
    assert points([]) == []
