"""A run as a value, and the one place where its parts are put together."""

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import torch
from pydantic import Field

from svilm.config import Config, ConfigError, build, settings
from svilm.data.language import Tokenizer
from svilm.data.loader import Data, training_batches
from svilm.data.manifest import Manifest
from svilm.engine.optim import Optim
from svilm.engine.trainer import Training, train
from svilm.model import ModelConfig, SViLM
from svilm.models.dual import DualEncoder, DualEncoderConfig
from svilm.models.weights import load_text, load_video, text_config_of, video_config_of
from svilm.runtime import (
    close_distributed,
    derive_seed,
    device_for,
    gather_objects,
    init_distributed,
    rank,
    seed_everything,
    share_cores,
    world_size,
)
from svilm.tasks import retrieval as retrieving
from svilm.tasks import temporal as scenes
from svilm.tasks.common import Reader
from svilm.tasks.pretrain import Pretrain, PretrainTask
from svilm.types import Batch, Scores
from svilm.version import __version__


class Start(Config):
    """Weights and word pieces to start from; empty means from scratch."""

    video: str = ""
    """ViViT or VideoMAE in Hugging Face format: a folder, or an id on the hub."""
    text: str = ""
    """BERT in Hugging Face format: a folder, or an id on the hub."""
    tokenizer: str = ""
    """Folder (or id) with tokenizer.json or vocab.txt; empty takes that of `text`, or trains one on the captions."""


class Run(Config):
    """Everything that decides a training run; a recipe is a function that returns one."""

    recipe: str
    """Name of the recipe it began as."""
    seed: int = 0
    """Seed of weights, order, sampling and noise."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:1, mps."""
    timeout_minutes: float = Field(30.0, gt=0)
    """How long a rank waits for the others before it stops with an error."""
    model: DualEncoderConfig
    """Shape of the encoders."""
    start: Start = Start()
    """Published weights to start from."""
    data: Data = Data()
    """Training clips."""
    task: Pretrain = Pretrain()
    """The losses."""
    optim: Optim = Optim()
    """The optimiser."""
    training: Training = Training()
    """Length and manner of training."""
    retrieval: retrieving.Retrieval = retrieving.Retrieval()
    """Retrieval evaluation."""
    temporal: scenes.Temporal = scenes.Temporal()
    """Scene change evaluation."""

    def model_config_of(self) -> ModelConfig:
        """What a saved model of this run remembers."""
        return ModelConfig(model=self.model, sampling=self.data.sampling, language=self.data.language)


def load_run(folder: Path) -> Run:
    """The run described by ``folder``/run.json.  Raises ConfigError when there is none or it does not fit."""
    file = folder / "run.json"
    if not file.is_file():
        raise ConfigError(f"{folder}: no run.json there; give the folder of a run made by `svilm train`")
    try:
        return build(Run, json.loads(file.read_text(encoding="utf-8")))
    except (json.JSONDecodeError, ConfigError) as error:
        raise ConfigError(f"{file}: {error}") from None


def execute(run: Run, folder: Path) -> dict[str, float]:
    """Train a run into ``folder`` (or go on with it), evaluate it, and return the scores that scores.json holds.

    Under torchrun every rank calls this with the same arguments.  Raises ConfigError when the folder holds a
    run with other settings.
    """
    device = device_for(run.device)
    init_distributed(device, run.timeout_minutes)
    if device.type == "cpu":
        share_cores(run.data.workers)
    try:
        manifest = Manifest(_required(run.data.manifest, "data.manifest"))
        if rank() == 0:
            folder.mkdir(parents=True, exist_ok=True)
            _tokenizer_of(run, manifest).save(folder)
        gather_objects(None)  # the other ranks wait for the tokenizer
        tokenizer = Tokenizer.load(folder)
        run = fitted(run, len(tokenizer))
        if rank() == 0:
            _write_description(run, folder)
        steps = total_steps(run, len(manifest))
        encoder = initial_encoder(run).to(device)

        def batches(start: int, stop: int) -> Iterable[Batch]:
            return training_batches(
                manifest,
                run.data,
                tokenizer,
                seed=run.seed,
                start=start,
                stop=stop,
                pin=device.type == "cuda",
            )

        trained = cast(
            DualEncoder,
            train(
                encoder,
                PretrainTask(run.task).to(device),
                batches,
                training=run.training,
                optim=run.optim,
                steps=steps,
                seed=run.seed,
                device=device,
                folder=folder,
                skip_budget=run.data.skip_budget,
                first_batch=lambda batch: _draw_first_batch(batch, folder),
                evaluate=lambda model: _joined(evaluations(run, cast(DualEncoder, model), tokenizer)),
            ),
        )
        if rank() == 0:
            SViLM(trained, tokenizer, run.model_config_of()).save_pretrained(folder / "model", _card(run))
        return evaluate(run, trained, folder)
    finally:
        close_distributed()


def evaluate(run: Run, model: DualEncoder, folder: Path) -> dict[str, float]:
    """Score a trained model beside an untrained one of the same shape; writes and returns scores.json.

    The untrained scores have names such as ``retrieval_untrained/...``; protocols.json says how each was computed.
    """
    tokenizer = Tokenizer.load(folder)
    untrained = initial_encoder(run.model_copy(update={"start": Start()})).to(next(model.parameters()).device)
    families = evaluations(run, model, tokenizer)
    baseline = evaluations(run, untrained, tokenizer)
    scores: dict[str, float] = {}
    for name, family in families.items():
        scores |= family.metrics
        scores |= {f"{name}/scored": float(family.scored), f"{name}/official": float(family.official)}
        scores |= {
            key.replace(f"{name}/", f"{name}_untrained/", 1): value
            for key, value in baseline[name].metrics.items()
            if key.startswith(f"{name}/")
        }
    if rank() == 0:
        protocols = {
            name: {"protocol": family.protocol, "scored": family.scored, "official": family.official}
            for name, family in families.items()
        }
        _write_json(folder / "scores.json", scores)
        _write_json(folder / "protocols.json", protocols)
    return scores


def evaluations(run: Run, model: DualEncoder, tokenizer: Tokenizer) -> dict[str, Scores]:
    """The scores that the run asks for: zero-shot retrieval and scene changes, each when its manifest is set."""
    reader = reader_of(run, tokenizer)
    found: dict[str, Scores] = {}
    if run.retrieval.manifest:
        test = Manifest(run.retrieval.manifest)
        sampling = run.data.sampling
        words = f"{sampling.num_frames} frames, one uniform clip, centre crop {sampling.size}"
        found["retrieval"] = retrieving.score(retrieving.encode(model, test, reader), test, run.retrieval, words)
    if run.temporal.manifest:
        test = Manifest(run.temporal.manifest)
        found["temporal"] = scenes.score(scenes.scene_clips(model, test, reader), test)
    return found


def reader_of(run: Run, tokenizer: Tokenizer) -> Reader:
    """How the run's evaluations read clips and texts."""
    return Reader(tokenizer, run.data.sampling, run.data.language, run.data.workers)


def total_steps(run: Run, clips: int) -> int:
    """Optimiser steps of a run over ``clips`` training clips."""
    return run.training.steps or max(1, round(run.training.epochs * (clips // run.data.batch)))


def initial_encoder(run: Run) -> DualEncoder:
    """The dual encoder before the first step: seeded, with published weights where `start` names them."""
    seed_everything(derive_seed(run.seed, "weights"))
    encoder = DualEncoder(run.model)
    for part, load in (("video", load_video), ("text", load_text)):
        source = getattr(run.start, part)
        if source:
            report = load(getattr(encoder, part), source)
            if rank() == 0:
                print(report, file=sys.stderr)
    return encoder


def fitted(run: Run, vocabulary: int) -> Run:
    """The run with encoders of the shape of the weights they start from, and with as many word pieces as there are."""
    video, text = run.model.video, run.model.text
    if run.start.video:
        video = video_config_of(run.start.video, video)
    if run.start.text:
        text = text_config_of(run.start.text, text)
    else:
        text = text.model_copy(update={"vocabulary": vocabulary})
    return run.model_copy(update={"model": run.model.model_copy(update={"video": video, "text": text})})


def _tokenizer_of(run: Run, manifest: Manifest) -> Tokenizer:
    source = run.start.tokenizer or run.start.text
    if source:
        from svilm.hub import local_folder

        path = Path(source)
        return Tokenizer.load(path if path.is_file() else local_folder(source, ["tokenizer.json", "vocab.txt"]))
    captions = (caption for entry in manifest for caption in entry.captions)
    return Tokenizer.train(captions, run.model.text.vocabulary)


def _write_description(run: Run, folder: Path) -> None:
    """run.json, refused when the folder holds another run, and environment.json."""
    if (folder / "run.json").is_file():
        before = {name: value for name, value, _ in settings(load_run(folder))}
        changed = [
            f"{name}: {before.get(name)!r} there, {value!r} now"
            for name, value, _ in settings(run)
            if before.get(name) != value
        ]
        if changed:
            raise ConfigError(
                f"{folder} holds a run with other settings ({'; '.join(changed[:5])}); choose another folder, "
                "or `svilm train --resume` to go on with that run"
            )
    (folder / "run.json").write_text(run.model_dump_json(indent=1) + "\n", encoding="utf-8")
    _write_json(folder / "environment.json", environment())


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


def _joined(families: dict[str, Scores]) -> Scores | None:
    if not families:
        return None
    metrics = {name: value for family in families.values() for name, value in family.metrics.items()}
    first = next(iter(families.values()))
    return Scores(metrics, first.scored, first.official, "")


def _draw_first_batch(batch: Batch, folder: Path) -> None:
    from svilm.draw import first_batch

    first_batch(batch, folder / "first_batch.png")


def _card(run: Run) -> str:
    started = ", ".join(source for source in (run.start.video, run.start.text) if source)
    note = f"\nInitialised from {started}; their licences apply to these weights too.\n" if started else ""
    return f"Recipe `{run.recipe}`, seed {run.seed}.{note}\n"


def _required(value: str, name: str) -> str:
    if not value:
        raise ConfigError(f"{name} is empty; give the manifest made by `svilm prepare`")
    return value


def _write_json(path: Path, data: dict[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
