"""A setting is stated once, is read by some code, and says what it is.

The check reads the sources.  It follows annotations, so that reading `layer.width` does not excuse an unread
`Optim.width`: a field counts as read where an expression that may hold its class is asked for it.  Recipes
only choose values and validators only judge them, so neither counts as reading.
"""

import ast
import functools
import importlib
import pkgutil
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import svilm
from svilm.config import Config

SOURCE = Path(__file__).parents[1] / "src" / "svilm"

Function = ast.FunctionDef | ast.AsyncFunctionDef
Classes = set[str]
"""Names of settings classes that an expression may hold."""
Names = dict[str, Classes]


@dataclass
class Sources:
    """What is known of the settings classes in some source files."""

    fields: dict[str, dict[str, bool]] = field(default_factory=dict)
    """By class and field, whether the field has a docstring."""
    bases: dict[str, Classes] = field(default_factory=dict)
    attributes: Names = field(default_factory=lambda: defaultdict(set))
    """By attribute name, on whatever object it sits."""
    returns: Names = field(default_factory=lambda: defaultdict(set))
    """By function name."""
    reads: set[tuple[str, str]] = field(default_factory=set)


def analyse(modules: Mapping[str, str]) -> Sources:
    """The settings classes of some sources, and which of their fields are read."""
    trees = {name: ast.parse(text) for name, text in modules.items()}
    known = Sources()
    classes = [node for tree in trees.values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    for _ in classes:  # as often as the longest line of descent could need
        for node in classes:
            bases = {_last(base) for base in node.bases}
            if bases & {"Config", *known.fields} and node.name not in known.fields:
                known.fields[node.name] = dict(_fields(node))
                known.bases[node.name] = bases
    for _ in range(4):  # attributes and variables learn from each other
        for name, tree in trees.items():
            _scan(tree, {}, known, counts=not name.startswith("recipes"))
    return known


def unread(known: Sources) -> list[str]:
    """Fields that no code reads, as Class.field; one that a base states too may be read through the base."""

    def read(name: str, each: str) -> bool:
        stating = [base for base in known.bases[name] if each in known.fields.get(base, {})]
        return (name, each) in known.reads or any(read(base, each) for base in stating)

    return [f"{name}.{each}" for name in known.fields for each in known.fields[name] if not read(name, each)]


def unexplained(known: Sources) -> list[str]:
    """Fields without a docstring, as Class.field."""
    return [f"{name}.{each}" for name in known.fields for each, said in known.fields[name].items() if not said]


def _fields(node: ast.ClassDef) -> Iterator[tuple[str, bool]]:
    for statement, after in zip(node.body, [*node.body[1:], None], strict=True):
        if not isinstance(statement, ast.AnnAssign) or "ClassVar" in ast.unparse(statement.annotation):
            continue
        name = ast.unparse(statement.target)
        text = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and str(after.value.value)
        if not name.startswith("_"):
            yield name, bool(text and text.strip())


def _scan(scope: ast.AST, outer: Names, known: Sources, counts: bool, owner: str = "") -> None:
    """Learn from one function or module what its names hold, and note the fields it reads."""
    names: Names = defaultdict(set, {name: set(classes) for name, classes in outer.items()})
    if isinstance(scope, Function):
        everything = [*scope.args.posonlyargs, *scope.args.args, *scope.args.kwonlyargs]
        for argument in everything:
            names[argument.arg] = _mentioned(argument.annotation, known)
        if owner in known.fields and everything:
            names[everything[0].arg] = {owner}
        known.returns[scope.name] |= _mentioned(scope.returns, known)
        counts = counts and not any("validator" in ast.unparse(each) for each in scope.decorator_list)
    nodes = list(_own(scope))
    for _ in range(2):
        for node, _ in nodes:
            _bind(node, names, known)
    for node, place in nodes:
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load) and counts:
            for name in _holds(node.value, names, known):
                known.reads |= {(each, node.attr) for each in (name, *_ancestors(name, known))}
        elif isinstance(node, ast.keyword) and node.arg == "discriminator":
            known.reads |= {(name, ast.literal_eval(node.value)) for name in known.fields}
        elif isinstance(node, Function):
            _scan(node, names, known, counts, place)


def _own(scope: ast.AST, place: str = "") -> Iterator[tuple[ast.AST, str]]:
    """The nodes of a scope with the class they stand in; nested functions themselves, not what is in them."""
    for node in ast.iter_child_nodes(scope):
        yield node, place
        if not isinstance(node, Function):
            yield from _own(node, node.name if isinstance(node, ast.ClassDef) else place)


def _bind(node: ast.AST, names: Names, known: Sources) -> None:
    """Learn from an assignment or a loop; ``a, b = x, y`` is taken apart."""
    if isinstance(node, ast.Assign):
        for target in node.targets:
            _give(target, node.value, _holds(node.value, names, known), names, known)
    elif isinstance(node, ast.AnnAssign):
        held = _mentioned(node.annotation, known) | (_holds(node.value, names, known) if node.value else set())
        _give(node.target, node.value, held, names, known)
        if isinstance(node.target, ast.Name):  # a field of some record, or a variable
            known.attributes[node.target.id] |= held
    elif isinstance(node, ast.NamedExpr):
        _give(node.target, node.value, _holds(node.value, names, known), names, known)
    elif isinstance(node, ast.For | ast.comprehension):
        _give(node.target, None, _holds(node.iter, names, known), names, known)


def _give(target: ast.AST, value: ast.AST | None, held: Classes, names: Names, known: Sources) -> None:
    if isinstance(target, ast.Name):
        names[target.id] |= held
    elif isinstance(target, ast.Attribute):
        known.attributes[target.attr] |= held
    elif isinstance(target, ast.Tuple):
        paired = isinstance(value, ast.Tuple) and len(value.elts) == len(target.elts)
        for number, part in enumerate(target.elts):
            each = value.elts[number] if paired else None  # type: ignore[union-attr]
            _give(part, each, _holds(each, names, known) if each else held, names, known)


def _holds(node: ast.AST, names: Names, known: Sources) -> Classes:
    """The settings classes of which an expression may hold an instance, or a collection of them."""
    parts: list[ast.AST] = []
    if isinstance(node, ast.Name):
        return names.get(node.id, set())
    if isinstance(node, ast.Attribute):
        return known.attributes.get(node.attr, set())
    if isinstance(node, ast.Call):
        name = _last(node.func)
        if name in ("model_copy", "items", "values") and isinstance(node.func, ast.Attribute):
            return _holds(node.func.value, names, known)
        if name in ("build", "override"):
            parts = [*node.args]
            return {_last(arg) for arg in node.args} & set(known.fields) | _all(parts, names, known)
        return ({name} & set(known.fields)) | known.returns.get(name, set())
    if isinstance(node, ast.IfExp):
        parts = [node.body, node.orelse]
    elif isinstance(node, ast.BoolOp):
        parts = [*node.values]
    elif isinstance(node, ast.Subscript):
        parts = [node.value]
    elif isinstance(node, ast.Tuple | ast.List):
        parts = [*node.elts]
    elif isinstance(node, ast.Dict):
        parts = [*node.values]
    return _all(parts, names, known)


def _all(parts: list[ast.AST], names: Names, known: Sources) -> Classes:
    return {name for part in parts for name in _holds(part, names, known)}


def _mentioned(annotation: ast.AST | None, known: Sources) -> Classes:
    words: Classes = set()
    for node in ast.walk(annotation) if annotation else ():
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            words.add(node.value)
        elif isinstance(node, ast.Name | ast.Attribute):
            words.add(_last(node))
    return words & set(known.fields)


def _ancestors(name: str, known: Sources) -> Iterator[str]:
    for base in known.bases.get(name, ()):
        yield base
        yield from _ancestors(base, known)


def _last(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


@functools.cache
def _here() -> Sources:
    names = {path: ".".join(path.relative_to(SOURCE).with_suffix("").parts) for path in SOURCE.rglob("*.py")}
    return analyse({name: path.read_text("utf-8") for path, name in names.items()})


def test_every_setting_is_read() -> None:
    dead = unread(_here())
    assert not dead, "read it as config.field, from a name annotated with its class, or remove it"


def test_every_setting_says_what_it_is() -> None:
    silent = unexplained(_here())
    assert not silent, "put a docstring under the field"


def test_no_settings_class_was_overlooked() -> None:
    for module in pkgutil.walk_packages(svilm.__path__, "svilm."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    found, todo = set(), [Config]
    while todo:
        children = todo.pop().__subclasses__()
        todo += children
        found |= {child.__name__ for child in children if child.__module__.startswith("svilm.")}
    assert found == set(_here().fields)
    assert len(found) >= 10


SETTINGS = '''
class Optim(Config):
    width: int = 3
    """Width."""
'''


@pytest.mark.parametrize(
    "code",
    [
        "",
        "def f(layer: Layer): return layer.width",
        "def f(width): return width",
        "def f(optim: Optim): optim.width = 3",
        "def f(): return Optim(width=3)",
        "class Big(Config):\n    width: int = 1\n    def g(self): return self.width",
        "class More(Optim):\n    @model_validator(mode='after')\n    def g(self): assert self.width",
    ],
)
def test_a_dead_setting_is_caught(code: str) -> None:
    assert "Optim.width" in unread(analyse({"optim": SETTINGS + code}))


@pytest.mark.parametrize(
    "code",
    [
        "def f(config: Optim): return config.width",
        "def f(config: 'Optim | None' = None): return (config or Optim()).width",
        "def f(): return Optim().width",
        "def f(run): optim = run.best; return optim.width\nclass Run:\n    best: Optim",
        "class Run(Config):\n    optim: Optim\ndef f(run: Run): return run.optim.width",
        "class Trainer:\n    def __init__(self, o: Optim): self.o = o\n    def f(self): return self.o.width",
        "def make() -> Optim: ...\ndef f(): return make().width",
        "def f(all: tuple[Optim, ...]): return [each.width for each in all]",
        "def f(all: list[Optim]):\n    for each in all:\n        print(each.width)",
        "SIZES = {'tiny': Optim()}\ndef f(): return SIZES['tiny'].width",
        "class A:\n    def __init__(self, o: Optim): self.a, self.o = 1, o\n    def f(s): return s.o.width",
        "def f(o: Optim):\n    a, (b, c) = 1, (o, 2)\n    return b.width",
        "def f(all: dict[str, Optim]):\n    for name, each in all.items():\n        print(each.width)",
        "def f(data): return build(Optim, data).width",
        "def f(config: Optim):\n    def g(): return config.model_copy().width\n    return g",
        "class More(Optim): ...\ndef f(config: More): return config.width",
        "class More(Optim):\n    @property\n    def g(self): return self.width",
        "task: Optim | Other = Field(discriminator='width')",
    ],
)
def test_a_setting_that_is_read_passes(code: str) -> None:
    assert "Optim.width" not in unread(analyse({"optim": SETTINGS, "user": code}))


def test_choosing_a_value_is_not_reading_it() -> None:
    assert unread(analyse({"optim": SETTINGS, "recipes.tiny": "def f(config: Optim): return config.width"}))


def test_a_silent_setting_is_caught() -> None:
    code = SETTINGS + "    depth: int = 2\n    lr: float = 1.0\n    ''\n"
    assert unexplained(analyse({"optim": code})) == ["Optim.depth", "Optim.lr"]
