"""Pictures: what must be in them, not how they look; looking is done by people."""

import base64
import io
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from svilm import draw


class TestChosenFrames:
    def test_all_frames_when_there_are_few(self) -> None:
        assert draw.evenly(5).tolist() == [0, 1, 2, 3, 4]

    @settings(max_examples=60, deadline=None)
    @given(st.integers(1, 80), st.data())
    def test_every_stretch_between_seams_is_shown(self, count: int, data: st.DataObject) -> None:
        start = data.draw(st.integers(0, count - 1))
        stop = data.draw(st.integers(start + 1, count))
        own = np.zeros(count, dtype=bool)
        own[start:stop] = True
        chosen = draw.chosen_frames(own)
        assert len(chosen) == min(8, count)
        assert (np.diff(chosen) > 0).all() and chosen[0] >= 0 and chosen[-1] < count
        stretches = np.cumsum(np.diff(own, prepend=own[0]) != 0)
        assert set(stretches[chosen]) == set(stretches)


class TestCharts:
    def test_svg_takes_the_colour_of_the_page_and_says_what_it_is(self) -> None:
        line = draw.Line([1, 2, 3], [3.0, 2.0, 1.0])
        text = draw.as_svg(draw.curves({"loss": line}, level=2.5, bottom=0.0), 'loss "total" <now>')
        root = ElementTree.fromstring(text)
        assert root.attrib["aria-label"] == 'loss "total" <now>' and root.attrib["role"] == "img"
        assert "viewBox" in root.attrib and "width" not in root.attrib
        assert "currentColor" in text and draw.INK not in text

    def test_svg_asks_for_nothing_and_repeats_itself(self) -> None:
        def make() -> str:
            return draw.as_svg(draw.curves({"a": draw.Line([1, 2], [1.0, 2.0])}), "a")

        assert make() == make()
        assert "href=" not in make().replace('xlink:href="#', "")

    def test_two_lines_are_named(self) -> None:
        figure = draw.curves({"first": draw.Line([1, 2], [1, 2]), "second": draw.Line([1, 2], [2, 1])})
        text = draw.as_svg(figure, "both")
        assert "first" in text and "second" in text

    def test_one_point_is_visible(self) -> None:
        (_, dot) = draw.curves({"a": draw.Line([5], [1.0])}).axes[0].lines
        assert dot.get_marker() == "o"

    def test_long_lines_are_averaged_not_cut(self) -> None:
        steps = np.arange(10_000.0)
        thin = draw.thinned(draw.Line(steps.tolist(), (2 * steps).tolist()))
        assert len(thin.steps) == draw.MOST_POINTS
        assert np.mean(thin.steps) == pytest.approx(steps.mean(), rel=0.01)
        assert np.allclose(np.asarray(thin.values), 2 * np.asarray(thin.steps))

    def test_matrix_has_scene_lines_and_common_colours(self) -> None:
        matrix = np.eye(4)
        thumbnails = np.zeros((4, 8, 8, 3), dtype=np.uint8)
        figure = draw.similarity_matrix(matrix, np.array([0, 0, 1, 1]), thumbnails, (0.2, 1.0))
        main = figure.axes[0]
        assert main.images[0].get_clim() == (0.2, 1.0)
        assert {float(line.get_xdata()[0]) for line in main.lines if len(set(line.get_xdata())) == 1} == {1.5}
        assert len(figure.axes[1].images) == len(figure.axes[2].images) == 4
        assert [text.get_text() for text in main.texts[:2]] == ["1.00", "0.00"]

    @pytest.mark.parametrize("count", [2, 4, 9, 16, 40])
    def test_thumbnails_stay_beside_their_moments(self, count: int) -> None:
        thumbnails = np.zeros((count, 8, 8, 3), dtype=np.uint8)
        scenes = np.zeros(count, dtype=np.int64)
        figure = draw.similarity_matrix(np.eye(count), scenes, thumbnails, (0.0, 1.0))
        extents = np.array([image.get_extent()[:2] for image in figure.axes[1].images])
        assert extents.min() >= -0.5 and extents.max() <= count - 0.5
        assert (extents[1:, 0] >= extents[:-1, 1]).all() and len(extents) >= min(count, 5)

    def test_large_matrices_have_no_numbers(self) -> None:
        thumbnails = np.zeros((16, 8, 8, 3), dtype=np.uint8)
        figure = draw.similarity_matrix(np.eye(16), np.zeros(16, dtype=np.int64), thumbnails, (0.0, 1.0))
        assert not figure.axes[0].texts


class TestPixels:
    def test_heat_shows_only_where_it_is_hot(self) -> None:
        frames = np.full((1, 4, 4, 3), 100, dtype=np.uint8)
        heat = np.zeros((1, 4, 4))
        heat[0, 1, 1] = 1.0
        shown = draw.with_heat(frames, heat)
        cold = shown[0, 0, 0]
        assert cold[0] == cold[1] == cold[2]
        assert int(shown[0, 1, 1, 0]) > int(shown[0, 1, 1, 2]) + 40
        assert (frames == 100).all()

    def test_boxes_are_outlines_of_their_own_frame(self) -> None:
        frames = np.zeros((2, 11, 11, 3), dtype=np.uint8)
        shown = draw.with_boxes(frames, [(0.2, 0.4, 0.6, 0.8), None])
        assert (shown[0, [4, 8], 2:7] == 255).all() and (shown[0, 4:9, [2, 6]] == 255).all()
        assert (shown[0, 5:8, 3:6] == 0).all() and (shown[1] == 0).all()
        assert shown[0].sum() == 255 * 3 * (2 * 5 + 2 * 3)

    def test_resized_keeps_the_shape_of_the_picture(self) -> None:
        assert draw.resized(np.zeros((3, 20, 40, 3), dtype=np.uint8), 10).shape == (3, 5, 10, 3)

    def test_strip_keeps_the_order(self) -> None:
        frames = np.arange(3, dtype=np.uint8)[:, None, None, None].repeat(2, 1).repeat(2, 2).repeat(3, 3)
        assert draw.strip(frames)[0, :, 0].tolist() == [0, 0, 1, 1, 2, 2]

    def test_data_uri_holds_the_picture(self) -> None:
        pixels = np.full((6, 5, 3), (200, 30, 40), dtype=np.uint8)
        head, _, data = draw.as_data_uri(pixels).partition(",")
        assert head == "data:image/webp;base64"
        with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
            assert picture.size == (5, 6)
            assert np.abs(np.asarray(picture.convert("RGB")).astype(int) - (200, 30, 40)).max() < 12


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 8)), max_size=12))
def test_bars_of_one_lane_never_meet(rows):
    bars = [draw.Bar(float(start), float(start + length), "x") for start, length in rows]
    lanes = draw._lanes(bars)
    assert len(lanes) == len(bars)
    for i, one in enumerate(bars):
        for j, other in enumerate(bars[:i]):
            assert lanes[i] != lanes[j] or one.end <= other.start or other.end <= one.start
    assert set(lanes) == set(range(max(lanes, default=-1) + 1))  # no lane is left empty


def test_a_timeline_shows_every_bar_where_it_is():
    rows = {
        "truth": [draw.Bar(0.0, 30.0, "long jump"), draw.Bar(40.0, 41.0, "sit")],
        "found": [draw.Bar(1.0, 29.0, "long jump", 0.5), draw.Bar(10.0, 60.0, "sit", 0.25)],
        "nobody": [],
    }
    figure = draw.timeline(rows, 60.0, np.zeros((4, 9, 16, 3), dtype=np.uint8))
    axes, above = figure.axes
    bars = {(patch.get_x(), patch.get_width()) for patch in axes.patches}
    assert bars == {(0.0, 30.0), (40.0, 1.0), (1.0, 28.0), (10.0, 50.0)}
    colours = [patch.get_facecolor() for patch in axes.patches]
    assert colours[0] == colours[2] != colours[1] == colours[3]
    texts = [text.get_text() for text in axes.texts]
    assert {"truth", "found", "nobody", "long jump", "long jump 0.50", "sit 0.25"} <= set(texts)
    assert "sit" not in texts  # no room for it in one second
    assert axes.get_xlim() == (0.0, 60.0) and above.images
    assert len(draw.timeline(rows, 60.0).axes) == 1
