"""Features of clips and texts as a file of arrays, for other programs to search, cluster and classify with."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from dataloaders.built_caches import require_writable
from dataloaders.files import atomic_file
from modules.characters import UNWRITABLE
from modules.foreign_text import caption_text, iterate_lines
from utils.evaluation.retrieval import VideoBank

SUFFIX = ".npz"
MAX_TEXT_ARRAY = 1 << 30  # bytes; every entry takes as many as the longest


@dataclass(frozen=True)
class Embeddings:
    """Features of V clips of T frames and of M texts in the joint space of width E: what `save` writes, by these names.

    A cosine is a dot product: `text_features @ video_features.T` are the similarities of `Predictor.match`.

    video_ids (V,): text, the clips' paths as they were given, none twice; bytes of a path that are not UTF-8 are as
    `os.fsdecode` has them, so that the path opens the file. video_features (V, E): of length 1, pooled over the frames
    by the similarity header. frame_features (V, T, E): of length 1 each, as they enter the header, 0 where there is no
    frame. frame_mask (V, T): True = a frame. texts (M,), text_features (M, E): the latter of length 1; None, and not in
    the file, without texts. logit_scale (): logits of the model for each unit of a cosine. Numbers are float32.
    skipped: why videos were left out; not in the file.
    """

    video_ids: np.ndarray
    video_features: np.ndarray
    frame_features: np.ndarray
    frame_mask: np.ndarray
    texts: np.ndarray | None
    text_features: np.ndarray | None
    logit_scale: np.ndarray
    skipped: list[str]

    @classmethod
    def of(
        cls,
        video_ids: np.ndarray,
        bank: VideoBank,
        pooled: Tensor,
        texts: np.ndarray | None,
        text_features: Tensor | None,
        logit_scale: float,
    ) -> Embeddings:
        """Arrays of what a model has encoded.

        Args:
            video_ids: of all clips, of which `bank` has those that could be read.
            pooled: (V, E) of length 1.
            text_features: (M, E) of any length.

        Raises:
            ValueError: a feature is not of finite numbers.
        """
        frames = F.normalize(bank.tokens.frames.float(), dim=-1) * bank.tokens.frame_mask[..., None]
        words = None if text_features is None else F.normalize(text_features.float(), dim=-1)
        for part in (frames, pooled, words):
            if part is not None and not part.isfinite().all():
                raise ValueError("features are not finite numbers: weights are damaged, or too large for --precision")
        return cls(
            video_ids[bank.kept],
            pooled.float().numpy(),
            frames.numpy(),
            bank.tokens.frame_mask.numpy(),
            texts,
            None if words is None else words.numpy(),
            np.array(logit_scale, dtype=np.float32),
            bank.skipped,
        )

    def save(self, path: str | Path) -> None:
        """Write the arrays to an .npz file, which `numpy.load(path)` reads; it appears whole or not at all.

        Raises:
            ValueError: it cannot be written there (`require_place` finds out earlier), or the disk is full.
        """
        require_place(path)
        arrays: dict[str, Any] = {name: value for name, value in vars(self).items() if isinstance(value, np.ndarray)}
        try:
            with atomic_file(path) as file:
                np.savez(file, **arrays)
        except OSError as error:
            raise ValueError(
                f"{path} cannot be written ({error.strerror}): free space there, then start again"
            ) from error


def require_place(path: str | Path) -> None:
    """Find out before any clip is encoded whether features can be written to a file; ValueError where they cannot."""
    path = Path(path)
    if path.suffix != SUFFIX:
        raise ValueError(f"--output {path}: features are written as numpy's {SUFFIX}; name it {path.name}{SUFFIX}")
    if not os.path.isdir(path.parent):
        raise ValueError(f"--output {path}: there is no folder {path.parent}; make it first")
    if os.path.isdir(path):
        raise ValueError(f"--output {path}: is a folder; name a file")
    try:
        os.lstat(path)
    except FileNotFoundError:
        pass
    except OSError as error:  # a name that is too long, which a temporary file's is not
        raise ValueError(f"--output {path}: cannot be written ({error.strerror}); name another place") from error
    require_writable(path)


def read_texts(path: str | Path) -> tuple[list[str], int]:
    """Texts of a file, one a line, and the number of blank lines, which are left out.

    Raises:
        FileNotFoundError, ValueError: as `iterate_lines`; a line is no caption (`caption_text`), or there is no text.
    """
    lines = [(number, line.strip()) for number, line in iterate_lines(path)]
    texts = [caption_text(line, f"{path}, line {number}") for number, line in lines if line]
    if not texts:
        raise ValueError(f"{path}: no text in it; write one a line")
    return texts, len(lines) - len(texts)


def check_texts(texts: Sequence[str]) -> None:
    """Raise ValueError for a text without a word, or with characters that are none."""
    for text in texts:
        if not text.strip() or UNWRITABLE.search(text):
            raise ValueError(f"text {text[:80]!r}: has no word, or is not UTF-8; correct it or leave it out")


def text_array(values: Iterable[str], what: str) -> np.ndarray:
    """Unicode array (N,) of `what`; ValueError where one long entry would make it too large for memory."""
    entries = list(values)
    longest = max(entries, key=len, default="")
    size = 4 * len(longest) * len(entries)
    if size > MAX_TEXT_ARRAY:
        raise ValueError(
            f"{len(entries)} {what} of up to {len(longest)} characters take {size} bytes, more than {MAX_TEXT_ARRAY}; "
            f"shorten the longest, {longest[:40]!r}..., or make several files"
        )
    return np.array(entries, dtype=np.str_)
