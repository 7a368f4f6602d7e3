"""Pre-training: global contrastive, spatial grounding and temporal grouping losses together (section 3)."""

import math
from typing import Literal, cast

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from svilm.config import ConfigError
from svilm.data.augment import targets
from svilm.engine.task import Context, Features, Job, Task, TaskSettings
from svilm.losses import (
    grounding_similarity,
    instance_similarity,
    soft_target_cross_entropy,
    temporal_grouping_loss_from_clips,
)
from svilm.models.dual import DualEncoder
from svilm.runtime import gather_objects, gather_with_gradient, rank, world_size
from svilm.tasks.common import encode_packed, reader_of, recall_at_10, training_clips
from svilm.types import Batch, Terms


class Pretrain(TaskSettings):
    """Weights and temperatures of the three losses; the defaults are the paper's (section 3.4).

    With `grounding` and `grouping` at 0 this is also how retrieval is fine-tuned (Table 8).
    """

    kind: Literal["pretrain"] = "pretrain"
    """Pre-training, and fine-tuning for retrieval."""
    contrast: float = Field(1.0, ge=0)
    """Weight of the global contrastive loss, w3."""
    grounding: float = Field(1.0, ge=0)
    """Weight of inter-clip spatial grounding, w2."""
    grouping: float = Field(1.0, ge=0)
    """Weight of intra-clip temporal grouping, w1; it needs cut-and-paste."""
    grouping_kind: Literal["mse", "bce"] = "mse"
    """Mean squared error (what the paper trained with) or the binary cross entropy of its Eq. 2."""
    region_temperature: float = Field(0.1, gt=0)
    """Temperature of the softmax over group tokens in Eq. 3; at 1 every region gets nearly the same weight."""
    grouping_temperature: float = Field(0.1, gt=0)
    """Temperature of Eq. 1; at 1 the softmax of two cosines cannot get near 0 or 1."""
    mask_duplicates: bool = False
    """Leave captions that equal the clip's own caption out of its negatives."""

    def job(self, context: Context) -> Job:
        """The dual encoder on batches of clips and captions; a run scores it by retrieval and scene changes.

        Raises ConfigError where temporal grouping would have nothing to tell apart.
        """
        if self.grouping and context.data.paste.probability and context.data.batch // world_size() < 2:
            raise ConfigError(
                f"data.batch = {context.data.batch} on {world_size()} ranks is one clip for each, which has none to be "
                "pasted into; at least two are needed for task.grouping (or set it to 0)"
            )
        return Job(
            PretrainTask(self),
            context.encoder,
            **training_clips(context),
            judge=lambda model, manifest: recall_at_10(cast(DualEncoder, model), manifest, reader_of(context)),
        )


class PretrainTask(Task):
    """The loss of Eq. 1 to 7 on batches of clips and captions."""

    def __init__(self, config: Pretrain) -> None:
        super().__init__()
        if not config.contrast + config.grounding + config.grouping:
            raise ValueError("task: all three loss weights are 0; give at least one of them a value above 0")
        self.config = config

    def features(self, model: nn.Module, batch: Batch) -> Features:
        """Vectors of each clip, its caption and its nouns, clip tokens, and which groups its tokens chose.

        video (B, E), groups (B, M, E) (the regions where the model has such), steps (B, N_t, D), caption (B, E),
        usage (B, M), and nouns (B, K, E) if they are grounded.
        """
        dual = cast(DualEncoder, model)
        if self.config.grounding:  # texts first: their lengths are asked for, which must not wait for the video
            text = encode_packed(dual, batch.text_ids, batch.text_mask)
            words = {"caption": text[batch.caption_index], "nouns": text[batch.noun_index]}
        else:
            rows = batch.caption_index
            words = {"caption": dual.encode_text(batch.text_ids[rows], batch.text_mask[rows]).embedding}
        video = dual.encode_video(batch.video)
        winner = video.assignment.flatten(2).max(dim=1).indices
        chosen = torch.nn.functional.one_hot(winner, video.assignment.shape[1])
        return {
            "video": video.embedding,
            "groups": video.group_embedding if video.region_embedding is None else video.region_embedding.flatten(1, 2),
            "steps": video.tokens.mean(dim=2),
            "usage": chosen.float().mean(dim=1),
            **words,
        }

    def loss(self, model: nn.Module, features: Features, batch: Batch) -> Terms:
        """The weighted sum of the losses whose weight is not zero, over the batches of all ranks."""
        c, dual = self.config, cast(DualEncoder, model)
        losses: dict[str, Tensor] = {}
        wanted = self._targets(batch, features["video"])
        if c.contrast:
            temperature = dual.temperature("contrast")
            video, caption = features["video"], features["caption"]
            rows = instance_similarity(video, gather_with_gradient(caption))
            columns = rows.T if world_size() == 1 else instance_similarity(caption, gather_with_gradient(video))
            exclude = self._duplicates(batch) if c.mask_duplicates else (None, None)
            losses["contrast"] = soft_target_cross_entropy(
                rows / temperature, wanted[0], exclude[0]
            ) + soft_target_cross_entropy(columns / temperature, wanted[1], exclude[1])
        if c.grounding:
            losses["grounding"] = self._grounding(dual, features, batch, wanted)
        if c.grouping:
            losses["grouping"] = self._grouping(features, batch)
        weights = {"contrast": c.contrast, "grounding": c.grounding, "grouping": c.grouping}
        total = torch.stack([weights[name] * value for name, value in losses.items()]).sum()
        reported = {name: value.detach() for name, value in losses.items()}
        return Terms(total, reported, self._watched(dual, features))

    def _targets(self, batch: Batch, like: Tensor) -> tuple[Tensor, Tensor]:
        """Eq. 5 for this rank's rows against all columns: clips to captions, captions to clips; both (b, B)."""
        own = torch.eye(len(batch)) if batch.paste is None else targets(batch.paste)
        own = own.to(like.device)
        wide = own.new_zeros(2, len(batch), len(batch) * world_size())
        first = rank() * len(batch)
        wide[0, :, first : first + len(batch)] = own
        wide[1, :, first : first + len(batch)] = own.T
        return wide[0], wide[1]

    def _grounding(
        self, dual: DualEncoder, features: Features, batch: Batch, wanted: tuple[Tensor, Tensor]
    ) -> Float[Tensor, ""]:
        """L_g of Eq. 6.  Captions without any noun to ground leave both directions (setting `no_noun` = skip)."""
        temperature, region = dual.temperature("grounding"), self.config.region_temperature
        nouns, mask, groups = features["nouns"], batch.noun_mask, features["groups"]
        all_nouns, all_mask = gather_with_gradient(nouns), gather_with_gradient(mask)
        rows = grounding_similarity(groups, all_nouns, all_mask, region)
        # What other ranks found for this rank's captions: far less to send than their groups.
        first = rank() * len(nouns)
        columns = gather_with_gradient(rows)[:, first : first + len(nouns)].T
        silent = ~all_mask.any(dim=1)  # captions without a noun
        own = ~mask.any(dim=1)
        to_captions = wanted[0].masked_fill(silent, 0.0)
        to_videos = wanted[1].masked_fill(own[:, None], 0.0)
        both = soft_target_cross_entropy(
            rows / temperature, to_captions, silent.expand_as(rows)
        ) + soft_target_cross_entropy(columns / temperature, to_videos)
        return both * (len(silent) / (~silent).sum().clamp(min=1))

    def _grouping(self, features: Features, batch: Batch) -> Float[Tensor, ""]:
        """L_t of Eq. 2; steps of the encoder are averaged inside a clip window of several tubelets."""
        if batch.paste is None:
            raise ValueError("task.grouping needs cut-and-paste; set data.paste.probability above 0 or task.grouping=0")
        mask, steps = batch.paste.mask, features["steps"]
        if steps.shape[1] % mask.shape[1]:
            raise ValueError(
                f"data.paste.clip_window makes {mask.shape[1]} windows of {steps.shape[1]} encoder steps; "
                "choose it as a multiple of the tubelet's frames"
            )
        steps = steps.unflatten(1, (mask.shape[1], -1)).mean(dim=2)
        loss = temporal_grouping_loss_from_clips(
            steps, mask, self.config.grouping_temperature, self.config.grouping_kind
        )
        # The mean goes over the pasted clips of all ranks, of which each may have another number.
        own = (mask.any(dim=1) & ~mask.all(dim=1)).sum(dtype=loss.dtype)
        everyone = gather_with_gradient(own[None]).sum()
        return loss * (own * world_size() / everyone.clamp(min=1))

    def _duplicates(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Pairs with equal captions, this rank's rows against all columns, for either direction."""
        everyone = [caption for captions in gather_objects(batch.captions) for caption in captions]
        same = torch.tensor([[own == other for other in everyone] for own in batch.captions])
        same = same.to(batch.video.device)
        return same, same

    @torch.no_grad()
    def _watched(self, dual: DualEncoder, features: Features) -> dict[str, Tensor]:
        """Temperatures, and how evenly the groups are used: groups that hold any token of a clip, groups used
        anywhere in the batch, and the entropy of their shares over that of equal shares."""
        usage = features["usage"]
        shares = usage.mean(dim=0)
        entropy = torch.special.entr(shares).sum() / math.log(len(shares)) if len(shares) > 1 else shares.sum()
        return {
            "temperature/contrast": dual.temperature("contrast"),
            "temperature/grounding": dual.temperature("grounding"),
            "groups/live_per_clip": (usage > 0).float().sum(dim=1).mean(),
            "groups/live_in_batch": (shares > 0).float().sum(),
            "groups/entropy": entropy,
        }
