"""Captioning: trained to predict every token of a caption, decoded greedily or by beam search."""

from __future__ import annotations

import torch
from torch import Tensor

from modules.batch import Batch
from modules.beam_search import Hypotheses, SearchSettings, search
from modules.decoder import CachedDecoder
from modules.fusion_encoder import VideoTokens
from modules.heads import SampleDropout
from modules.losses import contrastive_loss
from modules.prefix_lm import PrefixLMModel
from modules.task_model import Reach


class CaptionModel(PrefixLMModel):
    """Prefix language model of captions; nothing is detached, as in the released tasks/eval_captioning.py.

    Attributes:
        label_smoothing: of the caption loss.
    """

    LOSSES = ("caption", "contrastive")
    label_smoothing = 0.0

    def reach(self) -> Reach:
        """Both towers; by the caption loss also the fusion encoder and the vocabulary head."""
        caption, contrastive = "caption" in self.active_losses, "contrastive" in self.active_losses
        return Reach(frames=True, text=True, fused=caption, vocabulary=caption, logit_scale=contrastive)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Active losses of a finished batch, and `caption_accuracy`, the share of right arg-max tokens.

        It has `video`, `video_mask`, `text_ids`, `plm_index`, boxes for a model with objects, and in training
        `random_keys` (B,).
        """
        drop = SampleDropout(batch.get("random_keys"), self.config.dropout, self.training)
        video, text = self.encode_video(batch), self.encode_text(batch["text_ids"])
        out: dict[str, Tensor] = {}
        if "caption" in self.active_losses:
            loss = self.next_token_loss(batch, video, text, drop, "caption", self.label_smoothing)
            out |= {"caption": loss.loss, "caption_accuracy": loss.accuracy}
        if "contrastive" in self.active_losses:
            out["contrastive"] = contrastive_loss(*self.similarity_logits(batch, video, text))
        return out

    @torch.no_grad()
    def generate(self, batch: Batch, settings: SearchSettings) -> Hypotheses:
        """Captions of a finished batch's clips."""
        return self.decode(self.encode_video(batch, features_need_grad=False), settings)

    @torch.no_grad()
    def decode(self, video: VideoTokens, settings: SearchSettings) -> Hypotheses:
        """Captions of encoded clips. A step reads all weights once, however many clips there are."""
        decoder = CachedDecoder(self, video, settings.beam_size, settings.max_tokens)
        start, end = self.config.start_token, self.config.end_token
        return search(decoder, len(video.frames), start, end, settings, video.frames.device)
