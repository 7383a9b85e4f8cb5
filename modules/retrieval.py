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
    """Dual encoder with a matching head for re-ranking (modules/reranking.py).

    As in the released tasks/eval_retrieval.py the contrastive loss trains both towers; for the matching loss frame
    features and text tokens are detached, trajectories and actions are not.
    """

    LOSSES = ("vtm", "contrastive")

    @property
    def available_losses(self) -> tuple[str, ...]:
        """`LOSSES`, without matching for a model without fusion encoder."""
        return self.LOSSES if self.needs_fusion(self.config) else ("contrastive",)

    def reach(self) -> Reach:
        """The towers by the contrastive loss; the fusion encoder and its head by the matching loss."""
        contrastive, matching = "contrastive" in self.active_losses, "vtm" in self.active_losses
        return Reach(frames=contrastive, text=contrastive, logit_scale=contrastive, fused=matching, matching=matching)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Active losses of a finished batch, and `vtm_accuracy`.

        It has `video`, `video_mask`, `text_ids`, boxes for a model with objects, and in training `random_keys` (B,).
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
