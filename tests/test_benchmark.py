"""The benchmarks run, at tiny sizes, and leave complete reports."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
import torch

from dataloaders.decoders import has_av
from modules.config import ModelConfig
from tests.benchmark import caption, data, pretrain, rerank, whole_samples
from tests.benchmark.minimum import block, linear, pretraining_minimum
from tests.benchmark.report import ROOT
from tests.benchmark.steps import make_batches


@pytest.fixture
def one_thread(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
def test_pretrain_report(tmp_path: Path, one_thread: None, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--size", "tiny", "--frames", "3", "--pairs", "2", "--no-plain-memory", "--output", str(tmp_path)]
    report = json.loads(pretrain.main(options).read_bytes())
    assert set(report["losses"]) == {"vtm", "mlm", "plm", "object_noun", "action_verb", "contrastive"}
    for pair in report["losses"].values():
        assert pair["ours"] == pytest.approx(pair["plain"], rel=1e-3, abs=1e-3)
    assert len(report["ratios"]) == len(report["seconds"]["ours"]) == len(report["seconds"]["plain"]) == 2
    assert report["median_ratio"] > 0
    assert report["peak_gb"]["plain"] is None
    assert 0.05 < report["peak_gb"]["ours"] < 20
    assert report["peak_gb"]["ours_checkpointed"] > 0.05
    flops = report["flops"]
    assert flops["counted"] == pytest.approx(sum(flops["by_operator"].values()))
    assert any("scaled_dot_product" in name for name in flops["by_operator"])
    assert 0.99 < flops["counted_to_minimum"] < 1.6
    assert 0 < report["share_of_matrix_rate"] < 2
    for shares in report["time_shares_percent"].values():
        assert sum(shares.values()) == pytest.approx(100)
        assert min(shares["linear"], shares["attention"], shares["elementwise"], shares["optimiser"]) > 0
    assert "ours / plain" in capsys.readouterr().out


def test_rerank_report(tmp_path: Path, one_thread: None, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--sizes", "tiny", "--items", "40", "--top", "8", "--rounds", "2", "--queries", "4"]
    report = json.loads(rerank.main([*options, "--plain-queries", "2", "--output", str(tmp_path)]).read_bytes())
    found = report["sizes"]["tiny"]
    for name in ("typical", "without padding"):
        assert len(found[name]["ratios"]) == 2 and min(found[name]["ratios"]) > 0
    whole = found["whole"]
    assert whole["pairs_asked"] == 640 and 320 <= whole["pairs_computed"] < 640
    assert whole["ratio"] == pytest.approx(whole["plain_seconds_extrapolated"] / whole["seconds"])
    assert "ours / plain" in capsys.readouterr().out


@pytest.mark.slow
def test_caption_report(tmp_path: Path, one_thread: None, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--size", "tiny", "--frames", "3", "--pairs", "2", "--rounds", "1", "--no-plain-memory"]
    options += ["--captions", "6", "--few", "2", "--output", str(tmp_path)]
    report = json.loads(caption.main(options).read_bytes())
    for pair in report["losses"].values():
        assert pair["ours"] == pytest.approx(pair["plain"], rel=1e-3, abs=1e-3)
    assert len(report["step_seconds"]["ours"]) == 2 and report["step_share"] > 0
    compared = [(found["beams"], found["clips"]["ours"], found["clips"]["plain"]) for found in report["decoding"]]
    assert compared == [(1, 258, 6), (1, 2, 2), (5, 54, 6), (5, 2, 2)]
    assert report["image_side"]["ratio"] > 0 and min(found["ratio"] for found in report["decoding"]) > 0
    assert "plain / ours" in capsys.readouterr().out


@pytest.mark.slow
def test_data_report(tmp_path: Path, one_thread: None, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--videos-count", "2", "--seconds", "2", "--rounds", "1", "--clips", "3000", "--object-clips", "16"]
    options += ["--object-files", "100", "--workers", "1", "--starts", "1", "--output", str(tmp_path)]
    report = json.loads(data.main(options).read_bytes())
    reading, start = report["reading"], report["start"]
    assert set(reading["clips_per_second"]) == {
        data.FORWARD,
        data.SEEK,
        data.SEEK_PICKED,
        "jpeg shards",
        "raw shards",
    }
    assert min(reading["clips_per_second"].values()) > 0
    sizes = reading["bytes_per_clip"]
    assert 0 < sizes["jpeg"] < sizes["raw"] and sizes["raw"] > 2 * 256 * 256 * 3
    assert min(reading["frames_equal_to_forward_percent"].values()) == 100
    first = start["first_batch"]
    assert (first["samples"], first["clips"]) == (3000, 8)
    assert first["boxes"] > 8 * 12  # objects of the clips that are read first were found
    seconds = list(first["seconds_since_start"].values())
    assert seconds == sorted(seconds) and seconds[0] > 0
    assert first["torch_alone_gb"] <= first["peak_gb"]
    assert [path.name for path in tmp_path.iterdir()] == ["data.json"]
    assert "start of training on 3,000 clips" in capsys.readouterr().out


def test_samples_report(tmp_path: Path, one_thread: None, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--parts", "samples", "--videos-count", "2", "--seconds", "1", "--rounds", "2", "--turn-seconds", "0"]
    report = json.loads(data.main([*options, "--output", str(tmp_path)]).read_bytes())
    assert set(report) == {"machine", "samples", "goals"}
    found = report["samples"]["videos"]
    assert found["clips"] == 2 and 60 < found["boxes_per_clip"] <= 120  # of ten in a frame some are beside the crop
    sources = [whole_samples.OPENCV, whole_samples.PYAV, whole_samples.JPEG, whole_samples.RAW]
    cached = sources if has_av() else [name for name in sources if name != whole_samples.PYAV]
    assert list(found["ms_per_sample"]) == [*cached, whole_samples.NO_FRAMES]
    assert min(found["ms_per_sample"].values()) > 0
    assert all(len(found["cost_percent_by_round"][name]) == 2 for name in cached[1:])
    assert found["frames_equal_percent"][whole_samples.RAW] == 100
    assert found["frames_equal_percent"][whole_samples.JPEG] < 100
    assert found["bytes_per_clip"][whole_samples.RAW] == 224 * 224 * 3  # one second has one frame
    assert [path.name for path in tmp_path.iterdir()] == ["data.json"]
    assert "samples of retrieval, videos: 2 clips" in capsys.readouterr().out


@pytest.mark.slow
def test_samples_of_real_clips(tmp_path: Path, shared: Path, one_thread: None) -> None:
    options = ["--parts", "samples", "--real", str(shared / "realdata"), "--rounds", "1", "--turn-seconds", "0"]
    report = json.loads(data.main([*options, "--output", str(tmp_path)]).read_bytes())
    assert list(report["samples"]) == ["msrvtt", "webvid"]
    for found in report["samples"].values():
        assert found["clips"] == 5 and found["boxes_per_clip"] > 1
        assert list(found["goals_percent"]) == [whole_samples.RAW, whole_samples.JPEG]


def test_minimum_adds_up() -> None:
    # One block on 5 tokens of width 8: 12·w² multiply-adds per token, and two products over 25 pairs.
    cost = block(8, 5, 25)
    assert cost.forward == 2 * (12 * 64 * 5 + 2 * 25 * 8)
    assert cost.backward == 2 * cost.forward
    assert linear(3, 4, 5, weight=False, inputs=False).total == 2 * 3 * 4 * 5
    # ViT-B/16 needs about 35 GFLOP per frame.
    config = ModelConfig(need_object=True, use_action=True)
    trimmed, untrimmed = make_batches(config, 2, "cpu")
    assert untrimmed["text_ids"].shape == (2, 32)
    assert untrimmed["trajectory_ids"].shape == (2, 20)
    terms = pretraining_minimum(config, trimmed)
    tower = sum(cost.forward for name, cost in terms.items() if "visual" in name or name == "patch layer")
    assert 30e9 < tower / 24 < 40e9
    with pytest.raises(ValueError, match="last visual block"):
        pretraining_minimum(ModelConfig(need_object=True, use_action=True, object_layer=3), trimmed)


def test_operators_are_grouped() -> None:
    names = {
        "aten::addmm": "linear",
        "aten::mkldnn_convolution": "linear",
        "aten::_scaled_dot_product_flash_attention_for_cpu": "attention",
        "aten::native_layer_norm": "elementwise",
        "aten::mul": "elementwise",
        "torchvision::roi_align": "other",
        "aten::copy_": "other",
        "AddmmBackward0": "other",
    }
    assert {name: pretrain.operator_group(name) for name in names} == names


def test_the_script_names_its_benchmarks() -> None:
    done = subprocess.run(
        ["bash", str(ROOT / "scripts" / "benchmark.sh"), "nothing"], capture_output=True, text=True, env=os.environ
    )
    assert done.returncode == 2
    assert "pretrain|data" in done.stderr
