"""What the tests of this room draw."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.utils.checkpoints import save_tiny
from tests.utils.pictures.pictured import TEXT, clip_with_boxes
from tests.world import World
from utils.pictures.explain import Explanation, explain
from utils.predictor import Predictor


@pytest.fixture(scope="session")
def video(world: World) -> Path:
    """A test clip of 86x64 pixels and 32 frames, with an object file."""
    return clip_with_boxes(world)


@pytest.fixture(scope="session")
def explanation(world: World, video: Path, tmp_path_factory: pytest.TempPathFactory) -> Explanation:
    """What a tiny model makes of the clip and TEXT; tests read it only."""
    path = save_tiny(tmp_path_factory.mktemp("model"))
    objects = {"object_path": str(world.msrvtt / "objects"), "labelmap_path": str(world.label_map)}
    return explain(Predictor(path, device="cpu", precision="fp32", **objects), video, TEXT)
