"""Tables of one's own, opened with their clips: the same samples as of a data set with files of its own form."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from dataloaders.frame_cache import FrameCacheSettings
from dataloaders.question_samples import AnswerCode
from dataloaders.questions import most_frequent_answers
from modules.config import ModelConfig
from modules.tokenizer import ClipTokenizer
from tests.utils.own_tables import OwnData, make_own
from utils.data import captions, questions, retrieval
from utils.data.captions import CaptionArguments
from utils.data.clips import SplitClips
from utils.data.questions import AnswerArguments
from utils.data.retrieval import ChoiceArguments, RetrievalArguments

CONFIG = ModelConfig(max_frames=12, image_resolution=32, need_object=True, object_count=4)
SPLITS = ("train", "val", "test")


@pytest.fixture
def msrvtt(demo_world: Path, tmp_path: Path) -> Path:
    """A copy of the demo world in MSR-VTT's form."""
    return Path(shutil.copytree(demo_world / "msrvtt", tmp_path / "msrvtt"))


@pytest.fixture
def own(msrvtt: Path, tmp_path: Path) -> OwnData:
    """The same as tables."""
    return make_own(msrvtt, tmp_path / "own")


def flags(demo_world: Path, folder: Path, features: Path, objects: Path, **more: str) -> dict[str, Any]:
    return {
        "output_dir": str(folder / "out"), "do_train": True, "features_path": str(features),
        "object_path": str(objects), "labelmap_path": str(demo_world / "label_map.json"), "num_thread_reader": 1,
        **more,
    }  # fmt: skip


def assert_same_clips(own: SplitClips, other: SplitClips, split: str) -> None:
    """Ids are paths of the one and names of the other; frames and boxes are the same."""
    assert own.split.video_ids == [f"{split}/{video_id}" for video_id in other.split.video_ids] and not own.missing
    mine, theirs = own.reader.read(own.split.video_ids[0], 7), other.reader.read(other.split.video_ids[0], 7)
    assert mine.keys() == theirs.keys() and (mine["boxes"] != -1).any()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine if isinstance(mine[name], torch.Tensor))


def test_captions_are_those_of_msrvtt(demo_world: Path, msrvtt: Path, own: OwnData, tmp_path: Path):
    theirs = flags(demo_world, tmp_path, msrvtt / "videos", msrvtt / "objects", datatype="msrvtt_caption")
    lists = {f"{split}_csv": str(msrvtt / f"{split}.csv") for split in SPLITS}
    other = CaptionArguments(**theirs, **lists, data_path=str(msrvtt / "MSRVTT_data.json"))
    mine = flags(demo_world, tmp_path, own.clips, own.objects, datatype="csv")
    one = {"data_csv": own.table(tmp_path / "all.csv", "captions")}
    three = {f"{split}_csv": own.table(tmp_path / f"{split}.csv", "captions", (split,)) for split in SPLITS}
    for tables in (one, three):
        args = CaptionArguments(**mine, **tables)
        assert captions.has_validation(args)
        for split in SPLITS:
            found, expected = (captions.open_split(given, CONFIG, split, print) for given in (args, other))
            assert found.split.captions == expected.split.captions
            assert_same_clips(found, expected, split)
    for_retrieval = RetrievalArguments(**mine, **one)
    assert retrieval.has_validation(for_retrieval)
    assert retrieval.read_split(for_retrieval, "test").by_video() == captions.read_split(args, "test").by_video()


def test_questions_are_those_of_msrvtt(demo_world: Path, msrvtt: Path, own: OwnData, tmp_path: Path):
    theirs = flags(demo_world, tmp_path, msrvtt / "videos", msrvtt / "objects", datatype="msrvtt_qa")
    other = AnswerArguments(**theirs, **{f"msrvtt_qa_{name}_json": str(msrvtt / f"qa/{name}.jsonl") for name in SPLITS})
    table = own.table(tmp_path / "all.csv", "questions")
    args = AnswerArguments(**flags(demo_world, tmp_path, own.clips, own.objects, datatype="csv", data_csv=table))
    assert questions.has_validation(args) and args.features_path == str(own.clips)
    answers = questions.choose_answers(args, print)
    assert answers == most_frequent_answers(questions.read_questions(other, "train"))
    code = AnswerCode(answers, ClipTokenizer(CONFIG.vocab_size))
    for split in ("train", "test"):
        found, expected = (questions.open_questions(given, CONFIG, split, code, print) for given in (args, other))
        assert found.questions == [q._replace(video_id=f"{split}/{q.video_id}") for q in expected.questions]
        assert_same_clips(found.clips, expected.clips, split)


def test_choices_are_those_of_msrvtt(demo_world: Path, msrvtt: Path, own: OwnData, tmp_path: Path):
    theirs = flags(demo_world, tmp_path, msrvtt / "videos", msrvtt / "objects", datatype="msrvtt_mc")
    other = ChoiceArguments(**theirs, test_csv=str(msrvtt / "mc_test.jsonl"))
    table = own.table(tmp_path / "test.csv", "choices", ("test",))
    mine = flags(demo_world, tmp_path, own.clips, own.objects, datatype="csv")
    args = ChoiceArguments(**mine, test_csv=table, train_csv=own.table(tmp_path / "t.csv", "captions", ("train",)))
    assert not retrieval.has_validation(args)
    found, expected = (retrieval.open_choices(given, CONFIG, "test", print) for given in (args, other))
    ids = [item.item_id for item in expected.items]
    assert found.items == [
        item._replace(video_id=f"test/{item.video_id}", item_id=own_item.item_id)
        for item, own_item in zip(expected.items, found.items, strict=True)
    ] and len(ids) == len(set(ids))
    assert_same_clips(found.clips, expected.clips, "test")
    assert set(retrieval.read_split(args, "train").files) == set(
        retrieval.open_split(args, CONFIG, "train", print).split.files
    )


def test_object_files_may_lie_flat_and_one_store_then_serves_all_splits(
    demo_world: Path, msrvtt: Path, own: OwnData, tmp_path: Path
):
    table = own.table(tmp_path / "all.csv", "captions")
    mine = flags(demo_world, tmp_path, own.clips, msrvtt / "objects", datatype="csv", data_csv=table)
    args = RetrievalArguments(**mine, cache=FrameCacheSettings(str(tmp_path / "cache")))
    for split in SPLITS:
        clips = retrieval.open_split(args, CONFIG, split, print)
        names = {video_id: video_id.rpartition("/")[2] for video_id in clips.split.video_ids}
        assert clips.split.object_names == names
        first, again = (clips.reader.read(clips.split.video_ids[0], 7) for _ in range(2))
        assert (first["boxes"] != -1).any() and torch.equal(first["video"], again["video"])
    assert len(list((msrvtt / "objects").glob("*.lmdb"))) == 1


def test_a_path_that_is_not_there_is_missing_though_its_name_is_elsewhere(
    demo_world: Path, own: OwnData, tmp_path: Path
):
    for row in own.rows["captions"]["test"]:
        row["video"] = row["video"].removeprefix("test/")
    mine = flags(demo_world, tmp_path, own.clips, own.objects, datatype="csv")
    args = RetrievalArguments(**mine, test_csv=own.table(tmp_path / "test.csv", "captions", ("test",)))
    with pytest.raises(
        FileNotFoundError, match=r"none of the 9 test videos is in .*; the first: \w+, a path below that"
    ):
        retrieval.open_split(args, ModelConfig(max_frames=12), "test", print)
