import json
from pathlib import Path
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError, model_validator

from svilm.config import Config, ConfigError, build, override, settings


class Optim(Config):
    lr: float = Field(0.1, gt=0)
    """Peak learning
    rate."""
    betas: tuple[float, float] = (0.9, 0.98)
    """Moment decays."""
    name: Literal["sgd", "adamw"] = "sgd"
    """Which one."""


class Retrieval(Config):
    kind: Literal["retrieval"] = "retrieval"
    depth: int = 2
    """Blocks."""


class Answers(Config):
    kind: Literal["answers"] = "answers"
    size: int = 1500
    """Vocabulary."""


class Run(Config):
    title: str = "x"
    """Free text."""
    data: Path | None = None
    """Manifest."""
    resume: bool = False
    """Go on."""
    optim: Optim = Optim()
    """Optimiser."""
    task: Annotated[Retrieval | Answers, Field(discriminator="kind")] = Retrieval()
    """Task."""
    average: Optim | None = None
    """A part that is off by default."""

    @model_validator(mode="after")
    def _fits(self) -> "Run":
        if self.resume and self.data is None:
            raise ValueError("resume needs data")
        return self


def test_override_changes_only_what_is_named() -> None:
    run = override(Run(), ["optim.lr=0.5", "data=/videos/train.jsonl", "optim.name=adamw", "optim.betas=[0, 1]"])
    assert run == Run(data=Path("/videos/train.jsonl"), optim=Optim(lr=0.5, betas=(0.0, 1.0), name="adamw"), title="x")


def test_settings_are_checked_together_and_not_one_by_one() -> None:
    assert override(Run(), ["resume=true", "data=a"]).resume
    with pytest.raises(ConfigError, match=r"^Run: resume needs data$"):
        override(Run(), ["resume=true"])


def test_the_last_of_two_settings_of_one_name_holds() -> None:
    assert override(Run(), ["optim.lr=1", "optim.lr=2"]).optim.lr == 2


def test_a_part_can_be_given_whole_and_then_refined() -> None:
    assert override(Run(), ["optim={}", "optim.lr=2"]).optim == Optim(lr=2.0)
    with pytest.raises(ConfigError, match=r"^optim is a single value and has no setting 'lr' inside it$"):
        override(Run(), ["optim=3", "optim.lr=2"])


@pytest.mark.parametrize("text", ["123", "true", "null", "1e3", "[1]", '{"a": 1}', "", "a=b", "007"])
def test_text_stays_text_where_text_is_wanted(text: str) -> None:
    assert override(Run(), [f"title={text}"]).title == text


@pytest.mark.parametrize("text", ["null", "None"])
def test_null_switches_off(text: str) -> None:
    assert override(Run(data=Path("a")), [f"data={text}"]).data is None


@pytest.mark.parametrize("text", ["true", "True"])
def test_truth_as_json_or_as_python(text: str) -> None:
    assert override(Run(data=Path("a")), [f"resume={text}"]).resume


def test_setting_inside_a_part_that_is_off_switches_it_on() -> None:
    assert override(Run(), ["average.lr=0.5"]).average == Optim(lr=0.5)


def test_union_is_followed_by_its_kind() -> None:
    assert override(Run(), ["task.depth=4"]).task == Retrieval(depth=4)
    assert override(Run(), ['task={"kind": "answers"}', "task.size=7"]).task == Answers(size=7)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("optim.lrr=1", "no setting 'optim.lrr'; did you mean 'optim.lr'?"),
        ("lr=1", "no setting 'lr'; did you mean 'optim.lr' or 'average.lr'?"),
        ("optim.na=1", "no setting 'optim.na'; did you mean 'optim.name'?"),
        ("optmi.lr=1", "no setting 'optmi'; did you mean 'optim'?"),
        ("zzz=1", "no setting 'zzz'; the run has: title, data, resume, optim, task, average"),
        ("task.size=1", "no setting 'task.size'; task has: kind, depth"),
        ('task={"kind": "answers", "sise": 1}', "no setting 'task.sise'; did you mean 'task.size'?"),
        ("optim.lr.x=1", "optim.lr is a single value and has no setting 'x' inside it"),
        ("optim.lr=fast", "optim.lr = 'fast': Input should be a valid number"),
        ("optim.lr=-1", "optim.lr = -1: Input should be greater than 0"),
        ("optim.lr=true", "optim.lr = True: Input should be a valid number"),
        ("optim.lr=NaN", "optim.lr = nan: Input should be a finite number"),
        ("optim.name=adam", "optim.name = 'adam': Input should be 'sgd' or 'adamw'"),
        (
            "optim.betas=[1, 2, 3]",
            "optim.betas = [1, 2, 3]: Tuple should have at most 2 items after validation, not 3",
        ),
        ("optim=3", "optim = 3: Input should be an object"),
        ("task.depth=2.0", "task.depth = 2.0: Input should be a valid integer"),
        ("task.depth=true", "task.depth = True: Input should be a valid integer"),
        ("resume=1", "resume = 1: Input should be a valid boolean"),
        ("resume", "--set 'resume': write it as name=value, for instance optim.lr=0.001"),
        ("optim.name=" + "x" * 99, f"optim.name = '{'x' * 56}...: Input should be 'sgd' or 'adamw'"),
    ],
)
def test_a_wrong_setting_is_named_with_a_remedy(setting: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        override(Run(), [setting])
    assert str(caught.value) == message


def test_every_problem_has_its_line() -> None:
    class Needs(Config):
        size: int
        """Has no default."""

    with pytest.raises(ConfigError) as caught:
        build(Needs, {"sise": 1})
    assert str(caught.value).splitlines() == ["size is missing", "no setting 'sise'; did you mean 'size'?"]
    with pytest.raises(ConfigError, match=r"^Run = \[1\]: Input should be an object$"):
        build(Run, [1])


def test_settings_cannot_be_changed_in_place_or_behind_the_checks() -> None:
    run = Run()
    with pytest.raises(ValidationError):
        run.title = "y"  # type: ignore[misc]
    with pytest.raises(ValidationError):
        run.model_copy(update={"titel": "y"})
    with pytest.raises(ValidationError):
        run.model_copy(update={"title": 3})
    assert run.model_copy(update={"title": "y"}) == Run(title="y")
    assert run.model_copy() == run


def test_leaf_settings_come_with_their_help() -> None:
    rows = {name: (value, text) for name, value, text in settings(Run())}
    assert rows["optim.lr"] == (0.1, "Peak learning rate.")
    assert rows["average"] == (None, "A part that is off by default.")
    assert "optim" not in rows


@given(
    run=st.builds(
        Run,
        title=st.text(),
        data=st.none() | st.from_regex(r"/[a-z/ .]+", fullmatch=True).map(Path),
        resume=st.just(False),
        optim=st.builds(
            Optim,
            lr=st.floats(min_value=0, exclude_min=True, allow_infinity=False),
            betas=st.tuples(st.floats(0, 1), st.floats(0, 1)),
            name=st.sampled_from(["sgd", "adamw"]),
        ),
        task=st.builds(Retrieval, depth=st.integers()) | st.builds(Answers, size=st.integers()),
        average=st.none() | st.just(Optim()),
    )
)
def test_json_gives_back_the_same_settings(run: Run) -> None:
    assert build(Run, json.loads(run.model_dump_json())) == run
    rows = [(name, value) for name, value, _ in settings(run) if not name.startswith("task.")]
    written = [f"{name}={json.dumps(value, default=str)}" for name, value in rows]
    assert override(Run(), [f"task={run.task.model_dump_json()}", *written]) == run
