"""Video-text matching, trained on hard negatives, for pre-training and retrieval."""

from __future__ import annotations

import torch
from torch import Tensor

from modules.batch import Batch
from modules.collectives import gather, gather_constant, rank, world_size
from modules.config import Behaviour, ModelConfig
from modules.fusion_encoder import VideoTokens, pad_columns
from modules.heads import MatchingHead, SampleDropout
from modules.losses import Negatives, Pool, TokenLoss, hard_negatives, interleave, matching_loss
from modules.task_model import Logits, TaskModel


class MatchingModel(TaskModel):
    """A model with the matching head on the fusion encoder, which says whether a text is a video's."""

    matching_head: MatchingHead

    def __init__(self, config: ModelConfig, behaviour: Behaviour) -> None:
        super().__init__(config, behaviour)
        if self.needs_fusion(config):
            self.matching_head = MatchingHead(config, behaviour)

    def matching_rows(self, video: VideoTokens, text: Tensor, text_mask: Tensor, lengths: Tensor) -> Tensor:
        """Fusion output at the frame mean and at the end token of K pairs: (K, 2, E)."""
        context = self.fusion.context(video)
        end = lengths - 1
        rows = torch.stack([torch.full_like(end, self.fusion.mean_row), self.fusion.text_rows(context, end)], dim=1)
        return self.fusion(context, text, text_mask, end, rows)

    def matching_losses(
        self, batch: Batch, video: VideoTokens, text: Tensor, logits: Logits, drop: SampleDropout
    ) -> dict[str, Tensor]:
        """`vtm` and `vtm_accuracy` of this rank's positives with a wrong video and a wrong text each.

        Args:
            video, text: frame features and text tokens (B, L, E), detached: no gradient of this loss reaches them.
            logits: similarities that the negatives are drawn by; `hard_negative_video` and `hard_negative_text` (B,) of
                the batch replace the draw.
        """
        if logits.text_to_video.shape[1] == 1:
            return {"vtm": self._no_matching_loss()}
        loss = self._matching_loss(batch, video, text, logits, drop)
        return {"vtm": loss.loss, "vtm_accuracy": loss.accuracy}

    def _matching_loss(
        self, batch: Batch, video: VideoTokens, text: Tensor, logits: Logits, drop: SampleDropout
    ) -> TokenLoss:
        negatives = self._negatives(batch, logits)
        rows = self.matching_rows(*self._pairs(batch, video, text, negatives))
        factors = drop.factors("vtm", 3, 2, 2, rows.shape[-1])
        scores = self.matching_head(rows, None if factors is None else factors.flatten(0, 1))
        return matching_loss(scores, 3)

    def _no_matching_loss(self) -> Tensor:
        """A single clip in the global batch has no negative: 0, with the gradient path that DDP expects."""
        return 0.0 * (self.matching_head.match.sum() + self.matching_head.unmatch.sum())

    @staticmethod
    def _negatives(batch: Batch, logits: Logits) -> Negatives:
        if "hard_negative_video" in batch:
            return Negatives(batch["hard_negative_video"], batch["hard_negative_text"])
        return hard_negatives(*logits, batch["random_keys"])

    def _pairs(self, batch: Batch, video: VideoTokens, text: Tensor, negatives: Negatives) -> Pool:
        """The 3·B pairs of this rank, in the order positive, wrong video, wrong text."""
        pool = self._global_pool(batch, video, text)
        start = rank() * text.shape[0]
        own = torch.arange(start, start + text.shape[0], device=text.device)
        which_video = interleave(own, negatives.video, own)
        which_text = interleave(own, own, negatives.text)
        return Pool(
            pool.video.select(which_video),
            pool.text[which_text],
            pool.text_mask[which_text],
            pool.text_lengths[which_text],
        )

    def _global_pool(self, batch: Batch, video: VideoTokens, text: Tensor) -> Pool:
        """Clips and texts of all ranks; gradients of trajectories and actions go back to the rank that owns them."""
        mask, lengths = batch["text_mask"], batch["text_lengths"]
        if world_size() == 1:
            return Pool(video, text, mask, lengths)
        # Ranks trim to different sizes; the full size is known to all without communication.
        words, trajectories = self.config.max_words, self.config.num_trajectories
        everywhere = VideoTokens(
            gather_constant(video.frames),
            gather_constant(video.frame_mask),
            None if video.trajectories is None else gather(pad_columns(video.trajectories, trajectories)),
            None
            if video.trajectory_mask is None
            else gather_constant(pad_columns(video.trajectory_mask, trajectories)),
            None if video.actions is None else gather(video.actions),
        )
        return Pool(
            everywhere,
            gather_constant(pad_columns(text, words)),
            gather_constant(pad_columns(mask, words)),
            gather_constant(lengths),
        )
