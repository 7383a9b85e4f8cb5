"""Open-ended question answering: the fusion encoder's output at an answer slot, classified."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from modules.batch import Batch
from modules.config import Behaviour, ModelConfig
from modules.fusion_encoder import VideoTokens
from modules.heads import SampleDropout, VocabularyHead
from modules.losses import token_loss
from modules.task_model import Reach, TaskModel


class AnswerModel(TaskModel):
    """Answers questions on clips; nothing is detached, so the loss trains both towers.

    An answer is a class of `ModelConfig.answers` or, as in the released tasks/eval_qa.py, its first token among the
    vocabulary (`Behaviour.answer_head`).

    Raises:
        ValueError: a classifier without answers.
    """

    LOSSES = ("answer",)

    def __init__(self, config: ModelConfig, behaviour: Behaviour) -> None:
        super().__init__(config, behaviour)
        if self.is_classifier:
            if not config.answers:
                raise ValueError("answer classifier: there are no answers to choose from")
            self.answer_head = nn.Linear(config.embed_dim, len(config.answers))
        else:
            self.vocabulary_head = VocabularyHead(config)

    @property
    def is_classifier(self) -> bool:
        """Whether an answer is a class; otherwise it is the id of its first token."""
        return self.behaviour.answer_head == "classifier"

    def reach(self) -> Reach:
        """Both towers, the fusion encoder and the head that answers."""
        own = self.is_classifier
        return Reach(frames=True, text=True, fused=True, vocabulary=not own, answers=own)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Loss of a finished batch of B clips with Q questions on them.

        Args:
            batch: `video`, `video_mask`, boxes where the model has objects; `text_ids`, `text_mask` (Q, L) and
                `text_lengths` of the questions; `text_clip` (Q,), index of each question's clip; `answer` (Q,), class
                or token id; `random_keys` (Q,) when training.
        """
        drop = SampleDropout(batch.get("random_keys"), self.config.dropout, self.training)
        hidden = drop.rows(self.slot_rows(batch)[:, None], "answer")[:, 0]
        loss = token_loss(self._logits(hidden), batch["answer"])
        return {"answer": loss.loss, "answer_accuracy": loss.accuracy}

    def slot_rows(self, batch: Batch) -> Tensor:
        """Fusion output at the answer slot, whose position is behind the longest possible question: (Q, E)."""
        asked: VideoTokens = self.encode_video(batch).select(batch["text_clip"])
        context = self.fusion.context(asked, hidden=self.hidden_frames(batch, asked))
        text, end = self.encode_text(batch["text_ids"]), batch["text_lengths"] - 1
        return self.fusion.slot(context, text, batch["text_mask"], end, self.config.max_words)

    def _logits(self, hidden: Tensor) -> Tensor:
        if self.is_classifier:
            return self.answer_head(hidden)
        return self.vocabulary_head(hidden, self.clip.token_embedding.weight)

    @torch.no_grad()
    def predict(self, batch: Batch) -> Tensor:
        """The most likely answers: (Q,), classes or token ids."""
        return self._logits(self.slot_rows(batch)).argmax(-1)

    @torch.no_grad()
    def probabilities(self, batch: Batch) -> Tensor:
        """Probability of every answer: (Q, classes or vocabulary), fp32."""
        return self._logits(self.slot_rows(batch)).float().softmax(-1)
