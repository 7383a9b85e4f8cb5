"""The formulas as the released code writes them, on the same parameters: for tests and benchmark only.

Nothing here is fast. Each function is the plain form of one exact identity of the model; `PlainPretrainModel` puts
them together.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import roi_align

from modules.backbone import Backbone
from modules.batch import Batch
from modules.encoded import Encoded
from modules.fusion_encoder import Context, FusionEncoder, VideoTokens
from modules.heads import MatchingHead, VocabularyHead
from modules.layers import ResidualBlock
from modules.losses import TokenLoss, token_loss
from modules.module_clip import CLIP, EncodeObjects, ObjectTokens, VisionOutput, VisionTower
from modules.object_encoder import ObjectEncoder
from modules.objectives.captions import Captions
from modules.objectives.contrastive import Contrastive, PretrainContrastive
from modules.objectives.masked_tokens import MaskedTokens
from modules.objectives.matching import Matching, Negatives, matching_loss
from modules.objectives.next_tokens import NextTokens
from modules.objectives.set_matching import SetMatching
from modules.tasks.captioning import CaptionModel
from modules.tasks.pretrain import PretrainModel
from modules.tasks.retrieval import RetrievalModel


def additive(mask: Tensor | None) -> Tensor | None:
    """Boolean mask (True = visible) -> additive mask of 0 and -inf."""
    return None if mask is None else torch.zeros(mask.shape, device=mask.device).masked_fill(~mask, float("-inf"))


def block(layer: ResidualBlock, x: Tensor, mask: Tensor | None = None, key_mask: Tensor | None = None) -> Tensor:
    """torch's own multi-head attention on all rows: x (B, S, D), mask (S, S) or (B, S, S), key_mask (B, S), True =
    visible.
    """
    attn, y = layer.attn, layer.ln_1(x).transpose(0, 1)
    if mask is not None and mask.ndim == 3:
        mask = mask.repeat_interleave(attn.heads, dim=0)
    out, _ = F.multi_head_attention_forward(
        y, y, y, x.shape[-1], attn.heads, attn.in_proj_weight, attn.in_proj_bias, None, None, False, 0.0,
        attn.out_proj.weight, attn.out_proj.bias, need_weights=False, attn_mask=additive(mask),
        key_padding_mask=additive(key_mask),
    )  # fmt: skip
    x = x + out.transpose(0, 1)
    hidden = layer.mlp.c_fc(layer.ln_2(x))
    return x + layer.mlp.c_proj(hidden * torch.sigmoid(1.702 * hidden))


def text_tower(clip: CLIP, ids: Tensor) -> Tensor:
    """Every position, whatever follows it."""
    x = clip.token_embedding(ids) + clip.positional_embedding[: ids.shape[1]]
    causal = torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool, device=ids.device).tril()
    for layer in clip.transformer.resblocks:
        x = block(layer, x, causal)
    return clip.ln_final(x) @ clip.text_projection


def vision_tower(tower: VisionTower, video: Tensor, encode_objects: EncodeObjects | None) -> VisionOutput:
    """The last block, ln_post and projection on all tokens of all frames."""
    batch, frames = video.shape[:2]
    x = tower._patchify(video)
    count, width, layers = x.shape[1], x.shape[2], tower.transformer.resblocks
    early, objects = x, None
    for index, layer in enumerate(layers):
        joint = index >= len(layers) - 2
        if index == len(layers) - 2:
            early = x.detach()
        sequence = x.reshape(batch, -1, width) if joint else x
        if encode_objects is None or index not in tower.object_blocks:
            x = block(layer, sequence).view(batch * frames, count, width)
            continue
        objects = encode_objects(x[:, 1:])
        if not tower.objects_take_part:
            x = block(layer, sequence).view(batch * frames, count, width)
            continue
        extra = objects.tokens.reshape(sequence.shape[0], -1, width)
        visible = ~objects.is_padding.reshape(sequence.shape[0], -1)
        visible = torch.cat([visible.new_ones(sequence.shape[:2]), visible], dim=1)
        out = block(layer, torch.cat([sequence, extra], dim=1), key_mask=visible)
        x = out[:, : sequence.shape[1]].reshape(batch * frames, count, width)
    features = (tower.ln_post(x) @ tower.proj)[:, 0].view(batch, frames, -1)
    return VisionOutput(features, early, objects)


def object_encoder(encoder: ObjectEncoder, patches: Tensor, boxes: Tensor) -> ObjectTokens:
    """RoIAlign at full width on every slot, both layers on every cell; an empty slot is a box of no size."""
    batch, frames, slots, _ = boxes.shape
    grid = encoder.grid
    maps = patches.transpose(1, 2).unflatten(2, (grid, grid))
    frame = torch.arange(batch * frames, device=boxes.device).repeat_interleave(slots)
    rois = torch.cat([frame[:, None].float(), boxes.reshape(-1, 4)], dim=1)
    cells = roi_align(maps, rois, (grid, grid), grid / encoder.resolution, sampling_ratio=-1, aligned=True)
    hidden = encoder.patch_mlp(cells.flatten(2).transpose(1, 2))
    tokens = hidden.amax(dim=1).view(batch, frames, slots, -1)
    tokens = tokens + encoder.slot_embedding + encoder.box_mlp(boxes / encoder.resolution)
    return ObjectTokens(tokens, boxes[..., 0] == -1)


def trajectories(model: PretrainModel, tokens: Tensor, box_trajectory: Tensor, ids: Tensor) -> Tensor:
    """All box tokens repeated for every trajectory, the block on all their rows."""
    encoder, count = model.trajectory_encoder, ids.shape[1]
    sequence = torch.cat([encoder.cls_embedding.expand(len(tokens), 1, -1), tokens.flatten(1, 2)], dim=1)
    member = (box_trajectory.flatten(1)[:, None] == ids[..., None]) & (ids != 0)[..., None]
    visible = torch.cat([member.new_ones(*ids.shape, 1), member], dim=2).flatten(0, 1)
    out = block(encoder.block, sequence.repeat_interleave(count, dim=0), key_mask=visible)[:, 0]
    return (encoder.ln_post(out) @ encoder.proj).view(*ids.shape, -1)


def actions(model: PretrainModel, early_tokens: Tensor, objects: ObjectTokens) -> Tensor:
    """Explicit softmax, both temporal blocks on all rows."""
    encoder = model.action_encoder
    batch, frames, _, width = objects.tokens.shape
    sources = torch.cat([early_tokens[:, 1:], objects.tokens.flatten(0, 1)], dim=1)
    hidden = F.pad(objects.is_padding.flatten(0, 1), (early_tokens.shape[1] - 1, 0))
    weights = (encoder.queries @ sources.transpose(1, 2)).masked_fill(hidden[:, None], float("-inf")).softmax(-1)
    pooled = (weights @ sources).view(batch, frames, -1, width).transpose(1, 2)
    cls = early_tokens[:, 0].view(batch, frames, width).mean(1)[:, None, None].expand(-1, pooled.shape[1], 1, -1)
    sequence = torch.cat([cls, pooled], dim=2).flatten(0, 1)
    for layer in encoder.blocks:
        sequence = block(layer, sequence)
    return (encoder.ln_post(sequence)[:, 0] @ encoder.proj).view(batch, -1, encoder.proj.shape[1])


def fusion(encoder: FusionEncoder, context: Context, text: Tensor, text_mask: Tensor, end: Tensor) -> Tensor:
    """All rows of all blocks: (B, C + L, E)."""
    positions = encoder.positional_embedding[encoder.text_start :][: text.shape[1]].expand(len(text), -1, -1).clone()
    for row, index in enumerate(end.tolist()):
        positions[row, index] = 0
    x = torch.cat([context.tokens, text + positions], dim=1)
    mask = torch.cat([context.mask, text_mask], dim=1)
    for layer in encoder.blocks:
        x = block(layer, x, key_mask=mask)
    return x


def next_token(model: Backbone, context: Context, ids: Tensor, *, text_grad: bool = False) -> list[Tensor]:
    """One text encoding and one fusion pass per target position; entry i predicts token i + 1: L - 1 of (B, E)."""
    return [next_token_row(model, context, ids, step, text_grad=text_grad) for step in range(ids.shape[1] - 1)]


def next_token_row(model: Backbone, context: Context, ids: Tensor, step: int, *, text_grad: bool = False) -> Tensor:
    """Prediction of token step + 1 from the tokens before, everything encoded for it: (B, E)."""
    encoder, length, size = model.fusion, ids.shape[1], context.tokens.shape[1]
    positions = encoder.positional_embedding[encoder.text_start :][:length]
    mask = torch.zeros(size + length, size + length, dtype=torch.bool, device=ids.device)
    mask[size:, size:] = torch.ones(length, length, dtype=torch.bool, device=ids.device).tril()
    mask = mask.expand(len(ids), -1, -1).clone()
    mask[:, :, :size] = context.mask[:, None]
    with torch.set_grad_enabled(torch.is_grad_enabled() and text_grad):
        text = text_tower(model.clip, ids)
    shown = torch.arange(length, device=ids.device) <= step
    x = torch.cat([context.tokens, text * shown[:, None] + positions], dim=1)
    for layer in encoder.blocks:
        x = block(layer, x, mask)
    return x[:, size + step + 1]


def vocabulary_logits(head: VocabularyHead, hidden: Tensor, embedding: Tensor) -> Tensor:
    """h·(P·Eᵀ): the vocabulary-sized product is built for each call."""
    return hidden @ (head.proj @ embedding.t()) + head.bias


def matching_scores(head: MatchingHead, rows: Tensor, keep: Tensor | None = None) -> Tensor:
    """The K x K score matrix and its diagonal, for each class."""
    video, text = F.normalize(rows[:, 0], dim=-1), F.normalize(rows[:, 1], dim=head.norm_axis)
    scores = []
    for k, matrix in enumerate((head.unmatch, head.match)):
        a, c = (video, text) if keep is None else (video * keep[:, k, 0], text * keep[:, k, 1])
        scores.append((a @ matrix @ c.t()).diagonal())
    return torch.stack(scores, dim=1)


@torch.no_grad()
def match_probabilities(
    model: RetrievalModel, videos: VideoTokens, text: Tensor, lengths: Tensor, text_index: Tensor, video_index: Tensor
) -> Tensor:
    """One query at a time, as the released re-ranking: text (M, L, E) and all trajectory slots, padding and all rows
    computed. (Q, k) indices twice -> (Q, k).
    """
    mask = torch.arange(text.shape[1], device=text.device) < lengths[:, None]
    probabilities = []
    for texts, clips in zip(text_index, video_index, strict=True):
        context, end = model.fusion.context(videos.select(clips)), lengths[texts] - 1
        rows = fusion(model.fusion, context, text[texts], mask[texts], end)
        last = rows[torch.arange(len(end), device=end.device), context.tokens.shape[1] + end]
        scores = matching_scores(model.matching_head, torch.stack([rows[:, model.fusion.mean_row], last], dim=1))
        probabilities.append(scores.softmax(-1)[:, 1])
    return torch.stack(probabilities)


class PlainScorer:
    """Next-token probabilities of K beams for each of B clips, all texts encoded again at every step, to `length`
    tokens, as the released decoding does (modules/beam_search.py, Scorer).
    """

    def __init__(self, model: CaptionModel, video: VideoTokens, beams: int, length: int) -> None:
        self.model, self.beams, self.step = model, beams, 0
        clips = torch.arange(len(video.frames), device=video.frames.device).repeat_interleave(beams)
        self.context = model.fusion.context(video.select(clips))
        self.ids = torch.zeros(len(clips), length, dtype=torch.int64, device=clips.device)

    @torch.no_grad()
    def advance(self, tokens: Tensor) -> Tensor:
        self.ids[:, self.step] = tokens.flatten()
        row = next_token_row(self.model, self.context, self.ids, self.step)
        self.step += 1
        logits = vocabulary_logits(self.model.vocabulary_head, row, self.model.clip.token_embedding.weight)
        return logits.log_softmax(-1).unflatten(0, (-1, self.beams))

    def reorder(self, source: Tensor) -> None:
        ids = self.ids.unflatten(0, (-1, self.beams))
        self.ids = ids.gather(1, source[..., None].expand_as(ids)).flatten(0, 1)


class PlainTowers(Backbone):
    """Both of CLIP's towers and the object, trajectory and action encoders in their plain forms."""

    def encode_video(self, batch: Batch, *, features_need_grad: bool = True) -> VideoTokens:
        encode = None
        if self.object_encoder is not None:
            encode = partial(object_encoder, self.object_encoder, boxes=batch["boxes"])
        seen = vision_tower(self.clip.visual, batch["video"], encode)
        if not (self.config.has_trajectories or self.config.has_actions):
            return VideoTokens(seen.frame_features, batch["video_mask"], None, None, None)
        objects, ids = self.object_encoder.with_frame_positions(seen.objects), batch["trajectory_ids"]
        paths = mask = moves = None
        if self.config.has_trajectories:
            paths, mask = trajectories(self, objects.tokens, batch["box_trajectory"], ids), ids != 0
        if self.config.has_actions:
            moves = actions(self, seen.early_tokens, objects)
        return VideoTokens(seen.frame_features, batch["video_mask"], paths, mask, moves)

    def encode_text(self, text_ids: Tensor) -> Tensor:
        return text_tower(self.clip, text_ids)


class PlainCaptions(Captions):
    """One pass of both encoders per target."""

    def loss(self, encoded: Encoded, video: VideoTokens, text: Tensor) -> TokenLoss:
        model, ids = encoded.model, encoded.batch["text_ids"]
        rows = next_token(model, model.fusion.context(video), ids, text_grad=True)
        return _token_loss(self.head, encoded, rows, self.label_smoothing)


class PlainMaskedTokens(MaskedTokens):
    """The rows of all tokens, then the masked ones among them."""

    def losses(self, encoded: Encoded) -> dict[str, Tensor]:
        batch, model = encoded.batch, encoded.model
        rows, marked = self.rows(encoded), batch["mlm_mask"]
        logits = vocabulary_logits(self.head, rows[marked], model.clip.token_embedding.weight)
        loss = token_loss(logits, batch["text_ids"][marked])
        return {"mlm": loss.loss, "mlm_accuracy": loss.accuracy}

    def rows(self, encoded: Encoded) -> Tensor:
        batch, model = encoded.batch, encoded.model
        text = model.encode_text(batch["text_ids"].masked_fill(batch["mlm_mask"], 0)).detach()
        text = text * ~batch["mlm_mask"][..., None]
        context = model.fusion.context(encoded.detached_video)
        rows = fusion(model.fusion, context, text, batch["text_mask"], batch["text_lengths"] - 1)
        return rows[:, context.tokens.shape[1] :]


class PlainNextTokens(NextTokens):
    """One pass of both encoders per target."""

    def loss(self, encoded: Encoded, video: VideoTokens, text: Tensor) -> TokenLoss:
        model, ids = encoded.model, encoded.batch["text_ids"]
        context = model.fusion.context(video, frame_positions=self.frame_positions)
        return _token_loss(self.head, encoded, next_token(model, context, ids))


class PlainMatching(Matching):
    """All rows of every pair, and a square of scores of which the diagonal is read."""

    def loss(self, encoded: Encoded) -> TokenLoss:
        negatives, model = self.negatives(encoded), encoded.model
        pairs = self.pairs(encoded, negatives)
        context, end = model.fusion.context(pairs.video), pairs.text_lengths - 1
        text = model.encode_text(encoded.batch["text_ids"]).detach()[self._text_order(negatives)]
        rows = fusion(model.fusion, context, text, pairs.text_mask, end)
        mean = rows[:, model.fusion.mean_row]
        last = rows[torch.arange(len(end), device=end.device), context.tokens.shape[1] + end]
        scores = matching_scores(self.head, torch.stack([mean, last], dim=1))
        return matching_loss(scores, 3, self.counted(negatives))

    @staticmethod
    def _text_order(negatives: Negatives) -> Tensor:
        """Which text each of the 3·B pairs has."""
        own = torch.arange(len(negatives.text), device=negatives.text.device)
        return torch.stack([own, own, negatives.text], dim=1).flatten()


def _token_loss(head: VocabularyHead, encoded: Encoded, rows: list[Tensor], label_smoothing: float = 0.0) -> TokenLoss:
    """Of the next tokens, `rows` as `next_token` gives them."""
    embedding = encoded.model.clip.token_embedding.weight
    logits = torch.stack([vocabulary_logits(head, row, embedding) for row in rows], dim=1)
    index = encoded.batch["plm_index"]
    targets = encoded.batch["text_ids"][:, 1:].flatten()[index]
    return token_loss(logits.flatten(0, 1)[index], targets, label_smoothing)


class PlainCaptionModel(PlainTowers, CaptionModel):
    """Captioning with every plain form in place. Takes untrimmed batches as well as trimmed ones."""

    OBJECTIVES = (PlainCaptions, Contrastive)


class PlainPretrainModel(PlainTowers, PretrainModel):
    """Pre-training with every plain form in place. Takes untrimmed batches as well as trimmed ones."""

    OBJECTIVES = (PlainMatching, PlainMaskedTokens, PlainNextTokens, SetMatching, PretrainContrastive)
