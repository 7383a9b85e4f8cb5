"""Flags of retrieval and multiple choice: which files they name, and how a split is ranked."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from dataloaders.frames import FrameSettings
from modules.config import ModelConfig
from modules.tasks.multiple_choice import MultipleChoiceModel
from modules.tasks.retrieval import CaptionRankedModel, RetrievalModel
from tests import tiny
from utils.data.retrieval import (
    ChoiceArguments,
    RetrievalArguments,
    has_validation,
    list_path,
    open_choices,
    open_split,
    ranking_of,
    read_split,
)
from utils.evaluation.bad_videos import BadVideos
from utils.evaluation.retrieval import RankingSettings

CONFIG = ModelConfig(max_frames=3)


def arguments(folder: Path = Path("none"), datatype: str = "msrvtt_retrieval", **flags: Any) -> RetrievalArguments:
    kind = ChoiceArguments if datatype == "msrvtt_mc" else RetrievalArguments
    return kind(**{"output_dir": str(folder / "out"), "do_train": True, "datatype": datatype, **flags})


def test_of_didemo_the_seconds_that_are_described_are_read_unless_said_otherwise():
    assert arguments(datatype="didemo_retrieval").frames == FrameSettings(end_seconds=31.0)
    own = FrameSettings(2.0, end_seconds=10.0)
    assert arguments(datatype="didemo_retrieval", frames=own).frames == own
    assert arguments(datatype="didemo_retrieval", frames=FrameSettings(2.0)).frames == FrameSettings(2.0, 2, 31.0)
    assert arguments(datatype="lsmdc_retrieval").frames.end_seconds is None


def test_retrieval_and_multiple_choice_have_data_sets_of_their_own():
    with pytest.raises(ValueError, match="--datatype msrvtt_mc: choose one of msrvtt_retrieval, msvd_retrieval, lsmdc"):
        RetrievalArguments(output_dir="out", do_train=True, datatype="msrvtt_mc")
    with pytest.raises(ValueError, match="--datatype msvd_retrieval: choose one of msrvtt_mc"):
        ChoiceArguments(output_dir="out", do_train=True, datatype="msvd_retrieval")


def test_msrvtt_has_a_validation_split_beside_a_test_list_alone():
    assert not has_validation(arguments(val_csv="a.csv"))
    both = arguments(val_csv="a.csv", test_csv="b.csv")
    assert has_validation(both) and has_validation(arguments(datatype="msvd_retrieval"))
    assert [list_path(both, name) for name in ("val", "test")] == ["a.csv", "b.csv"]
    assert [list_path(arguments(val_csv="a.csv"), name) for name in ("val", "test")] == ["a.csv", "a.csv"]


def test_a_test_list_that_is_not_there_is_named_by_its_flag(tmp_path: Path):
    none = str(tmp_path / "none.csv")
    with pytest.raises(FileNotFoundError, match="--val_csv"):
        read_split(arguments(val_csv=none), "test")
    with pytest.raises(FileNotFoundError, match="--test_csv"):
        read_split(arguments(val_csv=none, test_csv=none), "test")


PLACES: dict[str, tuple[str, str, dict[str, int]]] = {
    "msrvtt": ("MSRVTT_data.json", "videos", {"train": 24, "val": 6, "test": 9}),
    "msvd": ("", "YouTubeClips", {"train": 6, "val": 6, "test": 9}),
    "lsmdc": ("", "videos", {"train": 7, "val": 6, "test": 9}),
    "didemo": ("", "videos.lmdb", {"train": 5, "val": 6, "test": 9}),
}


@pytest.mark.parametrize("data_set", PLACES)
def test_splits_of_every_data_set_are_opened_with_their_clips(demo_world: Path, tmp_path: Path, data_set: str):
    # A copy: a process opens an LMDB once, and other tests open this one otherwise.
    root, (captions, videos, counts) = shutil.copytree(demo_world / data_set, tmp_path / "data"), PLACES[data_set]
    flags = {"data_path": str(root / captions), "features_path": str(root / videos)}
    if data_set == "msrvtt":
        flags |= {f"{name}_csv": str(root / f"{name}.csv") for name in counts}
    args, said = arguments(tmp_path, f"{data_set}_retrieval", **flags), list[str]()
    for name, count in counts.items():
        clips = open_split(args, CONFIG, name, said.append)
        assert len(clips.split.video_ids) == count and said[-1].startswith(f"{name}: {count} videos, ")
        assert clips.reader.settings.is_training == (name == "train")
    assert clips.reader.read(clips.split.video_ids[0], 0)["video_mask"].all()


def test_questions_whose_video_is_missing_are_left_out(demo_world: Path, tmp_path: Path):
    root = demo_world / "msrvtt"
    lines = [json.loads(line) for line in (root / "mc_test.jsonl").read_text().splitlines()]
    lines.insert(1, {**lines[0], "clip_name": "gone", "qid": 100})
    lines.append({**lines[0], "qid": 101})
    path = tmp_path / "mc.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    flags = {"val_csv": str(path), "features_path": str(root / "videos")}
    with pytest.raises(BadVideos, match="1 of 10 test videos are not in .*: gone"):
        open_choices(arguments(tmp_path, "msrvtt_mc", **flags), CONFIG, "test", print)
    said: list[str] = []
    found = open_choices(arguments(tmp_path, "msrvtt_mc", on_bad_video="skip", **flags), CONFIG, "test", said.append)
    assert [item.item_id for item in found.items] == [str(number) for number in (*range(9), 101)]
    assert len(found.clips.split.video_ids) == 9, "two questions share a clip"
    assert found.clips.missing == ["gone"] and said[-1] == f"test: 10 questions of {path}"


def ranked(model: RetrievalModel, warned: list[str], *new: str, **flags: Any) -> RankingSettings:
    """How a model whose parameters `new` nothing gave a value is ranked."""
    model.new_names = frozenset(new)
    return ranking_of(arguments(ranking=RankingSettings(16, dsl=True), **flags), model, warned.append)


def test_a_matching_head_with_values_re_ranks():
    warned: list[str] = []
    found = ranked(tiny.model(RetrievalModel), warned, "similarity.x", do_train=False, do_eval=True)
    assert found == RankingSettings(16, dsl=True) and warned == []


def test_a_new_matching_head_re_ranks_only_when_it_will_be_trained():
    warned: list[str] = []
    model = tiny.model(RetrievalModel)
    assert ranked(model, warned, "matching_head.match").rerank_top == 16 and warned == []
    found = ranked(model, warned, "matching_head.match", do_train=False, do_eval=True)
    assert found == RankingSettings(0, dsl=True)
    assert len(warned) == 1 and "the matching head has not been trained" in warned[0]


def test_a_model_without_matching_head_has_no_second_stage_and_that_is_no_warning():
    warned: list[str] = []
    model = tiny.model(MultipleChoiceModel, need_object=False, use_action=False)
    for flags in ({}, {"do_train": False, "do_eval": True}):
        assert ranked(model, warned, "clip.logit_scale", **flags) == RankingSettings(0, dsl=True)
    assert warned == []


def by_captions(*new: str, **flags: Any) -> RankingSettings:
    """As `ranked`, with --rerank_by caption."""
    model = tiny.model(CaptionRankedModel)
    model.new_names = frozenset(new)
    args = arguments(ranking=RankingSettings(16, rerank_by="caption"), **{"loss_weights": {"vtm": 0.0}, **flags})
    return ranking_of(args, model, pytest.fail)


def test_ranking_by_captions_needs_a_head_that_has_learned_them():
    evaluation = {"do_train": False, "do_eval": True, "loss_weights": {}}
    for flags in ({}, evaluation):
        assert by_captions("matching_head.match", **flags) == RankingSettings(16, rerank_by="caption")
        with pytest.raises(ValueError, match="--init_model has not learned captions; name a checkpoint of captioning"):
            by_captions("vocabulary_head.proj", **flags)


def test_ranking_by_captions_does_not_mix_two_models():
    model = tiny.model(CaptionRankedModel)
    args = arguments(ranking=RankingSettings(16, rerank_by="caption"), do_train=False, do_eval=True)
    model.borrowed_names = frozenset({"matching_head.match"})
    assert ranking_of(args, model, pytest.fail) == args.ranking
    model.borrowed_names = frozenset({"vocabulary_head.proj"})
    with pytest.raises(ValueError, match="that of --init_heads and reads another fusion encoder"):
        ranking_of(args, model, pytest.fail)


@pytest.mark.parametrize("weights", [{}, {"vtm": 2.0}, {"contrastive": 1.0}])
def test_ranking_by_captions_is_not_trained_beside_the_matching_loss(weights: dict[str, float]):
    with pytest.raises(ValueError, match="train the fusion encoder away .* add --loss_weights vtm=0"):
        by_captions(loss_weights=weights)


def test_multiple_choice_is_not_ranked_by_captions():
    with pytest.raises(ValueError, match="--rerank_by caption: retrieval has it"):
        arguments(datatype="msrvtt_mc", ranking=RankingSettings(rerank_by="caption"))
