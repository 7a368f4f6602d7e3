"""Processes that read ahead, and live exactly as long as the one that they read for.

A batch scheduler sends SIGTERM to every process of a job.  The training process saves and ends in good order then, and
needs its readers until it has; were one of them to die first, torch would raise an error at an arbitrary place of
training.  So they heed SIGTERM only from the process that started them, which is how torch and Python end them.
When that process is killed without a word, torch's watchdog ends them.

A reader that dies all the same is noticed where its work is waited for, within seconds.  torch would rather raise an
error as soon as the signal comes, wherever the program is at that moment.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

T = TypeVar("T")


class Readers(DataLoader[T]):
    """A DataLoader whose processes use one thread each and heed SIGTERM only from the process that started them.

    RuntimeError for one that died comes from ``next`` and from nowhere else.
    """

    def __init__(self, dataset: Dataset[Any], **options: Any) -> None:
        super().__init__(dataset, worker_init_fn=_begin, **options)

    def __iter__(self) -> Any:
        with _holding_back_sigterm(), _keeping_sigchld():  # SIGTERM could come before a reader is ready for it
            return super().__iter__()


@contextmanager
def _holding_back_sigterm() -> Iterator[None]:
    """SIGTERM waits, here and in the processes that are started meanwhile."""
    if not hasattr(signal, "sigwaitinfo"):  # neither macOS nor Windows tells who sent a signal
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _keeping_sigchld() -> Iterator[None]:
    """What is done about the death of a process stays as it is; torch sets a handler that raises an error anywhere."""
    if not hasattr(signal, "SIGCHLD") or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGCHLD)
    try:
        yield
    finally:
        signal.signal(signal.SIGCHLD, before)


def _begin(_: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; the training process saves first
    torch.set_num_threads(1)  # a forked child hangs in torch's OpenMP pool otherwise, and cores are shared
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_heed_the_parent, daemon=True).start()


def _heed_the_parent() -> None:
    """End this process at a SIGTERM from the one that started it, and at no other."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
