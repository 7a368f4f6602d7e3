"""A run as a value, and the one place where its parts are put together."""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from itertools import chain, count
from pathlib import Path
from typing import Any

import torch
from pydantic import Field, SerializeAsAny, field_validator
from safetensors.torch import save_file
from torch import nn

from svilm.config import Config, ConfigError, build
from svilm.data.language import Tokenizer
from svilm.data.loader import Data
from svilm.data.manifest import Manifest, verified
from svilm.engine.optim import Optim
from svilm.engine.task import Context, Job, TaskSettings, task_settings
from svilm.engine.trainer import Training, train
from svilm.model import ModelConfig, SViLM
from svilm.models.dual import DualEncoder, DualEncoderConfig
from svilm.models.weights import load_saved
from svilm.preflight import (
    differences,
    leaving_no_trace,
    open_manifests,
    refuse_misfits,
    refuse_too_few,
    remark_on_lists,
    scored_lists,
    warn_of_seen,
)
from svilm.provenance import environment
from svilm.runtime import (
    close_distributed,
    device_for,
    gather_objects,
    init_distributed,
    rank,
    share_cores,
)
from svilm.start import Start, fitted, initial_encoder, tokenizer_of
from svilm.tasks import grounding as pointing
from svilm.tasks import retrieval as retrieving
from svilm.tasks import temporal as scenes
from svilm.tasks.common import Reader, sampling_in_words
from svilm.tasks.pretrain import Pretrain
from svilm.types import Batch, Scores

EVALUATIONS = ("retrieval", "temporal", "grounding")
"""What a dual encoder is scored by without further training, each with settings of its own and a manifest in them."""
DATA = "data.json"
"""What a run folder keeps of its training manifest, by which a later one is known to be another."""


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
    """Weights to start from."""
    data: Data = Data()
    """Training clips."""
    task: SerializeAsAny[TaskSettings] = Pretrain()
    """What is learned: the losses of pre-training, or a downstream task."""
    optim: Optim = Optim()
    """The optimiser."""
    training: Training = Training()
    """Length and manner of training."""
    retrieval: retrieving.Retrieval = retrieving.Retrieval()
    """Retrieval evaluation."""
    temporal: scenes.Temporal = scenes.Temporal()
    """Scene change evaluation."""
    grounding: pointing.Grounding = pointing.Grounding()
    """Evaluation of where nouns are seen."""

    @field_validator("task", mode="before")
    @classmethod
    def _task_of_its_kind(cls, value: Any) -> Any:
        """Plain data becomes the settings of the task that its `kind` names."""
        kind = value.get("kind", "pretrain") if isinstance(value, dict) else None
        return task_settings(kind).model_validate_json(json.dumps(value)) if isinstance(kind, str) else value

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
    run with other settings or of other training clips, and for a manifest that is wrong, before anything is written.
    """
    device = device_for(run.device)
    init_distributed(device, run.timeout_minutes)
    if device.type == "cpu":
        share_cores(run.data.workers)
    try:
        manifest = Manifest(_required(run.data.manifest, "data.manifest"))
        open_manifests(run, _retrieved(run))
        with leaving_no_trace(folder):
            if rank() == 0:
                folder.mkdir(parents=True, exist_ok=True)
                # A run that is there already keeps its word pieces, whether it goes on or this one is refused.
                if not ((folder / "run.json").is_file() and (folder / "tokenizer.json").is_file()):
                    tokenizer_of(run.start, manifest, run.model.text.vocabulary).save(folder)
            gather_objects(None)  # the other ranks wait for the tokenizer
            model = fitted(run.model, run.start, len(Tokenizer.load(folder)))
            run = run.model_copy(update={"model": model})
            if rank() == 0:
                _write_description(run, manifest, folder)
            context = _context(run, folder, device, lambda: initial_encoder(run.model, run.start, run.seed).to(device))
            job = run.task.job(context)
            refuse_too_few(run.data, job.items)
            if isinstance(job.model, DualEncoder):  # others are trained on features
                refuse_misfits(run.data, run.model)
        warn_of_seen(run)
        trained = train(
            job.model,
            job.task.to(device),
            job.batches,
            training=run.training,
            optim=run.optim,
            steps=total_steps(run, job.items),
            seed=run.seed,
            device=device,
            folder=folder,
            skip_budget=run.data.skip_budget,
            first_batch=lambda batch: _draw_first_batch(batch, folder),
            evaluate=lambda model: _flat(_families(run, job, model, context)),
            judge=_judge(run, job),
        )
        if rank() == 0:
            _save_model(run, job, trained, context)
        return _scored(run, job, trained, context)
    finally:
        close_distributed()


def evaluate(run: Run, folder: Path) -> dict[str, float]:
    """Score the trained model in ``folder`` again, as ``run`` says; writes and returns scores.json in `place_of`.

    Untrained scores have names such as ``retrieval_untrained/...``; protocols.json says how each was computed.
    Raises ValueError when the run has not finished.
    """
    open_manifests(run, _retrieved(run))
    device = device_for(run.device)
    with leaving_no_trace(place_of(run, folder)):
        context = _trained(run, folder, device)
        job = run.task.job(context)
    heads = folder / "model" / "task.safetensors"
    if heads.is_file():
        load_saved(job.task, heads)
    job.task.to(device)
    return _scored(run, job, job.model, context)


def evaluate_only(run: Run, folder: Path, family: str) -> dict[str, float]:
    """Score the trained encoder in ``folder`` by one of `EVALUATIONS` alone, which replaces it in scores.json.

    Returns the scores of this family with its baselines.  Raises ConfigError when the run names no manifest for it,
    and ValueError when the run has not finished.
    """
    _required(_manifest_of(run, family), f"{family}.manifest", " (--data FILE)")
    with leaving_no_trace(place_of(run, folder)):
        context = _trained(run, folder, device_for(run.device))
        _ = context.encoder  # which an unfinished run has not
    others = {name: type(getattr(run, name))() for name in EVALUATIONS if name != family}
    alone = run.model_copy(update=others)
    families = evaluations(alone, context.encoder, context.tokenizer, context.results)
    scores = _flat(families) | _untrained(alone, context)
    for name, found in (("scores", scores), ("protocols", _protocols(families))):
        file = context.results / f"{name}.json"
        before = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        kept = {key: value for key, value in before.items() if evaluation_of(key) != family}
        _write_json(file, {**kept, **found})
    return scores


def place_of(run: Run, folder: Path) -> Path:
    """Where the scores of a run belong: its folder, or one inside for lists other than those that it was run with.

    Otherwise scores.json would be read as that of the lists in run.json.
    """
    own, tested = _lists(load_run(folder)), _lists(run)
    others = [path.stem for name, path in tested.items() if own.get(name, path) not in (path, _whole(path))]
    if not others:
        return folder
    names = f"on-{'-'.join(dict.fromkeys(others))}"
    places = chain([folder / names], (folder / f"{names}-{number}" for number in count(2)))
    return next(place for place in places if not (place / "run.json").is_file() or _lists(load_run(place)) == tested)


def _lists(run: Run) -> dict[str, Path]:
    return {name: Path(os.path.abspath(path)) for name, path in scored_lists(run).items()}


def _whole(path: Path) -> Path:
    """The list of which ``path`` holds the clips that a scan could read; itself where it is none."""
    whole = path.with_name(path.name.replace("-verified", ""))
    return whole if verified(whole) == path else path


def evaluation_of(name: str) -> str:
    """Which of `EVALUATIONS` a family or score is of, by its first word (`temporal_cuts/gap`); empty for none."""
    word = name.partition("/")[0].partition("_")[0]
    return word if word in EVALUATIONS else ""


def _context(run: Run, folder: Path, device: torch.device, make_encoder: Callable[[], DualEncoder]) -> Context:
    return Context(folder, run.seed, device, run.data, make_encoder, lambda: Tokenizer.load(folder), run.optim)


def _trained(run: Run, folder: Path, device: torch.device) -> Context:
    """That of a finished run, with a place for scores that are not those of its own lists."""
    context = _context(run, folder, device, lambda: SViLM.from_pretrained(folder, run.device).encoder)
    place = place_of(run, folder)
    if place == folder:
        return context
    place.mkdir(exist_ok=True)
    _write_json(place / "run.json", run.model_dump(mode="json"))
    return replace(context, elsewhere=place)


def _retrieved(run: Run) -> list[str]:
    """Settings that name lists of retrieval."""
    return ["retrieval.manifest", *(["training.validation"] if isinstance(run.task, Pretrain) else [])]


def _judge(run: Run, job: Job) -> Callable[[nn.Module], float] | None:
    """What chooses the best weights: the task's own number on the validation manifest."""
    if run.training.keep == "last":
        return None
    manifest = Manifest(_required(run.training.validation, "training.validation"))
    if job.judge is None:
        raise ConfigError(f"training.keep = best: task {run.task.kind} cannot judge weights; use last")
    return partial(_call, job.judge, manifest)


def _call(judge: Callable[[nn.Module, Manifest], float], manifest: Manifest, model: nn.Module) -> float:
    return judge(model, manifest)


def _save_model(run: Run, job: Job, trained: nn.Module, context: Context) -> None:
    """The encoder for `svilm.load` (also one that stayed frozen, if it was used), and the heads of the task."""
    encoder = trained if isinstance(trained, DualEncoder) else vars(context).get("encoder")
    place = context.folder / "model"
    if encoder is not None:
        SViLM(encoder, context.tokenizer, run.model_config_of()).save_pretrained(place, _card(run))
    heads = {name: tensor.detach().cpu().contiguous() for name, tensor in job.task.state_dict().items()}
    if heads:
        place.mkdir(exist_ok=True)
        save_file(heads, place / "task.safetensors", metadata={"format": "pt", "kind": run.task.kind})


def _scored(run: Run, job: Job, model: nn.Module, context: Context) -> dict[str, float]:
    """scores.json of a model, with what the same encoder scores before any training beside it."""
    families = _families(run, job, model, context)
    scores = _flat(families)
    if isinstance(model, DualEncoder):
        scores |= _untrained(run, context)
    if rank() == 0:
        _write_json(context.results / "scores.json", scores)
        _write_json(context.results / "protocols.json", _protocols(families))
    return scores


def _untrained(run: Run, context: Context) -> dict[str, float]:
    """What the encoder scores before any training, under names such as ``retrieval_untrained/...``."""
    if not any(_manifest_of(run, name) for name in EVALUATIONS):
        return {}
    untrained = initial_encoder(run.model, Start(), run.seed).to(context.device)
    return {
        key.replace(f"{name}/", f"{name}_untrained/", 1): value
        for name, family in evaluations(run, untrained, context.tokenizer).items()
        for key, value in family.metrics.items()
        if key.startswith(f"{name}/")
    }


def _manifest_of(run: Run, family: str) -> str:
    """A manifest that the run names for one of `EVALUATIONS`; empty when it asks for none of it."""
    jump_cuts = run.temporal.jump_cuts if family == "temporal" else ""
    return str(getattr(run, family).manifest) or jump_cuts


def _protocols(families: Mapping[str, Scores]) -> dict[str, dict[str, Any]]:
    return {
        name: {"protocol": family.protocol, "scored": family.scored, "official": family.official}
        for name, family in families.items()
    }


def _families(run: Run, job: Job, model: nn.Module, context: Context) -> dict[str, Scores]:
    """All scores of a model by family; when the weights were chosen by a test split, their protocols say so."""
    found = dict(job.evaluate(model))
    if isinstance(model, DualEncoder):
        found = {**evaluations(run, model, context.tokenizer, context.results), **found}
    remark = remark_on_lists(run, run.training.validation if run.training.keep == "best" else "")
    return {name: replace(scores, protocol=scores.protocol + remark) for name, scores in found.items()}


def _flat(families: Mapping[str, Scores]) -> dict[str, float]:
    scores: dict[str, float] = {}
    for name, family in families.items():
        counts = {f"{name}/scored": float(family.scored), f"{name}/official": float(family.official)}
        scores |= {**family.metrics, **counts}
    return scores


def evaluations(run: Run, model: DualEncoder, tokenizer: Tokenizer, folder: Path | None = None) -> dict[str, Scores]:
    """The scores that the run asks for: zero-shot retrieval, scene changes and nouns, each when its manifest is set.

    What each noun came to is kept in ``folder``/grounding.json, if a folder is given.
    """
    reader = reader_of(run, tokenizer)
    found: dict[str, Scores] = {}
    if run.retrieval.manifest:
        test = Manifest(run.retrieval.manifest)
        words = sampling_in_words(run.data.sampling)
        found["retrieval"] = retrieving.score(retrieving.encode(model, test, reader), test, run.retrieval, words)
    found |= scenes.evaluate(model, run.temporal, reader)
    if run.grounding.manifest:
        found["grounding"] = pointing.evaluate(model, run.grounding, reader, folder)
    return found


def reader_of(run: Run, tokenizer: Tokenizer) -> Reader:
    """How the run's evaluations read clips and texts."""
    return Reader(tokenizer, run.data.sampling, run.data.language, run.data.workers)


def total_steps(run: Run, items: int) -> int:
    """Optimiser steps of a run over so many training items an epoch."""
    return run.training.steps or max(1, round(run.training.epochs * (items // run.data.batch)))


def _refuse_another(run: Run, about: Mapping[str, Any], folder: Path) -> None:
    """Raises ConfigError when the folder holds a run with other settings or of other training clips."""
    if not (folder / "run.json").is_file():
        return
    changed = [f"{name}: {before!r} there, {now!r} now" for name, before, now in differences(load_run(folder), run)]
    if changed:
        raise ConfigError(
            f"{folder} holds a run with other settings ({'; '.join(changed[:5])}); choose another folder, "
            f"or `svilm train --resume` to go on with that run, or `svilm evaluate {folder} --test FILE` to score it"
        )
    file = folder / DATA
    before = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else about
    if before["sha256"] != about["sha256"]:
        raise ConfigError(
            f"{run.data.manifest} has other clips than when the run in {folder} began ({before['clips']} then, "
            f"{about['clips']} now), so that it cannot go on; bring the old list back, or choose another folder"
        )


def _write_description(run: Run, manifest: Manifest, folder: Path) -> None:
    """run.json, what the training clips were, and environment.json of the process that trains.

    Raises ConfigError when the folder holds another run.
    """
    about = {"manifest": str(manifest.path), "clips": len(manifest), "sha256": manifest.digest()}
    _refuse_another(run, about, folder)
    _write_json(folder / DATA, about)
    _write_json(folder / "run.json", run.model_dump(mode="json"))
    if not (folder / "scores.json").is_file():  # a finished run is scored again at most: its weights come from before
        _write_json(folder / "environment.json", environment())


def _draw_first_batch(batch: Any, folder: Path) -> None:
    """The picture of what the model sees; batches of frozen features have none."""
    if isinstance(batch, Batch):
        from svilm.draw.batch import first_batch

        first_batch(batch, folder / "first_batch.png")


def _card(run: Run) -> str:
    started = ", ".join(source for source in (run.start.model, run.start.video, run.start.text) if source)
    note = f"\nInitialised from {started}; their licences apply to these weights too.\n" if started else ""
    return f"Recipe `{run.recipe}`, task {run.task.kind}, seed {run.seed}.{note}\n"


def _required(value: str, name: str, option: str = "") -> str:
    if not value:
        raise ConfigError(f"{name} is empty; give the manifest made by `svilm prepare`{option}")
    return value


def _write_json(path: Path, data: dict[str, Any]) -> None:
    part = path.with_name(f"{path.name}.part")
    part.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    os.replace(part, path)  # whole or not at all: without run.json nobody could go on
