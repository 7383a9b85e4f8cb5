"""Multiple choice: which of several captions is the clip's."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from modules.encoded import Encoded
from modules.fusion_encoder import VideoTokens
from modules.heads import MatchingHead
from modules.objectives.contrastive import Contrastive
from modules.reranking import match_weights
from modules.similarity import LooseSimilarity


class Choices(Contrastive):
    """Trained by the contrastive loss; an answer is the option of a clip that scores best."""

    def scores(self, encoded: Encoded, head: MatchingHead | None) -> Tensor:
        """Scores of each clip's options, the texts of the batch, K for each clip, one after the other.

        Returns:
            (B, K): cosines, or with `head` softmax over the options of their logits times P(match).
        """
        model, batch, video, text = encoded.model, encoded.batch, encoded.video, encoded.text
        scores = self._similarity(encoded, model.text_feature(text, batch["text_lengths"]))
        if head is None:
            return scores
        options = scores.shape[1]
        pairs = torch.arange(len(scores), device=scores.device).repeat_interleave(options)
        rows = model.fusion.matching_rows(video.select(pairs), text, batch["text_mask"], batch["text_lengths"])
        matching = head(rows.unflatten(0, (-1, options)))
        scale = model.clip.logit_scale.exp() if isinstance(model.similarity, LooseSimilarity) else 1.0
        return match_weights(scores * scale, matching.softmax(-1)[..., 1])

    def _similarity(self, encoded: Encoded, text_feature: Tensor) -> Tensor:
        """(B·K, E) -> (B, K): cosines with the clips, or the logits of a tight header."""
        video: VideoTokens = encoded.video
        count, similarity = len(video.frames), encoded.model.similarity
        if isinstance(similarity, LooseSimilarity):
            normalise = self.behaviour.choice_frames_normalised
            pooled = similarity.video_feature(video.frames, video.frame_mask, normalise_frames=normalise)
            options = F.normalize(text_feature.float(), dim=-1).unflatten(0, (count, -1))
            return (options @ pooled[..., None])[..., 0]
        logits = similarity(text_feature, video.frames, video.frame_mask).unflatten(0, (count, -1))
        own = torch.arange(count, device=logits.device)
        return logits[own, :, own]
