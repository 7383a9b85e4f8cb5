"""What a batch holds; and the last step of collation, on the host: cut padding, compute the indices the model needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any, Literal, TypedDict, TypeVar, cast

import torch
from torch import Tensor


class Collated(TypedDict, total=False):
    """What samples hold, stacked: tensors by their first dimension, everything else as lists.

    Which of it is there depends on the task. B clips; Q texts, B of them but for questions and options. W is
    `ModelConfig.max_words`; the other letters are those of modules/README.md.
    """

    video: Tensor  # (B, T, 3, R, R) uint8, or floats that are normalised already
    video_mask: Tensor  # (B, T) bool, True = frame
    boxes: Tensor  # (B, T, O, 4) x1 y1 x2 y2 in pixels of the R x R picture; x1 = -1 in an empty slot
    box_trajectory: Tensor  # (B, T, O) int64, trajectory of each box, 0 in an empty slot
    trajectory_ids: Tensor  # (B, N) int64, packed to the front, 0 = unused
    text_ids: Tensor  # (Q, W) int64
    text_mask: Tensor  # (Q, W) bool, True = token, start and end included
    mlm_mask: Tensor  # (B, W) bool, tokens that are masked
    noun_mask: Tensor  # (B, W) bool
    verb_mask: Tensor  # (B, W) bool
    word_ends: Tensor  # (B, W) bool, the last piece of each word; without it every piece is a word
    plm_start: Tensor  # (B,) int64, first token of the next-token loss
    random_keys: Tensor  # (Q,) int64, keys of the samples (modules/random_streams.py); needed in training
    hard_negative_video: Tensor  # (B,) int64, wrong video of each text in the global batch, instead of a drawn one
    hard_negative_text: Tensor  # (B,) int64, likewise
    text_clip: Tensor  # (Q,) int64, clip of each question
    answer: Any  # (Q,) int64, class or token id of each question's answer; multiple choice: B numbers of options
    video_id: list[str]
    index: list[int]  # of each clip in its data set
    notes: list[list[str]]  # what is to be said of reading a clip
    skipped: list[list[str]]  # files that could not be read before this sample took their place
    bad_video: list[str]  # why a clip of an evaluation cannot be read; "" for those that can
    places: list[list[int]]  # of each clip's questions in their list


class Batch(Collated, total=False):
    """A finished batch. Text columns are cut to L <= W, trajectories to the longest list."""

    clip_keys: Tensor  # (B,) int64 of `video_id`, equal for the same clip; without it each clip counts as another one
    text_lengths: Tensor  # (Q,) int64, tokens, start and end included
    distinct_texts: Tensor  # (D,) int64, the first question of each wording; D <= Q
    text_wording: Tensor  # (Q,) int64, wording of each question, an index of `distinct_texts`
    box_index: Tensor  # (K,) int64, real boxes among the B·T·O slots
    trajectory_counts: list[int]  # of each clip
    mlm_positions: Tensor  # (B, R) int64, masked positions of each text, padded with 0
    mlm_index: Tensor  # (K,) int64, the real ones among B·R
    plm_index: (
        Tensor  # (K,) int64, rows of the next-token loss among B·(L - 1), from `plm_start` (else 1) to the end token
    )
    noun_positions: list[list[int]]  # of each text, end token included: set matching is solved on the host
    verb_positions: list[list[int]]
    noun_words: list[list[int]]  # the same, of each word its last piece alone
    verb_words: list[list[int]]


AnyBatch = TypeVar("AnyBatch", bound=Batch)
TEXT_COLUMNS: tuple[Literal["text_ids", "text_mask", "mlm_mask", "noun_mask", "verb_mask", "word_ends"], ...] = (
    "text_ids",
    "text_mask",
    "mlm_mask",
    "noun_mask",
    "verb_mask",
    "word_ends",
)
NEEDED = {  # what stands in a batch only together with what
    "boxes": ("trajectory_ids",),
    "text_mask": ("text_ids",),
    "mlm_mask": ("text_mask",),
    "noun_mask": ("text_mask",),
    "verb_mask": ("text_mask",),
    "word_ends": ("text_mask",),
    "plm_start": ("text_mask",),
}


def finish_batch(collated: Collated | Mapping[str, Any]) -> Batch:
    """Trim a collated batch and add indices that depend on the data; found on the device, they would cost a sync.

    Text is cut to the longest sequence (the text tower is causal), trajectory ids to the longest list (they are packed
    to the front). Neither shifts positions.

    Args:
        collated: CPU tensors. Text or boxes may be absent; with them comes what `NEEDED` says.

    Returns:
        With text, `text_lengths`; for what is masked, tagged or predicted in it, its positions and indices; with
        questions, `distinct_texts` and `text_wording`; with boxes, `box_index` and `trajectory_counts`; with
        `video_id`, `clip_keys`.

    Raises:
        ValueError: something that is there needs something that is not; the message names both.
    """
    for name, needed in NEEDED.items():
        missing = [other for other in needed if name in collated and other not in collated]
        if missing:
            raise ValueError(f"a batch with {name} needs {' and '.join(missing)} too")
    batch = cast(Batch, dict(collated))
    if "boxes" in batch:
        batch["box_index"] = (batch["boxes"][..., 0] != -1).flatten().nonzero()[:, 0]
        counts = (batch["trajectory_ids"] != 0).sum(1)
        batch["trajectory_counts"] = counts.tolist()
        batch["trajectory_ids"] = batch["trajectory_ids"][:, : max(1, int(counts.max()))]
    if "text_mask" in batch:
        _finish_text(batch)
    if "video_id" in batch:
        batch["clip_keys"] = clip_keys(batch["video_id"])
    return batch


def clip_keys(video_ids: Sequence[str]) -> Tensor:
    """63 bits of each id's BLAKE2: (B,) int64, equal for equal ids on every rank, else different for all purposes."""
    digests = [blake2b(str(video_id).encode(errors="surrogatepass"), digest_size=8).digest() for video_id in video_ids]
    return torch.tensor([int.from_bytes(digest, "big") >> 1 for digest in digests], dtype=torch.int64)


def _finish_text(batch: Batch) -> None:
    lengths = batch["text_mask"].sum(1)
    longest = int(lengths.max())
    columns: dict[str, Any] = {name: batch[name] for name in TEXT_COLUMNS if name in batch}
    batch.update(cast(Batch, {name: column[:, :longest] for name, column in columns.items()}))
    batch["text_lengths"] = lengths
    if "text_clip" in batch:
        batch["distinct_texts"], batch["text_wording"] = _distinct(batch["text_ids"])
    if "mlm_mask" in batch:
        batch["mlm_positions"], batch["mlm_index"] = _pack_positions(batch["mlm_mask"])
    if "mlm_mask" in batch or "plm_start" in batch:
        batch["plm_index"] = _next_token_rows(lengths, batch.get("plm_start"), longest)
    ends = batch.get("word_ends", batch["text_mask"])
    if "noun_mask" in batch:
        batch["noun_positions"] = _word_positions(batch["noun_mask"], lengths)
        batch["noun_words"] = _word_positions(batch["noun_mask"] & ends, lengths)
    if "verb_mask" in batch:
        batch["verb_positions"] = _word_positions(batch["verb_mask"], lengths)
        batch["verb_words"] = _word_positions(batch["verb_mask"] & ends, lengths)


def _distinct(text_ids: Tensor) -> tuple[Tensor, Tensor]:
    """The first of each different row of (Q, L), and for each row the number of its like: (D,), (Q,)."""
    numbers: dict[bytes, int] = {}
    wording = [numbers.setdefault(row.tobytes(), len(numbers)) for row in text_ids.numpy()]
    first = [wording.index(number) for number in range(len(numbers))]
    return torch.tensor(first), torch.tensor(wording)


def _pack_positions(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Positions of True per row, packed to the front (B, R), and the flat indices of the real ones."""
    widest = max(1, int(mask.sum(1).max()))
    positions = torch.zeros(mask.shape[0], widest, dtype=torch.int64)
    is_real = torch.zeros_like(positions, dtype=torch.bool)
    for row, marked in enumerate(mask):
        index = marked.nonzero()[:, 0]
        positions[row, : len(index)] = index
        is_real[row, : len(index)] = True
    return positions, is_real.flatten().nonzero()[:, 0]


def _next_token_rows(lengths: Tensor, start: Tensor | None, longest: int) -> Tensor:
    """Rows i (predicting token i + 1) with start <= i + 1 <= end token, flat in (B, longest - 1)."""
    target = torch.arange(1, longest)
    first = torch.ones_like(lengths) if start is None else start
    wanted = (target >= first[:, None]) & (target < lengths[:, None])
    return wanted.flatten().nonzero()[:, 0]


def _word_positions(mask: Tensor, lengths: Tensor) -> list[list[int]]:
    """Tagged positions of each text and its end token."""
    with_end = mask.clone()
    with_end[torch.arange(len(lengths)), lengths - 1] = True
    return [row.nonzero()[:, 0].tolist() for row in with_end]


def to_device(batch: AnyBatch, device: torch.device) -> AnyBatch:
    """Move the tensors, asynchronously where the memory is pinned; lists stay on the host."""
    moved = {k: v.to(device, non_blocking=True) if isinstance(v, Tensor) else v for k, v in batch.items()}
    return cast(AnyBatch, moved)
