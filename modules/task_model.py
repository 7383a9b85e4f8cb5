"""Base of every task's model: named losses, and which parameters the active ones train."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from modules.backbone import Backbone
from modules.batch import Batch
from modules.collectives import gather, gather_constant
from modules.config import Behaviour, ModelConfig
from modules.fusion_encoder import VideoTokens
from modules.random_streams import uniform
from modules.similarity import LooseSimilarity


class Logits(NamedTuple):
    """Similarity of this rank's texts and videos to the global batch, both (B, G)."""

    text_to_video: Tensor
    video_to_text: Tensor


@dataclass(frozen=True)
class Reach:
    """Parts of the model that the active losses send gradient into.

    frames: frame features, and with them the whole visual tower and the similarity header. text: the text tower. fused:
    the fusion encoder, and what enters it from objects. trajectories, actions: these reached beside the fusion encoder.
    vocabulary, matching, answers: the heads. logit_scale: the contrastive temperature.
    """

    frames: bool = False
    text: bool = False
    fused: bool = False
    trajectories: bool = False
    actions: bool = False
    vocabulary: bool = False
    matching: bool = False
    answers: bool = False
    logit_scale: bool = False


class TaskModel(Backbone):
    """A backbone with heads. `forward` returns the active losses by name, and detached scalars `*_accuracy`.

    Attributes:
        new_names: parameters that neither a checkpoint nor CLIP gave a value (set by whoever loads weights).
    """

    LOSSES: tuple[str, ...] = ()

    def __init__(self, config: ModelConfig, behaviour: Behaviour) -> None:
        super().__init__(config, behaviour)
        self.active_losses: frozenset[str] = frozenset(self.available_losses)
        self.new_names: frozenset[str] = frozenset()
        self._trainable: set[str] | None = None

    @property
    def available_losses(self) -> tuple[str, ...]:
        """The losses that this configuration has."""
        return self.LOSSES

    def reach(self) -> Reach:
        """The parts that the active losses send gradient into."""
        raise NotImplementedError

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Active losses of a finished batch by name, and detached scalars `*_accuracy`."""
        raise NotImplementedError

    def hidden_frames(self, batch: Batch, video: VideoTokens) -> Tensor | None:
        """Samples of which the fusion encoder sees trajectories alone in this step: (B,) bool, or None for no sample.

        Frames and actions, learned first, say what there is but not which colour belongs to which shape; a model may
        then never learn to read trajectories. Clips without trajectories are never hidden.

        Args:
            batch: `random_keys` (B,) when training.
            video: the samples' clips.
        """
        if not (self.training and self.config.frame_dropout) or video.trajectory_mask is None:
            return None
        chosen = uniform(batch["random_keys"], "hidden frames", 1)[:, 0] < self.config.frame_dropout
        return chosen & video.trajectory_mask.any(1)

    def similarity_logits(self, batch: Batch, video: VideoTokens, text: Tensor) -> Logits:
        """Logits of this rank's clips and texts (B, L, E) with those of all ranks."""
        feature = self.text_feature(text, batch["text_lengths"])
        if isinstance(self.similarity, LooseSimilarity):
            pooled = self.similarity.video_feature(video.frames, video.frame_mask)
            scale = self.clip.logit_scale
            return Logits(
                self.similarity(feature, gather(pooled), scale), self.similarity(gather(feature), pooled, scale).t()
            )
        frames, mask = gather(video.frames), gather_constant(video.frame_mask)
        return Logits(
            self.similarity(feature, frames, mask), self.similarity(gather(feature), video.frames, video.frame_mask).t()
        )

    def remember_trainable(self) -> None:
        """Take the present `requires_grad` flags (after freezing layers) as what may train at all."""
        self._trainable = {name for name, parameter in self.named_parameters() if parameter.requires_grad}

    def set_active_losses(self, names: Set[str]) -> None:
        """Compute these losses, and freeze what they do not reach: every parameter that trains then has a gradient."""
        unknown = set(names) - set(self.LOSSES)
        if unknown:
            raise ValueError(f"unknown losses {sorted(unknown)}: choose from {', '.join(self.LOSSES)}")
        if self._trainable is None:
            self.remember_trainable()
        assert self._trainable is not None
        self.active_losses = frozenset(names)
        reach = self.reach()
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(name in self._trainable and self._is_reached(name, reach))

    def _is_reached(self, name: str, reach: Reach) -> bool:
        leaves_tower = self.config.object_fuse == "fusion"
        trajectories = self.config.has_trajectories and (reach.fused or reach.trajectories)
        actions = self.config.has_actions and (reach.fused or reach.actions)
        objects = (trajectories or actions) if leaves_tower else reach.frames
        if name.startswith("clip.visual."):
            return reach.frames or (leaves_tower and objects and self._is_below_tap(name))
        if name == "clip.token_embedding.weight":
            return reach.vocabulary or reach.text
        if name == "clip.logit_scale":
            return reach.logit_scale and isinstance(self.similarity, LooseSimilarity)
        if name.startswith("clip."):
            return reach.text
        reached = {
            "object_encoder": objects,
            "trajectory_encoder": trajectories,
            "action_encoder": actions,
            "fusion": reach.fused,
            "vocabulary_head": reach.vocabulary,
            "matching_head": reach.matching,
            "answer_head": reach.answers,
            "similarity": reach.frames and reach.logit_scale,
        }
        return bool(reached[name.split(".")[0]])

    def _is_below_tap(self, name: str) -> bool:
        """Whether a visual parameter lies below the block whose input patches the object encoder reads."""
        if ".resblocks." in name:
            return int(name.split(".resblocks.")[1].split(".")[0]) < self.config.object_blocks[-1]
        return not name.startswith(("clip.visual.ln_post", "clip.visual.proj"))
