"""From flags to the data of text-video retrieval and multiple choice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from dataloaders.caption_split import CaptionSplit
from dataloaders.datasets import didemo, lsmdc, msrvtt, msvd
from dataloaders.multiple_choice import ChoiceItem, read_choices
from modules.config import ModelConfig
from modules.retrieval import RetrievalModel
from utils.data.clips import Log, SplitClips, open_captioned, open_clips, prepare_split_objects
from utils.evaluation.retrieval import EvaluationSettings
from utils.settings.arguments import TaskArguments
from utils.settings.groups import flag

READERS = {"msvd": msvd.read_split, "lsmdc": lsmdc.read_split, "didemo": didemo.read_split}
DIDEMO_SECONDS = 31.0  # its annotations are about the first 30 s; the released loader reads seconds 0 to 31


@dataclass
class RetrievalArguments(TaskArguments):
    """Flags of retrieval and multiple choice."""

    DATA_TYPES: ClassVar[tuple[str, ...]] = (
        "msrvtt_retrieval",
        "msvd_retrieval",
        "lsmdc_retrieval",
        "didemo_retrieval",
    )

    test_csv: str | None = flag(
        None, "MSR-VTT: test list; --val_csv is then the validation list. Without it --val_csv is the test list"
    )
    rerank_top: int = flag(32, "candidates that the matching head re-ranks; 0: none", minimum=0)
    dsl: bool = flag(False, "report dual-softmax normalised results too; they use all test queries at once")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.data_set == "didemo" and self.end_seconds is None:
            self.end_seconds = DIDEMO_SECONDS

    def evaluation_settings(self, *, can_rerank: bool = True) -> EvaluationSettings:
        """How a split is scored."""
        return EvaluationSettings(
            rerank_top=self.rerank_top if can_rerank else 0,
            on_bad_video=self.on_bad_video,
            precision=self.precision,
            dsl=self.dsl,
        )


@dataclass
class ChoiceArguments(RetrievalArguments):
    """Flags of multiple choice."""

    DATA_TYPES: ClassVar[tuple[str, ...]] = ("msrvtt_mc",)


def has_split(args: RetrievalArguments, name: str) -> bool:
    """Whether there is a validation split (`val`); train and test always are."""
    return name != "val" or args.data_set != "msrvtt" or args.test_csv is not None


def list_path(args: RetrievalArguments, name: str) -> str:
    """MSR-VTT's csv or jsonl of the `val` or `test` split."""
    return args.test_csv if name == "test" and args.test_csv else args.val_csv


def read_split(args: RetrievalArguments, name: str) -> CaptionSplit:
    """Videos and captions of the `train`, `val` or `test` split."""
    if args.data_set != "msrvtt":
        return READERS[args.data_set](args.data_path, name)
    if name == "train":
        return msrvtt.read_train_split(args.train_csv, args.data_path)
    flag_name = "--test_csv" if name == "test" and args.test_csv else "--val_csv"
    return msrvtt.read_test_split(list_path(args, name), flag_name)


def open_split(args: RetrievalArguments, config: ModelConfig, name: str, log: Log) -> SplitClips:
    """Captions, videos and objects of a split; as `open_captioned`."""
    return open_captioned(args, config, read_split(args, name), name, log)


@dataclass(frozen=True)
class Choices:
    """Questions whose videos are there, and the clips."""

    items: list[ChoiceItem]
    clips: SplitClips


def open_choices(args: RetrievalArguments, config: ModelConfig, name: str, log: Log) -> Choices:
    """Questions of the `val` or `test` split of MSR-VTT's multiple choice; errors as `open_split`."""
    path = list_path(args, name)
    items = read_choices(path)
    split = CaptionSplit.from_pairs([], [item.video_id for item in items])
    objects = prepare_split_objects(args, config, name, log)
    clips = open_clips(args, config, split, name, args.features_path, objects, log, training=False)
    present = set(clips.split.video_ids)
    kept = [item for item in items if item.video_id in present]
    log(f"{name}: {len(kept)} questions of {path}")
    return Choices(kept, clips)


def can_rerank(args: RetrievalArguments, model: RetrievalModel, warn: Log) -> bool:
    """Whether the second stage means anything: the model has a matching head, and it is trained or will be."""
    if not model.needs_fusion(model.config):
        return False
    if args.do_train or not args.rerank_top or not any(name.startswith("matching_head.") for name in model.new_names):
        return True
    warn("the matching head has not been trained: results are those of the first stage, without re-ranking")
    return False
