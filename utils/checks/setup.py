"""From flags to the lists of a data set that is to be checked, and to where its videos lie."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from dataloaders.caption_split import CaptionSplit
from dataloaders.datasets import csv_files, didemo, msrvtt, msvd
from dataloaders.id_lists import listed_ids
from dataloaders.multiple_choice import ChoiceItem, read_choices
from dataloaders.object_records import ObjectSettings
from dataloaders.question_samples import AnswerCode
from dataloaders.questions import Question
from dataloaders.samples import SampleSettings
from dataloaders.video_files import LMDB_FILE, VideoLmdb, find_named_videos, find_videos, lmdb_keys, videos_below
from modules.config import ModelConfig, setting
from utils.checks.clips import ClipSettings
from utils.checks.findings import Finding, first_ids
from utils.data import captions, questions, retrieval
from utils.data.captions import CaptionArguments
from utils.data.pretraining import PretrainArguments
from utils.data.questions import AnswerArguments, answerable, choose_answers, read_questions
from utils.data.retrieval import ChoiceArguments, RetrievalArguments
from utils.preparation.webvid_rows import EMPTY_CAPTION, REPEATED_ID, read_rows, survey_csv, video_places
from utils.settings.arguments import OWN

SPLITS = ("train", "val", "test")
PRETRAIN = "pretrain"
WEBVID = "webvid"


@dataclass
class CheckArguments(RetrievalArguments, CaptionArguments, AnswerArguments, PretrainArguments):
    """What is checked, beside the flags of the tasks."""

    DATA_TYPES: ClassVar[tuple[str, ...]] = (
        PRETRAIN,
        WEBVID,
        *RetrievalArguments.DATA_TYPES,
        *(name for name in ChoiceArguments.DATA_TYPES if name != OWN),
        *(name for name in CaptionArguments.DATA_TYPES if name != OWN),
        *(name for name in AnswerArguments.DATA_TYPES if name != OWN),
    )

    splits: str | None = setting(None, "splits to check, e.g. train,test; default: all that the task would read")
    min_candidates: int | None = setting(
        None, "videos with fewer candidate frames are noted as short; default: --max_frames", minimum=0
    )
    resolution: int = setting(
        ModelConfig.image_resolution, "side of the model's picture, whose frames --frame_cache has", minimum=1
    )
    workers: int = setting(2, "processes that decode", minimum=1)
    output: str | None = setting(None, "file of all findings, tab-separated; default: {output_dir}/data_check.tsv")
    json: str | None = setting(None, "write counts and findings to this JSON file too")

    def __post_init__(self) -> None:
        self.do_train = self.do_train or not self.do_eval
        super().__post_init__()
        unknown = set(self.splits.split(",")) - set(SPLITS) if self.splits else set()
        if unknown:
            raise ValueError(f"--splits {self.splits}: write some of {', '.join(SPLITS)}, with commas")

    @property
    def task(self) -> str:
        """The second part of the data type: retrieval, mc, caption, qa; csv of one's own, "" for pre-training."""
        return OWN if self.is_own else self.datatype.partition("_")[2]

    @property
    def checks_objects(self) -> bool:
        """Whether the task reads objects, or a folder of them is on the command line."""
        return self.model.need_object or self.object_path != RetrievalArguments.object_path

    def path(self, name: str) -> str | None:
        """As `AnswerArguments.path`; None for data sets without questions."""
        return getattr(self, f"{self.data_set}_{name}", None)

    def split_names(self) -> list[str]:
        """The splits to check."""
        if not self.task:
            return ["train"]
        if self.splits:
            return [name for name in SPLITS if name in self.splits.split(",")]
        names = SPLITS if self.do_train else ("test",)
        return [name for name in names if self._has_split(name)]

    def _has_split(self, name: str) -> bool:
        if name != "val":
            return True
        if self.is_own:
            return self._has_own_validation()
        if self.task == "qa":
            return questions.has_validation(self)
        return captions.has_validation(self) if self.task == "caption" else retrieval.has_validation(self)

    def _has_own_validation(self) -> bool:
        """Whether the tables have validation rows; True if they cannot be read, so that this is reported."""
        try:
            return self.is_list_given("val") or bool(csv_files.kinds_of(self.table("val")))
        except (OSError, ValueError):
            return self.data_csv is not None

    @property
    def max_frames(self) -> int:
        """Frames of a clip, with the default of a new model: no weight file is opened here."""
        return self.model.max_frames or ModelConfig.max_frames

    @property
    def object_settings(self) -> ObjectSettings:
        """The settings by which training reads object files."""
        return ObjectSettings(self.model.object_count or ModelConfig.object_count, self.max_frames, self.objects)


def clip_settings(args: CheckArguments, label_map: dict[str, Any] | None) -> ClipSettings:
    """The settings by which training reads videos and objects."""
    return ClipSettings(
        max_frames=args.max_frames,
        frames=args.frames,
        min_candidates=args.max_frames if args.min_candidates is None else args.min_candidates,
        objects=args.object_settings,
        has_original_boxes=args.samples.box_coordinates == "original",
        label_map=label_map,
    )


def sample_settings(args: CheckArguments) -> SampleSettings:
    """The settings by which training finds frames in a cache."""
    return SampleSettings(args.resolution, args.max_frames, frames=args.frames)


@dataclass
class ListedSplit:
    """Videos that a split names, in its order, and what is wrong with its annotations.

    object_names: stem of the object file by video id, where it is not the id. page_dirs: folder by video id (WebVid).
    files: path of the video by id, where ids are paths (`CaptionSplit.files`).
    """

    name: str
    video_ids: list[str]
    findings: list[Finding]
    object_names: Mapping[str, str] = field(default_factory=dict)
    page_dirs: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)


def read_list(args: CheckArguments, name: str) -> ListedSplit:
    """Read the annotations of a split through the reader that the task has.

    Raises:
        OSError, ValueError, BadCsv: the task could not read them either; the message names the file.
    """
    if args.datatype == WEBVID:
        return _read_webvid(Path(args.train_csv))
    if args.is_own:
        return _read_own(args, name)
    if args.task == "qa":
        return _read_questions(args, name)
    if args.task == "mc" and name != "train":
        path = retrieval.list_path(args, name)
        return _listed_choices(read_choices(path), path, name)
    if args.task == "caption":
        return _read_captions(args, name, captions.read_split(args, name))
    return _read_captions(args, name, retrieval.read_split(args, name))


def _read_webvid(path: Path) -> ListedSplit:
    _, repeated = survey_csv(path)
    page_dirs: dict[str, str] = {}
    findings = []
    for row in read_rows(path, 1, repeated):
        if row.fault_kind:
            findings.append(Finding(row.fault_kind, row.video_id, str(path), f"row {row.shard + 1} of the csv"))
        else:
            page_dirs[row.video_id] = row.page_dir
    if not page_dirs:
        raise ValueError(f"{path}: no row can be used")
    return ListedSplit("train", list(page_dirs), findings, page_dirs=page_dirs)


def _read_own(args: CheckArguments, name: str) -> ListedSplit:
    """A split of tables of one's own, through the readers of all tasks of which it has rows."""
    table = args.table(name)
    kinds = csv_files.kinds_of(table)
    if not kinds:
        columns = "; ".join(", ".join(kind.columns) for kind in csv_files.KINDS)
        raise ValueError(f"{table.path}: no row of {name} that a task reads; tables have the columns {columns}")
    found: list[ListedSplit] = []
    if csv_files.CAPTIONS in kinds:
        found.append(_read_captions(args, name, csv_files.read_captions(table, of_choices=True)))
    if csv_files.QUESTIONS in kinds:
        asked, files = csv_files.read_questions(table)
        found.append(replace(_listed_questions(asked, str(table.path), name), files=files))
    if csv_files.CHOICES in kinds and name != "train":
        items, files = csv_files.read_choices(table)
        found.append(replace(_listed_choices(items, str(table.path), name), files=files))
    files = {video_id: path for part in found for video_id, path in part.files.items()}
    findings = [finding for part in found for finding in part.findings]
    names = csv_files.object_names(args.object_path, list(files)) if args.checks_objects else {}
    return ListedSplit(name, list(files), findings, names, files=files)


def _read_questions(args: CheckArguments, name: str) -> ListedSplit:
    asked = read_questions(args, name)
    if name == "train":
        answerable(asked, AnswerCode(choose_answers(args, _no_log)), _no_log)
    return _listed_questions(asked, args.required(f"qa_{name}_json"), name)


def _listed_questions(asked: Sequence[Question], path: str, name: str) -> ListedSplit:
    findings = [
        Finding("empty_question", question.video_id, path, f"question {question.question_id}: no text or no answer")
        for question in asked
        if not question.is_whole
    ]
    findings += _repeated((question.question_id for question in asked), path)
    return ListedSplit(name, list(dict.fromkeys(question.video_id for question in asked)), findings)


def _listed_choices(items: Sequence[ChoiceItem], path: str, name: str) -> ListedSplit:
    findings = [
        Finding("empty_question", item.video_id, path, f"question {item.item_id}: an option without text")
        for item in items
        if not item.is_whole
    ]
    findings += _repeated((item.item_id for item in items), path)
    return ListedSplit(name, list(dict.fromkeys(item.video_id for item in items)), findings)


def _read_captions(args: CheckArguments, name: str, split: CaptionSplit) -> ListedSplit:
    where = str(args.table(name).path if args.is_own else _list_path(args, name) or args.data_path)
    listed = _list_ids(args, name)
    findings = list(_repeated(listed, where))
    captioned = set(split.video_ids)
    for video_id in dict.fromkeys(listed):
        if video_id not in captioned:
            findings.append(Finding("no_caption", video_id, where, f"listed for {name}; left out"))
    empty = Counter(video_id for video_id, caption in _texts(args, name, split) if not caption.strip())
    findings += [Finding(EMPTY_CAPTION, video_id, where, f"{count} in {name}") for video_id, count in empty.items()]
    if not listed:
        pairs = Counter(split.pairs())
        findings += [
            Finding("repeated_row", pair.video_id, where, f"{count} times in {name}: {pair.caption}")
            for pair, count in pairs.items()
            if count > 1 and _is_table(args, name)
        ]
    return ListedSplit(name, split.video_ids, findings, split.object_names, files=split.files)


def _texts(args: CheckArguments, name: str, split: CaptionSplit) -> Iterator[tuple[str, str]]:
    """Texts as they were written; in DiDeMo a video's caption is several of them in one."""
    if args.data_set != "didemo":
        yield from split.pairs()
        return
    names = didemo.read_names(args.data_path, name)
    for video, text in didemo.read_descriptions(Path(args.data_path, f"{name}_data.json")):
        if names.get(didemo.video_id_of(video)) == video:
            yield didemo.video_id_of(video), text


def _is_table(args: CheckArguments, name: str) -> bool:
    """Whether a file of the split has a row per video and caption."""
    is_test_list = args.task == "retrieval" and args.data_set == "msrvtt" and name != "train"
    return args.data_set in ("lsmdc", OWN) or is_test_list


def _list_path(args: CheckArguments, name: str) -> Path | None:
    """The file that lists the videos of a split alone; None where captions and videos are one file."""
    if args.data_set in ("msvd", "didemo"):
        return Path(args.data_path, f"{name}_list.txt")
    if args.task == "caption":
        own = captions.list_flag(args, name)
        return Path(getattr(args, own)) if own else None
    if _is_table(args, name):
        return None
    return Path(args.train_csv)


def _list_ids(args: CheckArguments, name: str) -> list[str]:
    path = _list_path(args, name)
    ids = listed_ids(path) if path else []
    return [didemo.video_id_of(video_id) for video_id in ids] if args.data_set == "didemo" else ids


def _repeated(ids: Iterable[str], path: str) -> Iterator[Finding]:
    for video_id, count in Counter(ids).items():
        if count > 1:
            yield Finding(REPEATED_ID, video_id, path, f"listed {count} times")


def compare_splits(args: CheckArguments, splits: Sequence[ListedSplit]) -> Iterator[Finding]:
    """Videos that are in several splits, and captions of videos that are in none; ValueError as `check_splits`."""
    csv_files.check_splits({split.name: split for split in splits})
    places: dict[str, list[str]] = {}
    for split in splits:
        for video_id in split.video_ids:
            places.setdefault(video_id, []).append(split.name)
    for video_id, names in places.items():
        if len(names) > 1:
            yield Finding("in_two_splits", video_id, "", ", ".join(names))
    listed = {*places, *(finding.video_id for split in splits for finding in split.findings)}
    unlisted = Counter(video_id for video_id in _captioned(args) if video_id not in listed)
    if unlisted:
        detail = f"{unlisted.total()} captions of {len(unlisted)} videos: {first_ids(list(unlisted))}"
        yield Finding("unlisted_captions", "", str(args.data_path), detail)


def _captioned(args: CheckArguments) -> Iterator[str]:
    """The video of each caption in a file of captions that serves all splits."""
    if args.task not in ("retrieval", "caption", "mc"):
        return
    if args.data_set == "msvd":
        for video_id, texts in msvd.read_captions(Path(args.data_path, msvd.CAPTION_FILE)).items():
            yield from [video_id] * len(texts)
    elif args.data_set == "msrvtt" and (args.task == "caption" or "train" in args.split_names()):
        yield from (pair.video_id for pair in msrvtt.read_captions(Path(args.data_path)))


@dataclass
class Located:
    """Places of videos: `files` by id, or an `lmdb`; the ids that are `missing`; files or keys of no list."""

    files: Mapping[str, str]
    lmdb: str | None
    missing: list[str]
    unreferenced: list[Finding]


def locate_videos(args: CheckArguments, splits: Sequence[ListedSplit]) -> Located:
    """Find the videos of all splits as the task does.

    Raises:
        OSError: --features_path is no folder, or an LMDB that cannot be read.
        ValueError: a path without extension may be several files.
    """
    folder = Path(args.features_path)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder of videos (--features_path)")
    ids = list(dict.fromkeys(video_id for split in splits for video_id in split.video_ids))
    if args.datatype != WEBVID and (folder / LMDB_FILE).is_file():
        videos = VideoLmdb(folder, ids)
        wanted = set(ids)
        others = [Finding("unreferenced_video", key, str(folder), "") for key in lmdb_keys(folder) if key not in wanted]
        return Located({}, str(folder), videos.missing, others)
    if args.datatype == WEBVID:
        found = _webvid_files(folder, splits)
        missing = [video_id for video_id in ids if video_id not in found]
    else:
        files = {video_id: path for split in splits for video_id, path in split.files.items()}
        paths, missing = find_named_videos(folder, files) if files else find_videos(folder, ids)
        found = {video_id: str(path) for video_id, path in paths.items()}
    used = {Path(path) for path in found.values()}
    others = [
        Finding("unreferenced_video", path.stem, str(path), "") for path in videos_below(folder) if path not in used
    ]
    return Located(found, None, missing, others)


def _webvid_files(folder: Path, splits: Sequence[ListedSplit]) -> dict[str, str]:
    found = {}
    for split in splits:
        for video_id, page_dir in split.page_dirs.items():
            path = next((path for path in video_places(folder, page_dir, video_id) if path.is_file()), None)
            if path:
                found[video_id] = str(path)
    return found


def _no_log(_: str) -> None:
    """What is counted here is no fault."""
