"""From flags to the data of text-video retrieval and multiple choice."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from dataloaders.caption_split import CaptionSplit
from dataloaders.datasets import csv_files, didemo, lsmdc, msrvtt, msvd
from dataloaders.multiple_choice import ChoiceItem, read_choices
from modules.config import ModelConfig
from modules.tasks.retrieval import RetrievalModel
from utils.data.clips import Log, SplitClips, open_captioned, open_task_clips, whole_questions
from utils.evaluation.retrieval import CAPTION, RankingSettings
from utils.settings.arguments import OWN, PairArguments
from utils.settings.fields import group

READERS = {"msvd": msvd.read_split, "lsmdc": lsmdc.read_split, "didemo": didemo.read_split}
DIDEMO_SECONDS = 31.0  # its annotations are about the first 30 s; the released loader reads seconds 0 to 31


@dataclass
class RetrievalArguments(PairArguments):
    """Flags of retrieval and multiple choice."""

    DATA_TYPES: ClassVar[tuple[str, ...]] = (
        "msrvtt_retrieval",
        "msvd_retrieval",
        "lsmdc_retrieval",
        "didemo_retrieval",
        OWN,
    )

    ranking: RankingSettings = group(RankingSettings)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.data_set == "didemo" and self.frames.end_seconds is None:
            self.frames = replace(self.frames, end_seconds=DIDEMO_SECONDS)


@dataclass
class ChoiceArguments(RetrievalArguments):
    """Flags of multiple choice."""

    DATA_TYPES: ClassVar[tuple[str, ...]] = ("msrvtt_mc", OWN)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ranking.rerank_by == CAPTION:
            raise ValueError("--rerank_by caption: retrieval has it; multiple choice is scored by the matching head")


def has_validation(args: RetrievalArguments) -> bool:
    """Whether there is a validation split; of MSR-VTT only beside a test list."""
    if args.is_own:
        return args.has_own_validation(csv_files.CHOICES if isinstance(args, ChoiceArguments) else csv_files.CAPTIONS)
    return args.data_set != "msrvtt" or args.test_csv is not None


def list_path(args: RetrievalArguments, name: str) -> str:
    """File of the `val` or `test` split, of MSR-VTT or one's own."""
    if args.is_own:
        return str(args.table(name).path)
    return args.test_csv if name == "test" and args.test_csv else args.val_csv


def read_split(args: RetrievalArguments, name: str) -> CaptionSplit:
    """Videos and captions of the `train`, `val` or `test` split."""
    if args.is_own:
        return csv_files.read_captions(args.table(name), of_choices=isinstance(args, ChoiceArguments))
    if args.data_set != "msrvtt":
        return READERS[args.data_set](args.data_path, name)
    if name == "train":
        return msrvtt.read_train_split(args.train_csv, args.data_path)
    flag_name = "--test_csv" if name == "test" and args.test_csv else "--val_csv"
    return msrvtt.read_test_split(list_path(args, name), flag_name)


def open_split(args: RetrievalArguments, config: ModelConfig, name: str, log: Log) -> SplitClips:
    """Open captions, videos and objects of a split; errors as `open_captioned`."""
    return open_captioned(args, config, read_split(args, name), name, log)


@dataclass(frozen=True)
class Choices:
    """Questions whose videos are there, and the clips."""

    items: list[ChoiceItem]
    clips: SplitClips


def open_choices(args: RetrievalArguments, config: ModelConfig, name: str, log: Log) -> Choices:
    """Questions of multiple choice of the `val` or `test` split; errors as `open_split`."""
    path = list_path(args, name)
    items, files = csv_files.read_choices(args.table(name)) if args.is_own else (read_choices(path), None)
    items = whole_questions(items, name, log)
    split = CaptionSplit.from_pairs([], [item.video_id for item in items], files=files)
    clips = open_task_clips(args, config, split, name, log)
    present = set(clips.split.video_ids)
    kept = [item for item in items if item.video_id in present]
    log(f"{name}: {len(kept)} questions of {path}")
    return Choices(kept, clips)


def ranking_of(args: RetrievalArguments, model: RetrievalModel, warn: Log) -> RankingSettings:
    """Settings of a ranking, without its second stage if the matching head is absent, or untrained and not to train.

    Raises:
        ValueError: as `_check_caption_ranking`.
    """
    if not model.needs_fusion(model.config):
        return replace(args.ranking, rerank_top=0)
    if args.ranking.rerank_by == CAPTION:
        _check_caption_ranking(args, model)
        return args.ranking
    if args.do_train or not args.ranking.rerank_top or model.is_trained("matching"):
        return args.ranking
    warn("the matching head has not been trained: results are those of the first stage, without re-ranking")
    return replace(args.ranking, rerank_top=0)


def _check_caption_ranking(args: RetrievalArguments, model: RetrievalModel) -> None:
    """ValueError if the model has not learned captions, or if training would leave behind what has."""
    if not model.is_trained("vocabulary"):
        raise ValueError(
            "--rerank_by caption: --init_model has not learned captions; name a checkpoint of captioning or "
            "pre-training, or one of retrieval that went on from there with --rerank_by caption"
        )
    if model.borrowed_names.intersection(model.part("vocabulary")):
        raise ValueError(
            "--rerank_by caption: the vocabulary head is that of --init_heads and reads another fusion encoder than "
            "that of --init_model; name a model that has learned captions with --init_model"
        )
    if args.do_train and args.loss_weights.get("vtm", 1.0):
        raise ValueError(
            "--rerank_by caption: the matching loss would train the fusion encoder away from the vocabulary head, "
            "which is not trained here; add --loss_weights vtm=0, or re-rank by the matching head"
        )
