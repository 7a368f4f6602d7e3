"""What becomes of a run that is killed, stopped, short of disk, fed with NaN, or given damaged checkpoints."""

import contextlib
import errno
import json
import os
import random
import signal
import time
import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from svilm.data.loader import Clips, Order, training_batches
from svilm.data.manifest import Manifest, write_manifest
from svilm.engine.checkpoint import Checkpoints, verify
from svilm.engine.logbook import read_metrics
from torture.child import (
    BATCH,
    EPOCH,
    POISONED_STEP,
    Toy,
    make_videos,
    parts_of,
    run_toy,
    score_in_a_process_of_its_own,
)
from torture.frame import Check, Outcome, Plan, first
from torture.rig import (
    PLACES,
    await_place,
    end_of,
    ended,
    full_disk,
    group_lives,
    kill_some,
    look,
    look_at_clips,
    new_toy,
    place_of,
    quietly,
    rows_of,
    shares_of,
    size_of,
    started,
    started_on_ranks,
    started_on_two_ranks,
    steps_went_on,
    stopping_before,
    tail,
    torchrun,
    trace_of,
    traces_of,
    trouble_of,
    undisturbed,
    undisturbed_on_two_ranks,
    wait_for,
)


def kill(plan: Plan) -> Outcome:
    """A run killed while it starts, trains or saves, again and again, ends as one that was left alone."""
    toy, rng = new_toy(plan), random.Random(f"kill {plan.seed}")
    wanted = undisturbed(toy)
    places, left_behind, runs, total, problems = Counter[str](), list[int](), 0, plan.number(50, 3), list[str]()
    while places.total() < total:
        victim = replace(toy, folder=str(plan.folder / f"run {runs}"), workers=rng.choice((0, 1, 2)))
        while places.total() < total:
            before, process = traces_of(victim), started(victim)
            await_place(PLACES[places.total() % len(PLACES)], victim, process, wanted, rng)
            kill_some(process.pid, rng)
            if (code := ended(process)) != -signal.SIGKILL:
                break
            left_behind.append(process.pid)
            places[place_of(before, traces_of(victim))] += 1
            problems += wanted.differences(victim, "killed", finished=False)
        else:
            code = end_of(victim)
        runs += 1
        problems += [f"exit code {code}: {tail(victim)}"] if code else wanted.differences(victim, f"run {runs}")
    wait_for(lambda: not any(map(group_lives, left_behind)))
    words = ", ".join(f"{places[place]} while {place}" for place in PLACES)
    words = f"{total} kills in {runs} runs of {toy.steps} steps ({words}): {len(problems)} weights, states or losses"
    return Outcome(f"{words} differ; no loader process is left behind", first(problems))


def kill_while_saving(plan: Plan) -> Outcome:
    """A run killed before any call into the file system that saving makes ends as one that was left alone."""
    toy = replace(new_toy(plan), steps=8, workers=0)
    wanted = undisturbed(toy)
    probe = replace(toy, folder=str(plan.folder / "probe"), kill_at=-1)
    problems = [] if end_of(probe) == 0 else ["the probe failed"]
    names = [json.loads(line) for line in (Path(probe.folder) / "calls.jsonl").read_text().splitlines()]
    numbers = range(len(names)) if not plan.fast else sorted(random.Random(plan.seed).sample(range(len(names)), 3))
    for number in numbers:
        victim = replace(toy, folder=str(plan.folder / f"run {number}"), kill_at=number)
        code = end_of(victim)
        problems += [] if code == -signal.SIGKILL else [f"{names[number]}: exit code {code} instead of a kill"]
        code = end_of(replace(victim, kill_at=None))
        problems += [f"{names[number]}: exit code {code}"] if code else wanted.differences(victim, names[number])
        left = [path.name for path in (Path(victim.folder) / "checkpoints").iterdir()]
        problems += [] if len(left) == 2 else [f"{names[number]}: left in the folder: {left}"]
    return Outcome(f"{len(numbers)} places of a save, {len(problems)} bad ends", first(problems))


def resume(plan: Plan) -> Outcome:
    """From every step of an epoch a run goes on with the same batches, for any number of workers and ranks."""
    toy = replace(new_toy(plan), workers=0)
    items, tokenizer = parts_of(toy)

    def batches(start: int, stop: int, **changed: Any) -> list[str]:
        data = toy.data.model_copy(update=changed)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "This DataLoader will create")  # more processes than cores
            return [look(b) for b in training_batches(items, data, tokenizer, seed=toy.seed, start=start, stop=stop)]

    wanted = batches(0, 2 * EPOCH)
    problems = [f"from step {k}: other batches" for k in range(EPOCH) if batches(k, k + 8) != wanted[k : k + 8]]
    counts = plan.number(3, 1)
    for workers in (1, 2, 4)[-counts:]:
        problems += [] if batches(0, 2 * EPOCH, workers=workers) == wanted else [f"{workers} workers: other batches"]
    for ranks in (2, 4):
        shares = [list(shares_of(toy, number, ranks)) for number in range(ranks)]
        whole = [[look_at_clips(batch) for batch in step] for step in zip(*shares, strict=True)]
        alone = [look_at_clips(batch) for batch in shares_of(toy, 0, 1)]
        same = [[clip for part in parts for clip in part] for parts in whole] == alone
        problems += [] if same else [f"{ranks} ranks: another global batch"]
    reference = undisturbed(replace(toy, steps=EPOCH, save_every=1))
    for stop in range(1, EPOCH) if not plan.fast else (3,):
        part = replace(toy, steps=EPOCH, save_every=1, folder=str(plan.folder / f"stop {stop}"))
        with stopping_before(stop), contextlib.suppress(KeyboardInterrupt):
            quietly(run_toy, part)
        quietly(run_toy, part)
        problems += reference.differences(part, f"stopped before step {stop}")
    words = f"{EPOCH} first steps, 0 to 4 workers, 1, 2 and 4 ranks: {len(problems)} differ"
    return Outcome(words, first(problems))


def terminate(plan: Plan) -> Outcome:
    """SIGTERM, also twice and to the whole group: a checkpoint of that very step, exit code 0, and on as if nothing."""
    toy, rng = new_toy(plan), random.Random(f"terminate {plan.seed}")
    wanted = undisturbed(toy)
    stops, runs, slowest, total, problems = 0, 0, 0.0, plan.number(20, 2), list[str]()
    while stops < total:
        toy = replace(toy, folder=str(plan.folder / f"run {runs}"), save_every=100, workers=rng.choice((0, 1, 2)))
        while not (Path(toy.folder) / "checkpoints" / f"step_{toy.steps:08d}").exists():
            process, log = started(toy), Path(toy.folder) / "trace0.jsonl"
            before = size_of(log)
            wait_for(lambda log=log, before=before: size_of(log) > before)
            time.sleep(rng.uniform(0, 0.8 * wanted.seconds))
            group, again = rng.random() < 0.4, rng.random() < 0.5
            sent = time.monotonic()
            for _ in range(2 if again else 1):
                with contextlib.suppress(ProcessLookupError):
                    (os.killpg if group else os.kill)(process.pid, signal.SIGTERM)
                time.sleep(rng.uniform(0, 0.05))
            code = ended(process)
            slowest = max(slowest, time.monotonic() - sent)
            rows, newest = read_metrics(Path(toy.folder)), Checkpoints(Path(toy.folder) / "checkpoints").latest()
            reached = rows[-1]["step"] if rows else 0
            if reached == toy.steps:
                break
            stops += 1
            problems += [] if code == 0 else [f"stop {stops}: exit code {code}; {tail(toy)}"]
            saved = None if newest is None else verify(newest)
            problems += [] if saved == reached else [f"stop {stops}: saved {saved}, done {reached}"]
            if code or stops >= total:
                break
        code = end_of(toy)
        runs += 1
        problems += [f"exit code {code}; {tail(toy)}"] if code else wanted.differences(toy, f"run {runs}")
    words = f"{stops} stops in {runs} runs, the slowest took {slowest:.1f} s; {len(problems)} bad ends"
    return Outcome(words, first(problems))


def disk_full(plan: Plan) -> Outcome:
    """A disk full at any byte of a save: training goes on, the checkpoint before stays, the next one is made."""
    saves = plan.number(30, 3)
    toy = replace(new_toy(plan), steps=2 * saves + 2, workers=0, save_every=1)
    wanted = undisturbed(toy)
    newest = Checkpoints(Path(wanted.toy.folder) / "checkpoints").latest()
    assert newest is not None
    size = sum(file.stat().st_size for file in newest.iterdir())
    rng, problems, failed = random.Random(f"disk {plan.seed}"), list[str](), 0
    places = {step: rng.randrange(size) for step in range(2, 2 * saves + 1, 2)}
    places[2], places[2 * saves] = 0, size - 1
    victim = replace(toy, folder=str(plan.folder / "run"))
    whole = Checkpoints.save

    def save(self: Checkpoints, step: int, *arguments: Any) -> Path:
        nonlocal failed
        with full_disk(places.get(step)):
            try:
                return whole(self, step, *arguments)
            except OSError as error:
                failed += error.errno == errno.ENOSPC
                left = sorted(path.name for path in self.folder.iterdir())
                good = self.latest()
                if good is None or verify(good) != step - 1 or any(name.endswith(".part") for name in left):
                    problems.append(f"step {step}: left are {left}")
                raise

    Checkpoints.save = save  # type: ignore[method-assign]
    try:
        told = quietly(run_toy, victim)
    finally:
        Checkpoints.save = whole  # type: ignore[method-assign]
    problems += wanted.differences(victim, "after all")
    problems += [] if failed == saves else [f"{failed} saves failed instead of {saves}"]
    problems += [] if sum("training goes on" in text for text in told) == saves else ["a warning is missing"]
    return Outcome(f"{failed} saves failed at as many bytes of {size}; {len(problems)} bad ends", first(problems))


def damaged(plan: Plan) -> Outcome:
    """A checkpoint with one bit flipped or cut short is noticed, the one before is used, and the run ends the same."""
    toy = replace(new_toy(plan), steps=EPOCH, workers=0)
    wanted = undisturbed(toy)
    victim = replace(toy, folder=str(plan.folder / "run"))
    with stopping_before(EPOCH - 1), contextlib.suppress(KeyboardInterrupt):
        quietly(run_toy, victim)
    checkpoints = Checkpoints(Path(victim.folder) / "checkpoints")
    before, newest = checkpoints.committed()
    files = sorted(newest.iterdir())
    rng, noticed, problems = random.Random(f"damage {plan.seed}"), 0, list[str]()
    flips, cuts = plan.number(500, 20), plan.number(100, 5)
    for number in range(flips + cuts):
        file = files[number % len(files)] if number % 3 else max(files, key=lambda file: file.stat().st_size)
        whole = file.read_bytes()
        at, bit = rng.randrange(len(whole)), 1 << rng.randrange(8)
        flipped = whole[:at] + bytes([whole[at] ^ bit]) + whole[at + 1 :]
        file.write_bytes(flipped if number < flips else whole[:at])
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            found = checkpoints.latest()
        if found == before and any(newest.name in str(warning.message) for warning in told):
            noticed += 1
        else:
            problems.append(f"{file.name} at byte {at}, bit {bit}: {found} is used")
        if number + 1 < flips + cuts:
            file.write_bytes(whole)
    quietly(run_toy, victim)
    problems += wanted.differences(victim, "after the last damage")
    return Outcome(f"{noticed} of {flips + cuts} damages noticed, the checkpoint before used", first(problems))


def ranks(plan: Plan) -> Outcome:
    """Ranks that are killed start again, all save when torchrun gets SIGTERM, and the run ends as one left alone."""
    toy = replace(new_toy(plan), pause=0.1)
    wanted, rng = undisturbed_on_two_ranks(toy), random.Random(f"ranks {plan.seed}")
    kills, stops, runs, total, problems = 0, 0, 0, plan.number(10, 1), list[str]()
    while kills < total:
        victim = replace(toy, folder=str(plan.folder / f"run {runs}"))
        runs += 1
        with torchrun(victim) as process:
            while kills < total and steps_went_on(victim, process):
                time.sleep(rng.uniform(0, 1.0))
                pid = Path(victim.folder, f"pid{rng.randrange(2)}").read_text()
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
                    kills += 1
            if steps_went_on(victim, process):
                process.terminate()
                ended(process)
                stops += 1
                newest = Checkpoints(Path(victim.folder) / "checkpoints").latest()
                saved, done = None if newest is None else verify(newest), read_metrics(Path(victim.folder))[-1]["step"]
                problems += [] if saved == done else [f"stop {stops}: saved {saved}, done {done}; {tail(victim)}"]
        with torchrun(victim) as process:
            code = ended(process)
        problems += [f"exit code {code}: {tail(victim)}"] if code else wanted.differences(victim, f"run {runs}")
        if code != 0:
            break
    words = f"{kills} ranks killed and {stops} torchruns stopped in {runs} runs of 2 ranks"
    return Outcome(f"{words}; {len(problems)} bad ends", first(problems))


def uneven_ranks(plan: Plan) -> Outcome:
    """A number of test clips that the ranks do not divide changes no score: each clip counts once."""
    videos, problems = plan.folder / "videos", list[str]()
    whole = Manifest(make_videos(videos, plan.seed))
    write_manifest(videos / "odd.jsonl", whole.header, (whole[number] for number in range(len(whole) - 1)))
    toy, found = Toy(str(videos / "odd.jsonl"), "", plan.seed), {}
    for world in (1, 2, 4):
        scoring = replace(toy, folder=str(plan.folder / f"{world}"))
        codes = [ended(process) for process in started_on_ranks(world, score_in_a_process_of_its_own, scoring)]
        problems += [f"{world} ranks: exit codes {codes}"] if any(codes) else []
        found[world] = [row for number in range(world) for row in rows_of(scoring, f"scores{number}.jsonl")]
    [alone] = found[1] or [{"score": None, "vectors": []}]
    for world, rows in found.items():
        for number, row in enumerate(rows):
            same = np.allclose(row["vectors"], alone["vectors"], rtol=0, atol=1e-5)
            if row["score"] != alone["score"] or not same:
                problems.append(f"{world} ranks: rank {number} has {row['score']} instead of {alone['score']}")
    words = f"{len(whole) - 1} clips on 1, 2 and 4 ranks: recall {alone['score']} on each"
    return Outcome(words, first(problems))


def broken_files(plan: Plan) -> Outcome:
    """With a third of the videos broken, all on one rank, both ranks take all steps, and the losses add up."""
    toy = replace(new_toy(plan), steps=EPOCH, workers=0)
    clips, share = Order(64, BATCH, toy.seed, 0, EPOCH), BATCH // 2
    on_last = [key.index for step in clips for key in step[share:]]
    for index in random.Random(plan.seed).sample(on_last, 19):
        Path(toy.videos).with_name(f"{index}.mp4").write_bytes(b"no video")
    items, _ = parts_of(toy)
    dataset = Clips(items, toy.data, toy.seed)
    expected = sum(sum(dataset[key].skipped.values()) for step in clips for key in step)
    codes = [ended(process) for process in started_on_two_ranks(toy)]
    traces = [trace_of(toy, number) for number in range(2)]
    lost = [sum(sum(row["skipped"].values()) for row in trace) for trace in traces]
    counted = None if any(codes) else read_metrics(Path(toy.folder))[-1]["data/skipped"]
    problems = [f"exit codes {codes}: {tail(toy)}"] if any(codes) else []
    problems += [f"{len(t)} steps" for t in traces if len(t) != EPOCH]
    problems += [] if lost[0] == 0 and lost[1] == expected == counted else [f"{lost}, {expected}, {counted}"]
    words = (
        f"19 of 64 files broken: {len(traces[0])} and {len(traces[1])} steps, {lost[0]} and {lost[1]} clips replaced"
    )
    return Outcome(f"{words}, {counted} counted", first(problems))


def not_a_number(plan: Plan) -> Outcome:
    """NaN on one rank stops all of them before the optimiser, with the clips named; and odd batches make none."""
    toy, problems, seen = replace(new_toy(plan), workers=0), list[str](), 0
    for poison in ("input", "loss", "gradient") if not plan.fast else ("gradient",):
        victim = replace(toy, poison=poison, folder=str(plan.folder / poison))
        for attempt in ("first", "replay"):
            codes = [ended(process) for process in started_on_two_ranks(victim)]
            problems += [] if codes == [1, 1] else [f"{poison}, {attempt}: exit codes {codes}: {tail(victim)}"]
            for number in range(2):
                before, after = (rows_of(victim, f"{name}{number}.jsonl") for name in ("before", "after"))
                if not after or before[-1]["weights"] != after[-1]["weights"]:
                    problems.append(f"{poison}, {attempt}: rank {number} took the step, or did not stop")
                elif "svilm train" not in after[-1]["message"] or f"step {POISONED_STEP}" not in after[-1]["message"]:
                    problems.append(f"{poison}: {after[-1]['message']}")
            saved = json.loads((Path(victim.folder) / "nonfinite.json").read_text())
            clips = [[*row["ids"]] for n in range(2) for row in trace_of(victim, n) if row["step"] == POISONED_STEP]
            found = [rank["clips"] for rank in saved["ranks"]]
            problems += [] if sorted(clips)[:: len(clips) // 2] == sorted(found) else [f"{poison}: clips {found}"]
            seen += 1
    odd = 0
    for name, nouns, frames in (
        ("no nouns", False, 10),
        ("one frame", True, 1),
        ("both", False, 1),
    ):
        videos = make_videos(plan.folder / name, plan.seed, nouns, frames)
        for no_noun in ("caption", "skip"):
            data = replace(toy, videos=str(videos)).data
            language = data.language.model_copy(update={"no_noun": no_noun})
            changed = data.model_copy(update={"language": language})
            problems += [f"{name}: {trouble}" for trouble in trouble_of(replace(toy, videos=str(videos)), changed)]
            odd += 1
    return Outcome(f"{seen} runs stopped on both ranks before the step; {odd} odd sets finite", first(problems))


CHECKS: tuple[Check, ...] = (
    kill,
    kill_while_saving,
    resume,
    terminate,
    disk_full,
    damaged,
    ranks,
    uneven_ranks,
    broken_files,
    not_a_number,
)
