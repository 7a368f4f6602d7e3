import numpy as np
import pytest

from svilm.metrics.similarity import scene_labels, step_similarity, within_and_across


def test_step_similarity_is_the_cosine_of_every_two_steps():
    tokens = np.array([[3.0, 0.0], [0.0, 2.0], [1.0, 1.0], [0.0, 0.0]], dtype=np.float32)
    half = 0.5**0.5
    expected = [[1, 0, half, 0], [0, 1, half, 0], [half, half, 1, 0], [0, 0, 0, 0]]
    similarity = step_similarity(tokens)
    np.testing.assert_allclose(similarity, expected, atol=1e-12)
    assert similarity.max() <= 1


def test_a_scene_change_belongs_to_the_scene_that_it_begins():
    seconds = np.array([0.0, 0.5, 1.0, 1.5, 2.0])
    assert scene_labels(seconds, [1.0]).tolist() == [0, 0, 1, 1, 1]
    assert scene_labels(seconds, [1.6, 0.2]).tolist() == [0, 1, 1, 1, 2]
    assert scene_labels(np.arange(4), [2]).tolist() == [0, 0, 1, 1]
    assert scene_labels(seconds, []).tolist() == [0, 0, 0, 0, 0]


def test_within_and_across_by_hand():
    similarity = np.array([[1.0, 0.8, 0.1], [0.8, 1.0, 0.3], [0.1, 0.3, 1.0]])
    score = within_and_across(similarity, np.array([0, 0, 1]))
    assert score.within == pytest.approx(0.8)  # the diagonal is left out
    assert score.across == pytest.approx(0.2)
    assert score.gap == pytest.approx(0.6)


def test_a_scene_that_returns_is_the_same_scene():
    foreground = np.array([False, True, True, False])
    tokens = np.eye(2)[foreground.astype(int)]
    score = within_and_across(step_similarity(tokens), foreground)
    assert (score.within, score.across) == (1.0, 0.0)


@pytest.mark.parametrize("scenes", [[0, 0, 0], [0, 1, 2]])
def test_clips_without_both_kinds_of_pairs_are_refused(scenes):
    with pytest.raises(ValueError, match="both kinds are needed"):
        within_and_across(np.eye(3), np.array(scenes))
