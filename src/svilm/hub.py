"""Where a named model is: a folder here, Hugging Face's cache, or the hub, asked in that order."""

import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from threading import Thread

PATIENCE_SECONDS = 3.0
"""Longest wait for a first sign of life of the hub; its own client retries for about 25 s per look-up."""
_SILENCE_SECONDS = 60.0
_silent_since = -_SILENCE_SECONDS  # when the hub last failed to answer, on the monotonic clock


class HubError(ValueError):
    """A model that is nowhere or cannot be fetched; the message says where was looked and what to do."""


def local_folder(name: str, patterns: Sequence[str], optional: Sequence[str] = ()) -> Path:
    """The folder that holds model ``name``: a path, or an id of the hub like "google-bert/bert-base-uncased".

    A folder of that name is taken as it is.  A snapshot in Hugging Face's cache is taken when each of
    ``patterns`` (shell style, such as "model*.safetensors") matches a file of it.  Otherwise the hub is asked
    for the files that match ``patterns`` or ``optional``, unless HF_HUB_OFFLINE is set or it does not answer
    within a few seconds; then the snapshot counts even where files are missing, for the caller to say what it
    lacks.  Raises HubError when there is nothing.
    """
    path = Path(name).expanduser()
    if name and path.is_dir():
        return path
    if name and path.exists():
        raise HubError(f"{name} is a file; give the folder that holds it")
    cached = _cached(name)
    if cached is not None and all(any(cached.glob(pattern)) for pattern in patterns):
        return cached
    reason = _why_not_online()
    if reason is None:
        return _download(name, [*patterns, *optional])
    if cached is not None:
        return cached
    from huggingface_hub import constants

    raise HubError(
        f"{name!r} is neither a folder (looked from {Path.cwd()}) nor in Hugging Face's cache "
        f"({constants.HF_HUB_CACHE}), and the hub was not asked: {reason}. Give the folder of a model, or "
        f"fetch it where the hub can be reached (hf download {name} --local-dir FOLDER) and copy it here"
    )


def _cached(name: str) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, local_files_only=True))
    except HFValidationError as error:
        raise HubError(f"{name!r} is neither a folder nor an id of Hugging Face's hub: {error}") from None
    except LocalEntryNotFoundError as error:
        # newer clients know from the hub's listing that files are missing, and say where the others are
        partial = getattr(error, "snapshot_path", None)
        return None if partial is None else Path(partial)


def _why_not_online() -> str | None:
    """None when the hub may be asked and answers, otherwise the reason in words."""
    global _silent_since
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    silence = f"{constants.ENDPOINT} did not answer"
    if time.monotonic() - _silent_since < _SILENCE_SECONDS:
        return silence  # one start-up looks up several models and shall wait once
    if _answers(constants.ENDPOINT):
        return None
    _silent_since = time.monotonic()
    return silence


def _answers(address: str) -> bool:
    """Whether a HEAD request, sent as the hub's client would (through proxies too), is answered in time."""
    from huggingface_hub import get_session
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # of the library it uses

    answers = []

    def ask() -> None:
        with suppress(OSError, HTTPError):
            answers.append(get_session().head(address, timeout=PATIENCE_SECONDS).status_code)

    # a thread, because the time limit of a request does not cover the resolution of the name
    thread = Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PATIENCE_SECONDS)
    return bool(answers) and answers[0] < 500


def _download(name: str, patterns: list[str]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

    try:
        return Path(snapshot_download(name, allow_patterns=patterns))
    except (OSError, HTTPError) as error:
        raise HubError(
            f"{name!r} is not a folder here and could not be fetched from the hub: {error}\n"
            "Check the id; a private or gated model needs `hf auth login`"
        ) from error
