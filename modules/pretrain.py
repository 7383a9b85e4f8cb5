"""Pre-training: masked and prefix language modelling, video-text matching, object-noun and action-verb matching,
contrastive.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from modules.backbone import Backbone
from modules.batch import Batch
from modules.collectives import gather, gather_constant, global_mean, rank, world_size
from modules.config import Behaviour, ModelConfig
from modules.fusion_encoder import VideoTokens
from modules.heads import MatchingHead, SampleDropout, VocabularyHead
from modules.losses import (
    Negatives,
    Pool,
    TokenLoss,
    contrastive_loss,
    hard_negatives,
    interleave,
    matching_loss,
    pad_columns,
    token_loss,
)
from modules.set_matching import Pairs, PendingScores, assign, squared_distance, word_scores
from modules.similarity import LooseSimilarity

LOSSES = ("vtm", "mlm", "plm", "object_noun", "action_verb", "contrastive")


class Logits(NamedTuple):
    """Similarity of this rank's texts and videos to the global batch, both (B, G)."""

    text_to_video: Tensor
    video_to_text: Tensor


class PretrainModel(Backbone):
    """Backbone with the pre-training heads. `forward` returns the losses named in `LOSSES` that are active.

    Frame features, text tokens and early patches are detached right after encoding for every loss but the contrastive
    one;
    trajectories and actions are not. Source: spec, pretraining losses.
    """

    def __init__(self, config: ModelConfig, behaviour: Behaviour) -> None:
        super().__init__(config, behaviour)
        self.vocabulary_head = VocabularyHead(config)
        self.matching_head = MatchingHead(config, behaviour)
        self.active_losses: frozenset[str] = frozenset(LOSSES)
        self._trainable = {name for name, _ in self.named_parameters()}

    # -- what trains
    # ------------------------------------------------------------------------------------------------------

    def remember_trainable(self) -> None:
        """Take the present `requires_grad` flags (after freezing layers) as what may train at all."""
        self._trainable = {name for name, parameter in self.named_parameters() if parameter.requires_grad}

    @property
    def available_losses(self) -> tuple[str, ...]:
        """The losses that this configuration has."""
        absent = {"object_noun": not self.config.has_trajectories, "action_verb": not self.config.has_actions}
        return tuple(name for name in LOSSES if not absent.get(name, False))

    def set_active_losses(self, names: set[str] | frozenset[str]) -> None:
        """Compute these losses from now on, and freeze what they cannot reach, so that every trained parameter has a
        gradient.
        """
        unknown = set(names) - set(LOSSES)
        if unknown:
            raise ValueError(f"unknown losses {sorted(unknown)}: choose from {', '.join(LOSSES)}")
        self.active_losses = frozenset(names)
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(name in self._trainable and self._is_reached(name))

    def _is_reached(self, name: str) -> bool:
        on = self.active_losses
        fused = bool(on & {"vtm", "mlm", "plm"})
        vocabulary = bool(on & {"mlm", "plm"})
        contrastive = "contrastive" in on
        video = contrastive and self.behaviour.contrastive_video_gradient
        leaves_tower = self.config.object_fuse == "fusion"
        trajectories = self.config.has_trajectories and (fused or "object_noun" in on)
        actions = self.config.has_actions and (fused or "action_verb" in on)
        objects = (trajectories or actions) if leaves_tower else video
        if name.startswith("clip.visual."):
            return video or (leaves_tower and objects and self._is_below_tap(name))
        if name == "clip.token_embedding.weight":
            return vocabulary or contrastive
        if name == "clip.logit_scale":
            return contrastive and isinstance(self.similarity, LooseSimilarity)
        if name.startswith("clip."):
            return contrastive
        reached = {
            "object_encoder": objects,
            "trajectory_encoder": trajectories,
            "action_encoder": actions,
            "fusion": fused,
            "vocabulary_head": vocabulary,
            "matching_head": "vtm" in on,
            "similarity": video,
        }
        return bool(reached[name.split(".")[0]])

    def _is_below_tap(self, name: str) -> bool:
        """Whether a visual parameter lies below the block whose input patches the object encoder reads."""
        if ".resblocks." in name:
            return int(name.split(".resblocks.")[1].split(".")[0]) < self.config.object_blocks[-1]
        return not name.startswith(("clip.visual.ln_post", "clip.visual.proj"))

    # -- forward
    # ----------------------------------------------------------------------------------------------------------

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Losses of a finished batch (modules/batch.py), and detached accuracies `{mlm,plm,vtm}_accuracy`.

        Expects, besides what `finish_batch` documents: `video` (B, T, 3, R, R) uint8, or normalised floats,
        `video_mask`
        (B, T), and `random_keys` (B,) when training. `hard_negative_video` and `hard_negative_text` (B,) replace the
        draw.
        """
        on = self.active_losses
        drop = SampleDropout(batch.get("random_keys"), self.config.dropout, self.training)
        video_grad = "contrastive" in on and self.behaviour.contrastive_video_gradient
        video = self.encode_video(batch, features_need_grad=video_grad)
        with torch.set_grad_enabled(torch.is_grad_enabled() and "contrastive" in on):
            text = self.encode_text(batch["text_ids"])
        detached = video._replace(frames=video.frames.detach())
        clean = text.detach()
        pending = self._start_set_matching(batch, detached, clean)

        out: dict[str, Tensor] = {}
        if on & {"contrastive", "vtm"}:
            logits = self._similarity_logits(batch, video if video_grad else detached, text)
        if "contrastive" in on:
            out["contrastive"] = contrastive_loss(*logits)
        if "mlm" in on:
            out["mlm"], out["mlm_accuracy"] = self._masked_token_loss(batch, detached, drop)
        if "plm" in on:
            out["plm"], out["plm_accuracy"] = self._next_token_loss(batch, detached, clean, drop)
        if "vtm" in on:
            if logits.text_to_video.shape[1] > 1:
                out["vtm"], out["vtm_accuracy"] = self._matching_loss(batch, detached, clean, logits, drop)
            else:
                out["vtm"] = self._no_matching_loss()
        out.update(self._set_matching_losses(batch, detached, clean, pending))
        return out

    def _similarity_logits(self, batch: Batch, video: VideoTokens, text: Tensor) -> Logits:
        feature = self.text_feature(text, batch["text_lengths"])
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

    def masked_token_rows(self, batch: Batch, video: VideoTokens) -> Tensor:
        """Fusion output at the marked positions (B, R, E); rows beyond a clip's own marks are free."""
        with torch.no_grad():  # text is detached in this loss
            text = self.encode_text(batch["text_ids"].masked_fill(batch["mlm_mask"], 0))
        context = self.fusion.context(video)
        rows = self.fusion.text_rows(context, batch["mlm_positions"])
        text = text * ~batch["mlm_mask"][..., None]
        return self.fusion(context, text, batch["text_mask"], batch["text_lengths"] - 1, rows)

    def _masked_token_loss(self, batch: Batch, video: VideoTokens, drop: SampleDropout) -> TokenLoss:
        hidden = drop.rows(self.masked_token_rows(batch, video), "mlm")
        targets = batch["text_ids"].gather(1, batch["mlm_positions"])
        index = batch["mlm_index"]
        logits = self.vocabulary_head(hidden.flatten(0, 1)[index], self.clip.token_embedding.weight)
        return token_loss(logits, targets.flatten()[index])

    def next_token_rows(self, video: VideoTokens, text: Tensor) -> Tensor:
        """Fusion output that predicts tokens 1..L-1: (B, L - 1, E)."""
        uses_objects = self.config.has_trajectories or self.config.has_actions
        frame_positions = self.behaviour.next_token_frame_positions or not uses_objects
        return self.fusion.next_token(self.fusion.context(video, frame_positions=frame_positions), text)

    def _next_token_loss(self, batch: Batch, video: VideoTokens, text: Tensor, drop: SampleDropout) -> TokenLoss:
        hidden = drop.rows(self.next_token_rows(video, text), "plm")
        index = batch["plm_index"]
        logits = self.vocabulary_head(hidden.flatten(0, 1)[index], self.clip.token_embedding.weight)
        return token_loss(logits, batch["text_ids"][:, 1:].flatten()[index])

    def matching_rows(self, video: VideoTokens, text: Tensor, text_mask: Tensor, lengths: Tensor) -> Tensor:
        """Fusion output at the frame mean and at the end token: (K, 2, E)."""
        context = self.fusion.context(video)
        end = lengths - 1
        rows = torch.stack([torch.full_like(end, self.fusion.mean_row), self.fusion.text_rows(context, end)], dim=1)
        return self.fusion(context, text, text_mask, end, rows)

    def _matching_loss(
        self, batch: Batch, video: VideoTokens, text: Tensor, logits: Logits, drop: SampleDropout
    ) -> TokenLoss:
        negatives = self._negatives(batch, logits)
        rows = self.matching_rows(*self._pairs(batch, video, text, negatives))
        factors = drop.factors("vtm", 3, 2, 2, rows.shape[-1])
        scores = self.matching_head(rows, None if factors is None else factors.flatten(0, 1))
        return matching_loss(scores, 3)

    def _no_matching_loss(self) -> Tensor:
        """A single clip in the global batch has no negative: 0, with the gradient path that DDP expects."""
        return 0.0 * (self.matching_head.match.sum() + self.matching_head.unmatch.sum())

    @staticmethod
    def _negatives(batch: Batch, logits: Logits) -> Negatives:
        if "hard_negative_video" in batch:
            return Negatives(batch["hard_negative_video"], batch["hard_negative_text"])
        return hard_negatives(*logits, batch["random_keys"])

    def _pairs(self, batch: Batch, video: VideoTokens, text: Tensor, negatives: Negatives) -> Pool:
        """The 3·B pairs of this rank, in the order positive, wrong video, wrong text."""
        pool = self._global_pool(batch, video, text)
        start = rank() * text.shape[0]
        own = torch.arange(start, start + text.shape[0], device=text.device)
        which_video = interleave(own, negatives.video, own)
        which_text = interleave(own, own, negatives.text)
        return Pool(
            pool.video.select(which_video),
            pool.text[which_text],
            pool.text_mask[which_text],
            pool.text_lengths[which_text],
        )

    def _global_pool(self, batch: Batch, video: VideoTokens, text: Tensor) -> Pool:
        """Clips and texts of all ranks. Trajectories and actions keep their gradient on the way to the rank that owns
        them.
        """
        mask, lengths = batch["text_mask"], batch["text_lengths"]
        if world_size() == 1:
            return Pool(video, text, mask, lengths)
        # Ranks trim to different sizes; full size is what they can agree on without asking each other.
        words, trajectories = self.config.max_words, self.config.num_trajectories
        everywhere = VideoTokens(
            gather_constant(video.frames),
            gather_constant(video.frame_mask),
            None if video.trajectories is None else gather(pad_columns(video.trajectories, trajectories)),
            None
            if video.trajectory_mask is None
            else gather_constant(pad_columns(video.trajectory_mask, trajectories)),
            None if video.actions is None else gather(video.actions),
        )
        return Pool(
            everywhere,
            gather_constant(pad_columns(text, words)),
            gather_constant(pad_columns(mask, words)),
            gather_constant(lengths),
        )

    # -- set matching
    # -----------------------------------------------------------------------------------------------------

    def _start_set_matching(self, batch: Batch, video: VideoTokens, text: Tensor) -> dict[str, PendingScores]:
        """Start the scores of trajectories against nouns and of actions against verbs on their way to the host."""
        pending = {}
        position = torch.arange(text.shape[1], device=text.device)
        is_end = position == batch["text_lengths"][:, None] - 1
        for name, tokens, words in (
            ("object_noun", video.trajectories, "noun_mask"),
            ("action_verb", video.actions, "verb_mask"),
        ):
            if name in self.active_losses and tokens is not None:
                pending[name] = PendingScores(word_scores(tokens.detach(), text, batch[words] | is_end))
        return pending

    def solve_set_matching(self, batch: Batch, pending: dict[str, PendingScores]) -> dict[str, Pairs]:
        """Solve the assignments; rows are the used trajectories and all actions, words the tagged ones and the end
        token.
        """
        counts = batch["trajectory_counts"] if pending else []
        solved = {}
        if "object_noun" in pending:
            solved["object_noun"] = assign(pending["object_noun"].result(), counts, batch["noun_positions"])
        if "action_verb" in pending:
            skips = self.behaviour.action_matching_needs_objects
            rows = [self.config.num_actions if count or not skips else 0 for count in counts]
            solved["action_verb"] = assign(pending["action_verb"].result(), rows, batch["verb_positions"])
        return solved

    def _set_matching_losses(
        self, batch: Batch, video: VideoTokens, text: Tensor, pending: dict[str, PendingScores]
    ) -> dict[str, Tensor]:
        """Squared distance of matched pairs, each kind over the number of pairs of both, so that the sum is the
        released loss.
        """
        solved = self.solve_set_matching(batch, pending)
        tokens = {"object_noun": video.trajectories, "action_verb": video.actions}
        count = sum(len(pairs.sample) for pairs in solved.values())
        return {
            name: global_mean(squared_distance(found, text, solved[name]), count)
            for name, found in tokens.items()
            if name in solved and found is not None
        }
