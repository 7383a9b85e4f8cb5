"""Captioning: trained to predict every token of a caption, decoded greedily or by beam search."""

from __future__ import annotations

import torch

from modules.batch import Batch
from modules.beam_search import Hypotheses, SearchSettings, search
from modules.decoder import CachedDecoder
from modules.fusion_encoder import VideoTokens
from modules.heads import VocabularyHead
from modules.objectives.captions import Captions
from modules.objectives.contrastive import Contrastive
from modules.tasks.task_model import TaskModel


class CaptionModel(TaskModel):
    """Prefix language model of captions; nothing is detached, as in the released tasks/eval_captioning.py."""

    OBJECTIVES = (Captions, Contrastive)
    vocabulary_head: VocabularyHead

    @torch.no_grad()
    def generate(self, batch: Batch, settings: SearchSettings) -> Hypotheses:
        """Captions of a finished batch's clips."""
        return self.decode(self.encode_video(batch, features_need_grad=False), settings)

    @torch.no_grad()
    def decode(self, video: VideoTokens, settings: SearchSettings) -> Hypotheses:
        """Captions of encoded clips. A step reads all weights once, however many clips there are."""
        decoder = CachedDecoder(self, self.vocabulary_head, video, settings.beam_size, settings.max_tokens)
        start, end = self.config.start_token, self.config.end_token
        return search(decoder, len(video.frames), start, end, settings, video.frames.device)
