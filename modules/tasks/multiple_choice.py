"""Multiple choice: which of several captions is the video's. Trained as retrieval, scored among a clip's options."""

from __future__ import annotations

import torch
from torch import Tensor

from modules.batch import Batch
from modules.config import ModelConfig
from modules.objectives.base import Objective
from modules.objectives.choices import Choices
from modules.objectives.matching import Matching
from modules.tasks.retrieval import RetrievalModel


class MultipleChoiceModel(RetrievalModel):
    """Scores captions of a clip by similarity and, with objects, by the matching head.

    Without objects it is the model of the released tasks/eval_mc.py: contrastive loss, cosine scores, no fusion
    encoder. With objects the matching loss is trained too, and scores are weighted by P(match) as in re-ranking.
    """

    OBJECTIVES = (Matching, Choices)

    @classmethod
    def objectives_of(cls, config: ModelConfig) -> tuple[type[Objective], ...]:
        """Without objects, no matching."""
        return tuple(kind for kind in cls.OBJECTIVES if config.need_object or not issubclass(kind, Matching))

    @torch.no_grad()
    def score_options(self, batch: Batch, *, use_matching: bool = True) -> Tensor:
        """Scores of each clip's options; the largest is the answer.

        Args:
            batch: finished batch of B clips, with `text_ids`, `text_mask` (B·K, L) and `text_lengths` of their options,
                the K options of a clip one after the other.
            use_matching: False leaves the matching head out where there is one.

        Returns:
            (B, K): cosines, or softmax over the options of their logits times P(match).
        """
        head = self.matching_head if use_matching and self.config.need_object else None
        return self.objective(Choices).scores(self.encoded(batch), head)
