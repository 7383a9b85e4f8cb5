"""Files that ended or misled version 0.1: each is read, refused or counted as the README beside them says.

Annotations and videos of these cases are in tests/modules/test_foreign_text.py and tests/dataloaders/test_decoders.py.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from dataloaders.pretrain_index import read_path_index
from dataloaders.stored_clips import ShardReader
from dataloaders.tfrecord import DamagedRecord
from modules.tasks.retrieval import RetrievalModel
from modules.utils_object_tractor import ObjectFileError, ObjectReport, load_object_file
from tests.utils.checkpoints import save_tiny
from tests.videos import write_video
from utils.inference.predictor import Predictor
from utils.inference.search_index import INDEX_NAME, SearchIndex
from utils.models.clip_weights import read_clip_weights
from utils.runtime.checkpoint import CheckpointError, load

LABELS = {"label_to_idx": {"star": 1, "cross": 2}}


def decode_record(folder: Path) -> int:
    """Number of frames that the one record of a folder of shards gives."""
    (place,) = read_path_index(folder / "path.index")
    clip = ShardReader(folder).read(place.shard_path, place.offset, place.video_id)
    return len(clip.decode(range(clip.num_frames)))


def test_a_sound_record_is_read(shared: Path):
    assert decode_record(shared / "cases/shards/rec_ok") > 0


@pytest.mark.parametrize("name", ["rec_len60", "rec_jpegbomb", "rec_fpsnan", "rec_indices"])
def test_a_record_that_states_what_cannot_be_is_damaged(shared: Path, name: str):
    with pytest.raises(DamagedRecord, match=r"path-0\.tfrecord"):
        decode_record(shared / "cases/shards" / name)


@pytest.mark.parametrize("name", ["attr_scores_scalar.json", "attributes_int.json"])
def test_a_number_where_a_list_belongs_is_a_problem_of_that_file(shared: Path, name: str):
    report = ObjectReport()
    load_object_file(shared / "cases/objects" / name, 10, LABELS, report)
    assert report.malformed_objects and name in report.examples["malformed_objects"][0]


def test_relative_boxes_are_refused_with_their_convention(shared: Path):
    with pytest.raises(ObjectFileError, match="0 to 1"):
        load_object_file(shared / "cases/objects/boxes_normalised_0_1.json", 10, LABELS, ObjectReport())


def test_confidences_out_of_range_are_counted_and_not_used(shared: Path):
    report = ObjectReport()
    found = load_object_file(shared / "cases/objects/conf_out_of_range.json", 10, LABELS, report)
    assert report.malformed_objects == 3 and found["conf_set"] == {1: 0.5}


def test_an_archive_that_writes_a_file_when_it_is_run_is_not_run(shared: Path, tmp_path: Path):
    victim = tmp_path / "victim.py"
    victim.write_text("print('mine')\n" * 20)
    before = victim.read_bytes()
    maker = shutil.copy(shared / "cases/weights/make_archive_that_writes.py", tmp_path)
    subprocess.run([sys.executable, maker, str(victim)], cwd=tmp_path, check=True, capture_output=True)
    readers: list[Callable[[Path], object]] = [read_clip_weights, load, _use]
    for reader in readers:
        with pytest.raises((CheckpointError, ValueError), match=r"evil\.pt"):
            reader(tmp_path / "evil.pt")
    assert victim.read_bytes() == before


def _use(checkpoint: Path) -> object:
    return Predictor(checkpoint, device="cpu").model(RetrievalModel)


def test_a_checkpoint_that_asks_for_480_gigabytes_is_refused(shared: Path):
    with pytest.raises(CheckpointError, match="asks for"):
        load(shared / "cases/weights/stride0_480GB.pt")


def test_an_empty_search_index_is_made_anew_with_a_line(shared: Path, tmp_path: Path):
    checkpoint = save_tiny(tmp_path / "model", need_object=False, use_action=False, max_frames=3)
    videos = tmp_path / "videos"
    videos.mkdir()
    write_video(videos / "a.mp4", 30)
    (videos / INDEX_NAME).write_bytes((shared / "cases/other/empty_search_index.npz").read_bytes())
    lines: list[str] = []
    index = SearchIndex(Predictor(checkpoint, log=lines.append, device="cpu", precision="fp32"), videos)
    assert index.names == ["a.mp4"] and any(INDEX_NAME in line and "made anew" in line for line in lines)
