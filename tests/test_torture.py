"""The short form of `make torture`: every check of it, seconds each."""

from importlib import import_module
from pathlib import Path

import pytest

from torture.__main__ import MODULES
from torture.frame import Check, Plan

CHECKS = {check.__name__: check for module in MODULES for check in import_module(f"torture.{module}").CHECKS}
PAGES = [Path(__file__).parents[1] / page for page in ("docs/reliability.md", "SECURITY.md", "docs/search.md")]


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
def test_short_form(check: Check, tmp_path: Path) -> None:
    outcome = check(Plan(seed=0, fast=True, folder=tmp_path))
    assert not outcome.problems, outcome


def test_every_check_stands_beside_its_promise() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES if page.is_file())
    missing = [name for name in CHECKS if f"`{name.replace('_', '-')}`" not in text]
    assert not missing
