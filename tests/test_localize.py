"""How what was found in a video is told.  That it is found is shown in tasks/test_localization.py."""

from pathlib import Path

import pytest

from svilm.localize import Timeline
from svilm.types import Segment


@pytest.mark.parametrize(
    ("start", "end", "bar"),
    [
        (0.0, 100.0, "█" * 40),
        (50.0, 75.0, "·" * 20 + "█" * 10 + "·" * 10),
        (0.0, 0.1, "█" + "·" * 39),
        (99.5, 100.0, "·" * 39 + "█"),  # the very end is no less to be seen
    ],
)
def test_every_segment_has_a_bar_along_the_video(start, end, bar):
    found = Timeline(Path("a.mp4"), 100.0, ((Segment(start, end, "run"), 0.9),))
    assert f"  {bar}  run" in found.text().splitlines()[1]


@pytest.mark.parametrize(
    ("duration", "head", "line"),
    [
        (0.125, "0.125 s, 1 detections", "   0.031    0.062 s"),
        (2.0, "2.00 s, 1 detections", "    0.50     1.00 s"),
        (60.0, "60.0 s, 1 detections", "    15.0     30.0 s"),
    ],
)
def test_times_in_short_videos_have_more_digits(duration, head, line):
    found = Timeline(Path("a.mp4"), duration, ((Segment(duration / 4, duration / 2, "run"), 0.9),))
    lines = found.text().splitlines()
    assert lines[0] == f"a.mp4: {head}" and lines[1].startswith(line) and len(lines) == 2


def test_a_video_shorter_than_a_snippet_is_noted():
    rows = ((Segment(0.0, 0.1, "run"), 0.9),)
    told = Timeline(Path("a.mp4"), 0.9, rows, 1.0).text()
    assert "note: the video is shorter than one snippet of training (1 s)" in told
    assert "note" not in Timeline(Path("a.mp4"), 1.0, rows, 1.0).text()
