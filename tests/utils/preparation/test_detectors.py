"""torchvision's detectors: what is refused before a frame is seen (what is found: test_extract_objects.py)."""

from __future__ import annotations

import pytest

from utils.preparation.detectors import TorchvisionDetector


@pytest.mark.parametrize("name", ["None", "nan", "null"])
def test_what_stands_for_a_missing_name_is_no_class(name: str):
    with pytest.raises(ValueError, match=f"--classes, name 2: '{name}' is no class name"):
        TorchvisionDetector("ssdlite320_mobilenet_v3_large", "none.pth", ["dog", name])


def test_a_model_that_torchvision_does_not_have_is_an_error():
    with pytest.raises(ValueError, match="torchvision has no detection model 'resnet18'"):
        TorchvisionDetector("resnet18", "DEFAULT")
