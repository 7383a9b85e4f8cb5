"""What happens to evaluation clips that are missing or cannot be read."""

from __future__ import annotations

import pytest

from utils.evaluation.bad_videos import BadVideos, check_bad_videos


@pytest.mark.parametrize("bad", [[], ["a.mp4: no frame decodes"]])
def test_they_may_be_left_out_where_that_is_asked_for(bad: list[str]):
    assert check_bad_videos(bad, "skip") is None


def test_all_of_them_are_named_with_the_remedy():
    assert check_bad_videos([], "error") is None
    with pytest.raises(BadVideos) as caught:
        check_bad_videos([f"{number}.mp4: no frame decodes" for number in range(30)], "error")
    lines = str(caught.value).splitlines()
    assert lines[0] == "30 clips cannot be read:" and len(lines) == 32
    assert lines[1] == "  0.mp4: no frame decodes" and lines[30] == "  29.mp4: no frame decodes"
    assert "--on_bad_video skip" in lines[31]
