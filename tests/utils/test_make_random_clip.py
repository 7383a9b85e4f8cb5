"""The command that writes a CLIP with random weights."""

from __future__ import annotations

import pytest
import torch

from utils import make_random_clip
from utils.models.clip_weights import read_clip_weights


def test_command_line(tmp_path, capsys):
    path = tmp_path / "clip.pt"
    assert make_random_clip.main(["--output", str(path), "--vision_layers", "1", "--vocab_size", "100", "--fp16"]) == 0
    assert "parameters" in capsys.readouterr().out
    assert torch.jit.load(path).state_dict()["visual.proj"].dtype == torch.float16
    for wrong in (["--image_resolution", "60"], ["--text_width", "100"], ["--vision_layers", "0"], ["--wrong"]):
        with pytest.raises(SystemExit):
            make_random_clip.main(["--output", str(path), *wrong])


def test_what_no_tensor_tells_is_written_and_read_again(tmp_path, capsys):
    path = tmp_path / "clip.pt"
    sizes = ["--vision_width", "160", "--head_width", "80", "--text_head_width", "32", "--vocab_size", "100"]
    assert make_random_clip.main(["--output", str(path), *sizes, "--activation", "gelu"]) == 0
    described = read_clip_weights(path).described
    assert (described["activation"], described["head_width"], described["text_head_width"]) == ("gelu", 80, 32)
    with pytest.raises(SystemExit):
        make_random_clip.main(["--output", str(path), "--activation", "relu"])
    assert "--activation" in capsys.readouterr().err


def test_a_place_that_cannot_be_written_is_an_error(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert make_random_clip.main(["--output", str(tmp_path / "file" / "clip.pt"), "--vocab_size", "10"]) == 1
    assert "make_random_clip" in capsys.readouterr().err
