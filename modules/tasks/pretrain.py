"""Pre-training: masked and next tokens, video-text matching, object-noun and action-verb matching, contrastive."""

from __future__ import annotations

from modules.objectives.contrastive import PretrainContrastive
from modules.objectives.masked_tokens import MaskedTokens
from modules.objectives.matching import Matching
from modules.objectives.next_tokens import NextTokens
from modules.objectives.set_matching import SetMatching
from modules.tasks.task_model import TaskModel


class PretrainModel(TaskModel):
    """As in the released tasks/pre_training.py, frame features, text tokens and early patches are detached right after
    encoding, except in the contrastive loss; trajectories and actions are not.
    """

    OBJECTIVES = (Matching, MaskedTokens, NextTokens, SetMatching, PretrainContrastive)
