"""Open-ended question answering."""

from __future__ import annotations

import torch
from torch import Tensor

from modules.batch import Batch
from modules.objectives.answers import Answers
from modules.tasks.task_model import TaskModel


class AnswerModel(TaskModel):
    """Answers questions on clips; nothing is detached, so the loss trains both towers.

    A finished batch has B clips with Q questions on them: `text_ids`, `text_mask` (Q, L) and `text_lengths` of the
    questions, `text_clip` (Q,), index of each question's clip, and for the loss `answer` (Q,), class or token id.
    """

    OBJECTIVES = (Answers,)

    @property
    def is_classifier(self) -> bool:
        """Whether an answer is a class; otherwise it is the id of its first token."""
        return self.objective(Answers).classifier is not None

    @torch.no_grad()
    def predict(self, batch: Batch) -> Tensor:
        """The most likely answers: (Q,), classes or token ids."""
        return self._logits(batch).argmax(-1)

    @torch.no_grad()
    def probabilities(self, batch: Batch) -> Tensor:
        """Probability of every answer: (Q, classes or vocabulary), fp32."""
        return self._logits(batch).float().softmax(-1)

    def _logits(self, batch: Batch) -> Tensor:
        encoded, answers = self.encoded(batch), self.objective(Answers)
        return answers.logits(encoded, answers.slots(encoded))
