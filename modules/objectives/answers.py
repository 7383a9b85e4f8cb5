"""Open-ended question answering: the fusion encoder's output at an answer slot, classified."""

from __future__ import annotations

from collections.abc import Set

from torch import Tensor

from modules.config import Behaviour, ModelConfig
from modules.encoded import Encoded
from modules.heads import AnswerHead, VocabularyHead
from modules.losses import token_loss
from modules.objectives.base import Heads, Objective


class Answers(Objective):
    """Nothing is detached. An answer is a class of `ModelConfig.answers` or, as in the released tasks/eval_qa.py, its
    first token among the vocabulary (`Behaviour.answer_head`).

    Raises:
        ValueError: a classifier without answers.
    """

    NAMES = ("answer",)

    def __init__(self, config: ModelConfig, behaviour: Behaviour, heads: Heads) -> None:
        super().__init__(config, behaviour, heads)
        self.classifier = self.vocabulary = None
        if behaviour.answer_head != "classifier":
            self.vocabulary = heads.get("vocabulary_head", lambda: VocabularyHead(config))
        elif config.answers:
            self.classifier = heads.get("answer_head", lambda: AnswerHead(config))
        else:
            raise ValueError("answer classifier: there are no answers to choose from")

    def trains(self, active: Set[str]) -> set[str]:
        """Both towers, the fusion encoder and the head that answers."""
        return {"frames", "text", "fusion", "answer" if self.classifier is not None else "vocabulary"}

    def losses(self, encoded: Encoded) -> dict[str, Tensor]:
        """`answer`, and `answer_accuracy`, the share of right answers."""
        hidden = encoded.dropout.rows(self.slots(encoded)[:, None], "answer")[:, 0]
        loss = token_loss(self.logits(encoded, hidden), encoded.batch["answer"])
        return {"answer": loss.loss, "answer_accuracy": loss.accuracy}

    def slots(self, encoded: Encoded) -> Tensor:
        """Fusion output at the answer slot, whose position is behind the longest possible question: (Q, E)."""
        batch, fusion = encoded.batch, encoded.model.fusion
        asked = encoded.video.select(batch["text_clip"])
        context = fusion.context(asked, hidden=encoded.hidden_frames(asked))
        end = batch["text_lengths"] - 1
        return fusion.slot(context, encoded.text, batch["text_mask"], end, self.config.max_words)

    def logits(self, encoded: Encoded, slots: Tensor) -> Tensor:
        """(Q, E) -> (Q, classes or vocabulary)."""
        if self.classifier is not None:
            return self.classifier(slots)
        assert self.vocabulary is not None
        return self.vocabulary(slots, encoded.model.clip.word_vectors)
