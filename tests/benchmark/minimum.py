"""FLOPs that a pre-training step cannot do without, from sizes alone; to be compared with what is counted.

Counted are matrix products and attention, 2 per multiply-add; a linear map costs as much again for the gradient of its
weight and again for that of its input, attention (two products) twice its forward cost. Only real tokens, boxes,
trajectories, predicted rows and visible pairs count, padding does not. RoIAlign, norms and other elementwise work is
left out on both sides. Where PyTorch does more than this (attention that computes its scores again, products over
masked pairs and padding), the ratio shows it.
"""

from __future__ import annotations

from dataclasses import dataclass

from modules.batch import Batch
from modules.config import ModelConfig


@dataclass
class Cost:
    """FLOPs of the forward and of the backward pass."""

    forward: float = 0.0
    backward: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.forward + other.forward, self.backward + other.backward)

    def scaled(self, times: float) -> Cost:
        return Cost(times * self.forward, times * self.backward)

    @property
    def total(self) -> float:
        return self.forward + self.backward


def linear(rows: float, width_in: int, width_out: int, *, weight: bool = True, inputs: bool = True) -> Cost:
    """rows x in -> rows x out; `weight` and `inputs` say which of the two has a gradient."""
    forward = 2.0 * rows * width_in * width_out
    return Cost(forward, forward * (weight + inputs))


def attention(pairs: float, width: int) -> Cost:
    """Scores and weighted sum of so many (query, key) pairs, over all heads together."""
    return Cost(4.0 * pairs * width, 8.0 * pairs * width)


def block(width: int, keys: float, pairs: float, queries: float | None = None) -> Cost:
    """Residual block: keys and values of `keys` tokens, everything else for `queries` of them (default: all)."""
    rows = keys if queries is None else queries
    projections = linear(keys, width, 2 * width) + linear(rows, width, width).scaled(2)
    return projections + attention(pairs, width) + linear(rows, width, 4 * width) + linear(rows, 4 * width, width)


def no_backward(cost: Cost) -> Cost:
    return Cost(cost.forward, 0.0)


def pretraining_minimum(config: ModelConfig, batch: Batch) -> dict[str, Cost]:
    """Terms of one step with all losses, trajectories and actions, frozen embeddings, objects read at the last block.

    Args:
        batch: a finished batch; its lengths and counts are used, not its tensors' shapes.
    """
    if config.object_blocks != (config.vision_layers - 1,) or not (config.has_trajectories and config.has_actions):
        raise ValueError("the minimum is written for objects and actions read at the last visual block")
    return {**_visual(config, batch), **_objects(config, batch), **_text_and_fusion(config, batch)}


def _visual(config: ModelConfig, batch: Batch) -> dict[str, Cost]:
    """Frozen patch layer; blocks per frame; one joint block; the last block for the frames' [CLS] alone."""
    clips, width, frames = len(batch["video"]), config.vision_width, config.max_frames
    patches = config.grid**2
    per_frame = patches + 1
    tokens = clips * frames * per_frame
    joint = frames * per_frame
    pixels = 3 * config.patch_size**2
    return {
        "patch layer": linear(clips * frames * patches, pixels, width, weight=False, inputs=False),
        "visual blocks per frame": block(width, tokens, clips * frames * per_frame**2).scaled(config.vision_layers - 2),
        "joint visual block": block(width, tokens, clips * joint**2),
        "last visual block, [CLS] only": block(width, tokens, clips * frames * joint, queries=clips * frames),
        "visual projection": linear(clips * frames, width, config.embed_dim),
    }


def _objects(config: ModelConfig, batch: Batch) -> dict[str, Cost]:
    """Object perceptron (first layer on patches, second on cells), trajectories, actions.

    The gradient through the maximum over cells is sparse; it is counted as dense, as every library computes it.
    """
    clips, width, frames, embed = len(batch["video"]), config.vision_width, config.max_frames, config.embed_dim
    patches, boxes, actions = config.grid**2, len(batch["box_index"]), config.num_actions
    trajectories = sum(batch["trajectory_counts"])
    members = sum(int((batch["box_trajectory"] == i).sum()) for i in batch["trajectory_ids"].unique().tolist() if i)
    pooled = clips * frames * actions * patches + boxes * actions  # (query, source) pairs
    # Patches are detached: queries and weights have gradients everywhere, keys and values at the boxes alone.
    pooling = Cost(4.0 * pooled * width, 4.0 * pooled * width + 4.0 * boxes * actions * width)
    times = frames + 1
    return {
        "object perceptron": linear(clips * frames * patches, width, width // 2)
        + linear(boxes * patches, width // 2, width)
        + linear(boxes, 4, width // 2, inputs=False)
        + linear(boxes, width // 2, width),
        "trajectories": block(width, clips + boxes, trajectories + members, queries=trajectories)
        + linear(trajectories, width, embed),
        "action pooling": pooling,
        "action blocks": block(width, clips * actions * times, clips * actions * times**2)
        + block(width, clips * actions * times, clips * actions * times, queries=clips * actions)
        + linear(clips * actions, width, embed),
    }


def _text_and_fusion(config: ModelConfig, batch: Batch) -> dict[str, Cost]:
    """Two text encodings, one of them with a gradient; three fusion passes; the heads on the rows that are read."""
    lengths, counts = batch["text_lengths"].tolist(), batch["trajectory_counts"]
    width, embed = config.text_width, config.embed_dim
    causal = sum(n * (n + 1) / 2 for n in lengths)
    encoding = block(width, sum(lengths), causal).scaled(config.text_layers) + linear(sum(lengths), width, embed)
    contexts = [config.max_frames + 1 + count + config.num_actions for count in counts]
    full = list(zip(contexts, lengths, strict=True))
    marked, predicted = len(batch["mlm_index"]), len(batch["plm_index"])
    pairs = marked_pairs = 0.0
    rows_by_clip = (batch["mlm_index"] // batch["mlm_positions"].shape[1]).tolist()
    for clip, (context, n) in enumerate(full):
        pairs += (context + n) ** 2
        marked_pairs += rows_by_clip.count(clip) * (context + n)
    tokens, layers = sum(context + n for context, n in full), config.fusion_layers - 1
    # A negative pair has the context of one clip and the text of another: their sizes add up to the same on average.
    matching = block(embed, 3 * tokens, 3 * pairs).scaled(layers)
    matching += block(embed, 3 * tokens, 3 * 2 * tokens, queries=3 * 2 * len(full))
    next_pass, next_last = _next_token(config, batch, full)
    rows = marked + predicted
    return {
        "text, clean": encoding,
        "text, masked": no_backward(encoding),
        "fusion, masked tokens": block(embed, tokens, pairs).scaled(layers)
        + block(embed, tokens, marked_pairs, queries=marked),
        "fusion, next tokens": next_pass.scaled(layers) + next_last,
        "fusion, matching": matching,
        "vocabulary": linear(rows, embed, width) + linear(rows, width, config.vocab_size, weight=False),
        "matching head": linear(3 * len(full), embed, embed).scaled(2),
    }


def _next_token(config: ModelConfig, batch: Batch, full: list[tuple[int, int]]) -> tuple[Cost, Cost]:
    """One block of the prefix-LM pass on all its tokens, and the last one for the queries alone.

    A query for token i + 1 sees the context, content 0..i and itself; no query before the first predicted token.
    """
    steps = batch["text_ids"].shape[1] - 1
    index = batch["plm_index"].cpu()
    keys = queries = 0
    pairs = query_pairs = 0.0
    for clip, (context, n) in enumerate(full):
        read = (index[index // steps == clip] % steps).tolist()
        content = n - 1
        keys += context + content
        queries += len(read)
        query_pairs += sum(context + i + 2 for i in read)
        pairs += context**2 + content * context + content * (content + 1) / 2
    embed = config.embed_dim
    every = block(embed, keys + queries, pairs + query_pairs)
    return every, block(embed, keys + queries, query_pairs, queries=queries)
