"""Names of classes into words, as UCF101, HMDB51, Kinetics and ActivityNet write them."""

import pytest

from svilm.data.class_names import readable


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ApplyEyeMakeup", "apply eye makeup"),
        ("TaiChi", "tai chi"),
        ("BasketballDunk", "basketball dunk"),
        ("TVShow", "tv show"),
        ("BMX", "bmx"),
        ("brush_hair", "brush hair"),
        ("Watching_YouTube", "watching youtube"),
        ("watching YouTube", "watching youtube"),
        ("massaging person's head", "massaging person's head"),
        ("Rock-paper-scissors", "rock-paper-scissors"),
        ("talk to (e.g., self, a person, a group)", "talk to (e.g., self, a person, a group)"),
        ("pushup", "pushup"),
        ("_", "_"),
    ],
)
def test_names_become_words(name: str, words: str) -> None:
    assert readable(name) == words
