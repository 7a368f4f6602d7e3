"""docs/method.md names functions and settings; they must exist."""

import importlib
import re
from pathlib import Path

import pytest

from svilm.config import settings
from svilm.recipes.pretrain import paper

PAGE = (Path(__file__).parent.parent / "docs" / "method.md").read_text(encoding="utf-8")
NAMES = sorted(set(re.findall(r"`(svilm(?:\.\w+)+)`", PAGE)))
SETTINGS = sorted(set(re.findall(r"`((?:model|data|task|optim|training|retrieval)(?:\.\w+)+)`", PAGE)))


@pytest.mark.parametrize("name", NAMES)
def test_functions_exist(name):
    *parts, last = name.split(".")
    if parts[-1][0].isupper():  # a field or property of a class
        last, parts = f"{parts[-1]}.{last}", parts[:-1]
    thing = importlib.import_module(".".join(parts))
    for attribute in last.split("."):
        thing = getattr(thing, attribute)
    assert callable(thing) or isinstance(thing, property)


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_exist(name):
    assert name in {known for known, _, _ in settings(paper())}


def test_every_loss_of_the_package_is_on_the_page():
    assert len(NAMES) > 15
    assert len(SETTINGS) > 20
    losses = importlib.import_module("svilm.losses")
    public = [name for name in vars(losses) if not name.startswith("_") and callable(vars(losses)[name])]
    ours = [name for name in public if getattr(vars(losses)[name], "__module__", "") == "svilm.losses"]
    assert {f"svilm.losses.{name}" for name in ours} <= set(NAMES)
