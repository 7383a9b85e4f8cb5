"""Multiple choice: which of several captions is the video's. Trained as retrieval, scored among a clip's options."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from modules.batch import Batch
from modules.config import ModelConfig
from modules.fusion_encoder import VideoTokens
from modules.reranking import match_weights
from modules.retrieval import RetrievalModel
from modules.similarity import LooseSimilarity


class MultipleChoiceModel(RetrievalModel):
    """Scores captions of a clip by similarity and, with objects, by the matching head.

    Without objects it is the model of the released tasks/eval_mc.py: contrastive loss, cosine scores, no fusion
    encoder. With objects the matching loss is trained too, and scores are weighted by P(match) as in re-ranking.
    """

    @classmethod
    def needs_fusion(cls, config: ModelConfig) -> bool:
        """Whether there are objects, and with them the matching head."""
        return config.need_object

    def score_options(self, batch: Batch, *, use_matching: bool = True) -> Tensor:
        """Scores of each clip's options; the largest is the answer.

        Args:
            batch: finished batch of B clips, with `text_ids`, `text_mask` (B·K, L) and `text_lengths` of their options,
                the K options of a clip one after the other.
            use_matching: False leaves the matching head out where there is one.

        Returns:
            (B, K): cosines, or softmax over the options of their logits times P(match).
        """
        video = self.encode_video(batch, features_need_grad=False)
        text = self.encode_text(batch["text_ids"])
        scores = self._option_similarity(video, self.text_feature(text, batch["text_lengths"]))
        if not (use_matching and self.needs_fusion(self.config)):
            return scores
        options = scores.shape[1]
        pairs = torch.arange(len(scores), device=scores.device).repeat_interleave(options)
        rows = self.matching_rows(video.select(pairs), text, batch["text_mask"], batch["text_lengths"])
        matching = self.matching_head(rows.unflatten(0, (-1, options)))
        scale = self.clip.logit_scale.exp() if isinstance(self.similarity, LooseSimilarity) else 1.0
        return match_weights(scores * scale, matching.softmax(-1)[..., 1])

    def _option_similarity(self, video: VideoTokens, text_feature: Tensor) -> Tensor:
        """(B, T, E) frames, (B·K, E) -> (B, K): cosines, or the logits of a tight header."""
        count = len(video.frames)
        if isinstance(self.similarity, LooseSimilarity):
            normalise = self.behaviour.choice_frames_normalised
            pooled = self.similarity.video_feature(video.frames, video.frame_mask, normalise_frames=normalise)
            options = F.normalize(text_feature.float(), dim=-1).unflatten(0, (count, -1))
            return (options @ pooled[..., None])[..., 0]
        logits = self.similarity(text_feature, video.frames, video.frame_mask).unflatten(0, (count, -1))
        own = torch.arange(count, device=logits.device)
        return logits[own, :, own]
