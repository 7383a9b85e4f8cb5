"""Fine-tuning for text-video retrieval: contrastive and matching losses; what scores pairs for re-ranking."""

from __future__ import annotations

from typing import ClassVar

from modules.heads import MatchingHead, VocabularyHead
from modules.objectives.base import Objective
from modules.objectives.captions import CaptionScores
from modules.objectives.contrastive import Contrastive
from modules.objectives.matching import Matching
from modules.tasks.task_model import TaskModel


class RetrievalModel(TaskModel):
    """Dual encoder with a matching head for re-ranking (modules/reranking.py).

    As in the released tasks/eval_retrieval.py the contrastive loss trains both towers; for the matching loss frame
    features and text tokens are detached, trajectories and actions are not.
    """

    OBJECTIVES: ClassVar[tuple[type[Objective], ...]] = (Matching, Contrastive)
    matching_head: MatchingHead


class CaptionRankedModel(RetrievalModel):
    """Retrieval whose second stage asks how likely a clip makes a text (modules/caption_scoring.py).

    The vocabulary head comes from a captioning or pre-trained checkpoint and stays as it is.
    """

    OBJECTIVES = (*RetrievalModel.OBJECTIVES, CaptionScores)
    vocabulary_head: VocabularyHead
