"""Fine-tuning for text-video retrieval: contrastive and matching losses; scores of pairs for re-ranking."""

from __future__ import annotations

import torch
from torch import Tensor

from modules.batch import Batch
from modules.heads import SampleDropout
from modules.losses import contrastive_loss
from modules.matching import MatchingModel
from modules.task_model import Reach


class RetrievalModel(MatchingModel):
    """Dual encoder with a matching head for re-ranking (modules/reranking.py). Source: spec, downstream, retrieval.

    The contrastive loss trains both towers; for the matching loss frame features and text tokens are detached,
    trajectories and actions are not.
    """

    LOSSES = ("vtm", "contrastive")

    @property
    def available_losses(self) -> tuple[str, ...]:
        return self.LOSSES if self.needs_fusion(self.config) else ("contrastive",)

    def reach(self) -> Reach:
        contrastive, matching = "contrastive" in self.active_losses, "vtm" in self.active_losses
        return Reach(frames=contrastive, text=contrastive, logit_scale=contrastive, fused=matching, matching=matching)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Losses of a finished batch with `video`, `video_mask`, `text_ids`, boxes where the model has objects, and
        `random_keys` (B,) when training.
        """
        on = self.active_losses
        drop = SampleDropout(batch.get("random_keys"), self.config.dropout, self.training)
        is_contrastive = "contrastive" in on
        video = self.encode_video(batch, features_need_grad=is_contrastive)
        with torch.set_grad_enabled(torch.is_grad_enabled() and is_contrastive):
            text = self.encode_text(batch["text_ids"])
        logits = self.similarity_logits(batch, video, text)
        out: dict[str, Tensor] = {}
        if is_contrastive:
            out["contrastive"] = contrastive_loss(*logits)
        if "vtm" in on:
            detached = video._replace(frames=video.frames.detach())
            out |= self.matching_losses(batch, detached, text.detach(), logits, drop)
        return out
