"""Prefix language modelling: the next token of a text from a clip and the tokens before it."""

from __future__ import annotations

from torch import Tensor

from modules.batch import Batch
from modules.config import Behaviour, ModelConfig
from modules.fusion_encoder import VideoTokens
from modules.heads import SampleDropout, VocabularyHead
from modules.losses import TokenLoss, token_loss
from modules.task_model import TaskModel


class PrefixLMModel(TaskModel):
    """A model with the vocabulary head on the fusion encoder, for pre-training and captioning."""

    def __init__(self, config: ModelConfig, behaviour: Behaviour) -> None:
        super().__init__(config, behaviour)
        self.vocabulary_head = VocabularyHead(config)

    @property
    def frame_positions(self) -> bool:
        """Whether frames carry their positions in this pass."""
        return True

    def token_logits(self, hidden: Tensor, out: Tensor | None = None) -> Tensor:
        """As `VocabularyHead.forward`: (K, E) -> (K, V)."""
        return self.vocabulary_head(hidden, self.clip.token_embedding.weight, out)

    def next_token_rows(self, video: VideoTokens, text: Tensor, hidden: Tensor | None = None) -> Tensor:
        """Fusion output that predicts tokens 1..L-1: (B, L - 1, E); `hidden` as in `FusionEncoder.context`."""
        context = self.fusion.context(video, frame_positions=self.frame_positions, hidden=hidden)
        return self.fusion.next_token(context, text)

    def next_token_loss(
        self,
        batch: Batch,
        video: VideoTokens,
        text: Tensor,
        drop: SampleDropout,
        stream: str,
        label_smoothing: float = 0.0,
    ) -> TokenLoss:
        """Cross-entropy of the next tokens at `plm_index` of a finished batch (modules/batch.py).

        Args:
            text: (B, L, E), every token encoded.
            stream: name of the dropout's random stream.
            label_smoothing: as in `token_loss`.
        """
        rows = self.next_token_rows(video, text, self.hidden_frames(batch, video))
        hidden = drop.rows(rows, stream)
        index = batch["plm_index"]
        targets = batch["text_ids"][:, 1:].flatten()[index]
        return token_loss(self.token_logits(hidden.flatten(0, 1)[index]), targets, label_smoothing)
