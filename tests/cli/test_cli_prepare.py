"""`svilm prepare` from the command line: it explains itself, prints the account, and fails in one line."""

import csv
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Annotated, get_origin

import av
import numpy as np
import pytest
from typer.testing import CliRunner

from svilm.cli import app as everything
from svilm.cli.prepare import app
from svilm.data import prepare
from svilm.data.manifest import Entry, Header, Manifest, write_manifest

OPTIONS = {
    "activitynet-captions": {"--paragraph", "--split"},
    "didemo": {"--only", "--split"},
    "folder": {"--names-as-captions", "--split"},
    "howto100m": {"--min-seconds", "--only"},
    "lsmdc": {"--split"},
    "msrvtt": {"--protocol", "--split"},
    "msrvtt-qa": {"--split"},
    "msvd": {"--captions", "--split"},
    "msvd-qa": {"--mapping", "--split"},
    "videocc": {"--split"},
    "webvid": {"--split"},
    "youcook2": {"--split"},
}
"""Some of the datasets, and what is asked of each besides the options of all."""
COMMON = {"--to", "--videos", "--check", "--workers", "--allow-missing", "--nouns", "--help"}


def run(*arguments: object) -> tuple[int, str, BaseException | None]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.stdout, result.exception


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


@pytest.mark.parametrize("command", OPTIONS)
def test_each_command_explains_itself(command: str) -> None:
    code, text, _ = run(command, "--help")
    assert code == 0
    assert {word.strip("().,;:") for word in text.split() if word.startswith("--")} == COMMON | OPTIONS[command]
    assert "``" not in text


def test_the_list_shows_the_first_line_of_each_reader() -> None:
    code, text, _ = run("--help")
    assert code == 0
    shown = " ".join(text.replace("│", " ").split())
    for reader in readers():
        line = reader.__doc__.partition("\n")[0] if reader.__doc__ else "no docstring"
        assert f" {reader.__name__.rpartition('.')[2].replace('_', '-')} {line}" in shown
    assert not re.findall(r"^│ (common|tables|videos|questions) ", text, flags=re.MULTILINE)


def readers() -> Iterator[ModuleType]:
    """Every module with a ``listing``, found by importing them all."""
    for path in sorted(Path(prepare.__path__[0]).glob("[a-z]*.py")):
        module = import_module(f"{prepare.__name__}.{path.stem}")
        if hasattr(module, "listing"):
            yield module


def test_every_option_of_every_reader_has_a_help_text() -> None:
    found = list(readers())
    assert len(found) >= len(OPTIONS)
    for reader in found:
        for parameter in inspect.signature(reader.listing, eval_str=True).parameters.values():
            assert get_origin(parameter.annotation) is Annotated, f"{reader.__name__}: {parameter}"
            assert parameter.name not in {option[2:].replace("-", "_") for option in COMMON}


OUTSIDE = '''"""Colours: a file of them, [red] or {blue}.

Each is what ``colour`` says.
"""
from pathlib import Path
from typing import Annotated, Literal
from svilm.data.prepare.common import Clip, Listing

def listing(
    annotations: Annotated[str | Path, "File of colours."],
    *,
    tone: Annotated[Literal["light", "dark"] | None, "Which of them."] = None,
    how_many: Annotated[int, "So many clips."] = 1,
    share: Annotated[float | None, "Of all."] = None,
    beside: Annotated[str | Path | None, "Another file."] = None,
    shout: Annotated[bool, "In capitals."] = False,
    bare: str = "x",
) -> Listing:
    said = f"{tone} {how_many} {share} {beside!r} {shout} {bare}"
    clips = [Clip(str(k), ("a",), ("a red dog",), "line 1") for k in range(how_many)]
    return Listing("colours", Path(annotations), lambda: iter(clips), said)
'''


def test_a_reader_outside_the_package(clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One file makes a dataset: its options come from its parameters, its help from its docstring."""
    (clips / "my_readers").mkdir()
    (clips / "my_readers" / "colours.py").write_text(OUTSIDE)
    (clips / "my_readers" / "nothing.py").write_text("listing = None\n")
    monkeypatch.chdir(clips)
    code, text, _ = run("my_readers.colours", "--help")
    assert code == 0
    texts = [
        "Colours: a file of them, [red] or {blue}.",
        "Each is what `colour` says.",
        "File of colours.",
        "In capitals.",
    ]
    words = ["--tone", "<light|dark>", "--how-many", "--share", "--beside", "--bare", "--allow-missing"]
    assert not [part for part in [*texts, *words] if part not in text]
    assert "--no-shout" not in text
    words = ["my_readers.colours", "clips.csv", "--to", "m.jsonl", "--workers", "0", "--nouns", "rules"]
    assert run(*words)[0] == 0
    assert Manifest("m.jsonl").header.protocol == "None 1 None None False x"
    more = ["--tone", "dark", "--how-many", "3", "--share", "0.5", "--beside", "b.csv", "--shout", "--bare", "y"]
    assert run(*words, *more)[0] == 0
    assert Manifest("m.jsonl").header.protocol == f"dark 3 0.5 {Path('b.csv')!r} True y"
    assert len(Manifest("m.jsonl")) == 3
    assert run(*words, "--tone", "grey")[0] == 2
    assert run(*words, "--how-many", "many")[0] == 2
    assert run("my_readers.nothing", "clips.csv")[0] == 2


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("msrvt", "No such command 'msrvt'. Did you mean 'msrvtt'"),
        ("foo", "No such command 'foo'. `svilm prepare --help` lists the datasets."),
        ("jion", "No such command 'jion'. Did you mean 'join'? `svilm prepare --help` lists"),
        ("nowhere.reader", "No such command 'nowhere.reader'"),
        ("", "No such command ''"),
        (".x", "No such command '.x'"),
        ("common", "No such command 'common'"),
        ("csv", "module 'csv' has no function listing"),
    ],
)
def test_a_command_that_is_no_reader(name: str, said: str) -> None:
    result = CliRunner().invoke(app, [name, "file"])
    assert result.exit_code == 2
    assert said in result.output


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """A folder of one video and a table that also names another one."""
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=8)
        stream.width = stream.height = 32
        for _ in range(16):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8))))
        container.mux(stream.encode(None))
    with open(tmp_path / "clips.csv", "w", newline="") as file:
        csv.writer(file).writerows(
            [
                ["video", "start", "end", "caption"],
                ["a.mp4", 0, 1, "a dog runs"],
                ["b.mp4", 0, 1, "a cat sleeps"],
            ]
        )
    return tmp_path


def test_folder(clips: Path) -> None:
    code, text, _ = run("folder", clips / "clips.csv", "--to", clips / "m.jsonl", "--workers", 0, "--nouns", "rules")
    assert code == 0
    assert "1 x video not found: line 3 (b.mp4)" in text
    (entry,) = Manifest(clips / "m.jsonl")
    assert (entry.id, entry.nouns) == ("a.mp4:0.000-1.000", (("dog",),))


def test_a_test_split_fails_and_says_how_to_go_on(clips: Path) -> None:
    command = ["folder", clips / "clips.csv", "--to", clips / "m.jsonl", "--workers", 0, "--split", "test"]
    code, _, error = run(*command)
    assert code != 0 and "line 3 (b.mp4): video not found" in str(error)
    assert isinstance(error, ValueError)
    assert run(*command, "--allow-missing")[0] == 0
    assert Manifest(clips / "m.jsonl").header.struck == ("b.mp4:0.000-1.000: video not found",)


def test_a_folder_without_a_table(clips: Path) -> None:
    (clips / "a.txt").write_text("a dog\n")
    code, text, _ = run("folder", clips, "--to", clips / "m.jsonl", "--workers", 0)
    assert code == 0 and "1 captions" in text


def test_join_makes_one_list_of_several(clips: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    for path in (first, second):
        assert run("folder", clips / "clips.csv", "--to", path, "--workers", 0, "--nouns", "rules")[0] == 0
    both = tmp_path / "both.jsonl"
    code, text, _ = run("join", first, second, "--to", both)
    assert code == 0 and text == f"{both}: 2 clips, 1 of {first} + 1 of {second}\n"
    joined = Manifest(both)
    assert [entry.id for entry in joined] == ["a.mp4:0.000-1.000", "folder:a.mp4:0.000-1.000"]
    assert {joined.path_of(entry) for entry in joined} == {clips / "a.mp4"}
    code, _, error = run("join", first, "--to", tmp_path / "one_more.jsonl")
    assert code == 1 and "two manifests or more" in str(error)


def test_join_is_listed_apart_from_the_datasets_and_explained() -> None:
    _, text, _ = run("--help")
    assert re.search(r"Manifests ─+╮\s+│ join +Join manifests into one", text)
    code, text, _ = run("join", "--help")
    assert code == 0 and "svilm prepare join videocc.jsonl activitynet.jsonl --to pretrain.jsonl" in text


def test_the_list_of_datasets_needs_no_heavy_library() -> None:
    """Readers are imported when they are called, not to be listed."""
    code = (
        "import sys\nfrom svilm.cli.prepare import app\n"
        "try: app(['--help'])\nexcept SystemExit: pass\n"
        "heavy = ('torch', 'numpy', 'av', 'spacy', 'textblob', 'nltk', 'lemminflect')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert result.stdout.strip().endswith("[]")


@pytest.mark.parametrize(
    ("count", "said"), [(7, "8 clips instead of 7: clips of one video stay together"), (8, "8 clips")]
)
def test_hold_out_says_why_it_holds_out_more_than_asked_for(count: int, said: str, tmp_path: Path) -> None:
    entries = [Entry(f"{k}", f"{k // 2}.mp4", ("x",), ((),)) for k in range(30)]
    write_manifest(tmp_path / "m.jsonl", Header("test", "videos", 30), entries)
    words = ["hold-out", str(tmp_path / "m.jsonl"), "--count", str(count)]
    assert CliRunner().invoke(everything, words).stdout.endswith(f"m-val.jsonl: {said}\n")
