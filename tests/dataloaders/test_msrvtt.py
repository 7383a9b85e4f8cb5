"""MSR-VTT's lists of test pairs."""

from __future__ import annotations

from pathlib import Path

import pytest

from dataloaders.msrvtt import TextVideoPair, read_test_pairs


def test_pairs_keep_their_order_commas_and_quotes(tmp_path: Path):
    path = tmp_path / "test.csv"
    path.write_text(
        'key,vid_key,video_id,sentence\nret0,msr1,video9,"a ""red"" ball, bouncing"\nret1,msr2,video3,dogs\n'
    )
    assert read_test_pairs(path) == [TextVideoPair("video9", 'a "red" ball, bouncing'), TextVideoPair("video3", "dogs")]


def test_what_is_wrong_with_a_list_is_said(tmp_path: Path):
    path = tmp_path / "test.csv"
    with pytest.raises(FileNotFoundError, match=r"test\.csv: no such list of test pairs \(--val_csv\)"):
        read_test_pairs(path)
    path.write_text("video_id,caption\nvideo1,a dog\n")
    with pytest.raises(ValueError, match=r"test\.csv: no column sentence; found \['video_id', 'caption'\]"):
        read_test_pairs(path)
    path.write_text("video_id,sentence\n")
    with pytest.raises(ValueError, match=r"test\.csv: no rows"):
        read_test_pairs(path)


def test_the_real_list_is_read(shared: Path):
    found = list(shared.glob("realdata/**/MSRVTT_JSFUSION_test.csv"))
    if not found:
        pytest.skip("no MSRVTT_JSFUSION_test.csv among the real files")
    pairs = read_test_pairs(found[0])
    assert len(pairs) == 1000 and pairs[0].video_id == "video9770"
