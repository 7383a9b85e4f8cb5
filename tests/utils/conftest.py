"""Fixtures that tests of several rooms share: a demo world of all data sets, and shards that a csv was converted to."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.utils.conversion import Converted, convert_in_both_formats, write_source
from tests.utils.demo.small_world import write_small_world


@pytest.fixture(scope="session")
def demo_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small demo world on disk; tests read it only."""
    return write_small_world(tmp_path_factory.mktemp("demo") / "world")


@pytest.fixture(scope="session")
def webvid_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with webvid.csv, and videos of most of its rows in videos/."""
    return write_source(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="session")
def converted(webvid_source: Path, tmp_path_factory: pytest.TempPathFactory) -> Converted:
    """The shards of `webvid_source`; tests read them only."""
    return convert_in_both_formats(webvid_source, tmp_path_factory.mktemp("converted"))
