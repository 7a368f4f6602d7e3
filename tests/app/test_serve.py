"""`svilm app`: what it prints, and whom it lets in."""

import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fake_index import FakeIndex
from typer.testing import CliRunner

import svilm.app.serve
from svilm.app.serve import listen
from svilm.cli import app


@pytest.fixture
def started(drawn: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The applications that would be served; their addresses are printed."""
    applications: list[Any] = []

    class Server:
        def run(self, sockets: list[socket.socket]) -> None:
            assert sockets[0].getsockname()[1]

    def server_of(application: Any) -> Server:
        applications.append(application)
        return Server()

    monkeypatch.setattr(svilm.app.serve, "Index", lambda folder, model, device: FakeIndex(drawn))
    monkeypatch.setattr(svilm.app.serve, "server_of", server_of)
    return applications


def test_alone_on_this_machine_no_token_is_needed(started: list[Any]) -> None:
    done = CliRunner().invoke(app, ["app", "some.index", "--port", "0"])
    assert done.exit_code == 0, done.output
    assert "moments of 5 videos" in done.output
    assert "http://127.0.0.1:" in done.output
    assert "token" not in done.output
    assert not started[0].token


def test_for_others_a_token_is_drawn_and_printed(started: list[Any]) -> None:
    done = CliRunner().invoke(app, ["app", "some.index", "--port", "0", "--host", "0.0.0.0"])
    assert done.exit_code == 0, done.output
    token = done.output.strip().rpartition("?token=")[2]
    assert len(token) >= 32
    assert started[0].token == token.encode()
    assert socket.gethostname().lower() in started[0].names


def test_a_given_token(started: list[Any]) -> None:
    done = CliRunner().invoke(app, ["app", "some.index", "--port", "0", "--token", "short"])
    assert isinstance(done.exception, ValueError)
    assert "at least 16" in str(done.exception)
    done = CliRunner().invoke(app, ["app", "some.index", "--port", "0"], env={"SVILM_TOKEN": "x" * 20})
    assert done.output.strip().endswith("?token=" + "x" * 20)


@pytest.mark.parametrize("missing", ["uvicorn", "fastapi"])
def test_without_the_extra_the_remedy_is_told(missing: str) -> None:
    program = f"import sys; sys.modules[{missing!r}] = None; from svilm.cli import main; main()"
    words = [sys.executable, "-c", program, "app", "some.index"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stderr == f"svilm: the page needs {missing}: pip install -e '.[app]' in svilm's checkout\n"


def test_a_port_that_is_taken() -> None:
    with listen("127.0.0.1", 0) as taken, pytest.raises(ValueError, match="choose another --port"):
        listen("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(ValueError, match="or --host"):
        listen("no.such.host.invalid", 0)


def test_a_folder_that_is_no_index(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["app", str(tmp_path), "--port", "0"])
    assert isinstance(done.exception, ValueError)
    assert "svilm index" in str(done.exception)
