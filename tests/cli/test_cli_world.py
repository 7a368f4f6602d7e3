"""`svilm world`, as typed."""

from typer.testing import CliRunner

from svilm.cli import app


def test_a_drawn_world_is_told_in_a_table_with_the_next_command(tmp_path):
    words = ["world", str(tmp_path / "w"), "--clips", "30", "--test-clips", "1", "--untrimmed", "1", "--workers", "1"]
    lines = CliRunner().invoke(app, [*words, "--size", "32"]).stdout.splitlines()
    assert lines[0].startswith(f"  folder      {tmp_path / 'w'}, drawn in ")
    assert lines[1:3] == ["  clips             30  1.0 min", "  test clips         1  0.0 min"]
    assert lines[3].startswith("  long videos        1  ") and not lines[3].endswith(" 0.0 min")
    videos = tmp_path / "w" / "videos"
    listed = tmp_path / "w" / "videocc" / "video_cc_public.csv"
    assert lines[4] == f"next: svilm prepare videocc {listed} --videos {videos} --to train.jsonl"
    again = CliRunner().invoke(app, [*words, "--size", "32"]).stdout.splitlines()
    assert again[0] == f"  folder      {tmp_path / 'w'}, there already" and again[1:] == lines[1:]
