import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from svilm.config import ConfigError, build
from svilm.models.gtad import GTAD, GTADConfig, load_published, nearest, regions, resize_features, valid_anchors
from svilm.models.gtad_align import FixedMatrix, alignment

SMALL = {"channels": 8, "width": 8, "wide": 6, "narrow": 5, "bins": 4, "context_bins": 2}


def config(**options) -> GTADConfig:
    return GTADConfig(**{**SMALL, "steps": 10, "longest": 8, **options})


def align(nodes: np.ndarray, start: float, end: float, bins: int) -> np.ndarray:
    """The public CUDA operation on (width, steps), number by number."""
    width, steps = nodes.shape
    out = np.zeros((width, bins))
    length = max(end - start, 1.0)
    samples = math.ceil(length / bins)
    for b in range(bins):
        for i in range(samples):
            x = start + b * length / bins + (i + 0.5) * length / bins / samples
            if x < -1 or x > steps:
                continue
            x = min(max(x, 0.0), steps - 1.0)
            low = int(x)
            high = min(low + 1, steps - 1)
            out[:, b] += (nodes[:, low] * (high - x if high > low else 1.0) + nodes[:, high] * (x - low)) / samples
    return out


def published_shapes(c: GTADConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes in a public checkpoint."""
    shapes = {"backbone1.0": (c.width, c.channels // 4, 3), "regu_s.1": (1, c.width, 1), "regu_e.1": (1, c.width, 1)}
    for block in ("backbone1.2", "regu_s.0", "regu_e.0", "backbone2.0"):
        shapes |= {
            f"{block}.tconvs.0": (128, c.width, 1),
            f"{block}.tconvs.2": (128, 4, 3),
            f"{block}.tconvs.4": (c.width, 128, 1),
            f"{block}.sconvs.0": (128, 2 * c.width, 1, 1),
            f"{block}.sconvs.2": (128, 4, 1, 1),
            f"{block}.sconvs.4": (c.width, 128, 1, 1),
        }
    shapes |= {
        "localization.0": (c.wide, c.width * (c.bins + c.context_bins), 1, 1),
        "localization.2": (c.narrow, c.wide, 1, 1),
        "localization.4": (c.narrow, c.narrow, c.kernel, c.kernel),
        "localization.6": (c.narrow, c.narrow, c.kernel, c.kernel),
        "localization.8": (2, c.narrow, 1, 1),
    }
    return {
        f"module.{name}.{part}": shape if part == "weight" else shape[:1]
        for name, shape in shapes.items()
        for part in ("weight", "bias")
    }


def published_state(c: GTADConfig) -> dict[str, Tensor]:
    """Random public weights, large enough for every layer to matter."""
    return {
        name: torch.randn(shape, dtype=torch.float64) / math.prod(shape[1:]) ** 0.5
        for name, shape in published_shapes(c).items()
    }


class Materialised:
    """G-TAD as it is defined, from public weights: the aligned features of every anchor are built."""

    def __init__(self, state: dict[str, Tensor], c: GTADConfig) -> None:
        self.state, self.c = {name.removeprefix("module."): value for name, value in state.items()}, c

    def conv(self, x: Tensor, name: str, **options) -> Tensor:
        function = F.conv1d if x.dim() == 3 else F.conv2d
        return function(x, self.state[f"{name}.weight"], self.state[f"{name}.bias"], **options)

    def neighbours(self, x: Tensor) -> Tensor:
        """(B, W, T) -> (B, W, T, k)."""
        videos = []
        for nodes in x:
            points = nodes.detach().numpy().T
            order = [
                sorted(range(self.c.steps), key=lambda u, t=t: np.square(points[t] - points[u]).sum())
                for t in range(self.c.steps)
            ]
            videos.append(torch.stack([nodes[:, each[: self.c.neighbours]] for each in order], dim=1))
        return torch.stack(videos)

    def block(self, x: Tensor, name: str) -> Tensor:
        time = self.conv(x, f"{name}.tconvs.0").relu()
        time = self.conv(time, f"{name}.tconvs.2", padding=1, groups=32).relu()
        time = self.conv(time, f"{name}.tconvs.4")
        beside = self.neighbours(x)
        pairs = torch.cat([beside, x[..., None].expand_as(beside)], dim=1)
        space = self.conv(pairs, f"{name}.sconvs.0").relu()
        space = self.conv(space, f"{name}.sconvs.2", groups=32).relu()
        space = self.conv(space, f"{name}.sconvs.4").max(dim=-1).values
        return (time + x + space).relu()

    def anchors(self, x: Tensor) -> Tensor:
        """(B, W, T) -> (B, W x bins, D, T): two matrices from the scalar operation, and an einsum."""
        c, eye = self.c, np.eye(self.c.steps)
        inner = np.zeros((c.longest, c.steps, c.steps, c.bins))
        around = np.zeros((c.longest, c.steps, c.steps, c.context_bins))
        for d in range(c.longest):
            for s in range(c.steps):
                half, last = (d + 1) / 2, s + d + (c.anchors == "opentad")
                region = (s - half, last + half) if s + d < c.steps else (0, 0)
                inner[d, s], around[d, s] = (align(eye, *region, bins) for bins in (c.bins, c.context_bins))
        context = self.neighbours(x).mean(dim=-1)
        both = [
            torch.einsum("bct,dstr->bcrds", nodes, torch.from_numpy(matrix))
            for nodes, matrix in ((x, inner), (context, around))
        ]
        return torch.cat(both, dim=2).flatten(1, 2)

    def __call__(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        base = self.block(self.conv(features, "backbone1.0", padding=1, groups=4).relu(), "backbone1.2")
        start, end = (self.conv(self.block(base, f"{name}.0"), f"{name}.1")[:, 0] for name in ("regu_s", "regu_e"))
        maps = self.anchors(self.block(base, "backbone2.0"))
        for layer in (0, 2, 4, 6, 8):
            padding = self.c.kernel // 2 if layer in (4, 6) else 0
            maps = self.conv(maps if layer == 0 else maps.relu(), f"localization.{layer}", padding=padding)
        return start.sigmoid(), end.sigmoid(), maps.sigmoid()


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("anchors", ["original", "opentad"])
@pytest.mark.parametrize("steps, longest, bins", [(7, 7, 4), (24, 17, 16)])
def test_equals_the_materialised_form_with_public_weights(steps, longest, bins, anchors, kernel):
    """Scores, and the gradient of every weight and of the features, on the anchors that fit into the video."""
    c = config(steps=steps, longest=longest, bins=bins, anchors=anchors, kernel=kernel)
    state = published_state(c)
    network = GTAD(c).double()
    load_published(network, state)
    for value in state.values():
        value.requires_grad_()
    features = torch.randn(2, c.channels, steps, dtype=torch.float64, requires_grad=True)
    valid = valid_anchors(longest, steps)
    weight = torch.randn(2, 2, int(valid.sum()), dtype=torch.float64)
    results = []
    for start, end, maps in ((lambda o: (o.start, o.end, o.maps))(network(features)), Materialised(state, c)(features)):
        loss = (maps[:, :, valid] * weight).sum() + (start * features[:, 0]).sum() - end.square().sum()
        features.grad = None
        loss.backward()
        results.append((start, end, maps[:, :, valid], features.grad))
    torch.testing.assert_close(*results, rtol=1e-6, atol=1e-6)
    gradients = GTAD(c).double()
    load_published(gradients, {name: value.grad for name, value in state.items()})
    for (name, ours), expected in zip(network.named_parameters(), gradients.parameters(), strict=True):
        assert expected.abs().max() > 0, name
        torch.testing.assert_close(
            ours.grad, expected.detach(), rtol=1e-6, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}"
        )


@given(
    st.lists(st.tuples(st.floats(-30, 30), st.floats(0, 30)), min_size=1, max_size=5),
    st.integers(1, 6),
    st.integers(1, 12),
)
def test_alignment_equals_the_scalar_operation(spans, bins, steps):
    spans = [(round(start, 3), round(start + length, 3)) for start, length in spans]
    anchor, column, weight = alignment(torch.tensor(spans, dtype=torch.float64), bins, steps)
    dense = torch.zeros(len(spans), steps * bins, dtype=torch.float64).index_put((anchor, column), weight, True)
    expected = np.stack([align(np.eye(steps), *span, bins) for span in spans])
    np.testing.assert_allclose(dense.view(len(spans), steps, bins), expected, atol=1e-9)


def test_a_bin_by_hand():
    """[0, 3] in one bin: samples at .5, 1.5, 2.5; the bin [-4, -2] of [-4, 0] lies outside, half of [-2, 0] as well."""
    for span, bins, expected in (
        ((0.0, 3.0), 1, [[1 / 6, 2 / 6, 2 / 6, 1 / 6]]),
        ((-4.0, 0.0), 2, [[0] * 4, [0.5, 0, 0, 0]]),
    ):
        _, column, weight = alignment(torch.tensor([span]), bins, 4)
        dense = torch.zeros(4 * bins, dtype=torch.float64).index_add(0, column, weight)
        torch.testing.assert_close(dense.view(4, bins).T, torch.tensor(expected, dtype=torch.float64))


def test_fixed_matrix_is_a_product_in_both_directions():
    row, column = torch.tensor([0, 2, 2, 2, 3]), torch.tensor([1, 0, 4, 4, 2])
    weight = torch.tensor([0.5, 1.0, 2.0, 0.25, 0.0])
    matrix = FixedMatrix(row, column, weight, (4, 5)).double()
    dense = torch.zeros(4, 5).index_put((row, column), weight, accumulate=True).double()
    table = torch.randn(3, 5, 2, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(matrix(table), dense @ table)
    assert torch.autograd.gradcheck(matrix, table)
    assert not matrix.state_dict()


@settings(max_examples=20)
@given(st.integers(1, 5), st.integers(5, 9))
def test_nearest_neighbours_with_loops(count, steps):
    nodes = torch.randn(2, 3, steps)
    graph = nearest(nodes, count)
    assert graph.shape == (2, steps, count, steps)
    for b in range(2):
        for t in range(steps):
            near = sorted(range(steps), key=lambda u, b=b, t=t: float((nodes[b, :, t] - nodes[b, :, u]).square().sum()))
            assert graph[b, t].argmax(dim=-1).tolist() == near[:count]
            assert near[0] == t
    assert set(graph.unique().tolist()) <= {0.0, 1.0}


def test_regions_by_hand():
    """Anchor of 3 steps from 2: 1.5 on both sides of its last index 4, or of 5 in OpenTAD."""
    assert regions(config())[2, 2].tolist() == [0.5, 5.5]
    assert regions(config(anchors="opentad"))[2, 2].tolist() == [0.5, 6.5]
    assert regions(config())[2, 8].tolist() == [0, 0]


@pytest.mark.parametrize("kernel", [1, 3])
def test_anchors_that_do_not_fit_have_no_score(kernel):
    c = config(kernel=kernel)
    output = GTAD(c)(torch.randn(1, c.channels, c.steps))
    for d in range(c.longest):
        for s in range(c.steps):
            fits = s + d + 1 <= c.steps
            assert bool(output.map_logits[0, :, d, s].isfinite().all()) == fits
            assert bool((output.maps[0, :, d, s] > 0).all()) == fits


def test_videos_of_a_batch_do_not_meet():
    network, features = GTAD(config()), torch.randn(3, 8, 10)
    together = network(features)
    for number in range(3):
        alone = network(features[number : number + 1])
        torch.testing.assert_close(alone.maps[0], together.maps[number])
        torch.testing.assert_close(alone.start[0], together.start[number])


def test_real_sizes_are_those_of_the_public_code():
    c = GTADConfig.activitynet(channels=400)
    assert sum(math.prod(shape) for shape in published_shapes(c).values()) == 5_563_268
    network = GTAD(c)
    assert sum(each.numel() for each in network.parameters()) == 5_563_268
    load_published(network, {name: torch.zeros(shape) for name, shape in published_shapes(c).items()})
    assert not any(each.any() for each in network.parameters())
    assert network.align.matrix.matrix_offsets.numel() == 5050 + 1


def test_presets():
    thumos = GTADConfig.thumos()
    assert (thumos.steps, thumos.longest, thumos.kernel, thumos.bins + thumos.context_bins) == (256, 64, 3, 32)
    assert int(valid_anchors(256, 64).sum()) == int(valid_anchors(64, 64).sum())
    assert GTADConfig.opentad().anchors == "opentad"
    for preset in (GTADConfig.activitynet(), thumos, GTADConfig.opentad()):
        assert build(GTADConfig, preset.model_dump(mode="json")) == preset


def test_other_public_weights_are_refused():
    network = GTAD(config())
    state = published_state(config())
    state["module.backbone1.0.weight"] = torch.zeros(3)
    state["module.other"] = torch.zeros(1)
    with pytest.raises(RuntimeError, match=r"(?s)Unexpected.*other.*size mismatch for project.weight"):
        load_published(network, state)


def test_half_precision():
    c = config()
    network, features = GTAD(c), torch.randn(2, c.channels, c.steps)
    exact = network(features)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = network(features)
    assert output.map_logits.dtype == torch.bfloat16 and output.maps.dtype == torch.float32
    torch.testing.assert_close(output.maps, exact.maps, atol=0.02, rtol=0)
    (output.maps.sum() + output.start.sum() + output.end.sum()).backward()
    assert all(each.grad.isfinite().all() for each in network.parameters())
    whole = network.to(torch.bfloat16)(features.bfloat16())
    torch.testing.assert_close(whole.maps, exact.maps, atol=0.02, rtol=0)


@pytest.mark.compile
@pytest.mark.parametrize("kernel", [1, 3])
def test_gtad_traces_into_one_graph(kernel):
    torch._dynamo.reset()
    c = config(kernel=kernel)
    network, features = GTAD(c), torch.randn(2, c.channels, c.steps)
    gradients, outputs = [], []
    for run in (torch.compile(network, fullgraph=True, backend="aot_eager"), network):
        output = run(features)
        outputs.append((output.start, output.end, output.maps))
        gradients.append(torch.autograd.grad(output.maps.sum() + output.start.sum(), network.project.weight)[0])
    torch.testing.assert_close(*outputs)
    torch.testing.assert_close(*gradients)


def test_resizing_is_linear_between_centres():
    """Two clips to four steps: a quarter, three quarters and so on of the way between their centres."""
    features = torch.tensor([[0.0, 10.0], [4.0, 20.0]])
    expected = torch.tensor([[0.0, 1.0, 3.0, 4.0], [10.0, 12.5, 17.5, 20.0]])
    torch.testing.assert_close(resize_features(features, 4), expected)
    torch.testing.assert_close(resize_features(expected.T, 4), expected)
    assert resize_features(features[:1].half(), 5).tolist() == [[0.0] * 5, [10.0] * 5]


@pytest.mark.parametrize("features", [torch.zeros(0, 4), torch.tensor([[1.0, math.nan]])])
def test_features_without_numbers_are_refused(features):
    with pytest.raises(ValueError, match="must have rows, and finite numbers"):
        resize_features(features, 4)


def test_features_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"\(8, 11\), the network wants \(8, 10\); .*resize_features"):
        GTAD(config())(torch.zeros(1, 8, 11))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"channels": 10}, "channels = 10 must be a multiple of 4"),
        ({"longest": 11}, "longest = 11 anchors are longer than the 10 steps"),
        ({"neighbours": 11}, "neighbours = 11 are more than the 10 steps"),
        ({"node_window": [1.0, 0.0]}, "must end after it starts"),
    ],
)
def test_settings_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        build(GTADConfig, {**SMALL, "steps": 10, "longest": 8, **options})
