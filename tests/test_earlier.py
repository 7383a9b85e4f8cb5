"""What the version before wrote still loads and gives the same: a checkpoint, an object store, a run.

Its search index is made anew, since the key of an index has the precision now, and finds the same.

The files in tests/earlier/ were made before settings were regrouped: a retrieval model with tracked objects after six
steps on demo clips with its run's config.json, the store of four clips, the index of their videos, what they gave
(outputs.json), a restore.bin of the toy run after step 5, and the parameters that the run ended with.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from dataloaders.label_map import load_label_map
from dataloaders.object_records import ObjectRules, ObjectSettings
from dataloaders.object_store import ObjectStore, build_object_store
from tests.utils.toy_run import make_settings, make_trainer
from utils.inference.search_index import SearchIndex
from utils.predictor import Predictor

EARLIER = Path(__file__).parent / "earlier"
OUTPUTS = json.loads((EARLIER / "outputs.json").read_bytes())
SETTINGS = ObjectSettings(3, 3, ObjectRules(trajectory="track"))
CHANGED = 1_700_000_000  # time of change of all files when the index and the store were made


@pytest.fixture
def earlier(tmp_path: Path) -> Iterator[Path]:
    """A copy with the times of change that the index and the store have noted; git does not keep them."""
    folder = tmp_path / "earlier"
    shutil.copytree(EARLIER, folder)
    for path in [*folder.glob("*.checkpoint"), *folder.glob("videos/*"), *folder.glob("objects/*.json")]:
        os.utime(path, (CHANGED, CHANGED))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield folder
    torch.set_num_threads(threads)


def make_predictor(folder: Path, **flags: Any) -> Predictor:
    own = {"object_path": str(folder / "objects"), "device": "cpu", "precision": "fp32"}  # as when the files were made
    return Predictor(folder / "retrieval.checkpoint", **own, **flags)


def test_a_checkpoint_gives_the_same_scores(earlier: Path) -> None:
    videos = sorted((earlier / "videos").iterdir())
    found = make_predictor(earlier).match(videos, OUTPUTS["texts"])
    assert [[Path(match.video).name, match.text] for match in found] == [row[:2] for row in OUTPUTS["matches"]]
    for match, (*_, similarity, probability) in zip(found, OUTPUTS["matches"], strict=True):
        assert (match.similarity, match.probability) == pytest.approx((similarity, probability), abs=1e-5)


def test_a_search_index_is_made_anew_with_a_line_and_finds_the_same(earlier: Path) -> None:
    said: list[str] = []
    index = SearchIndex(make_predictor(earlier, log=said.append), earlier / "videos", earlier / "search.npz")
    assert said == [f"{earlier / 'search.npz'}: of another model or other settings; made anew"]
    assert (index.last_update.encoded, index.last_update.kept) == (4, 0)
    for row, expected in zip(index.search(OUTPUTS["texts"], 4, 4), OUTPUTS["found"], strict=True):
        assert [Path(one.video).name for one in row] == [name for name, *_ in expected]
        values: list[Any] = [value for one in row for value in (one.similarity, one.probability)]
        assert values == pytest.approx([value for _, *both in expected for value in both], abs=1e-5)


@pytest.mark.parametrize("has_files", [True, False])
def test_an_object_store_gives_the_same(earlier: Path, has_files: bool, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    store = earlier / "objects" / OUTPUTS["store"]
    before = (store / "data.mdb").stat().st_mtime_ns
    if not has_files:
        for path in (earlier / "objects").glob("*.json"):
            path.unlink()
    found = build_object_store(earlier / "objects", load_label_map(earlier / "label_map.json"), SETTINGS)
    is_same = (store / "data.mdb").stat().st_mtime_ns == before
    assert found == store and is_same != has_files, "made anew where that is possible: it has no version of the rule"
    assert ("made anew" in caplog.text) == has_files
    assert ObjectStore(store).settings == SETTINGS
    for video_id, expected in OUTPUTS["records"].items():
        record = ObjectStore(store).get(video_id)
        assert record is not None
        assert {name: getattr(record, name).tolist() for name in expected} == expected


def test_a_run_is_resumed_and_ends_the_same(earlier: Path, tmp_path: Path) -> None:
    shutil.copy(earlier / "restore.checkpoint", tmp_path / "restore.bin")
    trainer = make_trainer(make_settings(tmp_path))
    assert trainer.fit().step == 12
    trainer.log.close()
    expected = json.loads((earlier / "toy_parameters.json").read_bytes())
    for name, value in trainer.model.state_dict().items():
        torch.testing.assert_close(value, torch.tensor(expected[name]))  # other processors round otherwise
