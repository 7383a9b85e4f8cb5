"""One checkpoint on videos: what comes out does not depend on what else is asked, and what is left out is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from dataloaders.samples import SampleSettings
from modules.beam_search import SearchSettings
from modules.tasks.answering import AnswerModel
from modules.tasks.captioning import CaptionModel
from modules.tasks.pretrain import PretrainModel
from modules.tasks.retrieval import RetrievalModel
from tests.utils.checkpoints import save_tiny
from tests.videos import write_noise, write_video
from utils.evaluation.bad_videos import BadVideos
from utils.inference.predictor import PathVideos, Predictor
from utils.runtime import precision as precisions
from utils.runtime.checkpoint import CheckpointError

ANSWERS = ("dog", "cat", "two men", "soup")
CPU = torch.device("cpu")
TEXTS = ["a dog runs", "two men sing", "a red bridge"]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three videos that look different."""
    folder = tmp_path_factory.mktemp("videos")
    write_noise(folder / "b.avi", "MJPG", 20)
    return [write_video(folder / "a.mp4", 30), folder / "b.avi", write_video(folder / "c.mp4", 50, step=11)]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pre-trained model without objects."""
    return save_tiny(tmp_path_factory.mktemp("model"), need_object=False, use_action=False, max_frames=3)


def make(checkpoint: Path, **flags: Any) -> Predictor:
    return Predictor(checkpoint, **{"device": "cpu", "precision": "fp32", **flags})


def with_broken(videos: list[Path], folder: Path) -> list[Path]:
    """A file that is no video between the others."""
    (folder / "broken.mp4").write_bytes(b"no video")
    return [videos[0], folder / "broken.mp4", *videos[1:]]


def test_captions_are_those_of_each_video_alone(checkpoint: Path, videos: list[Path]):
    predictor, search = make(checkpoint, batch_size_val=2), SearchSettings(2, 6)
    together = predictor.caption(videos, search)
    assert list(together) == [str(video) for video in videos] and together.skipped == []
    for video in videos:
        assert predictor.caption([video], search) == {str(video): together[str(video)]}
    assert any(together.values())


def test_captions_are_searched_for_with_five_beams_and_no_three_tokens_twice(checkpoint: Path, videos: list[Path]):
    predictor = make(checkpoint)
    longest = predictor.model(CaptionModel).config.max_words - 1
    captions = predictor.caption(videos)
    assert captions == predictor.caption(videos, SearchSettings(5, longest, 1.0, 3))
    assert captions != predictor.caption(videos, SearchSettings(1, longest, 1.0, 0))


def test_videos_that_cannot_be_read_stop_or_are_left_out_and_named(
    checkpoint: Path, videos: list[Path], tmp_path: Path
):
    paths = with_broken(videos, tmp_path)
    with pytest.raises(BadVideos, match=r"1 clips cannot be read:\n  .*broken\.mp4"):
        make(checkpoint).caption(paths)
    predictor = make(checkpoint, on_bad_video="skip")
    captions = predictor.caption(paths, SearchSettings(1, 4))
    assert list(captions) == [str(video) for video in videos]
    assert len(captions.skipped) == 1 and "broken.mp4: not a video" in captions.skipped[0]
    bank = predictor.encode(paths)
    assert bank.kept == [0, 2, 3] and bank.skipped == captions.skipped and len(bank.tokens.frames) == 3
    matches = predictor.match(paths, TEXTS)
    assert [match.video for match in matches[::3]] == [str(video) for video in videos]
    assert matches.skipped == captions.skipped
    with pytest.raises(BadVideos, match="none of the clips"):
        predictor.encode([tmp_path / "broken.mp4"])


def test_every_text_is_matched_with_every_video_the_best_first(checkpoint: Path, videos: list[Path]):
    predictor = make(checkpoint)
    matches = predictor.match(videos, TEXTS)
    assert [match.video for match in matches] == [str(video) for video in videos for _ in TEXTS]
    texts, bank = predictor.encode_texts(TEXTS), predictor.encode(videos)
    similarity = predictor.similarity(texts, bank.tokens)
    for column, video in enumerate(videos):
        own = matches[3 * column : 3 * column + 3]
        assert sorted(match.text for match in own) == sorted(TEXTS)
        probabilities = [match.probability or 0.0 for match in own]
        assert probabilities == sorted(probabilities, reverse=True) and 0 < min(probabilities) < 1
        for match in own:
            assert match.similarity == pytest.approx(float(similarity[TEXTS.index(match.text), column]), abs=1e-6)
            [alone] = predictor.match([video], [match.text])
            assert alone.similarity == pytest.approx(match.similarity, abs=1e-5)
            assert alone.probability == pytest.approx(match.probability, abs=1e-5)


def test_without_a_trained_matching_head_the_similarity_decides(tmp_path: Path, videos: list[Path]):
    predictor = make(save_tiny(tmp_path, CaptionModel, need_object=False, use_action=False, max_frames=3))
    assert not predictor.can_rerank
    matches = predictor.match(videos, TEXTS)
    assert {match.probability for match in matches} == {None}
    for start in range(0, 9, 3):
        values = [match.similarity for match in matches[start : start + 3]]
        assert values == sorted(values, reverse=True)


@pytest.mark.parametrize("header", ["meanP", "seqTransf", "tightTransf"])
def test_pooled_features_give_the_same_similarity_where_there_are_any(tmp_path: Path, videos: list[Path], header: str):
    sizes = {"need_object": False, "use_action": False, "max_frames": 3, "sim_header": header, "header_layers": 1}
    predictor = make(save_tiny(tmp_path, RetrievalModel, **sizes))
    texts, tokens = predictor.encode_texts(TEXTS), predictor.encode(videos).tokens
    plain, pooled = predictor.similarity(texts, tokens), predictor.pool(tokens)
    assert plain.shape == (3, 3)
    if header == "tightTransf":
        assert pooled is None and predictor.logit_scale == 1
        return
    assert pooled is not None
    torch.testing.assert_close(pooled.norm(dim=-1), torch.ones(3))
    torch.testing.assert_close(predictor.similarity(texts, tokens, pooled), plain, rtol=1e-5, atol=1e-6)
    assert plain.abs().max() <= 1 and predictor.logit_scale > 1


def test_answers_are_ranked_by_their_probability(tmp_path: Path, videos: list[Path]):
    sizes = {"need_object": False, "use_action": False, "max_frames": 3, "answers": ANSWERS}
    predictor = make(save_tiny(tmp_path, AnswerModel, **sizes))
    answers = predictor.answer(videos[0], ["what is it?", "who sings?"], top=10)
    assert [answer.question for answer in answers] == ["what is it?", "who sings?"]
    for item in answers:
        values = [item.probability, *(value for _, value in item.others)]
        assert values == sorted(values, reverse=True) and sum(values) == pytest.approx(1, abs=1e-5)
        assert {item.answer, *(answer for answer, _ in item.others)} == set(ANSWERS) and item.video == str(videos[0])
    [best] = predictor.answer(videos[0], ["who sings?"], top=1)
    assert (best.answer, best.others) == (answers[1].answer, [])
    assert best.probability == pytest.approx(answers[1].probability, abs=1e-5)
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    with pytest.raises(BadVideos, match=r"broken\.mp4"):
        predictor.answer(tmp_path / "broken.mp4", ["what is it?"])


@pytest.mark.parametrize(("can", "expected"), [(True, "bf16"), (False, "fp32")])
def test_auto_is_the_precision_that_the_processor_can(
    checkpoint: Path, videos: list[Path], monkeypatch: pytest.MonkeyPatch, can: bool, expected: str
):
    monkeypatch.setattr(precisions, "has_bf16_products", lambda: can)
    auto, named = make(checkpoint, precision=None), make(checkpoint, precision=expected)
    assert auto.settings.precision == expected
    assert auto.match(videos, TEXTS) == named.match(videos, TEXTS)


@pytest.mark.parametrize("header", ["meanP", "seqTransf", "tightTransf"])
def test_bf16_scores_are_fp32_and_near_those_of_fp32(tmp_path: Path, videos: list[Path], header: str):
    sizes = {"need_object": False, "use_action": False, "max_frames": 3, "sim_header": header, "header_layers": 1}
    path = save_tiny(tmp_path, RetrievalModel, **sizes)
    values = {}
    for name in ("fp32", "bf16"):
        predictor = make(path, precision=name)
        texts, tokens = predictor.encode_texts(TEXTS), predictor.encode(videos).tokens
        pairs = torch.cartesian_prod(torch.arange(3), torch.arange(3))
        scores = predictor.match_scores(texts, tokens, pairs[:, :1], pairs[:, 1:])
        pooled = predictor.pool(tokens)
        values[name] = [texts.features, tokens.frames, predictor.similarity(texts, tokens), scores]
        values[name] += [] if pooled is None else [pooled, predictor.similarity(texts, tokens, pooled)]
    for exact, found in zip(values["fp32"], values["bf16"], strict=True):
        assert exact.dtype == found.dtype == torch.float32 and not found.requires_grad
        assert 0 < (exact - found).norm() < 0.05 * exact.norm(), "computed in bf16"


def test_bf16_answers_are_near_those_of_fp32(tmp_path: Path, videos: list[Path]):
    sizes = {"need_object": False, "use_action": False, "max_frames": 3, "answers": ANSWERS}
    path = save_tiny(tmp_path, AnswerModel, **sizes)
    ranked = []
    for name in ("fp32", "bf16"):
        [item] = make(path, precision=name).answer(videos[0], ["what is it?"], top=4)
        ranked.append(dict([(item.answer, item.probability), *item.others]))
        assert sum(ranked[-1].values()) == pytest.approx(1, abs=1e-6), "bf16 probabilities would miss it by 1e-3"
    exact, found = ranked
    assert found == pytest.approx(exact, abs=0.01) and found != exact


def test_bf16_captions_have_fp32_scores_near_those_of_fp32(checkpoint: Path, videos: list[Path]):
    search, scores = SearchSettings(2, 6), []
    for name in ("fp32", "bf16"):
        predictor = make(checkpoint, precision=name)
        model, tokens = predictor.model(CaptionModel), predictor.encode(videos).tokens
        with precisions.autocast(name, CPU):
            scores.append(model.decode(tokens, search).score)
        assert len(predictor.caption(videos, search)) == 3
    assert scores[0].dtype == scores[1].dtype == torch.float32
    torch.testing.assert_close(scores[1], scores[0], rtol=0.02, atol=0.0)


def test_a_model_is_built_once_for_each_task(checkpoint: Path):
    predictor = make(checkpoint)
    assert predictor.model(RetrievalModel) is predictor.model(RetrievalModel)
    assert predictor.model(RetrievalModel) is not predictor.model(PretrainModel)
    with pytest.raises(CheckpointError, match="name a checkpoint of this task"):
        predictor.model(AnswerModel)


def test_a_model_with_objects_that_is_shown_none_is_remarked_on_once(
    tmp_path: Path, checkpoint: Path, videos: list[Path]
):
    said: list[str] = []
    predictor = make(save_tiny(tmp_path), log=said.append, object_path=None)
    predictor.encode(videos)
    predictor.caption(videos, SearchSettings(1, 4))
    assert said == ["no object files (--object_path): a model with objects sees none of them"]
    plain = make(checkpoint, log=said.append)
    assert plain.object_files(plain.model(RetrievalModel).config) is None and len(said) == 1


def test_objects_of_a_video_are_those_of_its_stem(tmp_path: Path, videos: list[Path]):
    (tmp_path / "objects").mkdir()
    (tmp_path / "map.json").write_text(json.dumps({"label_to_idx": {"dog": 1}}))
    box = {"class": "dog", "rect": [1, 1, 40, 40], "conf": 0.9}
    (tmp_path / "objects" / "b.json").write_text(json.dumps([{"objects": [box]}] * 3))
    places = {"object_path": str(tmp_path / "objects"), "labelmap_path": str(tmp_path / "map.json")}
    predictor = make(save_tiny(tmp_path, max_frames=3), **places)
    seen = predictor.encode(videos).tokens.trajectory_mask
    assert seen is not None and seen.any(1).tolist() == [False, True, False]


def test_flags_are_those_of_the_tasks(checkpoint: Path, tmp_path: Path):
    settings = make(checkpoint, feature_framerate=2.0, labelmap_path=None).settings
    assert settings.frames.feature_framerate == 2 and settings.labelmap_path.endswith("label_map.json")
    assert (settings.num_thread_reader, settings.batch_size_val) == (0, 8)
    with pytest.raises(ValueError, match="unknown settings: beam_size"):
        make(checkpoint, beam_size=5)
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        make(tmp_path / "none.bin")


def test_videos_are_read_by_their_path(videos: list[Path]):
    frames = PathVideos().read(str(videos[1]), SampleSettings(32, 4))
    assert len(frames.frames) == 4 and frames.frames[0].shape == (32, 32, 3)
    assert frames.original_size == (64, 48) and PathVideos().stamp(str(videos[1])).startswith(videos[1].name)
    assert PathVideos().stamp("gone.mp4") == ""
