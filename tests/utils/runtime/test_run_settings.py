"""What is known of a checkpoint's run: which config.json is its own, and what of it counts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.utils.checkpoints import save_tiny
from tests.utils.models.exporting import write_run
from utils.models.export import export
from utils.runtime.checkpoint import CheckpointError
from utils.runtime.run_settings import SEEN_OF_A_CLIP, find_run, seen_settings


def test_a_run_is_found_beside_its_checkpoint_or_above(tmp_path: Path):
    run = write_run(tmp_path / "run", "msrvtt_qa")
    for checkpoint in (run / "best.bin", run / "ckpt" / "pytorch_model.bin.3"):
        found = find_run(checkpoint)
        assert found is not None and found.folder == run and found.config["frame_rule"] == 2
    assert find_run(tmp_path / "a.bin") is None and seen_settings(tmp_path / "a.bin") == {}


@pytest.mark.parametrize("content", [{"model_type": "clip"}, {"model_cfg": {}}])
def test_the_config_of_other_weights_is_not_taken_for_a_runs(tmp_path: Path, content: dict):
    checkpoint = save_tiny(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(content))
    assert find_run(checkpoint) is None and seen_settings(checkpoint) == {}
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"config\.json: not a run's config\.json \(KeyError"):
        find_run(checkpoint)


def test_of_a_run_and_of_its_exported_folder_the_same_is_known(tmp_path: Path):
    run = write_run(tmp_path / "run", "msrvtt_qa")
    export(run, tmp_path / "out")
    before, after = seen_settings(run / "best.bin"), seen_settings(tmp_path / "out")
    assert set(after) == {*SEEN_OF_A_CLIP, "labelmap_path"} and "feature_framerate" in SEEN_OF_A_CLIP
    assert after.pop("labelmap_path") == str(tmp_path / "out" / "label_map.json")
    assert before.pop("labelmap_path") == str(run / "label_map.json") and before == after
    assert seen_settings(tmp_path) == {}, "a folder of another kind"
