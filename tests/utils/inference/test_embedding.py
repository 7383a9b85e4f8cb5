"""Features in a file: what a dot product of them is, whose they are, and what is refused before a clip is encoded."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dataloaders.built_caches import CannotCache
from dataloaders.transforms import frames_to_tensor
from dataloaders.video_files import PathVideos
from modules.fusion_encoder import VideoTokens
from modules.similarity import pool_frames
from modules.tasks.retrieval import RetrievalModel
from tests import plain_forms
from tests.dataloaders.test_built_caches import refuse
from tests.utils.checkpoints import released_state, save_tiny
from tests.videos import write_noise, write_video
from utils.evaluation.bad_videos import BadVideos
from utils.evaluation.retrieval import VideoBank
from utils.inference import embedding
from utils.inference.embedding import Embeddings, read_texts, require_place, text_array
from utils.inference.predictor import Predictor
from utils.models.random_clip import ClipSizes, random_state_dict, save_archive
from utils.runtime.checkpoint import CheckpointError

TEXTS = ["a dog runs", "two men sing", "a dog runs"]
PLAIN = {"need_object": False, "use_action": False, "max_frames": 3}
CLIP = ClipSizes(32, 8, 64, 4, 48, 64, 2, vocab_size=2000)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three videos that look different."""
    folder = tmp_path_factory.mktemp("videos")
    write_noise(folder / "b.avi", "MJPG", 20)
    return [write_video(folder / "a.mp4", 30), folder / "b.avi", write_video(folder / "c.mp4", 50, step=11)]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "clip.pt"
    save_archive(random_state_dict(CLIP), path)
    return path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model"), **PLAIN)


def make(checkpoint: Path, **flags: Any) -> Predictor:
    return Predictor(checkpoint, **{"device": "cpu", "precision": "fp32", "on_bad_video": "skip", **flags})


def lengths(features: np.ndarray) -> np.ndarray:
    return np.linalg.norm(features.astype(np.float64), axis=-1)


@pytest.mark.parametrize("header", ["meanP", "seqLSTM", "seqTransf"])
def test_dot_products_are_the_similarities_of_match(tmp_path: Path, videos: list[Path], header: str):
    predictor = make(save_tiny(tmp_path, RetrievalModel, **PLAIN, sim_header=header, header_layers=1))
    features = predictor.embed(videos, TEXTS)
    assert features.video_features.shape == (3, 64) and features.frame_features.shape == (3, 3, 64)
    assert features.video_ids.tolist() == [str(video) for video in videos] and features.texts.tolist() == TEXTS
    for part in (features.video_features, features.frame_features, features.text_features):
        assert part.dtype == np.float32 and lengths(part) == pytest.approx(np.ones(part.shape[:-1]), abs=1e-5)
    cosines = features.text_features @ features.video_features.T
    wanted = {(match.text, match.video): match.similarity for match in predictor.match(videos, TEXTS)}
    for text, row in zip(TEXTS, cosines, strict=True):
        assert row.tolist() == pytest.approx([wanted[text, str(video)] for video in videos], abs=1e-5)
    texts, tokens = predictor.encode_texts(TEXTS), predictor.encode(videos).tokens
    model = predictor.model(RetrievalModel)
    logits = model.similarity_matrix(texts.features, tokens.frames, tokens.frame_mask).detach().numpy()
    np.testing.assert_allclose(features.logit_scale * cosines, logits, atol=1e-4)
    pooled = pool_frames(torch.from_numpy(features.frame_features), torch.from_numpy(features.frame_mask)).numpy()
    is_mean = np.allclose(pooled, features.video_features, atol=1e-5)
    assert is_mean == (header == "meanP"), "frames are given as they enter the header"


def test_one_frame_of_clip_weights_has_clips_own_image_feature(clip: Path, videos: list[Path]):
    predictor = make(clip, max_frames=1, batch_size_val=2)
    features = predictor.embed(videos, TEXTS)
    model = predictor.model(RetrievalModel)
    settings = predictor.sample_settings(model.config)
    pictures = [PathVideos().read(str(video), settings).frames for video in videos]
    batch = torch.stack([frames_to_tensor(frames, 32) for frames in pictures])
    assert batch.shape == (3, 1, 3, 32, 32)
    with torch.no_grad():
        images = plain_forms.vision_tower(model.clip.visual, batch, None).frame_features[:, 0]
        ids = predictor.encode_texts(TEXTS).ids
        ends = (ids == model.config.end_token).int().argmax(1)
        texts = plain_forms.text_tower(model.clip, ids)[torch.arange(3), ends]
    wanted = torch.nn.functional.normalize(images, dim=-1).numpy()
    np.testing.assert_allclose(features.video_features, wanted, atol=1e-5)
    np.testing.assert_allclose(features.frame_features[:, 0], wanted, atol=1e-5)
    np.testing.assert_allclose(features.text_features, torch.nn.functional.normalize(texts, dim=-1), atol=1e-5)
    assert float(features.logit_scale) == pytest.approx(float(random_state_dict(CLIP)["logit_scale"].exp()))
    assert not np.allclose(features.video_features[0], features.video_features[1], atol=1e-3)


def test_frames_and_words_are_chosen_for_clip_weights_and_never_for_a_trained_model(
    clip: Path, checkpoint: Path, videos: list[Path], tmp_path: Path
):
    assert make(clip).embed(videos[:1]).frame_features.shape == (1, 12, 48)
    assert make(clip, max_frames=5).embed(videos[:1]).frame_features.shape == (1, 5, 48)
    said: list[str] = []
    long = "a dog runs " * 4
    short = make(clip, max_words=6, log=said.append).embed(videos[:1], [long, "a dog"])
    assert said == ["1 of 2 texts are cut to 6 tokens (--max_words)"]
    whole = make(clip, max_words=32, log=said.append).embed(videos[:1], [long, "a dog"])
    assert len(said) == 1 and np.allclose(short.text_features[1], whole.text_features[1], atol=1e-5)
    assert not np.allclose(short.text_features[0], whole.text_features[0], atol=1e-3)
    for name, own in (("max_frames", 3), ("max_words", 24)):
        with pytest.raises(
            ValueError, match=rf"PretrainModel\.bin: was trained with {name} {own} .* not with 7; leave"
        ):
            make(checkpoint, **{name: 7})
        assert make(checkpoint, **{name: own}).embed(videos[:1]).frame_features.shape == (1, 3, 64)
    torch.save({"model_state_dict": released_state()}, tmp_path / "stoa.bin")
    released = make(tmp_path / "stoa.bin", max_frames=7)
    for _ in range(2):  # nor is a model that was refused there the second time
        with pytest.raises(ValueError, match=r"stoa\.bin: was trained with max_frames 12"):
            released.embed(videos[:1])


def test_a_header_without_features_is_refused_before_a_clip_is_read(tmp_path: Path):
    predictor = make(save_tiny(tmp_path, RetrievalModel, **PLAIN, sim_header="tightTransf", header_layers=1))
    with pytest.raises(CheckpointError, match=r"RetrievalModel\.bin: .*tightTransf, .*use match or search"):
        predictor.embed([tmp_path / "none.mp4"])


def test_clips_that_cannot_be_read_are_left_out_and_the_others_keep_their_names(
    checkpoint: Path, videos: list[Path], tmp_path: Path
):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        shutil.copy(videos[0], tmp_path / name / "a.mp4")
    (tmp_path / "one" / "bad.mp4").write_bytes(b"no video")
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.avi"))
    shutil.copy(videos[1], odd)
    given = [tmp_path / "one" / "bad.mp4", odd, tmp_path / "one" / "a.mp4", tmp_path / "two" / "a.mp4", odd]
    predictor = make(checkpoint)
    features = predictor.embed(given)
    features.save(tmp_path / "features.npz")
    with np.load(tmp_path / "features.npz", allow_pickle=False) as file:
        assert file["video_ids"].tolist() == list(map(str, given[1:4])), "each once, by paths that open the files"
        assert all(Path(name).is_file() for name in file["video_ids"].tolist())
        assert set(file) == {"video_ids", "video_features", "frame_features", "frame_mask", "logit_scale"}
        alone = predictor.embed([videos[1]])
        np.testing.assert_allclose(file["video_features"][0], alone.video_features[0], atol=1e-5)
        assert not np.allclose(file["video_features"][0], file["video_features"][1], atol=1e-3)
    assert len(features.skipped) == 1 and "bad.mp4: not a video" in features.skipped[0]
    with pytest.raises(BadVideos, match="none of the clips"):
        predictor.embed(given[:1])


def test_what_is_saved_is_read_without_pickles(checkpoint: Path, videos: list[Path], tmp_path: Path):
    features = make(checkpoint).embed(videos, ["ein Hund läuft \N{DOG}", *TEXTS])
    features.save(tmp_path / "features.npz")
    with np.load(tmp_path / "features.npz", allow_pickle=False) as file:
        assert len(file.files) == 7
        for name in file:
            np.testing.assert_array_equal(file[name], getattr(features, name))
            assert file[name].dtype == getattr(features, name).dtype


def test_places_of_frames_that_are_none_are_zero():
    frames = torch.randn(2, 3, 4)
    mask = torch.tensor([[True, True, False], [True, True, True]])
    bank = VideoBank(VideoTokens(frames, mask, None, None, None), [0, 2], [])
    features = Embeddings.of(np.array(["a", "b", "c"]), bank, pool_frames(frames, mask), None, None, 2.0)
    assert features.video_ids.tolist() == ["a", "c"] and features.texts is None
    np.testing.assert_allclose(lengths(features.frame_features), mask.numpy(), atol=1e-6)
    frames[1, 2, 0] = torch.nan
    with pytest.raises(ValueError, match="not finite"):
        Embeddings.of(np.array(["a", "b", "c"]), bank, pool_frames(frames, mask), None, None, 2.0)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("features.txt", r"name it features\.txt\.npz"),
        ("features", r"name it features\.npz"),
        ("none/features.npz", "there is no folder .*none; make it first"),
        ("file/features.npz", "there is no folder .*file"),
        ("folder.npz", "is a folder; name a file"),
        (f"{'x' * 300}.npz", "cannot be written .*too long"),
    ],
)
def test_a_place_where_features_cannot_be_written_is_found_out_first(tmp_path: Path, name: str, said: str):
    (tmp_path / "folder.npz").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=said):
        require_place(tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.npz"]


def test_a_folder_that_cannot_be_written_is_found_out_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    refuse(tmp_path, errno.EROFS, monkeypatch)
    with pytest.raises(CannotCache, match=r"features\.npz cannot be written"):
        require_place(tmp_path / "features.npz")


def test_a_write_that_fails_leaves_the_file_of_before(
    checkpoint: Path, videos: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    features, path = make(checkpoint).embed(videos[:1]), tmp_path / "features.npz"
    features.save(path)
    before = path.read_bytes()

    def full(file: Any, **arrays: Any) -> None:
        file.write(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(embedding.np, "savez", full)
    with pytest.raises(ValueError, match=r"features\.npz cannot be written \(No space left on device\): free space"):
        features.save(path)
    assert path.read_bytes() == before and [path] == list(tmp_path.iterdir())


def test_texts_are_read_line_by_line_and_blank_lines_are_counted(tmp_path: Path):
    path = tmp_path / "texts.txt"
    path.write_bytes(b"\xef\xbb\xbfa dog runs\r\n\r\n  two men sing \n\t\na dog runs")
    assert read_texts(path) == (TEXTS, 2)
    for content, said in (
        (b"\n \n", "no text in it"),
        (b"a dog\n\xff\n", "line 2: not UTF-8"),
        (b"a\nnan", "line 2: "),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"texts\.txt.*{said}"):
            read_texts(path)
    with pytest.raises(FileNotFoundError):
        read_texts(tmp_path / "none.txt")


@pytest.mark.parametrize("text", ["", " \t", "a \udcff", "a \0"])
def test_texts_that_are_none_are_refused(checkpoint: Path, videos: list[Path], text: str):
    with pytest.raises(ValueError, match="has no word, or is not UTF-8"):
        make(checkpoint).embed(videos[:1], ["a dog", text])


def test_one_long_text_does_not_take_the_memory_of_many(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(embedding, "MAX_TEXT_ARRAY", 4 * 10 * 20)
    assert text_array(["x" * 20] * 10, "texts").shape == (10,)
    with pytest.raises(ValueError, match="10 texts of up to 21 characters take 840 bytes"):
        text_array(["x"] * 9 + ["x" * 21], "texts")
