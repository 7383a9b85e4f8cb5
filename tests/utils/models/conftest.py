"""Files of weights for the tests of this room."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.utils.models.small_clip import STATE
from utils.models import clip_weights
from utils.models.random_clip import save_archive


@pytest.fixture(autouse=True)
def nothing_in_the_usual_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clip_weights, "REPOSITORY", tmp_path / "repository")


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A small CLIP as a TorchScript file."""
    save_archive(STATE, tmp_path / "clip.pt")
    return tmp_path / "clip.pt"
