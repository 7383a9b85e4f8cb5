"""Fixtures for all tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.world import Downstream, World, make_downstream, make_world


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder with the golden numbers and the real clips and annotation files, beside the repository."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip(f"no folder {folder.name}/ beside the repository: real files are not there")
    return folder


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A small demo world with shards and a tiny CLIP; tests add to it but change nothing."""
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="session")
def downstream(world: World, tmp_path_factory: pytest.TempPathFactory) -> Downstream:
    """A small demo world in the formats of all downstream data sets; tests add caches to it but change nothing."""
    return make_downstream(tmp_path_factory.mktemp("downstream"), world.clip)
