import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from svilm.metrics.proposals import ProposalConfig, overlaps, proposals
from svilm.models.gtad import GTAD, GTADConfig, GTADOutput, valid_anchors
from svilm.models.gtad_loss import GTADLossConfig, GTADTargets, gtad_loss, gtad_targets, relative_segments

TERMS = ["start", "end", "regression", "classification"]


def config(**options) -> GTADConfig:
    return GTADConfig(**{"steps": 10, "longest": 8, **options})


def shared(a, b, c, d):
    return max(0.0, min(b, d) - max(a, c))


def scalar_targets(segments, c):
    """Start, end and overlap of a video, number by number in Python's floats."""
    T = c.steps
    start, end = [0.0] * T, [0.0] * T
    overlap = [[0.0] * T for _ in range(c.longest)]
    for a, b in segments:
        for i in range(T):
            low, high = (i + c.node_window[0]) / T, (i + c.node_window[1]) / T
            start[i] = max(start[i], shared(low, high, a - 1.5 / T, a + 1.5 / T) / (high - low))
            end[i] = max(end[i], shared(low, high, b - 1.5 / T, b + 1.5 / T) / (high - low))
            for d in range(c.longest):
                if i + d + 1 <= T:
                    both = shared(i / T, (i + d + 1) / T, a, b)
                    overlap[d][i] = max(overlap[d][i], both / ((d + 1) / T + b - a - both))
    return start, end, overlap


def segment(place: tuple[float, float]) -> tuple[float, float]:
    return place[0], min(1.0, sum(place))


segments = st.tuples(st.floats(0, 0.98), st.floats(0.01, 1)).map(segment)
segments_of_videos = st.lists(st.lists(segments, max_size=4), min_size=1, max_size=3)


@settings(max_examples=30)
@given(segments_of_videos, st.sampled_from([(-0.5, 1.5), (-0.5, 0.5), (0.0, 1.0)]))
def test_targets_equal_the_scalar_version(videos, window):
    c = config(node_window=window)
    ours = gtad_targets([torch.tensor(each, dtype=torch.float64).view(-1, 2) for each in videos], c)
    expected = [scalar_targets(each, c) for each in videos]
    for values, parts in zip((ours.start, ours.end, ours.overlap), zip(*expected, strict=True), strict=True):
        np.testing.assert_allclose(values.numpy(), np.array(parts), atol=1e-7)


def test_targets_by_hand():
    """Steps 2 to 5 of 10: the anchor itself overlaps fully, one that is a step longer by 3/4."""
    targets = gtad_targets([torch.tensor([[0.2, 0.5]])], config())
    torch.testing.assert_close(targets.overlap[0, 2, 2], torch.tensor(1.0))
    torch.testing.assert_close(targets.overlap[0, 3, 2], torch.tensor(0.75))
    assert targets.overlap[0, 2, 5] == 0
    # node i stands for [i - 0.5, i + 1.5], the start lies in [0.5, 3.5]
    torch.testing.assert_close(targets.start[0, :5], torch.tensor([0.5, 1.0, 1.0, 0.5, 0.0]))
    torch.testing.assert_close(targets.end[0, 2:8], torch.tensor([0.0, 0.5, 1.0, 1.0, 0.5, 0.0])[:6])


def scalar_loss(output, targets, weights, draws):
    """The published formulas, anchor by anchor, with the thresholds as fp32 has them."""
    share_high, share_middle, share_positive = (float(np.float32(share)) for share in (0.7, 0.3, 0.9))

    def entropy(scores, positive, smoothing):
        pairs = list(zip(scores, positive, strict=True))
        sides = ([-math.log(p) for p, yes in pairs if yes], [-math.log(1 - p) for p, yes in pairs if not yes])
        return sum(0.5 * sum(side) / max(len(side) + smoothing, 1) for side in sides)

    cells = [
        (b, d, s)
        for b in range(targets.overlap.shape[0])
        for d in range(targets.overlap.shape[1])
        for s in range(targets.overlap.shape[2])
        if s + d + 1 <= targets.overlap.shape[2]
    ]
    truth = [float(targets.overlap[cell]) for cell in cells]
    regressed = [output.maps[b, 0, d, s].item() for b, d, s in cells]
    classified = [output.maps[b, 1, d, s].item() for b, d, s in cells]
    high = [g for g in truth if g > share_high]
    middle = [g for g in truth if share_middle < g <= share_high]
    low = [g for g in truth if 0 < g <= share_middle]
    errors = []
    for p, g, draw in zip(regressed, truth, draws, strict=True):
        pool = high if g > share_high else middle if g > share_middle else low if g > 0 else None
        if pool is not None and draw < len(high) / len(pool):
            errors.append((p - g) ** 2)
    return {
        "start": weights.node * entropy(output.start.flatten().tolist(), (targets.start > 0.5).flatten().tolist(), 0),
        "end": weights.node * entropy(output.end.flatten().tolist(), (targets.end > 0.5).flatten().tolist(), 0),
        "regression": weights.regression * 0.5 * sum(errors) / max(len(errors), 1),
        "classification": weights.classification
        * entropy(classified, [g > share_positive for g in truth], weights.smoothing),
    }


def random_output(c, batch=2, dtype=torch.float64) -> GTADOutput:
    maps = torch.randn(batch, 2, c.longest, c.steps, dtype=dtype)
    maps = maps.masked_fill(~valid_anchors(c.longest, c.steps), -torch.inf)
    logits = [torch.randn(batch, c.steps, dtype=dtype) for _ in range(2)]
    return GTADOutput(*(each.requires_grad_() for each in (*logits, maps)))


def seeded(seed=0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@settings(max_examples=30)
@given(segments_of_videos, st.sampled_from([GTADLossConfig.activitynet(), GTADLossConfig.thumos()]), st.integers(0, 9))
def test_loss_equals_the_scalar_version(videos, weights, seed):
    c = config()
    targets = gtad_targets([torch.tensor(each, dtype=torch.float64).view(-1, 2) for each in videos], c)
    torch.manual_seed(seed)
    output = random_output(c, batch=len(videos))
    ours = gtad_loss(output, targets, weights, seeded(seed))
    anchors = int(valid_anchors(c.longest, c.steps).sum())
    draws = torch.rand(len(videos), anchors, generator=seeded(seed)).flatten().tolist()
    expected = scalar_loss(output, targets, weights, draws)
    assert list(ours) == TERMS
    for name in TERMS:
        assert ours[name].item() == pytest.approx(expected[name], abs=1e-6), name


def test_weights_of_the_published_code():
    anet, thumos = GTADLossConfig.activitynet(), GTADLossConfig.thumos()
    assert (anet.node, anet.regression, anet.classification, anet.smoothing) == (1, 10, 1, 0)
    assert (thumos.node, thumos.regression, thumos.classification, thumos.smoothing) == (1, 1, 10, 10)


@pytest.mark.parametrize("weights", [GTADLossConfig.activitynet(), GTADLossConfig.thumos()])
@pytest.mark.parametrize("kind", ["none", "short", "one"])
def test_a_batch_without_positives_has_a_finite_loss_and_gradient(kind, weights):
    """No segment at all, one too short for any anchor, or one in the second video only."""
    found = {"none": [], "short": [[0.501, 0.502]], "one": [[0.2, 0.8]]}[kind]
    targets = gtad_targets([torch.zeros(0, 2), torch.tensor(found).view(-1, 2)], config())
    output = random_output(config())
    terms = gtad_loss(output, targets, weights, seeded())
    total = torch.stack(list(terms.values())).sum()
    total.backward()
    assert total.isfinite() and total > 0
    for logits in (output.start_logits, output.end_logits, output.map_logits):
        assert logits.grad.isfinite().all() and logits.grad.any()
    if kind != "one":
        assert terms["regression"] == 0 and not output.map_logits.grad[:, 0].any()


def test_a_confident_mistake_keeps_its_gradient():
    """A probability of exactly 0 or 1 would have none."""
    c = config()
    sure = [torch.full(shape, 200.0, requires_grad=True) for shape in ((1, 10), (1, 10), (1, 2, 8, 10))]
    targets = gtad_targets([torch.zeros(0, 2)], c)
    torch.stack(list(gtad_loss(GTADOutput(*sure), targets, GTADLossConfig(), seeded()).values())).sum().backward()
    assert (sure[0].grad > 0).all() and (sure[2].grad[0, 1][valid_anchors(8, 10)] > 0).all()


def test_anchors_that_do_not_fit_never_enter():
    c, fits = config(), valid_anchors(8, 10)
    targets = gtad_targets([torch.tensor([[0.3, 0.9]]), torch.tensor([[0.0, 1.0]])], c)
    output = random_output(c)
    expected = gtad_loss(output, targets, GTADLossConfig(), seeded())
    maps = output.map_logits.detach().masked_fill(~fits, torch.nan).requires_grad_()
    wrong = GTADTargets(targets.start, targets.end, targets.overlap.masked_fill(~fits, torch.nan))
    ours = gtad_loss(GTADOutput(output.start_logits, output.end_logits, maps), wrong, GTADLossConfig(), seeded())
    assert {name: value.item() for name, value in ours.items()} == {n: v.item() for n, v in expected.items()}
    torch.stack(list(ours.values())).sum().backward()
    assert not maps.grad[..., ~fits].any() and maps.grad[..., fits].any()


def test_the_generator_alone_decides_which_anchors_are_drawn():
    c = config()
    targets = gtad_targets([torch.tensor([[0.3, 0.6]]), torch.tensor([[0.1, 0.25]])], c)
    output, first, second = random_output(c), seeded(1), seeded(1)
    regression = [gtad_loss(output, targets, GTADLossConfig(), g)["regression"] for g in (first, second, seeded(2))]
    assert regression[0] == regression[1] != regression[2]
    gtad_loss(output, gtad_targets([torch.zeros(0, 2)] * 2, c), GTADLossConfig(), first)
    gtad_loss(output, targets, GTADLossConfig(), second)
    assert torch.equal(first.get_state(), second.get_state())  # targets do not move the draws that follow


def test_half_precision_logits_are_computed_in_full():
    c = config()
    targets = gtad_targets([torch.tensor([[0.3, 0.6]])], c)
    output = random_output(c, batch=1, dtype=torch.bfloat16)
    wide = GTADOutput(*(each.detach().float() for each in vars(output).values()))
    for half, full in zip(
        *(gtad_loss(o, targets, GTADLossConfig(), seeded()).values() for o in (output, wide)), strict=True
    ):
        assert half.dtype == torch.float32
        torch.testing.assert_close(half, full)


def test_segments_in_seconds_become_shares():
    seconds = torch.tensor([[-1.0, 5.0], [2.0, 8.0], [9.0, 12.0], [10.0, 11.0], [-3.0, -1.0]])
    torch.testing.assert_close(relative_segments(seconds, 10.0), torch.tensor([[0.0, 0.5], [0.2, 0.8], [0.9, 1.0]]))
    assert relative_segments(torch.zeros(0, 2), 10.0).shape == (0, 2)


@pytest.mark.parametrize("bad", [[3.0, 3.0], [4.0, 3.0], [math.nan, 3.0], [0.0, math.inf]])
def test_bad_segments_are_refused(bad):
    with pytest.raises(ValueError, match=r"segments in seconds: .*must be finite and end after it starts"):
        relative_segments(torch.tensor([[0.0, 1.0], bad]), 10.0)
    with pytest.raises(ValueError, match="video 1 of the batch"):
        gtad_targets([torch.zeros(0, 2), torch.tensor([bad])], config())


def test_segments_outside_the_video_are_refused():
    with pytest.raises(ValueError, match="video 0 of the batch leave"):
        gtad_targets([torch.tensor([[0.5, 1.5]])], config())
    for length in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match=r"covered_seconds = .* positive"):
            relative_segments(torch.tensor([[0.5, 1.5]]), length)


def test_learns_where_the_actions_are():
    """Videos of noise in which an action adds one of three directions: the best proposal is the action."""
    c = config(steps=16, longest=16, channels=16, width=16, wide=16, narrow=16, bins=8, context_bins=2)
    network, generator = GTAD(c), seeded()
    directions = 2 * torch.randn(3, 16)
    features = torch.randn(4, 16, 16)
    segments = []
    for number, (first, last) in enumerate([(1, 6), (3, 14), (9, 12), (7, 16)]):
        features[number, :, first:last] += directions[number % 3][:, None]
        segments.append(torch.tensor([[first / 16, last / 16]]))
    targets = gtad_targets(segments, c)
    optimiser = torch.optim.Adam(network.parameters(), lr=4e-3)
    losses = []
    for _ in range(40):
        terms = gtad_loss(network(features), targets, GTADLossConfig(), generator)
        loss = torch.stack(list(terms.values())).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 4
    with torch.no_grad():
        output = network(features)
    for number, true in enumerate(segments):
        scores = (values[number].numpy() for values in (output.start, output.end, output.maps))
        found = proposals(*scores, 16.0, ProposalConfig(reach_end=True))
        assert overlaps(found[:1, :2], 16 * true.double().numpy())[0, 0] > 0.8
