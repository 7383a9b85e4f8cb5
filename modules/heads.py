"""The small heads on the fusion encoder's output: vocabulary, video-text matching and answers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modules.config import Behaviour, ModelConfig
from modules.layers import draw_projection, draw_rows
from modules.parts import Owner
from modules.random_streams import keep_mask


class VocabularyHead(nn.Module):
    """Token logits dropout(h)·P·Eᵀ + b, with E the text tower's token embedding (shared, passed in).

    Multiplied from the left: P·Eᵀ alone would be a vocabulary-sized product per step.
    """

    owners = {"": Owner("vocabulary", "fusion")}
    reads = {"vocabulary": ("words",)}

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.proj = nn.Parameter(torch.empty(config.embed_dim, config.text_width))
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def draw(self) -> None:
        """Initial values of its own parameters; no token is preferred."""
        draw_projection(self.proj)

    def forward(self, hidden: Tensor, token_embedding: Tensor, out: Tensor | None = None) -> Tensor:
        """Logits of rows with dropout already applied: (K, E) -> (K, V).

        Args:
            out: (K, V), takes the logits, in its type. In decoding, memory that is used again saves 6 % of a step (260
                beams of ViT-B/16 on a CPU, with the log-probabilities' in modules/decoder.py).
        """
        rows = hidden @ self.proj
        if out is not None and rows.dtype == token_embedding.dtype == out.dtype:
            return torch.addmm(self.bias, rows, token_embedding.t(), out=out)
        logits = F.linear(rows, token_embedding, self.bias)  # converts under autocast, which `out=` does not
        return logits if out is None else out.copy_(logits)


class MatchingHead(nn.Module):
    """Scores [no match, match] of a pair from its frame-mean row and end-token row: aᵀ M_k c for each k."""

    owners = {"": Owner("matching", "fusion")}

    def __init__(self, config: ModelConfig, behaviour: Behaviour) -> None:
        super().__init__()
        self.match = nn.Parameter(torch.empty(config.embed_dim, config.embed_dim))
        self.unmatch = nn.Parameter(torch.empty(config.embed_dim, config.embed_dim))
        self.norm_axis = -2 if behaviour.matching_norm_axis == "batch" else -1

    def draw(self) -> None:
        """Initial values of its own parameters."""
        draw_rows(self.match)
        draw_rows(self.unmatch)

    def forward(self, rows: Tensor, keep: Tensor | None = None) -> Tensor:
        """Score pairs row by row.

        Args:
            rows: (..., K, 2, E): frame-mean row, end-token row. With the released normalisation the K pairs depend on
                each other: the text row is divided by its norm over them.
            keep: (..., K, 2, 2, E) dropout factors of [unmatch, match] x [video, text], or None.

        Returns:
            (..., K, 2) logits, fp32.
        """
        rows = rows.float()
        video = F.normalize(rows[..., 0, :], dim=-1)
        text = F.normalize(rows[..., 1, :], dim=self.norm_axis)
        scores = []
        for k, matrix in enumerate((self.unmatch, self.match)):
            a = video if keep is None else video * keep[..., k, 0, :]
            c = text if keep is None else text * keep[..., k, 1, :]
            scores.append(((a @ matrix).float() * c).sum(-1))
        return torch.stack(scores, dim=-1)

    @property
    def is_pairwise(self) -> bool:
        """Whether a pair's score depends on that pair alone."""
        return self.norm_axis == -1


class AnswerHead(nn.Linear):
    """Classifier of the answers that the configuration lists: (K, E) -> (K, answers)."""

    owners = {"": Owner("answer", "head")}

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config.embed_dim, len(config.answers))


class SampleDropout:
    """Dropout drawn from the samples' keys (modules/random_streams.py); off when the rate is 0 or the model evaluates.

    Args:
        keys: (B,) int64 keys of the batch's samples; ValueError without them when dropout is on.
    """

    def __init__(self, keys: Tensor | None, rate: float, training: bool) -> None:
        self.rate = rate if training else 0.0
        if self.rate and keys is None:
            raise ValueError("training with dropout needs the batch's random_keys")
        self.keys = keys

    def factors(self, stream: str, *shape: int) -> Tensor | None:
        """(B, *shape) factors for one use, or None when dropout is off."""
        if not self.rate or self.keys is None:
            return None
        return keep_mask(self.keys, stream, shape, self.rate)

    def rows(self, hidden: Tensor, stream: str) -> Tensor:
        """Apply dropout to `hidden` (B, R, E)."""
        factors = self.factors(stream, *hidden.shape[1:])
        return hidden if factors is None else hidden * factors
