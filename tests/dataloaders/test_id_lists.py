"""Files with video ids and frame sizes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dataloaders.id_lists import read_frame_sizes, read_ids


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "key,video_id\n1,v1\n2,v2\n3,v1\n"),
        ("b.csv", "videoid,name\nv1,x\nv2,y\n"),
        ("a.json", '["v1", "v2"]'),
        ("b.json", '[{"video_id": "v1", "caption": "x"}, {"video_id": "v2"}]'),
        ("c.json", '{"videos": [{"video_id": "v1"}, {"video_id": "v2"}], "sentences": []}'),
        ("a.jsonl", '{"video_id": "v1"}\n{"video_id": "v2"}\n'),
        ("a.txt", "v1\n\nv2\n"),
    ],
)
def test_ids_of_every_format(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    assert read_ids(tmp_path / name) == ["v1", "v2"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "name\nx\n", "columns"),
        ("a.json", '{"x": 1}', "videos"),
        ("b.json", '[{"x": 1}]', "no 'video_id'"),
        ("a.txt", "", "no video ids"),
    ],
)
def test_files_without_ids_are_errors(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        read_ids(tmp_path / name)


def test_frame_sizes(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"v1": [320, 240], "v2": {"width": 596, "height": 336, "fps": 25.0}}))
    (tmp_path / "a.csv").write_text("video_id,width,height\nv1,320,240\nv2,596,336\n")
    for name in ("a.json", "a.csv"):
        assert read_frame_sizes(tmp_path / name) == {"v1": (320, 240), "v2": (596, 336)}
    (tmp_path / "b.json").write_text('{"v1": [320]}')
    with pytest.raises(ValueError, match="v1"):
        read_frame_sizes(tmp_path / "b.json")
    (tmp_path / "c.json").write_text('{"v1": [320, 0]}')
    with pytest.raises(ValueError, match=r"c\.json: size of 'v1' is \[320, 0\], not width and height"):
        read_frame_sizes(tmp_path / "c.json")


@pytest.mark.parametrize(
    "size", ["64", "3.2", 64, True, None, [True, 64], [1.5, 64], [64, "x"], [64, 64, 3], [2**40, 1]]
)
def test_what_is_no_width_and_height_is_refused_by_video(tmp_path: Path, size: object) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"v0": [320.0, "240"], "v1": size}))
    with pytest.raises(ValueError, match=r"a\.json: size of 'v1' is .*, not width and height in pixels"):
        read_frame_sizes(tmp_path / "a.json")


def test_sizes_of_a_table_are_refused_by_line(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    for row, message in (
        ("v2,320,-1", "line 3: size of 'v2'"),
        ("../v,3,4", "line 3: .* is no video id"),
        ("v1,3,4", "line 3: 'v1' has another size before"),
        ("v2,1e3,4", "line 3: size of 'v2'"),
    ):
        path.write_text(f"video_id,width,height\nv1,320,240\n{row}\n")
        with pytest.raises(ValueError, match=rf"a\.csv, {message}"):
            read_frame_sizes(path)
