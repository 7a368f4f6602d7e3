import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from svilm.models.roi import roi_align

REFERENCE = Path(__file__).parent / "data" / "roi_align.npz"


def twin(maps, boxes, size, ratio, aligned):
    """RoIAlign sample by sample, from its rules."""
    batch, rows, columns, width = maps.shape
    out = torch.zeros(batch, boxes.shape[1], size, size, width, dtype=maps.dtype)
    for b in range(batch):
        for k, box in enumerate(boxes[b].tolist()):
            axes = [
                samples(begin * length, end * length, size, ratio, aligned)
                for begin, end, length in ((box[1], box[3], rows), (box[0], box[2], columns))
            ]
            for i in range(size):
                for j in range(size):
                    points = [(y, x) for y in axes[0][i] for x in axes[1][j]]
                    for y, x in points:
                        out[b, k, i, j] += bilinear(maps[b], y, x) / len(points)
    return out


def samples(begin, end, size, ratio, aligned):
    """Where the samples of each output cell lie along an axis, in map cells."""
    extent = end - begin
    if aligned:
        begin -= 0.5
    else:
        extent = max(extent, 1.0)
    step = extent / size
    number = ratio or max(math.ceil(step), 0)
    return [[begin + cell * step + (i + 0.5) * step / number for i in range(number)] for cell in range(size)]


def bilinear(plane, y, x):
    """Value between the four cells around a point; zero more than a cell outside."""
    rows, columns, width = plane.shape
    if not (-1 <= y <= rows and -1 <= x <= columns):
        return torch.zeros(width, dtype=plane.dtype)
    y, x = min(max(y, 0.0), rows - 1.0), min(max(x, 0.0), columns - 1.0)
    top, left = int(y), int(x)
    bottom, right = min(top + 1, rows - 1), min(left + 1, columns - 1)
    upper = plane[top, left] * (1 - x + left) + plane[top, right] * (x - left)
    lower = plane[bottom, left] * (1 - x + left) + plane[bottom, right] * (x - left)
    return upper * (1 - y + top) + lower * (y - top)


def random_boxes(batch, boxes, low=-0.4, high=1.4, seed=0):
    g = torch.Generator().manual_seed(seed)
    corners = low + (high - low) * torch.rand(batch, boxes, 2, 2, dtype=torch.float64, generator=g)
    return torch.cat([corners.amin(dim=2), corners.amax(dim=2)], dim=-1)


@settings(max_examples=40)
@given(
    st.integers(1, 6),
    st.integers(1, 6),
    st.integers(1, 4),
    st.integers(0, 3),
    st.booleans(),
    st.lists(st.lists(st.floats(-2, 3), min_size=4, max_size=4), min_size=1, max_size=3),
)
def test_equals_the_rules_sample_by_sample(rows, columns, size, ratio, aligned, corners):
    """Any box at all: inside, across, outside, without area, its corners exchanged."""
    for first, length in ((1, rows), (0, columns)):  # on the edge, where samples cease to count, rounding decides
        for box in corners:
            points = samples(box[first] * length, box[first + 2] * length, size, ratio, aligned)
            assume(all(min(abs(at + 1), abs(at - length)) > 1e-9 for cell in points for at in cell))
    maps = torch.randn(1, rows, columns, 2, dtype=torch.float64)
    boxes = torch.tensor(corners, dtype=torch.float64)[None]
    found = roi_align(maps, boxes, size, sampling_ratio=ratio, aligned=aligned)
    torch.testing.assert_close(found, twin(maps, boxes, size, ratio, aligned), rtol=0, atol=1e-9)


def reference_cases():
    with np.load(REFERENCE) as stored:
        return [name for name in stored.files if name.count("/") == 3]


@pytest.mark.parametrize("name", reference_cases())
def test_equals_onnx_runtime(name):
    kind, size, ratio, aligned = name.split("/")
    with np.load(REFERENCE) as stored:
        maps, boxes, expected = (torch.from_numpy(stored[each]) for each in (f"{kind}/maps", f"{kind}/boxes", name))
    assert expected.abs().sum() > 0.1
    found = roi_align(maps, boxes, int(size), sampling_ratio=int(ratio), aligned=aligned == "aligned")
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)


def test_the_reference_holds_every_kind_of_box():
    assert len(reference_cases()) == 28
    with np.load(REFERENCE) as stored:
        boxes = {kind: stored[f"{kind}/boxes"] for kind in ("inside", "across", "outside", "exact", "thin")}
    assert ((boxes["inside"] >= 0) & (boxes["inside"] <= 1)).all()
    assert ((boxes["across"] < 0) | (boxes["across"] > 1)).any(axis=-1).sum() > 8
    assert ((boxes["outside"][..., :2] > 1) | (boxes["outside"][..., 2:] < 0)).any()
    assert (boxes["thin"][0, 0, :2] == boxes["thin"][0, 0, 2:]).all()


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("ratio", [0, 2])
def test_gradients_of_maps_and_boxes(ratio, aligned):
    maps = torch.randn(2, 4, 5, 2, dtype=torch.float64, requires_grad=True)
    boxes = random_boxes(2, 3).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda m, b: roi_align(m, b, 3, sampling_ratio=ratio, aligned=aligned), (maps, boxes), eps=1e-7, atol=1e-5
    )


def test_a_constant_map_stays_constant_inside():
    found = roi_align(torch.full((1, 5, 6, 3), 2.5), torch.tensor([[[0.1, 0.2, 0.9, 0.7]]]), 7)
    torch.testing.assert_close(found, torch.full((1, 1, 7, 7, 3), 2.5))


def test_the_whole_picture_at_the_size_of_the_map_is_the_map():
    maps = torch.randn(2, 6, 6, 3)
    whole = torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(2, 1, 4)
    torch.testing.assert_close(roi_align(maps, whole, 6)[:, 0], maps)


def test_x_runs_along_columns_and_each_picture_has_its_own_boxes():
    maps = torch.zeros(2, 4, 8, 1)
    maps[0, :, 6] = 1.0
    maps[1, 1] = 1.0
    boxes = torch.tensor([[[0.75, 0.0, 0.875, 1.0]], [[0.0, 0.25, 1.0, 0.5]]])
    assert torch.equal(roi_align(maps, boxes, 1, sampling_ratio=1)[:, 0, 0, 0, 0], torch.ones(2))
    elsewhere = torch.tensor([[[0.25, 0.0, 0.375, 1.0]], [[0.0, 0.625, 1.0, 0.875]]])
    assert torch.equal(roi_align(maps, elsewhere, 1, sampling_ratio=1)[:, 0, 0, 0, 0], torch.zeros(2))


def test_bf16_keeps_its_type_and_fp32_weights():
    maps, boxes = torch.randn(1, 14, 14, 4), random_boxes(1, 5).float()
    half = roi_align(maps.bfloat16(), boxes, 7)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), roi_align(maps, boxes, 7), rtol=0.02, atol=0.03)


def test_no_boxes_give_no_features():
    assert roi_align(torch.randn(2, 4, 4, 3), torch.zeros(2, 0, 4), 7).shape == (2, 0, 7, 7, 3)


@pytest.mark.parametrize("wrong", [math.nan, math.inf, 224.0])
def test_numbers_that_are_no_shares_are_refused(wrong):
    boxes = torch.tensor([[[0.0, 0.0, wrong, 1.0]]])
    with pytest.raises(ValueError, match="boxes must be shares of the picture"):
        roi_align(torch.randn(1, 4, 4, 3), boxes, 7)
