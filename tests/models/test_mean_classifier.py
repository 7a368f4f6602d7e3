"""The closed-form classifier of mean features."""

import numpy as np
import torch

from svilm.models.mean_classifier import MeanClassifier


def test_the_classifier_is_least_squares_on_the_mean():
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    means = (rng.normal(size=(60, 8)) + 4 * np.eye(8)[labels]).astype(np.float32) * 5 + 7
    classifier = MeanClassifier(8, 3)
    torch.testing.assert_close(classifier(torch.zeros(1, 8)), torch.full((1, 3), 1 / 3))
    classifier.fit(means, labels.tolist(), list(range(60)))
    found = classifier(torch.from_numpy(means))
    assert (found.argmax(dim=1).numpy() == labels).mean() > 0.95
    torch.testing.assert_close(found.sum(dim=1), torch.ones(60))
    assert found.min() >= 0
    few = MeanClassifier(8, 3)
    few.fit(means[:3], [0, 1, 2], [0, 0, 1])  # nothing is held out
    assert (few(torch.from_numpy(means[:3])).argmax(dim=1).numpy() == labels[:3]).all()
    assert not list(classifier.parameters()) and set(classifier.state_dict()) == {
        "mean",
        "deviation",
        "matrix",
        "offset",
    }
