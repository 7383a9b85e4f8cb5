"""What the check says of a data set, and what a training run then does: one fault of each kind of outcome.

All faults: `python -m tests.campaigns.planted_faults`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.campaigns.planted_faults.catalogue import FAULTS
from tests.campaigns.planted_faults.faults import RIGHT, Fault
from tests.campaigns.planted_faults.runner import try_fault
from tests.campaigns.planted_faults.worlds import make_worlds

# Exit status of the check, then data type and fault.
CHOSEN = {
    ("msrvtt_retrieval", "video too short"): 0,
    ("msrvtt_retrieval", "video frames zeroed"): 1,
    ("msrvtt_retrieval", "csv unquoted comma"): 2,
    ("msrvtt_retrieval", "attributes a number"): 1,
    ("msrvtt_retrieval", "label index 2^32+3"): 2,
    ("msrvtt_retrieval", "every object file of other frames"): 2,
    ("didemo_retrieval", "videos' LMDB of an empty value"): 1,
    ("msrvtt_qa", "answers of another data set"): 2,
    ("msrvtt_mc", "video missing"): 1,
    ("pretrain", "caption twice"): 0,
    ("pretrain", "record's rate NaN"): 1,
    ("pretrain", "shard missing"): 2,
}
BY_NAME = {(fault.datatype, fault.name): fault for fault in FAULTS}


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("planted")
    make_worlds(folder)
    return folder


@pytest.mark.parametrize("place", CHOSEN, ids=" ".join)
def test_training_does_what_the_check_says(place: tuple[str, str], worlds: Path, tmp_path: Path):
    verdict = try_fault(BY_NAME[place], worlds, tmp_path / "fault")
    assert verdict.is_good, verdict
    assert verdict.naming == RIGHT and verdict.status == CHOSEN[place]


def test_there_are_many_faults_of_many_kinds_and_each_once():
    faults = [fault for fault in FAULTS if fault.kinds]
    assert len(faults) >= 150 and len({fault.name.split(", ")[0] for fault in faults}) >= 60
    assert len(BY_NAME) == len(FAULTS)
    assert all(isinstance(fault, Fault) for fault in FAULTS)
