"""Pre-training: masked and next tokens, video-text matching, object-noun and action-verb matching, contrastive."""

from __future__ import annotations

import torch
from torch import Tensor

from modules.batch import Batch
from modules.collectives import global_mean
from modules.fusion_encoder import VideoTokens
from modules.heads import SampleDropout
from modules.losses import TokenLoss, contrastive_loss, token_loss
from modules.matching import MatchingModel
from modules.prefix_lm import PrefixLMModel
from modules.set_matching import Pairs, PendingScores, assign, squared_distance, word_scores
from modules.task_model import Reach

LOSSES = ("vtm", "mlm", "plm", "object_noun", "action_verb", "contrastive")


class PretrainModel(PrefixLMModel, MatchingModel):
    """Backbone with the pre-training heads. `forward` returns the losses named in `LOSSES` that are active.

    As in the released tasks/pre_training.py, frame features, text tokens and early patches are detached right after
    encoding, except in the contrastive loss (by `Behaviour.contrastive_video_gradient`); trajectories and actions are
    not. `object_noun` is the paper's dynamic object-text alignment, `action_verb` its spatial-temporal action set
    prediction.
    """

    LOSSES = LOSSES

    @property
    def available_losses(self) -> tuple[str, ...]:
        """`LOSSES` without those of tokens that the model does not have."""
        absent = {"object_noun": not self.config.has_trajectories, "action_verb": not self.config.has_actions}
        return tuple(name for name in LOSSES if not absent.get(name, False))

    def reach(self) -> Reach:
        """Text, and frame features, by the contrastive loss alone; the rest by the losses that read it."""
        on = self.active_losses
        return Reach(
            frames="contrastive" in on and self.behaviour.contrastive_video_gradient,
            text="contrastive" in on,
            fused=bool(on & {"vtm", "mlm", "plm"}),
            trajectories="object_noun" in on,
            actions="action_verb" in on,
            vocabulary=bool(on & {"mlm", "plm"}),
            matching="vtm" in on,
            logit_scale="contrastive" in on,
        )

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Losses of a finished batch (modules/batch.py), and detached accuracies `{mlm,plm,vtm}_accuracy`.

        It has, beside what `finish_batch` says: `video` (B, T, 3, R, R), uint8 or normalised floats, `video_mask`
        (B, T), and in training `random_keys` (B,). `hard_negative_video` and `hard_negative_text` (B,) replace the draw
        of negatives.
        """
        on = self.active_losses
        drop = SampleDropout(batch.get("random_keys"), self.config.dropout, self.training)
        video_grad = "contrastive" in on and self.behaviour.contrastive_video_gradient
        video = self.encode_video(batch, features_need_grad=video_grad)
        with torch.set_grad_enabled(torch.is_grad_enabled() and "contrastive" in on):
            text = self.encode_text(batch["text_ids"])
        detached = video._replace(frames=video.frames.detach())
        clean = text.detach()
        pending = self.start_set_matching(batch, detached, clean)

        out: dict[str, Tensor] = {}
        if on & {"contrastive", "vtm"}:
            logits = self.similarity_logits(batch, video if video_grad else detached, text)
        if "contrastive" in on:
            out["contrastive"] = contrastive_loss(*logits)
        if "mlm" in on:
            out["mlm"], out["mlm_accuracy"] = self._masked_token_loss(batch, detached, drop)
        if "plm" in on:
            out["plm"], out["plm_accuracy"] = self._next_token_loss(batch, detached, clean, drop)
        if "vtm" in on:
            out |= self.matching_losses(batch, detached, clean, logits, drop)
        out.update(self._set_matching_losses(batch, detached, clean, pending))
        return out

    def masked_token_rows(self, batch: Batch, video: VideoTokens) -> Tensor:
        """Fusion output at the masked positions (B, R, E); rows beyond a clip's own number of them mean nothing."""
        with torch.no_grad():  # text is detached in this loss
            text = self.encode_text(batch["text_ids"].masked_fill(batch["mlm_mask"], 0))
        context = self.fusion.context(video, hidden=self.hidden_frames(batch, video))
        rows = self.fusion.text_rows(context, batch["mlm_positions"])
        text = text * ~batch["mlm_mask"][..., None]
        return self.fusion(context, text, batch["text_mask"], batch["text_lengths"] - 1, rows)

    def _masked_token_loss(self, batch: Batch, video: VideoTokens, drop: SampleDropout) -> TokenLoss:
        hidden = drop.rows(self.masked_token_rows(batch, video), "mlm")
        targets = batch["text_ids"].gather(1, batch["mlm_positions"])
        index = batch["mlm_index"]
        return token_loss(self.token_logits(hidden.flatten(0, 1)[index]), targets.flatten()[index])

    @property
    def frame_positions(self) -> bool:
        """Whether frames have positions in the prefix-LM loss; in the released behaviour only without objects."""
        uses_objects = self.config.has_trajectories or self.config.has_actions
        return self.behaviour.next_token_frame_positions or not uses_objects

    def _next_token_loss(self, batch: Batch, video: VideoTokens, text: Tensor, drop: SampleDropout) -> TokenLoss:
        return self.next_token_loss(batch, video, text, drop, "plm")

    def start_set_matching(self, batch: Batch, video: VideoTokens, text: Tensor) -> dict[str, PendingScores]:
        """Score trajectories against nouns and actions against verbs, and start copying the scores to the host.

        Args:
            batch: a finished one with `noun_mask` and `verb_mask`.
            text: (B, L, E), every token encoded.

        Returns:
            Scores (B, N, L) of "object_noun" and (B, A, L) of "action_verb", where the model has the tokens and the
            loss is active.
        """
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
        """Assign used trajectories to nouns and actions to verbs, one to one; the end token counts as either."""
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
        """Squared distances of matched pairs over the number of pairs of both kinds: their sum is the released loss."""
        solved = self.solve_set_matching(batch, pending)
        tokens = {"object_noun": video.trajectories, "action_verb": video.actions}
        count = sum(len(pairs.sample) for pairs in solved.values())
        return {
            name: global_mean(squared_distance(found, text, solved[name]), count)
            for name, found in tokens.items()
            if name in solved and found is not None
        }
