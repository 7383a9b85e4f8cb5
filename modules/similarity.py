"""Text-video similarity headers of CLIP4Clip: meanP, seqLSTM, seqTransf (loose types) and tightTransf."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modules.config import ModelConfig
from modules.layers import LayerNorm, Transformer, perceptron
from modules.module_clip import CLIP
from modules.parts import Owner


def pool_frames(frames: Tensor, frame_mask: Tensor, *, normalise_frames: bool = True) -> Tensor:
    """Normalised sum of normalised (or plain) valid frames: (B, T, E), (B, T) -> (B, E), fp32."""
    frames = F.normalize(frames.float(), dim=-1) if normalise_frames else frames.float()
    return F.normalize((frames * frame_mask[..., None]).sum(1), dim=-1)


class LooseSimilarity(nn.Module):
    """meanP, and base of the loose headers: cosine of text feature and pooled frames, times exp(logit scale)."""

    owners = {"": Owner("similarity", "head")}

    def contextualise(self, frames: Tensor, frame_mask: Tensor) -> Tensor:
        """Hook for headers that read frames as a sequence: (B, T, E) -> (B, T, E)."""
        return frames

    def video_feature(self, frames: Tensor, frame_mask: Tensor, *, normalise_frames: bool = True) -> Tensor:
        """(B, T, E) unnormalised frame features, (B, T) True = valid -> (B, E) of length 1."""
        return pool_frames(self.contextualise(frames, frame_mask), frame_mask, normalise_frames=normalise_frames)

    def forward(self, text_feature: Tensor, video_feature: Tensor, logit_scale: Tensor) -> Tensor:
        """(Bt, E) unnormalised, (Bv, E) of length 1 -> (Bt, Bv) logits."""
        # Scaled by up to 100 afterwards: in bf16 the logits would move in steps of 0.1 and more.
        with torch.autocast(text_feature.device.type, enabled=False):
            return logit_scale.exp() * (F.normalize(text_feature.float(), dim=-1) @ video_feature.float().t())


class SeqLSTM(LooseSimilarity):
    """Pools frames with an LSTM's output added to them."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.lstm = nn.LSTM(config.embed_dim, config.embed_dim, batch_first=True)

    def contextualise(self, frames: Tensor, frame_mask: Tensor) -> Tensor:
        """(B, T, E) -> (B, T, E): frames plus the LSTM's output."""
        # No packing: valid frames come first and the LSTM reads forward, so padding cannot reach a valid frame.
        return self.lstm(frames.float())[0] + frames


class SeqTransf(LooseSimilarity):
    """Pools frames with the output of a transformer with frame positions added to them."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.frame_position_embeddings = nn.Embedding(config.context_length, config.embed_dim)
        self.transformer = Transformer(
            config.embed_dim, config.header_layers, config.text_heads_width, config.activation
        )

    @staticmethod
    def starts_from(clip: CLIP) -> Mapping[str, nn.Module | nn.Parameter]:
        """What takes its initial values from which part of CLIP."""
        return {"transformer": clip.transformer, "frame_position_embeddings.weight": clip.positional_embedding}

    def contextualise(self, frames: Tensor, frame_mask: Tensor) -> Tensor:
        """(B, T, E) -> (B, T, E): frames plus the transformer's output."""
        positions = self.frame_position_embeddings.weight[: frames.shape[1]]
        return self.transformer(frames + positions, frame_mask[:, None, None]) + frames


class TightTransf(nn.Module):
    """A cross transformer over [text feature, frames] of every pair, read at row 0 through a pooler."""

    owners = {"": Owner("similarity", "head")}

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.embed_dim
        self.position_embeddings = nn.Embedding(config.context_length, width)
        self.transformer = Transformer(width, config.header_layers, config.text_heads_width, config.activation)
        self.ln_pool = LayerNorm(width)
        self.dense = nn.Linear(width, width)
        self.similarity_dense = nn.Linear(width, 1)

    @staticmethod
    def starts_from(clip: CLIP) -> Mapping[str, nn.Module | nn.Parameter]:
        """What takes its initial values from which part of CLIP."""
        return {"transformer": clip.transformer, "position_embeddings.weight": clip.positional_embedding}

    def forward(self, text_feature: Tensor, frames: Tensor, frame_mask: Tensor) -> Tensor:
        """(Bt, E), (Bv, T, E), (Bv, T) -> (Bt, Bv) logits, without logit scale; nothing is normalised."""
        texts, videos = text_feature.shape[0], frames.shape[0]
        text = text_feature[:, None, None].expand(-1, videos, 1, -1)
        pairs = torch.cat([text, frames.expand(texts, -1, -1, -1)], dim=2).flatten(0, 1)
        mask = torch.cat([frame_mask.new_ones(videos, 1), frame_mask], dim=1).repeat(texts, 1)[:, None, None]
        pairs = pairs + self.position_embeddings.weight[: pairs.shape[1]]
        for block in self.transformer.resblocks[:-1]:
            pairs = block(pairs, mask)
        row = self.transformer.resblocks[-1](pairs, mask, rows=pairs[:, :1])[:, 0]
        return perceptron(self.ln_pool(row), self.dense, self.similarity_dense).view(texts, videos)


def build_similarity(config: ModelConfig) -> LooseSimilarity | TightTransf:
    """The header that the configuration names."""
    if config.sim_header == "meanP":
        return LooseSimilarity()
    headers: dict[str, type[SeqLSTM | SeqTransf | TightTransf]] = {
        "seqLSTM": SeqLSTM,
        "seqTransf": SeqTransf,
        "tightTransf": TightTransf,
    }
    return headers[config.sim_header](config)
