"""Fine-tuning for text-video retrieval: contrastive and matching losses; scores of pairs for re-ranking."""

from __future__ import annotations

from modules.heads import MatchingHead
from modules.objectives.contrastive import Contrastive
from modules.objectives.matching import Matching
from modules.tasks.task_model import TaskModel


class RetrievalModel(TaskModel):
    """Dual encoder with a matching head for re-ranking (modules/reranking.py).

    As in the released tasks/eval_retrieval.py the contrastive loss trains both towers; for the matching loss frame
    features and text tokens are detached, trajectories and actions are not.
    """

    OBJECTIVES = (Matching, Contrastive)
    matching_head: MatchingHead
