import socket
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants

from svilm import hub
from svilm.hub import HubError, local_folder


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    """An empty cache, and no memory of earlier tests."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(hub, "_silent_since", -hub._SILENCE_SECONDS)


@pytest.fixture
def asked(monkeypatch):
    """A hub that answers and whose downloads are noted and put aside."""
    downloads: list[list[str]] = []
    real = huggingface_hub.snapshot_download

    def download(name, *, allow_patterns=None, local_files_only=False):
        if local_files_only:
            return real(name, local_files_only=True)
        downloads.append(allow_patterns)
        return "downloaded"

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "_answers", lambda address: True)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return downloads


def cache(name: str, *files: str) -> Path:
    """A snapshot as Hugging Face's cache keeps it."""
    storage = Path(constants.HF_HUB_CACHE) / f"models--{name.replace('/', '--')}"
    (storage / "refs").mkdir(parents=True)
    (storage / "refs" / "main").write_text("a" * 40)
    folder = storage / "snapshots" / ("a" * 40)
    folder.mkdir(parents=True)
    for file in files:
        (folder / file).touch()
    return folder.resolve()


@contextmanager
def server(status: int | None):
    """The address of a server that answers every request with ``status``, or never."""
    if status is None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            yield f"http://127.0.0.1:{silent.getsockname()[1]}"
        return

    class Answer(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def test_a_folder_comes_first(tmp_path, monkeypatch, asked):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "some" / "model").mkdir(parents=True)
    cache("some/model", "config.json")
    assert local_folder("some/model", ["config.json"]) == Path("some/model")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert local_folder("~/some", ["config.json"]) == tmp_path / "some"
    assert asked == []


def test_a_file_is_not_a_folder(tmp_path):
    file = tmp_path / "model.safetensors"
    file.touch()
    with pytest.raises(HubError, match="is a file; give the folder that holds it"):
        local_folder(str(file), ["config.json"])


def test_a_complete_snapshot_needs_no_hub(asked):
    folder = cache("some/model", "config.json", "model-00001.safetensors")
    assert local_folder("some/model", ["config.json", "model*.safetensors"], optional=["README.md"]) == folder
    assert asked == []


def test_what_a_snapshot_lacks_is_fetched(asked):
    cache("some/model", "config.json")
    wanted = ["config.json", "model*.safetensors"]
    assert local_folder("some/model", wanted, optional=["README.md"]) == Path("downloaded")
    assert asked == [[*wanted, "README.md"]]


def test_offline_a_snapshot_counts_as_it_is(monkeypatch):
    monkeypatch.setattr(hub, "_answers", lambda address: pytest.fail("the hub was asked"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    folder = cache("some/model", "config.json")
    assert local_folder("some/model", ["config.json", "model*.safetensors"]) == folder


@pytest.mark.parametrize(("offline", "reason"), [(True, "HF_HUB_OFFLINE is set"), (False, "did not answer")])
def test_a_model_that_is_nowhere(monkeypatch, offline, reason):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(hub, "_answers", lambda address: False)
    with pytest.raises(HubError) as error:
        local_folder("some/model", ["config.json"])
    for part in ("'some/model'", str(Path.cwd()), constants.HF_HUB_CACHE, reason, "hf download some/model"):
        assert part in str(error.value)


@pytest.mark.parametrize("name", ["", "a/b/c", "/no/such/folder", "../none", "with space"])
def test_names_that_no_model_can_have(name):
    with pytest.raises(HubError, match="neither a folder nor an id of Hugging Face's hub"):
        local_folder(name, ["config.json"])


@pytest.mark.parametrize(("status", "answers"), [(200, True), (302, True), (401, True), (503, False), (None, False)])
def test_any_answer_but_a_failure_is_a_sign_of_life(monkeypatch, status, answers):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "PATIENCE_SECONDS", 0.3 if status is None else 30.0)
    with server(status) as address:
        assert hub._answers(address) is answers


def test_a_closed_port_and_an_unknown_host_are_no_answer(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with server(None) as address:
        pass
    assert not hub._answers(address)
    assert not hub._answers("http://no-such-host.invalid")


def test_a_slow_name_server_is_not_waited_for(monkeypatch):
    """The time limit of a request starts after the resolution of the name, which can take much longer."""
    release = threading.Event()

    class Slow:
        status_code = 200

        def head(self, address, timeout):
            release.wait(1.0)
            return self

    monkeypatch.setattr(huggingface_hub, "get_session", Slow)
    monkeypatch.setattr(hub, "PATIENCE_SECONDS", 0.1)
    assert not hub._answers("http://127.0.0.1")
    release.set()


def test_a_silent_hub_is_asked_once_a_minute(monkeypatch):
    questions, clock = [], iter([1000.0, 1000.5, 1060.0, 1061.0, 1061.5])
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "_answers", lambda address: bool(questions.append(address)))
    monkeypatch.setattr(hub.time, "monotonic", lambda: next(clock))
    for count in (1, 1, 2):
        with pytest.raises(HubError, match="did not answer"):
            local_folder("some/model", ["config.json"])
        assert len(questions) == count


def test_a_download_that_fails_says_why(monkeypatch, asked):
    listing = huggingface_hub.snapshot_download

    def download(name, *, allow_patterns=None, local_files_only=False):
        if local_files_only:
            return listing(name, local_files_only=True)
        raise OSError("no space left on device")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(HubError, match=r"'some/model' .* could not be fetched from the hub: no space left"):
        local_folder("some/model", ["config.json"])
