"""The backbone that the models of all tasks share."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from modules.action_encoder import ActionEncoder
from modules.batch import Batch
from modules.config import Behaviour, ModelConfig
from modules.fusion_encoder import FusionEncoder, VideoTokens
from modules.module_clip import CLIP, ObjectTap, ObjectTokens, VisionOutput
from modules.object_encoder import ObjectEncoder
from modules.similarity import LooseSimilarity, build_similarity
from modules.trajectory_encoder import TrajectoryEncoder


class Backbone(nn.Module):
    """CLIP, object, trajectory, action and fusion encoders, similarity header; unused parts are not created."""

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
        if self.needs_fusion(config):
            self.fusion = FusionEncoder(config, behaviour)
        self.similarity = build_similarity(config)

    def set_grad_checkpoint(self, enabled: bool) -> None:
        """Save memory: recompute visual blocks and box pooling in the backward pass instead of keeping activations."""
        self.clip.visual.grad_checkpoint = enabled
        if self.object_encoder is not None:
            self.object_encoder.grad_checkpoint = enabled

    def object_tap(self, batch: Batch) -> ObjectTap | None:
        """The link from the visual tower to the object encoder for a batch's boxes; None without objects."""
        encoder = self.object_encoder
        if encoder is None:
            return None

        def encode(patches: Tensor) -> ObjectTokens:
            return encoder(patches, batch["boxes"], batch["box_index"])

        return ObjectTap(self.config.object_blocks, encode, inject=self.config.object_fuse == "attention")

    def encode_video(self, batch: Batch, *, features_need_grad: bool = True) -> VideoTokens:
        """Encode a finished batch's clips (see modules/batch.py).

        Args:
            features_need_grad: False where no loss sends gradient into the frame features; trajectories and actions
            keep theirs.
        """
        return self.video_tokens(batch, self.visual_tokens(batch, features_need_grad=features_need_grad))

    def visual_tokens(self, batch: Batch, *, features_need_grad: bool = True) -> VisionOutput:
        """Output of the visual tower; its object tokens have frame embeddings if trajectories or actions read them."""
        visual = self.clip.visual(batch["video"], self.object_tap(batch), features_need_grad=features_need_grad)
        if self.config.has_trajectories or self.config.has_actions:
            assert self.object_encoder is not None and visual.objects is not None
            visual = visual._replace(objects=self.object_encoder.with_frame_positions(visual.objects))
        return visual

    def video_tokens(self, batch: Batch, visual: VisionOutput) -> VideoTokens:
        """Encode trajectories and actions from the visual tower's output, for the fusion encoder."""
        trajectories = trajectory_mask = actions = None
        if self.trajectory_encoder is not None:
            assert visual.objects is not None
            ids = batch["trajectory_ids"]
            trajectories = self.trajectory_encoder(visual.objects.tokens, batch["box_trajectory"], ids)
            trajectory_mask = ids != 0
        if self.action_encoder is not None:
            actions = self.action_encoder(visual.early_tokens, visual.objects)
        return VideoTokens(visual.frame_features, batch["video_mask"], trajectories, trajectory_mask, actions)

    def encode_text(self, text_ids: Tensor) -> Tensor:
        """(B, L) -> (B, L, E), every position projected into the joint space."""
        return self.clip.encode_text(text_ids)

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
