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
