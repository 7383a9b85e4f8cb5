"""The backbone that the models of all tasks share."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from modules.action_encoder import ActionEncoder
from modules.batch import Batch
from modules.collectives import gather, gather_constant
from modules.config import Behaviour, ModelConfig
from modules.fusion_encoder import FusionEncoder, VideoTokens
from modules.module_clip import CLIP, EncodeObjects, ObjectTokens, VisionOutput
from modules.object_encoder import ObjectEncoder
from modules.parts import owners
from modules.similarity import LooseSimilarity, build_similarity
from modules.trajectory_encoder import TrajectoryEncoder


class Logits(NamedTuple):
    """Similarity of this rank's texts and videos to the global batch, both (B, G)."""

    text_to_video: Tensor
    video_to_text: Tensor


class TokenEncoder(nn.Module):
    """Base of encoders that add tokens to the fusion encoder, beside trajectories and actions.

    It states its parts and rates as every module does (modules/parts.py). Their gradient reaches it whenever the fusion
    encoder is trained.

    Attributes:
        name: of the encoder, and of the part that its parameters belong to.
    """

    name: ClassVar[str]

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()

    def forward(self, batch: Batch, visual: VisionOutput) -> tuple[Tensor, Tensor]:
        """Tokens (B, N, E) of a batch's clips, and (B, N) True = used; N is the same in every batch."""
        raise NotImplementedError


class Backbone(nn.Module):
    """CLIP, object, trajectory, action and fusion encoders, similarity header; unused parts are not created.

    Attributes:
        ENCODERS: further encoders of tokens for the fusion encoder; a model without one has none of them.
    """

    ENCODERS: ClassVar[tuple[type[TokenEncoder], ...]] = ()
    fusion: FusionEncoder

    @classmethod
    def needs_fusion(cls, config: ModelConfig) -> bool:
        """Whether any of the task's losses or scores reads the fusion encoder."""
        return True

    def __init__(self, config: ModelConfig, behaviour: Behaviour) -> None:
        super().__init__()
        self.config, self.behaviour = config, behaviour
        self.clip = CLIP(config)
        self.object_encoder = ObjectEncoder(config) if config.object_blocks else None
        self.trajectory_encoder = TrajectoryEncoder(config) if config.has_trajectories else None
        self.action_encoder = ActionEncoder(config) if config.has_actions else None
        self.encoders = None
        if self.needs_fusion(config):
            self.fusion = FusionEncoder(config, behaviour)
            if self.ENCODERS:
                self.encoders = nn.ModuleDict({kind.name: kind(config) for kind in self.ENCODERS})
        self.similarity = build_similarity(config)
        self.reads = {"fusion": ("trajectories", "actions", *(kind.name for kind in self.ENCODERS))}

    def part(self, name: str) -> list[str]:
        """Names of the parameters of a part (modules/parts.py); none of one that the model does not have."""
        return [parameter for parameter, owner in owners(self).items() if owner.part == name]

    def set_grad_checkpoint(self, enabled: bool) -> None:
        """Save memory: recompute visual blocks and box pooling in the backward pass instead of keeping activations."""
        self.clip.visual.grad_checkpoint = enabled
        if self.object_encoder is not None:
            self.object_encoder.grad_checkpoint = enabled

    def encode_video(self, batch: Batch, *, features_need_grad: bool = True) -> VideoTokens:
        """Encode a finished batch's clips (see modules/batch.py).

        Args:
            features_need_grad: False where no loss sends gradient into the frame features; trajectories and actions
            keep theirs.
        """
        return self.video_tokens(batch, self.visual_tokens(batch, features_need_grad=features_need_grad))

    def visual_tokens(self, batch: Batch, *, features_need_grad: bool = True) -> VisionOutput:
        """Output of the visual tower; its object tokens have frame embeddings if trajectories or actions read them."""
        objects = self.object_tokens(batch)
        visual = self.clip.visual(batch["video"], objects, features_need_grad=features_need_grad)
        if self.config.has_trajectories or self.config.has_actions:
            assert self.object_encoder is not None and visual.objects is not None
            visual = visual._replace(objects=self.object_encoder.with_frame_positions(visual.objects))
        return visual

    def object_tokens(self, batch: Batch) -> EncodeObjects | None:
        """What turns patches into the tokens of a batch's boxes, for the visual tower to call; None without objects."""
        encoder = self.object_encoder
        if encoder is None:
            return None

        def encode(patches: Tensor) -> ObjectTokens:
            return encoder(patches, batch["boxes"], batch["box_index"])

        return encode

    def video_tokens(self, batch: Batch, visual: VisionOutput) -> VideoTokens:
        """Encode trajectories, actions and further tokens from the visual tower's output, for the fusion encoder."""
        trajectories = trajectory_mask = actions = None
        if self.trajectory_encoder is not None:
            assert visual.objects is not None
            ids = batch["trajectory_ids"]
            trajectories = self.trajectory_encoder(visual.objects.tokens, batch["box_trajectory"], ids)
            trajectory_mask = ids != 0
        if self.action_encoder is not None:
            actions = self.action_encoder(visual.early_tokens, visual.objects)
        further = self._further_tokens(batch, visual)
        return VideoTokens(visual.frame_features, batch["video_mask"], trajectories, trajectory_mask, actions, *further)

    def _further_tokens(self, batch: Batch, visual: VisionOutput) -> tuple[Tensor | None, Tensor | None]:
        """Tokens of `ENCODERS` side by side, and which of them are used."""
        if self.encoders is None:
            return None, None
        tokens, masks = zip(*(encoder(batch, visual) for encoder in self.encoders.values()), strict=True)
        return torch.cat(tokens, dim=1), torch.cat(masks, dim=1)

    def encode_text(self, text_ids: Tensor) -> Tensor:
        """(B, L) -> (B, L, E), every position projected into the joint space."""
        return self.clip.encode_text(text_ids)

    def similarity_logits(self, video: VideoTokens, text: Tensor, lengths: Tensor) -> Logits:
        """Logits of this rank's clips and texts (B, L, E) of `lengths` (B,) with those of all ranks."""
        feature = self.text_feature(text, lengths)
        if isinstance(self.similarity, LooseSimilarity):
            pooled = self.similarity.video_feature(video.frames, video.frame_mask)
            scale = self.clip.logit_scale
            return Logits(
                self.similarity(feature, gather(pooled), scale), self.similarity(gather(feature), pooled, scale).t()
            )
        frames, mask = gather(video.frames), gather_constant(video.frame_mask)
        return Logits(
            self.similarity(feature, frames, mask), self.similarity(gather(feature), video.frames, video.frame_mask).t()
        )

    def similarity_matrix(self, text_feature: Tensor, frames: Tensor, frame_mask: Tensor, chunk: int = 256) -> Tensor:
        """Logits of every text with every clip, in chunks of texts: (Nt, E), (Nv, T, E), (Nv, T) -> (Nt, Nv)."""
        if isinstance(self.similarity, LooseSimilarity):
            return self.similarity(
                text_feature, self.similarity.video_feature(frames, frame_mask), self.clip.logit_scale
            )
        return torch.cat([self.similarity(part, frames, frame_mask) for part in text_feature.split(chunk)])

    @staticmethod
    def text_feature(text: Tensor, lengths: Tensor) -> Tensor:
        """Hidden state of the end token: (B, L, E), (B,) -> (B, E)."""
        return text[torch.arange(text.shape[0], device=text.device), lengths - 1]
