"""A folder of videos as features to search in, kept in a file and brought up to date when files change."""

from __future__ import annotations

import hashlib
import json
import math
import zipfile
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from tokenize import TokenError
from typing import Any, NamedTuple

import numpy as np
import torch

from dataloaders.built_caches import require_writable, writable_place
from dataloaders.files import atomic_file, file_stamp
from dataloaders.label_map import label_map_hash
from dataloaders.video_files import VIDEO_SUFFIXES, videos_below
from modules.fusion_encoder import VideoTokens, join
from modules.tasks.retrieval import RetrievalModel
from utils.evaluation.bad_videos import BadVideos
from utils.inference.predictor import Predictor
from utils.runtime.exported import checkpoint_stamp

FORMAT = 1
INDEX_NAME = ".stoa-search.npz"
# Of a damaged or foreign zip file, or header of an array in it.
DAMAGE = (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, TokenError)
TOKEN_PARTS = VideoTokens._fields
ABSENT = "-"  # in the place of size and time


def check_arrays(path: Path) -> None:
    """Hold the sizes that an .npz file states against the file, before memory is taken for them.

    Raises:
        ValueError, OSError, or one of DAMAGE: it is no file of whole arrays, not compressed.
    """
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if any(info.compress_type != zipfile.ZIP_STORED for info in members):
            raise ValueError("compressed, which an index is not")
        if sum(info.file_size for info in members) > path.stat().st_size:
            raise ValueError("its parts are larger than the file")
        for info in members:
            with archive.open(info) as member:
                version = np.lib.format.read_magic(member)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                shape, _, dtype = read(member)
            if dtype.hasobject or math.prod(shape) * dtype.itemsize > info.file_size:
                raise ValueError(f"{info.filename} states {list(shape)} values of {dtype}, which it does not have")


class Found(NamedTuple):
    """A video that was found. similarity, probability: as in `utils.inference.predictor.Match`."""

    video: str
    similarity: float
    probability: float | None


@dataclass(frozen=True)
class Update:
    """Changes made to bring an index up to date: numbers of videos, and the reasons of the `unreadable` ones."""

    encoded: int
    kept: int
    removed: int
    unreadable: list[str]


class SearchIndex:
    """Videos anywhere below a folder, encoded once.

    A video is encoded again when its size or time of change, or those of its object file, are others than before; all
    are when the checkpoint, what the model sees of a clip, or the precision is another.

    Args:
        predictor: with a checkpoint that has a text-video similarity; `on_bad_video="skip"` leaves unreadable files
            out.
        folder: of videos.
        path: the file of the index; default: {folder}/.stoa-search.npz, or the user's cache if that is read-only.

    Raises:
        FileNotFoundError: no such folder, or no video in it.
        CannotCache: the index cannot be written at `path`, or neither in the folder nor in the user's cache.
    """

    def __init__(self, predictor: Predictor, folder: str | Path, path: str | Path | None = None) -> None:
        self.predictor, self.folder = predictor, Path(folder)
        self.path = Path(path) if path else self.folder / INDEX_NAME
        self._may_move = path is None
        if not self.folder.is_dir():
            raise FileNotFoundError(f"{folder}: no such folder of videos")
        self.names, self.tokens, self.last_update = self._brought_up_to_date()
        self._pooled = predictor.pool(self.tokens)

    def search(self, queries: list[str], top: int = 5, rerank_top: int = 0) -> list[list[Found]]:
        """The best videos of each query.

        Args:
            rerank_top: so many candidates are scored by the matching head and ordered by softmax over them of the
                similarity times P(match), as in evaluation; 0: the dual encoder alone.
        """
        texts = self.predictor.encode_texts(queries)
        similarity = self.predictor.similarity(texts, self.tokens, self._pooled)
        count = min(max(top, rerank_top), len(self.names))
        best = similarity.topk(count)
        scores = None
        if rerank_top and self.predictor.can_rerank:
            rows = torch.arange(len(queries))[:, None].expand_as(best.indices)
            scores = self.predictor.match_scores(texts, self.tokens, rows, best.indices)
        return [self._found(best.values[row], best.indices[row], scores, row, top) for row in range(len(queries))]

    def _found(
        self, values: torch.Tensor, places: torch.Tensor, scores: torch.Tensor | None, row: int, top: int
    ) -> list[Found]:
        order = torch.arange(len(places))
        if scores is not None:
            scale = self.predictor.logit_scale
            order = ((values.double() * scale).softmax(-1) * scores[row].double()).argsort(descending=True)
        chosen = order[:top].tolist()
        return [
            Found(
                str(self.folder / self.names[int(places[i])]),
                float(values[i]),
                None if scores is None else float(scores[row, i]),
            )
            for i in chosen
        ]

    def _brought_up_to_date(self) -> tuple[list[str], VideoTokens, Update]:
        stamps = self._stamps()
        if not stamps:
            raise FileNotFoundError(f"{self.folder}: no video in it (looked for {', '.join(sorted(VIDEO_SUFFIXES))})")
        known, tokens = self._read()
        if known != stamps and self._moved():
            known, tokens = self._read() if self.path.is_file() else (known, tokens)
        kept = [name for name in stamps if known.get(name) == stamps[name]]
        wanted = [name for name in stamps if known.get(name) != stamps[name]]
        parts, names, unreadable = [], list(kept), []
        if kept and tokens is not None:
            places = {name: place for place, name in enumerate(known)}
            index = torch.tensor([places[name] for name in kept])
            parts.append(tokens.select(index))
        if wanted:
            bank = self._encode(wanted, must_succeed=not kept)
            if bank is None:
                unreadable = [f"{self.folder / name}: cannot be read" for name in wanted]
            else:
                parts.append(bank.tokens)
                names += [wanted[place] for place in bank.kept]
                unreadable = bank.skipped
        joined = join(parts)
        removed = len(set(known) - set(stamps))
        if wanted or removed:
            self._write({name: stamps[name] for name in names}, joined)
        return names, joined, Update(len(names) - len(kept), len(kept), removed, unreadable)

    def _moved(self) -> bool:
        """Find out before videos are encoded where the index can be written; whether that is another place."""
        if not self._may_move:
            require_writable(self.path)
            return False
        before, self.path = self.path, writable_place(self.path)
        return self.path != before

    def _encode(self, names: list[str], *, must_succeed: bool) -> Any:
        """A bank of the videos; None when none can be read though there are others."""
        try:
            return self.predictor.encode([self.folder / name for name in names])
        except BadVideos:
            if must_succeed or self.predictor.settings.on_bad_video == "error":
                raise
            return None

    def _stamps(self) -> dict[str, str]:
        """Size and time of each video and of its object file, by the video's path below the folder.

        What a detector finds follows from the video and the key.
        """
        objects = self.predictor.object_files(self.predictor.model(RetrievalModel).config)
        stamps = {}
        for path in videos_below(self.folder):
            object_file = objects.path(path.stem) if objects else None
            parts = [_stamp(path), _stamp(object_file) if object_file else ABSENT]
            stamps[str(path.relative_to(self.folder))] = " ".join(parts)
        return stamps

    def _key(self) -> str:
        """Digest of everything but the files: checkpoint, frames, boxes, precision."""
        settings = self.predictor.settings
        config = self.predictor.model(RetrievalModel).config
        objects = self.predictor.object_files(config)
        detected = self.predictor.detected(config) if self.predictor.can_rerank else None
        what = {
            "format": FORMAT,
            "checkpoint": checkpoint_stamp(settings.init_model or ""),
            "samples": self.predictor.sample_settings(config).seen(),
            "objects": objects and [objects.settings.stored(), label_map_hash(dict(objects.label_map))],
            **({"detected": [detected.settings.stored(), detected.extraction.rule()]} if detected else {}),
            "model": asdict(config),
            "precision": settings.precision,
            "rerank": self.predictor.can_rerank,
        }
        return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()

    def _read(self) -> tuple[dict[str, str], VideoTokens | None]:
        """Stamps by name, in the order of the features; nothing when the file is another model's, or damaged."""
        if not self.path.is_file():
            return {}, None
        try:
            check_arrays(self.path)
            with np.load(self.path, allow_pickle=False) as file:
                if str(file["key"]) != self._key():
                    self.predictor.log(f"{self.path}: of another model or other settings; made anew")
                    return {}, None
                stamps = json.loads(str(file["stamps"]))
                parts = [torch.from_numpy(file[name]) if name in file else None for name in TOKEN_PARTS]
            tokens = VideoTokens(*parts)  # type: ignore[arg-type]
            self._check(stamps, tokens)
        except (OSError, EOFError, ValueError, KeyError, TypeError, RecursionError, *DAMAGE) as error:
            self.predictor.log(f"{self.path}: not a readable index ({error}); made anew")
            return {}, None
        return stamps, tokens

    def _check(self, stamps: Any, tokens: VideoTokens) -> None:
        """Raise ValueError for parts that are not of the clips that the file lists, or not of this model."""
        if not isinstance(stamps, dict) or not all(isinstance(stamp, str) for stamp in stamps.values()):
            raise ValueError("its list of videos is none")
        width = self.predictor.model(RetrievalModel).config.embed_dim
        for place, (name, part) in enumerate(zip(TOKEN_PARTS, tokens, strict=True)):
            is_mask = name.endswith("mask")
            if part is None and name not in ("frames", "frame_mask"):
                continue
            if part is None or part.shape[:1] != (len(stamps),) or part.ndim != (2 if is_mask else 3):
                raise ValueError(f"its {name} are not those of {len(stamps)} videos")
            if is_mask != (part.dtype == torch.bool) or not (is_mask or part.shape[2] == width):
                raise ValueError(f"its {name} are not of this model")
            if not is_mask and not (part.dtype == torch.float32 and part.isfinite().all()):
                raise ValueError(f"its {name} are not finite numbers in single precision")
            masked = tokens[place - 1]
            if is_mask and (masked is None or masked.shape[:2] != part.shape):
                raise ValueError(f"its {name} fits no tokens")  # a mask follows its tokens

    def _write(self, stamps: dict[str, str], tokens: VideoTokens) -> None:
        numbers = zip(TOKEN_PARTS, tokens, strict=True)
        arrays: dict[str, Any] = {name: part.numpy() for name, part in numbers if part is not None}
        try:
            with atomic_file(self.path) as file:
                key, text = np.array(self._key()), np.array(json.dumps(stamps))
                np.savez(file, key=key, stamps=text, **arrays)
        except OSError as error:  # such as a full disk
            self.predictor.log(f"{self.path}: cannot be written ({error}); what was encoded is not kept")


def _stamp(path: str | Path) -> str:
    """Size and time of a file; ABSENT of a link to nowhere, which its reader names."""
    try:
        return file_stamp(path)
    except OSError:
        return ABSENT
