"""Handling of evaluation clips that are missing or cannot be read."""

from __future__ import annotations

from collections.abc import Sequence


class BadVideos(Exception):
    """Evaluation clips are missing or cannot be read; the message lists them."""


def check_bad_videos(bad: Sequence[str], on_bad_video: str) -> None:
    """Raise BadVideos with the list if there are any and `on_bad_video` is "error"; "skip" lets them be left out."""
    if bad and on_bad_video == "error":
        listed = "\n  ".join(bad)
        raise BadVideos(
            f"{len(bad)} clips cannot be read:\n  {listed}\nMend or remove them, or leave them out of the results with "
            "--on_bad_video skip."
        )
