"""What objectives read of a batch: encoded once, by whoever asks first."""

from __future__ import annotations

from collections.abc import Set
from functools import cached_property

import torch
from torch import Tensor

from modules.backbone import Backbone, Logits
from modules.batch import Batch
from modules.fusion_encoder import VideoTokens
from modules.heads import SampleDropout
from modules.random_streams import uniform
from modules.true_pairs import TruePairs, text_keys, true_pairs


class Encoded:
    """A finished batch in the hands of a model.

    Args:
        model: whose encoders are asked.
        active: names of the losses that are wanted.
        trained: parts that these send gradient into (modules/parts.py); the towers build no graph for others.
        frame_dropout: share of samples whose frames and actions language losses do not see.
    """

    def __init__(
        self, model: Backbone, batch: Batch, active: Set[str], trained: Set[str], frame_dropout: float = 0.0
    ) -> None:
        self.model, self.batch, self.active, self.trained = model, batch, active, trained
        self.frame_dropout = frame_dropout if model.training else 0.0
        self.dropout = SampleDropout(batch.get("random_keys"), model.config.dropout, model.training)

    @cached_property
    def video(self) -> VideoTokens:
        """The clips; frame features have a gradient if they are trained."""
        return self.model.encode_video(self.batch, features_need_grad="frames" in self.trained)

    @cached_property
    def text(self) -> Tensor:
        """The texts (B, L, E), every token; they have a gradient if the text tower is trained.

        Questions are asked in the same words of many clips: each wording is encoded once.
        """
        ids = self.batch["text_ids"]
        with torch.set_grad_enabled(torch.is_grad_enabled() and "text" in self.trained):
            if "text_wording" not in self.batch:
                return self.model.encode_text(ids)
            return self.model.encode_text(ids[self.batch["distinct_texts"]])[self.batch["text_wording"]]

    @cached_property
    def detached_video(self) -> VideoTokens:
        """The clips, their frame features without gradient; trajectories, actions and further tokens keep theirs."""
        return self.video._replace(frames=self.video.frames.detach())

    @cached_property
    def detached_text(self) -> Tensor:
        """The texts without gradient."""
        return self.text.detach()

    @cached_property
    def similarity(self) -> Logits:
        """Logits of clips and texts; frames have a gradient if the similarity header is trained."""
        video = self.video if "similarity" in self.trained else self.detached_video
        return self.model.similarity_logits(video, self.text, self.batch["text_lengths"])

    @cached_property
    def true_pairs(self) -> TruePairs | None:
        """Which texts are true of which clips; None in released behaviour, where each clip has its own text alone."""
        if self.model.behaviour.same_clip_negatives:
            return None
        keys = text_keys(self.batch["text_ids"], self.batch["text_lengths"])
        return true_pairs(keys, self.batch.get("clip_keys"))

    def hidden_frames(self, video: VideoTokens) -> Tensor | None:
        """Samples of which the fusion encoder sees trajectories alone in this step: (B,) bool, or None for no sample.

        Frames and actions, learned first, say what there is but not which colour belongs to which shape; a model may
        then never learn to read trajectories. Clips without trajectories are never hidden.
        """
        if not self.frame_dropout or video.trajectory_mask is None:
            return None
        chosen = uniform(self.batch["random_keys"], "hidden frames", 1)[:, 0] < self.frame_dropout
        return chosen & video.trajectory_mask.any(1)
