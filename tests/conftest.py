"""What holds for every test: no network, one thread, a fixed seed."""

import os
import random
import shutil
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # before huggingface_hub is imported: a test that asks the hub fails at once
os.environ["MPLBACKEND"] = "Agg"
os.environ["OMP_NUM_THREADS"] = "1"  # also for the programs that tests start
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import hypothesis
import numpy as np
import pytest
import torch

torch.set_num_threads(1)  # small tensors: twice as fast as two threads, and the same sums everywhere
hypothesis.settings.register_profile("svilm", deadline=None, max_examples=50, derandomize="CI" in os.environ)
hypothesis.settings.load_profile("svilm")


@pytest.fixture(autouse=True)
def _seed() -> None:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """torch.compile cannot trace the shape checks, needs a C++ compiler, and warns about torch itself."""
    reason = ""
    if config.getoption("jaxtyping_packages"):
        reason = "shape checks are on; `make test-compile` runs it without them"
    elif not any(shutil.which(os.environ.get("CXX", name)) for name in ("g++", "clang++")):
        reason = "no C++ compiler found"
    for item in items:
        if item.get_closest_marker("compile"):
            item.add_marker(pytest.mark.filterwarnings("ignore::DeprecationWarning"))
            if reason:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small drawn world with all its files."""
    from svilm.data.world import draw_world

    folder = tmp_path_factory.mktemp("drawn") / "world"
    draw_world(folder, clips=48, test_clips=12, untrimmed=4, workers=1)
    return folder
