"""Sets of tokens matched to words: dynamic object-text alignment, and spatial-temporal action set prediction."""

from __future__ import annotations

from collections.abc import Set

import numpy as np
import torch
from torch import Tensor

from modules.batch import Batch
from modules.collectives import global_mean
from modules.encoded import Encoded
from modules.fusion_encoder import VideoTokens
from modules.objectives.assignment import Pairs, assign, assign_all
from modules.objectives.base import Objective
from modules.objectives.word_contrast import cosines, word_contrast

OBJECT_NOUN, ACTION_VERB = "object_noun", "action_verb"


class SetMatching(Objective):
    """Trajectories are assigned to nouns, actions to verbs, one to one; the end token counts as either.

    The losses are the squared distances of matched pairs over the number of pairs of both kinds: their sum is the
    released loss. With `Behaviour.matching_loss` "contrastive" each is the mean of `word_contrast`, scores are cosines,
    and the end token is for all rows without a word. Text is detached.
    """

    NAMES = (OBJECT_NOUN, ACTION_VERB)
    NEEDS_FUSION = False
    TURN = 4

    @property
    def available(self) -> tuple[str, ...]:
        """Those whose tokens the model has."""
        has = {OBJECT_NOUN: self.config.has_trajectories, ACTION_VERB: self.config.has_actions}
        return tuple(name for name in self.NAMES if has[name])

    def trains(self, active: Set[str]) -> set[str]:
        """The encoder of each kind of tokens."""
        parts = {OBJECT_NOUN: "trajectories", ACTION_VERB: "actions"}
        return {parts[name] for name in self.NAMES if name in active}

    def losses(self, encoded: Encoded) -> dict[str, Tensor]:
        """`object_noun` and `action_verb`."""
        batch, text, tokens = encoded.batch, encoded.detached_text, _tokens(encoded.detached_video)
        scores = self.scores(batch, encoded.detached_video, text, encoded.active)
        solved = self.solve(batch, scores)
        if self.is_contrastive:
            words, ids = self.words(batch), batch["text_ids"]
            return {
                name: global_mean(*word_contrast(tokens[name], text, ids, words[name], pairs, name == ACTION_VERB))
                for name, pairs in solved.items()
            }
        count = sum(len(pairs.sample) for pairs in solved.values())
        return {name: global_mean(squared_distance(tokens[name], text, pairs), count) for name, pairs in solved.items()}

    @property
    def is_contrastive(self) -> bool:
        """Whether it is the contrastive form."""
        return self.behaviour.matching_loss == "contrastive"

    def words(self, batch: Batch) -> dict[str, list[list[int]]]:
        """Positions that may be matched, of each text, the end token's last, by loss.

        In the released form every piece of a word is a word of its own, and takes a token. In the contrastive form the
        last piece stands for its word: the text tower is causal, so that it alone has read all of it.
        """
        if self.is_contrastive:
            return {OBJECT_NOUN: batch["noun_words"], ACTION_VERB: batch["verb_words"]}
        return {OBJECT_NOUN: batch["noun_positions"], ACTION_VERB: batch["verb_positions"]}

    def similarities(self, tokens: Tensor, text: Tensor) -> Tensor:
        """What a softmax over words is taken of, fp32: (B, R, E), (B, L, E) -> (B, R, L)."""
        return cosines(tokens, text) if self.is_contrastive else dot_products(tokens, text)

    @torch.no_grad()
    def scores(self, batch: Batch, video: VideoTokens, text: Tensor, names: Set[str]) -> dict[str, np.ndarray]:
        """Scores of trajectories with nouns (B, N, L) and of actions with verbs (B, A, L), by loss, on the host.

        The device is waited for, and idle while the assignment is solved: 0.3 ms for 32 clips, 1.2 ms for 128 (measured
        on a CPU), which is not worth a copy in the background.

        Args:
            text: (B, L, E), every token encoded.
            names: the losses that are wanted; those whose tokens the model does not have are left out.
        """
        is_end = torch.arange(text.shape[1], device=text.device) == batch["text_lengths"][:, None] - 1
        words = {OBJECT_NOUN: batch["noun_mask"], ACTION_VERB: batch["verb_mask"]}
        if self.is_contrastive and "word_ends" in batch:
            words = {name: mask & batch["word_ends"] for name, mask in words.items()}
        return {
            name: word_scores(self.similarities(tokens, text), words[name] | is_end).cpu().numpy()
            for name, tokens in _tokens(video).items()
            if name in names
        }

    def solve(self, batch: Batch, scores: dict[str, np.ndarray]) -> dict[str, Pairs]:
        """The assignment of used trajectories and of actions, from `scores`."""
        solve = assign_all if self.is_contrastive else assign
        words, solved = self.words(batch), {}
        if OBJECT_NOUN in scores:
            solved[OBJECT_NOUN] = solve(scores[OBJECT_NOUN], batch["trajectory_counts"], words[OBJECT_NOUN])
        if ACTION_VERB in scores:
            skips = self.behaviour.action_matching_needs_objects
            rows = [self.config.num_actions if count or not skips else 0 for count in batch["trajectory_counts"]]
            solved[ACTION_VERB] = solve(scores[ACTION_VERB], rows, words[ACTION_VERB])
        return solved


def _tokens(video: VideoTokens) -> dict[str, Tensor]:
    """What is matched, by loss, where the model has it."""
    found = {OBJECT_NOUN: video.trajectories, ACTION_VERB: video.actions}
    return {name: tokens for name, tokens in found.items() if tokens is not None}


def dot_products(tokens: Tensor, text: Tensor) -> Tensor:
    """(B, R, E), (B, L, E) -> (B, R, L), in fp32 whatever the autocast type."""
    with torch.autocast(tokens.device.type, enabled=False):
        return tokens.float() @ text.float().transpose(1, 2)


def word_scores(similarities: Tensor, is_word: Tensor) -> Tensor:
    """Softmax over a sample's words: (B, R, L), (B, L) True at candidate words -> (B, R, L), 0 where there is none."""
    return similarities.masked_fill(~is_word[:, None], float("-inf")).softmax(-1)


def squared_distance(tokens: Tensor, text: Tensor, pairs: Pairs) -> Tensor:
    """Sum over pairs of the mean squared difference of token and word, fp32; 0 (with a gradient path) without pairs."""
    index = torch.tensor(pairs, dtype=torch.int64).view(3, -1).to(tokens.device, non_blocking=True)
    difference = tokens[index[0], index[1]].float() - text[index[0], index[2]].float()
    return difference.square().sum() / tokens.shape[-1]
