"""Captions of a split and their scores, the same however many ranks share the clips."""

from __future__ import annotations

import argparse
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from dataloaders.retrieval import VideoDataset
from dataloaders.samples import collate
from modules.beam_search import SearchSettings
from modules.tasks.captioning import CaptionModel
from modules.tokenizer import ClipTokenizer
from tests import tiny
from tests.processes import run_ranks
from tests.utils.evaluation.test_retrieval import ONE, Clips, captioned
from utils.evaluation import captions as caption_eval
from utils.evaluation.bad_videos import BadVideos
from utils.evaluation.captions import generate_captions, score_captions
from utils.runtime.distributed import Runtime, find_runtime
from utils.runtime.sampler import EvaluationSampler
from utils.settings.groups import ReadSettings

SEARCH = SearchSettings(2, 6)


def make_model() -> CaptionModel:
    return tiny.model(CaptionModel, vocab_size=ClipTokenizer().vocab_size).eval()


def generate(
    model: CaptionModel, numbers: Collection[int], runtime: Runtime = ONE, bad: Collection[int] = (), **choices: Any
) -> tuple[dict[str, str], list[str]]:
    data = VideoDataset(captioned(numbers).video_ids, Clips(model.config, bad))
    sampler = EvaluationSampler(len(data), runtime.rank, runtime.world_size)
    loader = DataLoader(data, sampler=sampler, batch_size=3, collate_fn=collate)
    return generate_captions(model, loader, runtime, SEARCH, ReadSettings(**choices))


@torch.no_grad()
def test_every_clip_gets_the_caption_that_the_model_generates():
    model = make_model()
    captions, skipped = generate(model, range(4))
    assert list(captions) == [f"clip{i}" for i in range(4)] and skipped == []
    batch = collate([VideoDataset(["clip2"], Clips(model.config))[0, 0]])
    tokens = model.generate(batch, SEARCH).tokens[0].tolist()
    assert captions["clip2"] == ClipTokenizer().decode(tokens) != ""


def test_batches_that_are_decoded_together_keep_their_captions(monkeypatch: pytest.MonkeyPatch):
    """Batches are trimmed to different numbers of trajectories."""
    model, found = make_model(), []
    for beams in (1, 8, 256):
        monkeypatch.setattr(caption_eval, "BEAMS_TOGETHER", beams)
        found.append(generate(model, range(10), bad=(4,), on_bad_video="skip"))
    assert found[0] == found[1] == found[2] and len(found[0][0]) == 9


def test_unreadable_clips_stop_or_are_left_out():
    model = make_model()
    with pytest.raises(BadVideos, match=r"2 clips cannot be read:\n  clip1\.mp4"):
        generate(model, range(5), bad=(1, 4))
    captions, skipped = generate(model, range(5), bad=(1, 4), on_bad_video="skip")
    assert list(captions) == ["clip0", "clip2", "clip3"] and len(skipped) == 2
    with pytest.raises(BadVideos, match="none of the clips"):
        generate(model, range(2), bad=(0, 1), on_bad_video="skip")


def score(captions: dict[str, str], runtime: Runtime = ONE, **choices: Any):
    settings = {"max_words": 6, "both_protocols": True, "timeout": 60, **choices}
    return score_captions(captions, captioned(range(5)), ["clip9: no such video"], runtime, **settings)


@pytest.fixture
def no_java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))


def test_scores_files_and_what_is_missing(no_java: None):
    references = captioned(range(5)).by_video()
    captions = {video_id: texts[-1] for video_id, texts in references.items() if video_id != "clip3"}
    result = score(captions)
    assert result.metrics["Bleu_4"] == pytest.approx(1.0) and result.metrics["ROUGE_L"] == pytest.approx(1.0)
    assert result.metrics["videos"] == 4 and result.metrics["skipped"] == 1
    assert result.metrics["released_Bleu_1"] < 1  # its references are cut to four tokens
    assert "METEOR" not in result.metrics and "METEOR" in result.details["missing"]
    assert "released METEOR" in result.details["missing"]
    assert result.details["items"] == list(captions)
    assert sum(result.details["scores"]["CIDEr"]) / 4 == pytest.approx(result.metrics["CIDEr"])
    written = json.loads(result.files["predictions.json"])
    assert written[1] == {"video_id": "clip1", "prediction": captions["clip1"], "references": references["clip1"]}
    coco = json.loads(result.files["predictions_coco.json"])
    assert coco[0] == {"image_id": "clip0", "caption": captions["clip0"]}


def test_validation_computes_the_fields_protocol_alone(no_java: None):
    captions = {video_id: texts[0] for video_id, texts in captioned(range(5)).by_video().items()}
    metrics = score(captions, both_protocols=False).metrics
    assert "CIDEr" in metrics and not any(name.startswith("released") for name in metrics)


def main(argv: list[str]) -> None:
    """Caption several numbers of clips in this rank and write what came of it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("output", type=Path)
    output = parser.parse_args(argv).output
    runtime, results = find_runtime(device="cpu"), []
    with runtime.process_group():
        model = make_model()
        for clips, bad in ((5, ()), (1, ()), (4, (2, 3)), (3, (0,))):
            captions, skipped = generate(model, range(clips), runtime, bad, on_bad_video="skip")
            result = score(captions, runtime)
            results.append([captions, skipped, result.metrics, result.details, result.files])
    output.with_suffix(f".{runtime.rank}").write_text(json.dumps(results))


def test_two_processes_give_what_one_gives(tmp_path: Path, no_java: None):
    run_ranks(main, [str(tmp_path / "one")], tmp_path / "logs1")
    run_ranks(main, [str(tmp_path / "two")], tmp_path / "logs2", processes=2)
    one, two, other = (json.loads((tmp_path / name).read_text()) for name in ("one.0", "two.0", "two.1"))
    assert one == two == other and len(one) == 4
