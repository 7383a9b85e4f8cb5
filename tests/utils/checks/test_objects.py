"""Which object files belong to the clips of a data set, and whether training could start with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dataloaders.object_store import default_store_path
from modules.config import ModelChoices
from utils.checks.findings import Finding
from utils.checks.objects import no_object_files, object_files, orphans, read_label_map, wrong_order
from utils.checks.setup import CheckArguments, ListedSplit


def arguments(folder: Path, **changes: Any) -> CheckArguments:
    """Flags of a check of objects in {folder}/objects, which may be without any."""
    base: dict[str, Any] = {"output_dir": str(folder / "out"), "datatype": "msrvtt_retrieval"}
    base |= {"object_path": str(folder / "objects"), "labelmap_path": str(folder / "map.json")}
    return CheckArguments(**{**base, **changes})


def listed(name: str, *video_ids: str, **more: Any) -> ListedSplit:
    return ListedSplit(name, list(video_ids), [], **more)


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_no_label_map_is_needed_where_objects_are_not_checked(tmp_path: Path):
    findings: list[Finding] = []
    args = arguments(tmp_path, object_path=CheckArguments.object_path)
    assert not args.checks_objects and read_label_map(args, findings) is None and findings == []
    asked = arguments(tmp_path, object_path=CheckArguments.object_path, model=ModelChoices(need_object=True))
    assert asked.checks_objects


def test_a_label_map_that_cannot_be_read_stops_training(tmp_path: Path):
    findings: list[Finding] = []
    assert read_label_map(arguments(tmp_path), findings) is None
    (tmp_path / "map.json").write_text("{}")
    assert read_label_map(arguments(tmp_path), findings) is None
    assert [finding.severity for finding in findings] == ["stop", "stop"]
    assert "no label map at" in findings[0].detail and "has no 'label_to_idx'" in findings[1].detail
    (tmp_path / "map.json").write_text(json.dumps({"label_to_idx": {"dog": 1}}))
    found = read_label_map(arguments(tmp_path), findings)
    assert found == {"label_to_idx": {"dog": 1}} and len(findings) == 2


def test_missing_files_and_those_of_no_video_are_findings(tmp_path: Path):
    objects = tmp_path / "objects"
    touch(objects / "a.json", objects / "tsv_files" / "b.json", objects / "stray.json")
    findings: list[Finding] = []
    files = object_files(arguments(tmp_path), [listed("train", "a", "c"), listed("test", "b", "a")], findings)
    assert files == {"a": (str(objects / "a.json"),), "b": (str(objects / "tsv_files" / "b.json"),)}
    assert findings == [
        Finding("missing_objects", "c", str(objects), "no c.json"),
        Finding("orphan_objects", "stray", str(objects / "stray.json"), ""),
    ]


def test_a_split_may_have_a_folder_and_its_files_names_of_their_own(tmp_path: Path):
    objects = tmp_path / "objects"
    touch(objects / "train" / "a.json", objects / "test" / "a_[0]_[31].json")
    findings: list[Finding] = []
    splits = [listed("train", "a"), listed("test", "a", object_names={"a": "a_[0]_[31]"})]
    files = object_files(arguments(tmp_path), splits, findings)
    assert files == {"a": (str(objects / "train" / "a.json"), str(objects / "test" / "a_[0]_[31].json"))}
    assert findings == []


def test_pre_training_has_one_folder_whatever_lies_in_it(tmp_path: Path):
    objects = tmp_path / "objects"
    touch(objects / "a.json", objects / "train" / "b.json")
    findings: list[Finding] = []
    files = object_files(arguments(tmp_path, datatype="webvid"), [listed("train", "a")], findings)
    assert files == {"a": (str(objects / "a.json"),)} and findings == []


def test_the_label_map_among_the_files_is_no_orphan(tmp_path: Path):
    objects = tmp_path / "objects"
    touch(objects / "map.json", objects / "b.json")
    args = arguments(tmp_path, labelmap_path=str(objects / "map.json"))
    found = list(orphans(args, objects, ["map", "a", "b"], {"a"}))
    assert found == [Finding("orphan_objects", "b", str(objects / "b.json"), "")]


def test_a_folder_without_files_stops_training_unless_its_store_is_there(tmp_path: Path):
    objects = tmp_path / "objects"
    objects.mkdir()
    findings: list[Finding] = []
    args = arguments(tmp_path)
    assert object_files(args, [listed("train", "a", "b")], findings) == {}
    assert [finding.severity for finding in findings] == ["stop"], "one line, not one for each video"
    assert findings[0].detail == f"{objects} and its folder tsv_files hold no object files (--object_path)"
    default_store_path(objects, args.object_settings).mkdir()
    assert no_object_files(args, objects) == []


@pytest.mark.parametrize(("wrong", "files", "stops"), [(0, 0, False), (1, 2, False), (2, 3, True)])
def test_most_files_in_the_other_order_stop_training(tmp_path: Path, wrong: int, files: int, stops: bool):
    findings = [Finding("wrong_rect_order", str(number), "", "") for number in range(wrong)]
    found = wrong_order(arguments(tmp_path), [*findings, Finding("no_objects", "x", "", "")], files)
    expected = f"--rect_order xyxy does not fit {wrong} of {files} object files"
    assert [finding.detail for finding in found] == ([expected] if stops else [])
