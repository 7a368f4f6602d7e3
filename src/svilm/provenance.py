"""Where a number comes from: versions, hardware, command and time of this process."""

import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from svilm.runtime import world_size
from svilm.version import __version__


def environment() -> dict[str, Any]:
    """Versions, hardware, command and time, for the report beside every number."""
    import av
    import transformers

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "command": " ".join(["svilm", *sys.argv[1:]]),
        "date": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "svilm": __version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "av": av.__version__,
        "system": platform.platform(),
        "cpus": os.cpu_count(),
        "gpus": gpus,
        "ranks": world_size(),
    }


def _commit() -> str:
    try:
        found = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"],
            capture_output=True, text=True, timeout=5, check=True,
        )  # fmt: skip
        return found.stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"
