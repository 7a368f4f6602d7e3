"""`make torture`: what a run must survive, long enough to believe it.  One line for each check, exit 1 if one fails.

    PYTHONPATH=tests python -m torture --seed 7
    PYTHONPATH=tests python -m torture --only mutations --fast

A check is a function listed in CHECKS of one of the modules below;
``frame`` says what it gets and gives.
"""

import argparse
import os
import sys
import tempfile
import time
import traceback
from importlib import import_module
from pathlib import Path

MODULES = ("corpus", "lists", "weights", "training", "indexing")


def main() -> int:
    """Run the checks that were asked for, and return the exit code."""
    from torture.frame import Check, Outcome, Plan

    modules = [import_module(f"torture.{module}") for module in MODULES]
    usual = [check for module in modules for check in module.CHECKS]
    checks: dict[str, Check] = {check.__name__.replace("_", "-"): check for check in usual}
    parser = argparse.ArgumentParser(prog="torture", description=__doc__.partition("\n")[0])
    parser.add_argument("--only", action="append", choices=checks, help="run just this check (may be repeated)")
    parser.add_argument("--seed", type=int, default=0, help="other seeds: other videos, other damage, other instants")
    parser.add_argument("--fast", action="store_true", help="seconds instead of minutes")
    options = parser.parse_args()

    failed = 0
    for name in options.only or checks:
        begun = time.monotonic()
        with tempfile.TemporaryDirectory(prefix=f"torture-{name}-") as folder:
            try:
                outcome = checks[name](Plan(options.seed, options.fast, Path(folder)))
            except Exception as error:  # noqa: BLE001  # the other checks still have their say
                traceback.print_exc()
                outcome = Outcome("", (f"{type(error).__name__}: {error}",))
        failed += bool(outcome.problems)
        verdict = "FAILED" if outcome.problems else "ok"
        print(f"{verdict:6} {name:12} {outcome.figures}  ({time.monotonic() - begun:.0f} s)", flush=True)
        for problem in outcome.problems:
            print(f"       {problem}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
