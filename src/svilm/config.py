"""Typed settings: frozen, checked when built, written to and read from JSON without loss.

A ``Config`` lives next to the code that reads it; a recipe is a Python function that puts them together.
pydantic checks types; this file adds the overrides of the command line and errors that suggest a remedy.
"""

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

C = TypeVar("C", bound="Config")
_MANIFEST = "path of a manifest"
ManifestFile = Annotated[str, _MANIFEST]
"""Type of the settings that name a manifest; an empty text names none."""


class ConfigError(ValueError):
    """A setting that does not exist or has a wrong value; the message names it and what is allowed."""


class Config(BaseModel):
    """Base of all settings: immutable, unknown names refused, the docstring under a field is its help.

    Values keep their type: ``True`` is no number, ``1.0`` no count, and NaN or infinity no setting.
    """

    model_config = ConfigDict(
        frozen=True,
        strict=True,
        extra="forbid",
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        validate_default=True,
        protected_namespaces=(),
    )

    def model_copy(self: C, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> C:
        """A copy with the fields of ``update`` changed and, unlike pydantic's own, checked."""
        return type(self)(**{**dict(self), **(update or {})})


def override(config: C, settings: Sequence[str]) -> C:
    """``config`` with ``a.b=value`` settings applied, in order, and checked together at the end.

    A value is read as JSON (numbers, true, false, null, lists, objects), and as text where it is no JSON or
    the setting wants text.  Setting something inside a part that is switched off (null) switches it on.
    Raises ConfigError for a setting without ``=``, an unknown name or a value of the wrong type.
    """
    data = config.model_dump(mode="json")
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals:
            raise ConfigError(f"--set {setting!r}: write it as name=value, for instance optim.lr=0.001")
        *parents, leaf = name.strip().split(".")
        place: Any = data
        held: Any = config
        kinds: tuple[type[Config], ...] = (type(config),)
        for depth, part in enumerate(parents):
            held = getattr(held, part, None)
            kinds = _configs(_annotation(type(config), parents[:depth], part, kinds))
            if isinstance(held, Config):  # its own class first: the field may be stated by a base of it
                kinds = tuple(dict.fromkeys((type(held), *kinds)))
            if not kinds or not isinstance(place.setdefault(part, None), dict | None):
                inside = ".".join(parents[: depth + 1])
                raise ConfigError(f"{inside} is a single value and has no setting {leaf!r} inside it")
            place[part] = place[part] or {}
            place = place[part]
        place[leaf] = _parse(text, _annotation(type(config), parents, leaf, kinds))
    return build(type(config), data)


def build(kind: type[C], data: Any) -> C:
    """``kind`` built from plain data, as ``json.load`` gives it (a Path may stand for its text).

    Raises ConfigError with one line per problem: the setting, the value given, what is wanted.
    """
    try:
        return kind.model_validate_json(json.dumps(data, default=str))
    except ValidationError as error:
        problems = error.errors(include_url=False)
        raise ConfigError("\n".join(_explain(kind, problem) for problem in problems)) from None


def settings(config: Config, prefix: str = "") -> Iterator[tuple[str, Any, str]]:
    """Every leaf setting as (dotted name, value, help text), depth first."""
    for name, info in type(config).model_fields.items():
        value = getattr(config, name)
        if isinstance(value, Config):
            yield from settings(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value, " ".join((info.description or "").split())


def named_manifests(config: Config, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every manifest that the settings name, as (dotted name of the setting, path), depth first."""
    for name, info in type(config).model_fields.items():
        value = getattr(config, name)
        if isinstance(value, Config):
            yield from named_manifests(value, f"{prefix}{name}.")
        elif _MANIFEST in info.metadata and value:
            yield f"{prefix}{name}", value


def _parse(text: str, annotation: Any) -> Any:
    """The value that ``text`` stands for in a field of this type; a name like ``007`` stays text."""
    try:
        value = json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        return {"True": True, "False": False, "None": None}.get(text, text)
    return text if _fits(annotation, text) and not _fits(annotation, value) else value


def _fits(annotation: Any, value: Any) -> bool:
    try:
        TypeAdapter(annotation).validate_json(json.dumps(value), strict=True)
    except ValidationError:
        return False
    return True


def _configs(annotation: Any) -> tuple[type[Config], ...]:
    """The settings classes that a field of this type may hold: one with all below it, several of a union, or none."""
    if isinstance(annotation, type) and issubclass(annotation, Config):
        below = (kind for child in annotation.__subclasses__() for kind in _configs(child))
        return tuple(dict.fromkeys((annotation, *below)))
    return tuple(kind for part in get_args(annotation) for kind in _configs(part))


def _annotation(top: type[Config], parents: Sequence[str], name: str, kinds: Sequence[type[Config]]) -> Any:
    for kind in kinds:
        if name in kind.model_fields:
            return kind.model_fields[name].annotation
    raise ConfigError(_unknown(top, parents, name, kinds))


def _unknown(top: type[Config], parents: Sequence[str], name: str, kinds: Sequence[type[Config]]) -> str:
    """One line for a name that does not exist: its nearest neighbour, its like elsewhere, or all there is."""
    wrong = ".".join([*parents, name])
    known = list(dict.fromkeys(field for kind in kinds for field in kind.model_fields))
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    close = close or [each for each in known if name and each.startswith(name)]
    near = [".".join([*parents, each]) for each in close]
    near = near or [full for full in _names(top) if full.rpartition(".")[2] == name and full != wrong]
    if near:
        return f"no setting {wrong!r}; did you mean {' or '.join(repr(full) for full in near[:3])}?"
    return f"no setting {wrong!r}; {'.'.join(parents) or 'the run'} has: {', '.join(known)}"


def _names(kind: type[Config], prefix: str = "") -> Iterator[str]:
    for name, info in kind.model_fields.items():
        yield prefix + name
        for inner in _configs(info.annotation):
            yield from _names(inner, f"{prefix}{name}.")


def _explain(top: type[Config], problem: Any) -> str:
    """One line for one of pydantic's problems.

    Its path also names the member of a union that was tried; that part is no setting and is left out.
    """
    names: list[str] = []
    kinds: tuple[type[Config], ...] = (top,)
    *path, last = problem["loc"] or ("",)
    unknown = problem["type"] == "extra_forbidden"
    for part in path if unknown else problem["loc"]:
        holders = [kind for kind in kinds if part in kind.model_fields]
        if holders:
            names.append(part)
            kinds = tuple(k for holder in holders for k in _configs(holder.model_fields[part].annotation))
        elif isinstance(part, int):
            names.append(str(part))
        else:
            kinds = tuple(kind for kind in kinds if part == kind.__name__ or part in _tags(kind)) or kinds
    if unknown:
        return _unknown(top, names, str(last), kinds)
    name = ".".join(names) or top.__name__
    if problem["type"] == "missing":
        return f"{name} is missing"
    given = problem["input"]
    shown = "" if isinstance(given, dict) else f" = {_short(given)}"
    return f"{name}{shown}: {problem['msg'].removeprefix('Value error, ')}"


def _tags(kind: type[Config]) -> set[Any]:
    return {tag for info in kind.model_fields.values() for tag in get_args(info.annotation)}


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
