from svilm.engine.logbook import Logbook, read_metrics


def test_lines_are_on_disk_at_once(tmp_path):
    with Logbook(tmp_path, start=0, steps=2) as book:
        book.log(1, {"loss/total": 0.5})
        assert read_metrics(tmp_path)[0]["loss/total"] == 0.5


def test_a_resumed_run_does_not_repeat_lines(tmp_path):
    with Logbook(tmp_path, start=0, steps=30) as book:
        for step in (10, 20, 30):
            book.log(step, {"loss/total": float(step)})
    with Logbook(tmp_path, start=20, steps=30) as book:
        book.log(30, {"loss/total": -1.0})
    assert [(row["step"], row["loss/total"]) for row in read_metrics(tmp_path)] == [
        (10, 10.0),
        (20, 20.0),
        (30, -1.0),
    ]


def test_a_line_cut_off_by_a_crash_is_left_out(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss/total": 1.0}\n{"step": 2, "lo')
    assert [row["step"] for row in read_metrics(tmp_path)] == [1]


def test_other_ranks_write_nothing(tmp_path):
    with Logbook(None, start=0, steps=1) as book:
        book.log(1, {"loss/total": 1.0})
        book.advance()
    assert not list(tmp_path.iterdir())
