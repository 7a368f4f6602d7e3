"""Reader processes heed SIGTERM from the process that started them, and from no other."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest
from torch.utils.data import Dataset, get_worker_info

from svilm.data.workers import Readers

pytestmark = pytest.mark.skipif(not hasattr(signal, "sigwaitinfo"), reason="nothing tells here who sent a signal")


class Numbers(Dataset[tuple[int, int]]):
    """Each number with the process that reads it."""

    def __len__(self) -> int:
        return 64

    def __getitem__(self, number: int) -> tuple[int, int]:
        assert get_worker_info() is not None
        return number, os.getpid()


def wait_for(happened: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < until
        time.sleep(0.01)


def gone(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG) != (0, 0)
    except ChildProcessError:
        return True


def test_a_signal_from_others_ends_no_reader() -> None:
    stream = iter(Readers(Numbers(), batch_size=None, num_workers=1, multiprocessing_context="fork"))
    number, pid = next(stream)
    program = f"import os, signal; os.kill({pid}, signal.SIGTERM)"
    subprocess.run([sys.executable, "-c", program], check=True)
    assert [number, *(number for number, _ in stream)] == list(range(64))


def test_a_signal_from_its_parent_ends_a_reader() -> None:
    stream = iter(Readers(Numbers(), batch_size=None, num_workers=1, multiprocessing_context="fork"))
    _, pid = next(stream)
    os.kill(pid, signal.SIGTERM)
    wait_for(lambda: gone(pid))
    del stream


def test_the_mask_of_the_starting_process_is_as_before() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    next(iter(Readers(Numbers(), batch_size=None, num_workers=1, multiprocessing_context="fork")))
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
