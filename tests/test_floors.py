"""The house has floors: a file imports only from lower ones, or from its own room without a circle.

The check reads the sources, so that an import inside a function counts like any other.
"""

import ast
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "svilm"

FLOORS: tuple[frozenset[str], ...] = (
    frozenset({"version", "entries", "arrays", "types", "config", "runtime", "hub", "provenance"}),
    frozenset({"data", "models", "losses", "metrics", "draw"}),
    frozenset({"engine", "features"}),
    frozenset({"tasks"}),
    frozenset({"model", "backbones", "start", "preflight", "run", "localize", "plan", "search", "report", "doctor"}),
    frozenset({"recipes", "app", "__init__"}),
    frozenset({"cli", "reproduce", "bench", "__main__"}),
)
"""A room is a file or a folder of svilm.  Each floor may use all below it."""

NEIGHBOURS = (0, 4, 6)
"""Floors whose rooms may also use each other, without a circle; elsewhere rooms of one floor do not meet."""


def modules_under(folder: Path) -> dict[str, str]:
    """Source text by dotted name below svilm: "losses", "data.decode", "data.__init__" for a folder's own."""
    paths = sorted(folder.rglob("*.py"))
    return {".".join(path.relative_to(folder).with_suffix("").parts): path.read_text("utf-8") for path in paths}


def problems(modules: Mapping[str, str]) -> list[str]:
    """One line for each import that goes up, across, between tasks or round in a circle."""
    floor_of = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
    homeless = sorted({_room(name) for name in modules} - floor_of.keys())
    if homeless:
        return [
            f"{room} has no floor: add it to FLOORS in tests/test_floors.py and to docs/tour.md" for room in homeless
        ]
    found = []
    imports = {name: _imports(name, text, modules) for name, text in modules.items()}
    for name, targets in imports.items():
        for target in sorted(targets):
            here, there = _room(name), _room(target)
            if floor_of[there] > floor_of[here]:
                found.append(f"{name} (floor {floor_of[here]}) imports {target} from floor {floor_of[there]} above it")
            elif here != there and floor_of[here] == floor_of[there] not in NEIGHBOURS:
                found.append(f"{name} imports {target} from its neighbour; {here} and {there} do not meet")
            elif here == there == "tasks" and target not in ("tasks.common", "tasks.__init__"):
                found.append(f"{name} imports {target}; a task never imports another, share through tasks.common")
    circle = _circle(imports)
    if circle:
        found.append(f"a circle of imports: {' -> '.join(circle)}")
    folders: dict[str, set[str]] = {}
    for name, targets in imports.items():
        place = name.rpartition(".")[0]
        below = {target.rpartition(".")[0] for target in targets} - {place, ""}
        if place:  # svilm's own folder holds rooms of several floors
            folders.setdefault(place, set()).update(below)
    circle = _circle(folders)
    if circle:
        found.append(f"a circle of folders: {' -> '.join(circle)}")
    return found


def _room(name: str) -> str:
    return name.partition(".")[0]


def _imports(name: str, text: str, modules: Mapping[str, str]) -> set[str]:
    """The modules of svilm that a module names in an import, wherever it stands."""
    package = name.split(".")[:-1]
    wanted: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            wanted.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ["svilm", *package][: len(package) + 2 - node.level] if node.level else []
            base += node.module.split(".") if node.module else []
            wanted.update(".".join([*base, alias.name]) for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            wanted.update(str(arg.value) for arg in node.args[:1] if isinstance(arg, ast.Constant))
    return {_module(full, modules) for full in wanted if full.split(".")[0] == "svilm"} - {name, ""}


def _module(full: str, modules: Mapping[str, str]) -> str:
    """Where a dotted name leads: svilm.data.decode.open to data.decode, svilm.load to __init__, or ""."""
    parts = full.split(".")[1:]
    for length in range(len(parts), 0, -1):
        place = parts[:length]
        for name in (".".join(place), ".".join([*place, "__init__"])):
            if name in modules:
                return name
    return "__init__" if len(parts) <= 1 else ""


def _circle(graph: Mapping[str, set[str]]) -> list[str]:
    """Some circle of the graph, its first node repeated at the end; empty when there is none."""
    done: set[str] = set()

    def visit(node: str, path: list[str]) -> list[str]:
        if node in path:
            return [*path[path.index(node) :], node]
        if node not in done:
            for other in sorted(graph.get(node, ())):
                if circle := visit(other, [*path, node]):
                    return circle
            done.add(node)
        return []

    for node in sorted(graph):
        if circle := visit(node, []):
            return circle
    return []


def test_imports_go_down() -> None:
    found = problems(modules_under(SOURCE))
    assert not found


def test_the_tour_shows_these_floors_and_files_that_exist() -> None:
    root = SOURCE.parents[1]
    page = (root / "docs" / "tour.md").read_text("utf-8")
    rows = re.findall(r"^\| (\d) \| (.*?) \|", page, flags=re.MULTILINE)
    shown = [
        {room for floor, rooms in rows if floor == str(number) for room in re.findall(r"`(\w+)`", rooms)}
        for number in range(len(FLOORS))
    ]
    there = {name.partition(".")[0] for name in modules_under(SOURCE)}
    assert shown == [floor & there for floor in FLOORS]
    named = re.findall(r"`([\w/]+(?:\.py|/))`", page)
    assert len(named) > 30
    assert not [name for name in named if not (SOURCE / name).exists() and not (root / name).exists()]


def test_the_sources_were_found() -> None:
    imports = {name: _imports(name, text, modules_under(SOURCE)) for name, text in modules_under(SOURCE).items()}
    assert "types" in imports["data.augment"]
    assert sum(map(len, imports.values())) > 20


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        (
            {"losses": "from svilm.engine import trainer", "engine.trainer": ""},
            "losses (floor 1) imports engine.trainer",
        ),
        (
            {"data.decode": "def f():\n    import svilm.cli", "cli": ""},
            "data.decode (floor 1) imports cli from floor 6",
        ),
        ({"models.video": "from ..data import decode", "data.decode": ""}, "models and data do not meet"),
        (
            {"data.loader": "from svilm.models.dual import DualEncoder", "models.dual": ""},
            "data and models do not meet",
        ),
        ({"losses": "from svilm.draw import box", "draw": ""}, "losses and draw do not meet"),
        ({"tasks.vqa": "from . import retrieval", "tasks.retrieval": ""}, "a task never imports another"),
        (
            {"data.a": "from . import b", "data.b": "from .a import x"},
            "a circle of imports: data.a -> data.b -> data.a",
        ),
        (
            {"run": "import svilm.report", "report": "import svilm.run"},
            "a circle of imports: report -> run -> report",
        ),
        (
            {
                "data.a": "",
                "data.b": "from svilm.data.prepare.c import x",
                "data.prepare.c": "from svilm.data.a import x",
            },
            "a circle of folders: data -> data.prepare -> data",
        ),
        ({"run": "import svilm", "__init__": ""}, "run (floor 4) imports __init__ from floor 5"),
        ({"run": "from svilm import load", "__init__": "def load(): ..."}, "run (floor 4) imports __init__"),
        (
            {"types": "import importlib\nimportlib.import_module('svilm.run')", "run": ""},
            "types (floor 0) imports run from floor 4",
        ),
        ({"attic.box": ""}, "attic has no floor: add it to FLOORS in tests/test_floors.py"),
    ],
)
def test_a_wrong_import_is_caught(modules: dict[str, str], message: str) -> None:
    found = problems(modules)
    assert len(found) == 1
    assert message in found[0]


@pytest.mark.parametrize(
    "modules",
    [
        {
            "tasks.vqa": "from svilm.tasks.common import x\nfrom svilm.losses import y",
            "tasks.common": "",
            "losses": "",
        },
        {"data.b": "from .a import x", "data.a": "import torch"},
        {
            "data.prepare.c": "from ..manifest import x\nfrom svilm.types import y",
            "data.manifest": "",
            "types": "",
        },
        {"report": "from svilm.run import x", "run": "import svilm.config", "config": ""},
        {"cli": "from svilm import version, load", "version": "", "__init__": "import svilm.run", "run": ""},
        {"data.__init__": "from svilm.data.decode import x", "data.decode": ""},
    ],
)
def test_a_right_import_passes(modules: dict[str, str]) -> None:
    assert not problems(modules)


def test_modules_under_names_files_by_their_place(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "decode.py").write_text("import os")
    (tmp_path / "data" / "__init__.py").write_text("")
    assert modules_under(tmp_path) == {"data.__init__": "", "data.decode": "import os"}
