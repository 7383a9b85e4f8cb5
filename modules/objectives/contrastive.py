"""Contrastive loss of clips and texts: the dual encoder's."""

from __future__ import annotations

from collections.abc import Set

import torch
import torch.nn.functional as F
from torch import Tensor

from modules.collectives import global_mean, rank
from modules.encoded import Encoded
from modules.objectives.base import Objective
from modules.true_pairs import TruePairs


class Contrastive(Objective):
    """InfoNCE over the global batch, in both directions; trains both towers, the header and the logit scale."""

    NAMES = ("contrastive",)
    NEEDS_FUSION = False
    NEEDS_PAIRS = True
    TURN = 1

    def trains(self, active: Set[str]) -> set[str]:
        """The towers, the similarity header, and the logit scale of a header that has one."""
        scale = set() if self.config.sim_header == "tightTransf" else {"temperature"}
        return {"frames", "text", "similarity"} | scale

    def losses(self, encoded: Encoded) -> dict[str, Tensor]:
        """`contrastive`."""
        return {"contrastive": contrastive_loss(*encoded.similarity, encoded.true_pairs)}


class PretrainContrastive(Contrastive):
    """As in pre-training: the released loss reaches the text tower alone (`Behaviour.contrastive_video_gradient`)."""

    def trains(self, active: Set[str]) -> set[str]:
        """In released behaviour neither the visual tower nor the header, which reads frames."""
        parts = super().trains(active)
        return parts if self.behaviour.contrastive_video_gradient else parts - {"frames", "similarity"}


def contrastive_loss(text_to_video: Tensor, video_to_text: Tensor, true_pairs: TruePairs | None = None) -> Tensor:
    """Mean of the InfoNCE losses of this rank's rows (B, G) against the global batch, in both directions.

    Args:
        true_pairs: what is no negative of a row; a row without any negative is left out of the mean.
    """
    batch = text_to_video.shape[0]
    target = torch.arange(batch, device=text_to_video.device) + rank() * batch
    kept = None
    if true_pairs is not None:
        text_to_video = _with_negatives_alone(text_to_video, true_pairs.text_to_video, target)
        video_to_text = _with_negatives_alone(video_to_text, true_pairs.video_to_text, target)
        kept = (~torch.cat(true_pairs)).any(1).sum()
    total = F.cross_entropy(text_to_video.float(), target, reduction="sum")
    total = total + F.cross_entropy(video_to_text.float(), target, reduction="sum")
    return global_mean(total, 2 * batch, kept)


def _with_negatives_alone(logits: Tensor, is_true: Tensor, own: Tensor) -> Tensor:
    """Logits (B, G) without those of further true pairs, beside the own ones (B,)."""
    return logits.float().masked_fill(is_true.scatter(1, own[:, None], False), float("-inf"))
