"""Rows, their arithmetic and their table; nothing here depends on how fast the machine is."""

import json
import math
import os
from collections.abc import Iterator

import pytest

from svilm import bench
from svilm.bench import apart
from svilm.bench.frame import How, Row, compare, higher, lower, not_measured, seconds_of, table


def test_a_ratio_above_one_means_that_ours_is_better():
    assert lower("time", 2.0, 6.0, "s").ratio == 3
    assert higher("speed", 2.0, 6.0, "clips/s").ratio == pytest.approx(1 / 3)
    assert lower("alone", 2.0, None, "s").ratio is None and higher("alone", 2.0, None, "s").peer is None


def test_works_take_turns_and_the_first_round_is_not_counted():
    calls: list[str] = []
    row = compare("x", lambda: calls.append("ours"), lambda: calls.append("peer"), How(12))
    rounds = [tuple(calls[first : first + 2]) for first in range(0, len(calls), 2)]
    assert len(rounds) == 13 and set(rounds) == {("ours", "peer"), ("peer", "ours")}
    assert row.unit == "s" and row.ratio == row.peer / row.ours
    calls.clear()
    assert len(seconds_of([lambda: calls.append("once")], How(1), warm=False)) == 1 and calls == ["once"]


def test_times_stay_with_their_work_whatever_the_order(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    works = [lambda seconds=seconds: now.__setitem__(0, now[0] + seconds) for seconds in (1.0, 2.0, 4.0)]
    assert seconds_of(works, How()) == pytest.approx([1.0, 2.0, 4.0])


def test_a_machine_that_gets_slower_is_no_ones_fault(monkeypatch):
    now, done = [0.0], [0]

    def work(seconds):
        # Twice as slow from the middle of the third counted round on.
        now[0] += seconds * (1 if done[0] < 3 * 3 + 1 else 2)
        done[0] += 1

    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    found = seconds_of([lambda s=s: work(s) for s in (1.0, 2.0, 4.0)], How(patience=math.inf))
    assert [each / found[0] for each in found] == pytest.approx([1.0, 2.0, 4.0])


def test_what_takes_long_has_fewer_rounds_but_three(monkeypatch):
    now, rounds = [0.0], [0]

    def work(seconds):
        now[0] += seconds
        rounds[0] += 1

    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    for seconds, expected in ((1, 20), (3, 6), (100, 3)):
        rounds[0] = 0
        assert seconds_of([lambda s=seconds: work(s)], How(20, patience=20.0)) == pytest.approx([seconds])
        assert rounds[0] == 1 + expected
    rounds[0] = 0
    seconds_of([lambda: work(100)], How(20, patience=math.inf))
    assert rounds[0] == 21
    seconds_of([lambda: work(100)], How(20, quick=True))
    assert rounds[0] == 21 + 2


def test_the_median_is_taken(monkeypatch):
    ticks = iter([0.0, 100.0, 0.0, 1.0, 0.0, 9.0, 0.0, 2.0])  # the first, counted out, then 1, 9 and 2 seconds
    monkeypatch.setattr("time.perf_counter", lambda: next(ticks))
    assert seconds_of([lambda: None], How(3)) == pytest.approx([2])


def test_json_has_the_five_figures_and_a_note_where_there_is_one():
    assert lower("a", 1.0, 2.0, "s").as_json() == {"name": "a", "ours": 1.0, "peer": 2.0, "unit": "s", "ratio": 2.0}
    absent = not_measured("b", "no GPU").as_json()
    assert absent["ours"] is None and absent["note"] == "not measured: no GPU"
    assert set(absent) == {"name", "ours", "peer", "unit", "ratio", "note"}


def test_the_table_is_aligned():
    lines = table([lower("a", 1.0, 2.0, "s"), lower("long name", 12345.6, None, "MB", "a remark")]).splitlines()
    assert lines[0].split() == ["ours", "peer", "unit", "ratio"]
    assert lines[1].split() == ["a", "1", "2", "s", "2"]
    assert lines[2].split() == ["long", "name", "12,346", "MB", "a", "remark"]
    assert lines[0].index("unit") == lines[2].index("MB")


def test_long_remarks_follow_the_table():
    shown = table([lower("a", 1.0, 2.0, "s", "short"), lower("b", 1.0, 2.0, "s", "long " * 20)]).splitlines()
    assert shown[1].endswith("short") and shown[2].endswith("[1]") and shown[3].startswith("[1] long long")


def test_every_subject_is_a_module_with_rows():
    from importlib import import_module

    for name in bench.SUBJECTS:
        assert callable(import_module(f"svilm.bench.{name}").rows), name


def test_an_unknown_subject_is_named_with_those_that_exist():
    with pytest.raises(ValueError, match=r"no subject speeed; choose from machine, step"):
        list(bench.measure(["machine", "speeed"], How()))


def test_a_missing_library_is_a_row_that_says_so(monkeypatch):
    def rows(how: How) -> Iterator[Row]:
        yield lower("first", 1.0, None, "s")
        raise ImportError("no module named cv2")

    monkeypatch.setattr("svilm.bench.roi.rows", rows)
    found = list(bench.measure(["roi"], How()))
    assert [row.note for row in found] == ["", "not measured: no module named cv2"]


def test_a_process_that_is_killed_is_a_row_that_says_so(monkeypatch):
    def rows(how: How) -> Iterator[Row]:
        yield lower("before", 1.0, None, "s")
        apart.each(os._exit, [(9,)])

    monkeypatch.setattr("svilm.bench.roi.rows", rows)
    first, second, *rest = bench.measure(["roi", "roi"], How(quick=True))
    assert (first.name, second.name, second.ours) == ("before", "roi", None) and "was killed" in second.note
    assert len(rest) == 2


def test_repetitions_that_were_asked_for_are_made(monkeypatch):
    from svilm.cli.bench import bench as command

    seen: list[How] = []
    monkeypatch.setattr("svilm.bench.roi.rows", lambda how: seen.append(how) or ())
    for repetitions in (None, 12):
        command(["roi"], json_file=None, repetitions=repetitions, peers=None, pictures=None, quick=False)
    assert seen == [How(), How(repetitions=12, patience=math.inf)]


def test_who_stops_the_command_has_what_was_measured(monkeypatch, tmp_path, capsys):
    from svilm.cli.bench import bench as command

    def rows(how: How) -> Iterator[Row]:
        yield lower("before", 1.0, None, "s")
        raise KeyboardInterrupt

    monkeypatch.setattr("svilm.bench.roi.rows", rows)
    file = tmp_path / "new" / "rows.json"
    with pytest.raises(KeyboardInterrupt):
        command(["roi"], json_file=file, repetitions=None, peers=None, pictures=None, quick=True)
    assert [row["name"] for row in json.loads(file.read_text())] == ["before"]
    assert "before" in capsys.readouterr().out
    with pytest.raises(ValueError, match="no subject rooi"):
        command(["rooi"], json_file=file, repetitions=None, peers=None, pictures=None, quick=True)
    assert "before" in file.read_text()


def test_the_command_prints_and_writes_rows(tmp_path, capsys):
    from svilm.cli.bench import bench as command

    command(["roi"], json_file=tmp_path / "rows.json", repetitions=None, peers=None, pictures=None, quick=True)
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [row["name"] for row in rows] and all(math.isfinite(row["ratio"]) for row in rows)
    assert rows[0]["name"] in capsys.readouterr().out
    command([], json_file=None, repetitions=None, peers=None, pictures=None, quick=True, list_subjects=True)
    assert all(name in capsys.readouterr().out for name in ("machine",))
