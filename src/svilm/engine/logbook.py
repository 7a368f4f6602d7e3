"""What a run writes while it trains: metrics.jsonl, TensorBoard when installed, a progress bar."""

import json
import os
import sys
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from tqdm import tqdm


class Logbook:
    """One line of numbers per logged step, on disk at once.  Other ranks than 0 get a `Logbook(None, ...)`.

    Lines of steps that a resumed run repeats are dropped when the logbook opens.
    """

    def __init__(self, folder: Path | None, *, start: int, steps: int) -> None:
        self._file = self._board = None
        self._bar = tqdm(
            total=steps, initial=start, unit="step", desc="training", disable=folder is None, file=sys.stderr
        )
        self._began = time.monotonic()
        self._unwritten = b""
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / "metrics.jsonl"
            if path.exists():
                kept = [line for line in read_metrics(folder) if line["step"] <= start]
                part = path.with_name(path.name + ".part")
                part.write_text("".join(json.dumps(line) + "\n" for line in kept))
                os.replace(part, path)
            self._file = open(path, "ab", buffering=0)  # noqa: SIM115 (closed by __exit__)
            self._board = _tensorboard(folder)

    def __enter__(self) -> "Logbook":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
        if self._file is not None:
            self._file.close()
        if self._board is not None:
            self._board.close()

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Write the numbers of one step."""
        if self._file is None:
            return
        row = {"step": step, "seconds": round(time.monotonic() - self._began, 3), **values}
        self._unwritten += json.dumps(row).encode() + b"\n"
        self._write()
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)

    def _write(self) -> None:
        """Append what is not on disk yet; a full disk leaves whole lines there, and the rest for the next time."""
        assert self._file is not None
        end = os.fstat(self._file.fileno()).st_size
        try:
            written = self._file.write(self._unwritten)
            if written == len(self._unwritten):
                self._unwritten = b""
                return
            reason = "No space left on device"
        except OSError as error:
            reason = str(error)
        os.ftruncate(self._file.fileno(), end)
        warnings.warn(f"metrics.jsonl: {reason}; training goes on", stacklevel=4)

    def show(self, step: int, values: Mapping[str, float]) -> None:
        """Write the numbers of one step, and put loss, speed and the share of time spent waiting beside the bar."""
        self.log(step, values)
        self._bar.set_postfix_str(
            f"loss {values['loss/total']:.3f}, {values['speed/clips_per_second']:.1f} clips/s, "
            f"{100 * values['speed/waiting_for_data']:.0f}% waiting for data",
            refresh=False,
        )

    def advance(self) -> None:
        """Move the progress bar by one step."""
        self._bar.update()


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl; a last line cut off by a crash is left out."""
    rows = []
    for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").split("\n"):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows


def _tensorboard(folder: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder / "tensorboard"))
