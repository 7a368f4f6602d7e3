"""What becomes of videos that are odd, damaged or hostile: the checks of `svilm scan` and of the decoder."""

import contextlib
import os
import random
import resource
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from svilm.data.decode import DecodeError, index_video, intact_frames, read_frames
from svilm.data.sandbox import Death, Limits, each
from svilm.data.scan import Scan, changed_files, scan
from torture.frame import Check, Outcome, Plan, first
from torture.make_corpus import DAMAGED, KINDS, Case, grainy, make_corpus

from make_videos import GREY_LEVELS, read_numbers, write_video  # isort: skip  # found through make_corpus

AGAIN = 5
"""Every so many mutations one is decoded twice."""
WORKERS = min(2, os.cpu_count() or 1)
SECONDS = 5.0
"""No file may take longer, whatever is in it."""
EXPECTED = ("reject", "decode", "either")
REFUSAL_MB = 128
"""What it may take to find out that a file is no good."""


def corpus(plan: Plan) -> Outcome:
    """Good files are read, bad ones refused for a reason that fits, always the same; none crashes or hangs."""
    folder = plan.folder / "videos"
    cases = make_corpus(folder, plan.seed, few=plan.fast, cuts=plan.number(24, 2), flips=plan.number(8, 1))
    scans = [quiet_scan(folder, plan.folder / f"{run}.jsonl", 1 + run % 2) for run in range(plan.number(3, 2))]
    problems = [problem for case in cases for problem in judged(case, scans[0])]
    differing = [row.path for row in scans[0].rows if any(other.by_path.get(row.path) != row for other in scans[1:])]
    problems += [f"{path}: another verdict in another scan" for path in differing]
    problems += [f"{row.path}: {row.message}" for row in scans[0].rows if row.reason in ("crashed", "too_slow")]
    kinds = Counter(case.expect for case in cases)
    reasons = Counter(row.reason or "" for row in scans[0].rows if not row.ok)
    words = (
        f"{len(cases)} files, {kinds['decode']} good, {kinds['reject']} bad, {kinds['either']} damaged; "
        f"{len(scans)} scans, {len(differing)} verdicts differ; refused: {listed(reasons)}"
    )
    return Outcome(words, first(problems))


def frames(plan: Plan) -> Outcome:
    """Every frame of a good file is the right one, and so is every one that a file cut short still gives."""
    folder = plan.folder / "videos"
    cases = make_corpus(folder, plan.seed, few=plan.fast, cuts=plan.number(24, 2), flips=0)
    count, whole, cut, problems = 0, 0, 0, list[str]()
    for case in cases:
        if case.expect == "reject" or (case.expect == "either" and " cut " not in case.path):
            continue
        numbers, seen = list(range(case.frames)), readable(folder / case.path)
        if case.expect == "decode":
            whole += 1
            small = case.size[0] < 32 or case.size[1] < 24
            numbers = [number % GREY_LEVELS for number in numbers] if small else numbers
            good = seen == numbers
        else:
            cut += 1
            good = set(seen) <= set(numbers)
        count += len(seen)
        if not good:
            problems.append(f"{case.path!r}: wrong frames: {seen}")
    return Outcome(f"{count} frames of {whole} good files and {cut} cut ones have the right number", first(problems))


def cost(plan: Plan) -> Outcome:
    """No file takes more than five seconds, and none that must be refused more than 128 MB."""
    folder = plan.folder / "videos"
    cases = make_corpus(folder, plan.seed, few=plan.fast, cuts=plan.number(8, 1), flips=plan.number(4, 0))
    files = {expect: [str(folder / case.path) for case in cases if case.expect == expect] for expect in EXPECTED}
    slowest, largest, problems = 0.0, 0, list[str]()
    for expect in EXPECTED:  # a process of its own for each, since it remembers only its largest size
        for path, spent in each(cost_of, files[expect], workers=1, limits=lambda _: Limits(SECONDS, 2048)):
            if isinstance(spent, Death):
                problems.append(f"{path!r}: {spent.message}")
                continue
            seconds, peak = spent
            slowest, largest = max(slowest, seconds), max(largest, peak if expect == "reject" else 0)
            if expect == "reject" and peak > REFUSAL_MB:
                problems.append(f"{path!r}: {peak} MB to refuse it, or one before it")
    words = f"{len(cases)} files, the slowest {slowest:.2f} s of processor time; refusals take at most {largest} MB"
    return Outcome(words, first(problems))


def mutations(plan: Plan) -> Outcome:
    """Files changed at random neither crash the decoder nor hold it up, and get the same verdict again."""
    whole = plan.folder / "whole"
    whole.mkdir()
    for kind in DAMAGED:
        suffix, arguments = KINDS[kind]
        write_video(whole / f"{kind}.{suffix}", 12, turn=grainy, **arguments)
    for kind, size in (("vp8", (33, 17)), ("raw", (16, 8)), ("wmv", (64, 48)), ("gif", (32, 24))):
        suffix, arguments = KINDS[kind]
        write_video(whole / f"{kind}.{suffix}", 6, width=size[0], height=size[1], **arguments)
    total = plan.number(20_000, 60)
    tasks = (Mutation(str(plan.folder), plan.seed, number) for number in range(total))
    verdicts, problems, slowest = Counter[str](), list[str](), 0.0
    for task, result in each(verdict_on, tasks, workers=WORKERS, limits=lambda _: Limits(SECONDS, 1024)):
        if isinstance(result, Death):
            problems.append(f"mutation {task.number} of seed {task.seed}: {result.message}")
            continue
        verdict, again, seconds = result
        verdicts[verdict.partition(":")[0]] += 1
        slowest = max(slowest, seconds)
        if verdict != again:
            problems.append(f"mutation {task.number} of seed {task.seed}: {verdict}, then {again}")
    words = (
        f"{total} mutations of {len(list(whole.iterdir()))} files, {len(problems)} bad ends, "
        f"the slowest {slowest:.2f} s; {listed(verdicts)}"
    )
    return Outcome(words, first(problems))


def growth(plan: Plan) -> Outcome:
    """A process that decodes thousands of files, every fifth a broken one, grows by less than 20 MB."""
    for number, kind in enumerate(DAMAGED):
        suffix, arguments = KINDS[kind]
        path = write_video(plan.folder / f"{number}.{suffix}", 12, turn=grainy, **arguments)
        if number % 4 == 0:
            broken = path.with_name(f"{number} broken.{suffix}")
            broken.write_bytes(path.read_bytes()[: 2 * path.stat().st_size // 3])
    decodes = plan.number(5_000, 100)
    [(_, result)] = each(grown, [(str(plan.folder), decodes)], workers=1, limits=lambda _: Limits(1200.0, 4096))
    if isinstance(result, Death):
        return Outcome("", (result.message,))
    megabytes, files, refused = result
    problems = (f"{megabytes:.1f} MB and {files} open files more",) if megabytes >= 20 or files else ()
    return Outcome(f"{decodes} decodes, {refused} refused: {megabytes:.1f} MB and {files} open files more", problems)


def changes(plan: Plan) -> Outcome:
    """A video that was changed since the scan is found, even with the size and the date that it had."""
    folder = plan.folder / "videos"
    make_corpus(folder, plan.seed, few=plan.fast, cuts=1, flips=0)
    found = quiet_scan(folder, plan.folder / "scan.jsonl", WORKERS)
    good = [row.path for row in found.rows if row.ok and not (folder / row.path).is_symlink()]
    before = list(changed_files(folder, found.rows))
    rng = random.Random(plan.seed)
    for path in good:
        status, data = os.stat(folder / path), bytearray((folder / path).read_bytes())
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        (folder / path).write_bytes(data)
        os.utime(folder / path, ns=(status.st_atime_ns, status.st_mtime_ns))
    missed = set(good) - {path for path, _ in changed_files(folder, found.rows)}
    problems = (*(f"{path} was not changed" for path, _ in before), *(f"{path}: not noticed" for path in missed))
    return Outcome(f"{len(good) - len(missed)} of {len(good)} changed files found by their content", first(problems))


CHECKS: tuple[Check, ...] = (corpus, frames, cost, mutations, growth, changes)


# Parts


def quiet_scan(folder: Path, out: Path, workers: int) -> Scan:
    """A scan without its progress bar."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
        return scan(folder, out, workers=workers)


def judged(case: Case, found: Scan) -> Iterator[str]:
    """What is wrong with the verdict on a file."""
    row = found.by_path.get(case.path)
    if row is None:
        yield f"{case.path!r}: no row"
    elif case.expect == "decode" and (not row.ok or (row.frames, (row.width, row.height)) != (case.frames, case.size)):
        yield f"{case.path!r}: is good, has {case.frames} frames of {case.size}, but {row}"
    elif case.expect == "reject" and (row.ok or row.reason not in case.reasons):
        yield f"{case.path!r}: to be refused as {case.reasons}, but {row}"
    elif case.tells and row.ok and row.frames != case.frames:
        yield f"{case.path!r}: was cut short and passes for whole: {row}"
    elif not row.ok and (not row.message or len(row.message.splitlines()) != 1):
        yield f"{case.path!r}: refused without a reason for people: {row}"


def listed(counts: Counter[str]) -> str:
    """The counts, the largest first."""
    return ", ".join(f"{count} {name}" for name, count in counts.most_common())


def readable(path: Path) -> list[int]:
    """The numbers of all frames that can be read, one by one where not all can."""
    try:
        index = index_video(path)
        intact = np.flatnonzero(intact_frames(index))
        return read_numbers(read_frames(index, intact)) if len(intact) else []
    except DecodeError:
        return []


def cost_of(path: str) -> tuple[float, int]:
    """Decode a file as a scan does: seconds of processor time, and the most megabytes the process has grown by."""
    begun = time.process_time()
    verdict(path)
    return time.process_time() - begun, peak_megabytes() - IDLE_MB


def verdict(path: str) -> str:
    """What a file holds that can be read: "ok", or "part" with what it is, or the reason against it."""
    try:
        index = index_video(path)
        intact = intact_frames(index)
    except DecodeError as error:
        return error.reason
    part = not intact.all() or index.damage is not None
    return f"{'part' if part else 'ok'}: {intact.tolist()} {index.seconds.tolist()} {index.width}x{index.height}"


class Mutation(NamedTuple):
    """One of the random files: it follows from the seed and its number."""

    folder: str
    seed: int
    number: int


def verdict_on(mutation: Mutation) -> tuple[str, str, float]:
    """Make the file and decode it, some of them twice: the verdicts, and the seconds of processor time of the first."""
    rng = random.Random(f"mutation {mutation.seed} {mutation.number}")
    files = sorted(Path(mutation.folder, "whole").iterdir())
    data = bytearray(rng.choice(files).read_bytes())
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        mutate(data, rng, files)
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))  # the sandbox lets nothing be written
    path = Path(mutation.folder, f"mutation {os.getpid()}")
    path.write_bytes(data)
    begun = time.process_time()
    found = verdict(str(path))
    seconds = time.process_time() - begun
    return found, verdict(str(path)) if mutation.number % AGAIN == 0 else found, seconds


def mutate(data: bytearray, rng: random.Random, files: list[Path]) -> None:
    """One change such as bad disks, networks and people make."""
    first, last = sorted(rng.choices(range(len(data) + 1), k=2)) if rng.random() < 0.3 else (0, len(data))
    at = rng.randint(first, max(first, last - 1))
    count = min(rng.choice((1, 2, 4, 16, 64, 400)), len(data) - at)
    kind = rng.randrange(8)
    if kind == 0 and data:
        data[at % len(data)] ^= 1 << rng.randrange(8)
    elif kind == 1:
        data[at : at + count] = rng.randbytes(count)
    elif kind == 2:
        data[at : at + count] = bytes(count)
    elif kind == 3:
        del data[at : at + count]
    elif kind == 4:
        data[at:at] = data[at : at + count]
    elif kind == 5:
        number = rng.choice((0, 1, 7, 0x7F, 0xFF, 0xFFFF, 1_000_000, 80_000_000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF))
        data[at : at + 4] = number.to_bytes(4, rng.choice(("big", "little")))
    elif kind == 6:
        other = rng.choice(files).read_bytes()
        data[at:] = other[at:]
    else:
        del data[rng.randint(len(data) // 2, len(data)) :]


def grown(task: tuple[str, int]) -> tuple[float, int, int]:
    """Decode the files of a folder in turn: megabytes and open files gained after the first tenth, files refused."""
    folder, decodes = task
    files = sorted(Path(folder).iterdir())
    broken, whole = [f for f in files if "broken" in f.name], [f for f in files if "broken" not in f.name]
    refused, base, open_files = 0, 0.0, 0
    for number in range(decodes):
        if number == decodes // 10:
            base, open_files = megabytes(), len(os.listdir("/proc/self/fd"))
        chosen = broken[number // 5 % len(broken)] if number % 5 == 0 else whole[number % len(whole)]
        refused += not verdict(str(chosen)).startswith("ok")
        with contextlib.suppress(DecodeError):
            read_frames(index_video(chosen), [0, 7, 11], resize=32)
    return megabytes() - base, len(os.listdir("/proc/self/fd")) - open_files, refused


def megabytes() -> float:
    """Memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / (1 << 20)


def peak_megabytes() -> int:
    """The most that this process has used; getrusage would begin with what its parent used."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) >> 10


IDLE_MB = peak_megabytes()
"""What a process takes that has imported all this and done nothing."""
