"""What a process does that is told to misbehave: the others are not harmed, and the right task is blamed."""

import os
import signal
import time
from collections.abc import Callable, Iterable
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import pytest

from svilm.data import sandbox
from svilm.data.sandbox import Death, Limits, each


def behave(task: str) -> Any:
    """Do what the task says."""
    what, _, value = task.partition(" ")
    if what == "signal":
        os.kill(os.getpid(), int(value))
    elif what == "exit":
        os._exit(int(value))
    elif what == "once":  # crash when it is done for the first time
        try:
            os.mkdir(value)
        except FileExistsError:
            return "done at the second try"
        os.kill(os.getpid(), signal.SIGSEGV)
    elif what == "burn":
        while True:
            pass
    elif what == "sleep":
        time.sleep(600)
    elif what == "eat":
        try:
            return len(bytearray(int(value) << 20))
        except MemoryError:
            return "refused"
    elif what == "write":
        try:
            Path(value).write_text("something")
        except OSError as error:
            return type(error).__name__
    elif what == "raise":
        raise KeyError(value)
    elif what == "pid":
        return os.getpid()
    return task


def run(
    tasks: Iterable[str], workers: int = 1, limits: Callable[[str], Limits] = lambda _: Limits(60.0, 1024)
) -> dict[str, Any]:
    return dict(each(behave, tasks, workers=workers, limits=limits))


def test_results_come_with_their_tasks() -> None:
    tasks = [f"task {number}" for number in range(20)]
    assert run(tasks, workers=2) == {task: task for task in tasks}
    assert run([]) == {}


def test_a_crash_is_blamed_on_its_task_alone() -> None:
    tasks = ["a", f"signal {int(signal.SIGSEGV)}", "b", "exit 3", "c"]
    found = run(tasks)
    assert [found[name] for name in "abc"] == ["a", "b", "c"]
    assert found[tasks[1]] == Death("crashed", "the process that read it crashed (SIGSEGV)")
    assert found["exit 3"].reason == "crashed" and "exit code 3" in found["exit 3"].message


def test_a_crash_that_an_earlier_task_may_have_caused_is_tried_again(tmp_path: Path) -> None:
    after, alone = f"once {tmp_path / 'after'}", f"once {tmp_path / 'alone'}"
    assert run(["a", after])[after] == "done at the second try"
    assert run([alone])[alone].reason == "crashed"


def test_time_is_limited_by_the_processor_and_by_the_clock() -> None:
    def limits(task: str) -> Limits:  # a busy machine may give a task a fraction of a core
        return Limits(1.0, 1024, patience=4.0 if task == "sleep" else 300.0)

    found = run(["burn", "sleep", "a"], workers=2, limits=limits)
    assert found["burn"] == Death("too_slow", "not done within 1 s of processor time")
    assert found["sleep"] == Death("too_slow", "not done within 4 s")
    assert found["a"] == "a"


def test_time_is_counted_for_each_task_anew() -> None:
    assert len(set(run(["pid", *"abcde"], limits=lambda _: Limits(0.5, 1024)).values())) == 6


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is limited where Linux says how much is used")
def test_memory_is_limited() -> None:
    found = run(["eat 100", "eat 700", "a"], limits=lambda _: Limits(60.0, 512))
    assert found == {"eat 100": 100 << 20, "eat 700": "refused", "a": "a"}


def test_nothing_is_written(tmp_path: Path) -> None:
    assert run([f"write {tmp_path / 'x'}"]) == {f"write {tmp_path / 'x'}": "OSError"}
    assert not (tmp_path / "x").exists() or not (tmp_path / "x").stat().st_size


def test_processes_are_used_again_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "RENEWED", 2)
    pids = list(each(behave, ["pid"] * 5, workers=1, limits=lambda _: Limits(60.0, 1024)))
    found = [pid for _, pid in pids]
    assert found[0] == found[1] != found[2] == found[3] != found[4] and os.getpid() not in found


def test_a_mistake_of_ours_is_no_verdict() -> None:
    with pytest.raises(RuntimeError, match="KeyError: 'x'"):
        run(["raise x"])


def test_nobody_is_left_behind() -> None:
    results = each(behave, ["pid", "sleep", "sleep"], workers=2, limits=lambda _: Limits(60.0, 1024))
    assert next(results)[0] == "pid"
    results.close()  # type: ignore[attr-defined]  # a generator
    assert not active_children()
