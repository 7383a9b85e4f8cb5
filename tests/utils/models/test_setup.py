"""From --clip_archive and --init_model to a model: every kind of checkpoint, and what is said about wrong ones."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from modules.config import UNSTATED, Behaviour
from modules.initialise import resize_positions
from modules.objectives.set_matching import SetMatching
from modules.tasks.answering import AnswerModel
from modules.tasks.pretrain import PretrainModel
from tests import tiny
from tests.utils.checkpoints import released_state
from tests.utils.models.scripted import save_writer
from tests.utils.models.small_clip import SIZES, STATE, equal
from utils.models.random_clip import ClipSizes, random_state_dict, save_archive
from utils.models.setup import POSITIONS, setup_model
from utils.runtime.checkpoint import CheckpointError, model_content, save_atomically
from utils.settings.fields import from_flat
from utils.settings.groups import UseSettings
from utils.settings.parser import parse_arguments

OBJECTS = ("--need_object", "--use_action", "--object_count", "4", "--num_actions", "2")


def make(archive: Path, *flags: str) -> tuple[Any, list[str]]:
    """The model that a command line means, and the log."""
    sizes = ["--fusion_layers", "3", "--max_frames", "3", "--max_words", "12", "--dropout", "0"]
    args = parse_arguments(["--do_train", "--output_dir", "unused", "--clip_archive", str(archive), *sizes, *flags])
    lines: list[str] = []
    return setup_model(PretrainModel, args, lines.append, heads=args.init_heads), lines


def save_own(path: Path, behaviour: str = "intended", **choices: Any) -> Any:
    """Write a checkpoint of a tiny model and return the model."""
    model = tiny.model(behaviour=behaviour, seed=5, **choices)
    save_atomically(model_content(model, 7, 1), path)
    return model


def test_half_precision_archives_are_computed_in_full(tmp_path: Path):
    save_archive({k: v.half() if v.is_floating_point() else v for k, v in STATE.items()}, tmp_path / "half.pt")
    model, _ = make(tmp_path / "half.pt")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert torch.equal(model.clip.text_projection, STATE["text_projection"].half().float())


def test_a_state_dict_of_something_else_is_a_clear_error(tmp_path: Path):
    torch.save({"layer1.weight": torch.zeros(2)}, tmp_path / "resnet.pt")
    with pytest.raises(CheckpointError, match=r"resnet\.pt: not a CLIP ViT state dict.*visual\.conv1\.weight"):
        make(tmp_path / "resnet.pt")


def test_a_new_model_starts_from_clip_and_its_other_values_from_the_seed(archive: Path):
    model, lines = make(archive, *OBJECTS, "--seed", "3")
    assert model.config == tiny.config() and model.behaviour == Behaviour()
    assert torch.equal(model.clip.token_embedding.weight, STATE["token_embedding.weight"])
    assert torch.equal(model.fusion.blocks[1].mlp.c_fc.weight, STATE["transformer.resblocks.1.mlp.c_fc.weight"])
    assert re.search(r"clip\.pt: \d+ of \d+ parameters start from CLIP", lines[0])
    assert equal(model.state_dict(), make(archive, *OBJECTS, "--seed", "3")[0].state_dict())
    other = make(archive, *OBJECTS, "--seed", "4")[0].state_dict()
    assert not torch.equal(model.vocabulary_head.proj, other["vocabulary_head.proj"])


def test_an_own_checkpoint_comes_back_with_its_behaviour(archive: Path, tmp_path: Path):
    saved = save_own(tmp_path / "own.bin", behaviour="released")
    model, lines = make(archive, *OBJECTS, "--init_model", str(tmp_path / "own.bin"))
    assert equal(model.state_dict(), saved.state_dict())
    assert model.behaviour == Behaviour.preset("released") and model.config == saved.config
    assert len(lines) == 1 and "parameters taken" in lines[0]
    chosen, _ = make(archive, *OBJECTS, "--init_model", str(tmp_path / "own.bin"), "--behaviour", "intended")
    assert chosen.behaviour == Behaviour()


def test_the_matching_loss_is_chosen_over_the_behaviour_and_stays_in_checkpoints(archive: Path, tmp_path: Path):
    settings = from_flat(UseSettings, {"clip_archive": str(archive), "need_object": True, "max_words": 12})
    model = setup_model(PretrainModel, settings, [].append, matching_loss="released")
    assert model.behaviour == Behaviour(matching_loss="released")
    assert not model.objective(SetMatching).is_contrastive
    save_atomically(model_content(model, 0, 0), tmp_path / "own.bin")
    again = from_flat(UseSettings, {"clip_archive": str(archive), "init_model": str(tmp_path / "own.bin")})
    assert setup_model(PretrainModel, again, [].append).behaviour == model.behaviour
    other = setup_model(PretrainModel, again, [].append, matching_loss="contrastive")
    assert other.behaviour == Behaviour() and other.objective(SetMatching).is_contrastive


def test_a_checkpoint_of_before_keeps_the_behaviour_that_it_was_trained_with(archive: Path, tmp_path: Path):
    content = model_content(save_own(tmp_path / "own.bin"), 7, 1)
    for name in UNSTATED:
        del content["behaviour"][name]
    save_atomically(content, tmp_path / "own.bin")
    model, _ = make(archive, *OBJECTS, "--init_model", str(tmp_path / "own.bin"))
    assert model.behaviour == Behaviour(**UNSTATED)
    chosen, _ = make(archive, *OBJECTS, "--init_model", str(tmp_path / "own.bin"), "--behaviour", "intended")
    assert chosen.behaviour == Behaviour()


def test_the_width_of_heads_comes_from_the_archive_and_stays_in_checkpoints(tmp_path: Path):
    save_archive(random_state_dict(replace(SIZES, head_width=16)), tmp_path / "clip.pt")
    model, _ = make(tmp_path / "clip.pt", *OBJECTS)
    heads = {name: part.heads for name, part in model.named_modules() if hasattr(part, "heads")}
    assert set(heads.values()) == {64 // 16} and len(heads) == 4 + 3 + 3 + 1 + 2
    save_atomically(model_content(model, 7, 1), tmp_path / "own.bin")
    again, _ = make(tmp_path / "nothing", "--init_model", str(tmp_path / "own.bin"), *OBJECTS)
    assert again.config.head_width == 16 and equal(model.state_dict(), again.state_dict())


def test_an_own_checkpoint_needs_no_clip_archive(tmp_path: Path):
    saved = save_own(tmp_path / "own.bin")
    model, _ = make(tmp_path / "absent.pt", *OBJECTS, "--init_model", str(tmp_path / "own.bin"))
    assert equal(model.state_dict(), saved.state_dict())


def test_objects_may_be_added_to_a_checkpoint_without_them(archive: Path, tmp_path: Path):
    saved = save_own(tmp_path / "own.bin", need_object=False, use_action=False)
    model, lines = make(archive, *OBJECTS, "--init_model", str(tmp_path / "own.bin"))
    state = model.state_dict()
    assert all(torch.equal(state[name], value) for name, value in saved.state_dict().items())
    source = "visual.transformer.resblocks.2.attn.in_proj_weight"
    assert torch.equal(state["trajectory_encoder.block.attn.in_proj_weight"], STATE[source])
    assert torch.equal(state["action_encoder.proj"], STATE["visual.proj"])
    queries = state["action_encoder.queries"]
    assert torch.isfinite(queries).all() and queries.std() > 0.01
    assert "trained with another choice of trajectories and actions" in lines[0]
    assert re.search(r"\d+ further parameters start from CLIP, \d+ anew: action_encoder\.queries", lines[2])


def save_without_vocabulary(path: Path) -> dict[str, Any]:
    """Write a checkpoint that has lost a head, and return its entries."""
    model = tiny.model(seed=5)
    content = model_content(model, 7, 1)
    content["model"] = {name: value for name, value in content["model"].items() if not name.startswith("vocabulary")}
    save_atomically(content, path)
    return content["model"]


def test_heads_that_a_checkpoint_lacks_come_from_another_one(archive: Path, tmp_path: Path):
    own = save_without_vocabulary(tmp_path / "own.bin")
    other = tiny.model(seed=6)
    save_atomically(model_content(other, 3, 1), tmp_path / "other.bin")
    flags = [*OBJECTS, "--init_model", str(tmp_path / "own.bin"), "--init_heads", str(tmp_path / "other.bin")]
    model, lines = make(archive, *flags)
    state, heads = model.state_dict(), other.state_dict()
    assert all(torch.equal(state[name], value) for name, value in own.items())
    assert all(torch.equal(state[name], heads[name]) for name in ("vocabulary_head.proj", "vocabulary_head.bias"))
    assert set(state) - set(own) == {"vocabulary_head.proj", "vocabulary_head.bias"} and not model.new_names
    assert any("other.bin: 2 of 2 parameters that --init_model lacks taken: vocabulary_head.bias" in at for at in lines)


def test_heads_of_other_sizes_or_of_no_checkpoint_are_an_error(archive: Path, tmp_path: Path):
    save_without_vocabulary(tmp_path / "own.bin")
    content = model_content(tiny.model(seed=6), 3, 1)
    content["model"]["vocabulary_head.bias"] = torch.zeros(3)
    save_atomically(content, tmp_path / "other.bin")
    flags = [*OBJECTS, "--init_model", str(tmp_path / "own.bin"), "--init_heads"]
    with pytest.raises(CheckpointError, match=r"other\.bin does not fit this model:\n  vocabulary_head\.bias: \(3,\)"):
        make(archive, *flags, str(tmp_path / "other.bin"))
    with pytest.raises(CheckpointError, match=re.escape(str(archive))):
        make(archive, *flags, str(archive))
    content["config"]["answers"] = 5
    save_atomically(content, tmp_path / "damaged.bin")
    with pytest.raises(CheckpointError, match=r"damaged\.bin: .*answers"):
        make(archive, *flags, str(tmp_path / "damaged.bin"))
    for given in ([], ["--init_model", str(archive)]):
        with pytest.raises(CheckpointError, match="--init_heads other: gives what a checkpoint of --init_model lacks"):
            make(archive, *given, "--init_heads", "other")


def test_a_classifier_of_other_answers_is_not_taken_though_it_fits(archive: Path, tmp_path: Path):
    """As many classes in another order fit, and mean something else."""
    save_own(tmp_path / "own.bin")
    yes_no = tiny.model(AnswerModel, answers=("yes", "no"), seed=6)
    save_atomically(model_content(yes_no, 3, 1), tmp_path / "yes_no.bin")

    def answering(*answers: str) -> tuple[Any, list[str]]:
        flags = [*OBJECTS, "--init_model", str(tmp_path / "own.bin")]
        args, lines = (
            parse_arguments(["--do_train", "--output_dir", "unused", "--clip_archive", str(archive), *flags]),
            [],
        )
        heads = str(tmp_path / "yes_no.bin")
        return setup_model(AnswerModel, args, lines.append, answers, heads=heads), lines

    model, _ = answering("yes", "no")
    assert torch.equal(model.state_dict()["answer_head.weight"], yes_no.state_dict()["answer_head.weight"])
    model, lines = answering("no", "yes")
    assert not torch.equal(model.state_dict()["answer_head.weight"], yes_no.state_dict()["answer_head.weight"])
    assert any("0 of 0 parameters" in line for line in lines) and "answer_head.weight" in model.new_names


def test_objects_may_be_added_without_an_archive_too(tmp_path: Path):
    save_own(tmp_path / "own.bin", need_object=False, use_action=False)
    model, lines = make(tmp_path / "absent.pt", *OBJECTS, "--init_model", str(tmp_path / "own.bin"))
    assert lines[2].startswith("0 further parameters start from CLIP")
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())


def test_objects_may_be_left_out_of_a_checkpoint(archive: Path, tmp_path: Path):
    saved = save_own(tmp_path / "own.bin").state_dict()
    model, lines = make(archive, "--init_model", str(tmp_path / "own.bin"))
    # Room for objects stays in the table of positions, whatever the flags' defaults are.
    assert (model.config.object_count, model.config.num_actions) == (4, 2)
    assert all(torch.equal(value, saved[name]) for name, value in model.state_dict().items())
    assert "trained with another choice of trajectories and actions" in lines[0]
    assert "entries have no place in this model: action_encoder" in lines[2]


def test_a_checkpoint_of_other_sizes_is_an_error_with_both_shapes(archive: Path, tmp_path: Path):
    save_own(tmp_path / "own.bin")
    flags = ("--need_object", "--use_action", "--object_count", "6", "--num_actions", "2")
    with pytest.raises(CheckpointError) as caught:
        make(archive, *flags, "--init_model", str(tmp_path / "own.bin"))
    text = str(caught.value)
    assert text.startswith(f"{tmp_path / 'own.bin'} does not fit this model")
    assert "object_encoder.slot_embedding: (3, 4, 64) in the file, (3, 6, 64) in the model" in text
    assert "fusion.positional_embedding" in text


def test_a_released_checkpoint_is_converted(archive: Path, tmp_path: Path):
    torch.save({"epoch": 1, "model_state_dict": {**released_state(), "new.key": torch.zeros(1)}}, tmp_path / "stoa.bin")
    path = str(tmp_path / "stoa.bin")
    flags = ("--max_frames", "12", "--need_object", "--use_action", "--init_model", path)
    model, lines = make(archive, *flags)
    assert model.behaviour == Behaviour.preset("released")
    assert (model.config.object_count, model.config.num_actions, model.config.max_frames) == (10, 4, 12)
    source = released_state()["clip.visual.conv1.weight"]
    assert torch.equal(model.clip.visual.conv1.weight, source.view_as(model.clip.visual.conv1.weight))
    text = "\n".join(lines)
    assert "1 unknown entries left out: new.key" in text and "dead entries left out" in text
    again, _ = make(archive, *flags, "--behaviour", "intended")
    assert again.behaviour == Behaviour()


def test_a_released_checkpoint_without_a_live_key_is_an_error_that_names_it(archive: Path, tmp_path: Path):
    state = released_state()
    del state["clip.fusion_proj"]
    torch.save(state, tmp_path / "stoa.bin")
    with pytest.raises(CheckpointError, match=r"stoa\.bin: .*vocabulary_head\.proj"):
        make(archive, "--need_object", "--use_action", "--init_model", str(tmp_path / "stoa.bin"))


@pytest.mark.parametrize("kind", ["script", "plain", "safetensors"])
def test_a_clip_archive_may_be_given_as_init_model(tmp_path: Path, kind: str):
    path = tmp_path / ("clip.safetensors" if kind == "safetensors" else "ViT-B-16.pt")
    if kind == "script":
        save_archive(STATE, path)
    elif kind == "plain":
        torch.save(STATE, path)
    else:
        save_file(STATE, path)
    model, _ = make(tmp_path / "absent.pt", *OBJECTS, "--init_model", str(path))
    assert equal(model.state_dict(), make(path, *OBJECTS)[0].state_dict())


def test_no_such_checkpoint_is_an_error(archive: Path, tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"nowhere\.bin: no such checkpoint file"):
        make(archive, "--init_model", str(tmp_path / "nowhere.bin"))
    with pytest.raises(CheckpointError, match=r"nowhere\.safetensors"):
        make(archive, "--init_model", str(tmp_path / "nowhere.safetensors"))


def test_a_checkpoint_with_python_objects_is_refused(archive: Path, tmp_path: Path):
    torch.save({"model": {}, "args": SIZES}, tmp_path / "foreign.bin")
    with pytest.raises(CheckpointError, match=r"foreign\.bin: holds Python objects"):
        make(archive, "--init_model", str(tmp_path / "foreign.bin"))


def test_the_log_says_whose_the_clip_weights_are(archive: Path, tmp_path: Path):
    assert make(archive)[1][0].endswith("the others anew; it is none of OpenAI's own files")
    save_own(tmp_path / "own.bin", need_object=False, use_action=False)
    lines = make(archive, *OBJECTS, "--init_model", str(tmp_path / "own.bin"))[1]
    assert lines[2].endswith(f" ({archive}, none of OpenAI's own files)")


@pytest.mark.parametrize("flag", ["--clip_archive", "--init_model"])
def test_an_archive_that_runs_code_is_refused_wherever_it_is_given(archive: Path, tmp_path: Path, flag: str):
    victim = tmp_path / "victim.py"
    victim.write_text("unchanged")
    evil = save_writer(tmp_path / "evil.pt", victim)
    with pytest.raises(CheckpointError, match=r"evil\.pt: its data\.pkl holds .* which would run code"):
        make(archive, flag, str(evil))
    assert victim.read_text() == "unchanged"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("vision_layers", 10**7, "vision_layers 10000000: no int that a model can have"),
        ("fusion_layers", "many", "fusion_layers 'many': no int"),
        ("embed_dim", -64, "embed_dim -64: no int"),
        ("need_object", 1, "need_object 1: no bool"),
        ("answers", 7, "answers 7: no tuple"),
        ("vision_width", 10**6, r"a model of its sizes has [0-9,]+ numbers, the file holds"),
        ("vocab_size", 10**9, r"a model of its sizes has [0-9,]+ numbers"),
        ("context_length", 2**31, r"(a model of its sizes has|no model has the sizes)"),
        ("vision_width", 128, r"does not fit this model"),
    ],
)
def test_a_configuration_is_held_against_the_tensors_before_a_model_is_built(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: Any, message: str
):
    content = model_content(tiny.model(), 7, 1)
    content["config"][name] = value
    save_atomically(content, tmp_path / "own.bin")
    monkeypatch.setattr("utils.models.setup.initialise", None)
    with pytest.raises(CheckpointError, match=rf"own\.bin.*{message}"):
        make(archive, *OBJECTS, "--init_model", str(tmp_path / "own.bin"))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"text_projection": torch.zeros(0, 10**9)}, "visual.proj has shape"),
        ({"positional_embedding": torch.zeros(10**9, 0)}, "positional_embedding has shape"),
        ({f"visual.transformer.resblocks.x{n}.a": torch.zeros(1) for n in range(1001)}, "vision_layers 1005: no int"),
        (
            {"visual.transformer.resblocks.x.a": torch.zeros(1)},
            "no place for its entries visual.transformer.resblocks.x.a",
        ),
        ({"visual.conv1.weight": torch.tensor(3.0)}, "visual.conv1.weight has 0 dimensions"),
    ],
    ids=str,
)
def test_sizes_told_by_shapes_are_held_against_the_tensors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: dict[str, torch.Tensor], message: str
):
    torch.save({**STATE, **changed}, tmp_path / "clip.bin")
    monkeypatch.setattr("utils.models.setup.initialise", None)
    with pytest.raises(CheckpointError, match=rf"clip\.bin: .*{message}"):
        make(tmp_path / "clip.bin")


def test_a_checkpoint_of_other_kinds_of_values_is_damaged(archive: Path, tmp_path: Path):
    torch.save({"format": "stoa-vlp", "version": 1, "config": [1], "behaviour": {}, "model": {}}, tmp_path / "own.bin")
    with pytest.raises(CheckpointError, match=r"own\.bin: damaged: its config cannot be used"):
        make(archive, "--init_model", str(tmp_path / "own.bin"))


# -- pictures of another size


@pytest.mark.parametrize(("side", "grid"), [(48, 6), (16, 2), (8, 1)])
def test_clip_s_positions_are_interpolated_to_the_resolution_that_is_asked_for(archive: Path, side: int, grid: int):
    model, lines = make(archive, "--image_resolution", str(side))
    expected = resize_positions(STATE[POSITIONS], grid)
    assert torch.equal(model.clip.visual.positional_embedding, expected) and model.config.grid == grid
    said = f"{archive}: 16 visual positions interpolated to {grid**2}, for pictures of {side} pixels"
    assert [line for line in lines if "interpolated" in line] == [said]


@pytest.mark.parametrize("side", [48, 16])
def test_an_own_checkpoint_s_positions_are_interpolated_too(tmp_path: Path, side: int):
    saved = save_own(tmp_path / "own.bin").state_dict()
    flags = ("--init_model", str(tmp_path / "own.bin"), *OBJECTS, "--image_resolution", str(side))
    model, lines = make(tmp_path / "absent.pt", *flags)
    state, name = model.state_dict(), f"clip.{POSITIONS}"
    assert torch.equal(state.pop(name), resize_positions(saved.pop(name), side // 8)) and equal(state, saved)
    assert f"16 visual positions interpolated to {(side // 8) ** 2}, for pictures of {side} pixels" in "".join(lines)
    save_atomically(model_content(model, 7, 1), tmp_path / "again.bin")
    again, lines = make(tmp_path / "absent.pt", "--init_model", str(tmp_path / "again.bin"), *OBJECTS)
    assert again.config.image_resolution == side and not [line for line in lines if "interpolated" in line]


def test_a_released_checkpoint_s_positions_are_interpolated_too(archive: Path, tmp_path: Path):
    torch.save(released_state(), tmp_path / "stoa.bin")
    flags = ("--max_frames", "12", "--need_object", "--use_action", "--init_model", str(tmp_path / "stoa.bin"))
    before = make(archive, *flags)[0].config.image_resolution
    model, lines = make(archive, *flags, "--image_resolution", str(2 * before))
    table = released_state()[f"clip.{POSITIONS}"]
    expected = resize_positions(table, model.config.grid)
    assert len(expected) > len(table) and torch.equal(model.clip.visual.positional_embedding, expected)
    assert [line for line in lines if "stoa.bin" in line and f"interpolated to {len(expected) - 1}," in line]


def test_the_resolution_of_the_weights_themselves_changes_nothing(archive: Path, tmp_path: Path):
    save_own(tmp_path / "own.bin")
    for flags in ((), (*OBJECTS, "--init_model", str(tmp_path / "own.bin"))):
        (plain, said), (asked, lines) = make(archive, *flags), make(archive, *flags, "--image_resolution", "32")
        assert equal(plain.state_dict(), asked.state_dict()) and said == lines


@pytest.mark.parametrize("kind", ["archive", "own.bin", "stoa.bin"])
def test_a_resolution_that_patches_do_not_fill_is_an_error(archive: Path, tmp_path: Path, kind: str):
    save_own(tmp_path / "own.bin")
    torch.save(released_state(), tmp_path / "stoa.bin")
    start = () if kind == "archive" else ("--init_model", str(tmp_path / kind))
    with pytest.raises(CheckpointError, match=r"image_resolution 37 is no multiple of patch_size \d+"):
        make(archive, *OBJECTS, *start, "--image_resolution", "37")


@pytest.mark.parametrize("shape", [(), (16, 64), (37, 64), (17, 63), (17, 64, 1)], ids=str)
@pytest.mark.parametrize("flags", [(), ("--image_resolution", "48")], ids=str)
def test_a_table_that_is_not_that_of_its_own_configuration_is_damage_and_not_interpolated(
    archive: Path, tmp_path: Path, shape: tuple[int, ...], flags: tuple[str, ...]
):
    content = model_content(tiny.model(), 7, 1)
    content["model"][f"clip.{POSITIONS}"] = torch.zeros(shape)
    save_atomically(content, tmp_path / "own.bin")
    with pytest.raises(CheckpointError, match=r"own\.bin.*(does not fit this model|damaged: .* visual positions)"):
        make(archive, *OBJECTS, "--init_model", str(tmp_path / "own.bin"), *flags)


# -- what a CLIP is beside its tensors


def test_towers_of_different_widths_and_a_joint_space_of_a_third_run_through(tmp_path: Path):
    sizes = ClipSizes(28, 14, 160, 4, 72, 96, 3, 20, 100, head_width=80, text_head_width=48, activation="gelu")
    save_archive(random_state_dict(sizes), tmp_path / "clip.pt")
    model, _ = make(tmp_path / "clip.pt", *OBJECTS)
    heads = {name: part.heads for name, part in model.named_modules() if hasattr(part, "heads")}
    by_part = {"clip.visual": 2, "clip.transformer": 2, "fusion": 1, "trajectory_encoder": 2, "action_encoder": 2}
    for part, count in by_part.items():
        assert {number for name, number in heads.items() if name.startswith(part)} == {count}, part
    assert {part.activation for part in model.modules() if hasattr(part, "activation")} == {"gelu"}
    assert torch.isfinite(tiny.total(model(tiny.batch(2, model.config))))


def test_a_released_checkpoint_is_quick_gelu_whatever_a_flag_says(archive: Path, tmp_path: Path):
    torch.save(released_state(), tmp_path / "stoa.bin")
    flags = ("--max_frames", "12", "--need_object", "--use_action", "--init_model", str(tmp_path / "stoa.bin"))
    model, lines = make(archive, *flags, "--activation", "gelu")
    assert model.config.activation == "quick_gelu"
    assert [line for line in lines if "activation stays quick_gelu as its tensors need, not gelu" in line]


def test_parts_that_cannot_start_from_clip_say_why(tmp_path: Path):
    save_own(tmp_path / "own.bin", need_object=False, use_action=False)
    torch.save({name: value for name, value in STATE.items() if name != "quick_gelu"}, tmp_path / "bare.pt")
    lines = make(tmp_path / "bare.pt", *OBJECTS, "--init_model", str(tmp_path / "own.bin"))[1]
    assert lines[2].startswith("0 further parameters start from CLIP")
    assert "bare.pt: nothing states its activation" in lines[2]


def clip4clip(folder: Path, **more: torch.Tensor) -> Path:
    """A checkpoint of CLIP4Clip."""
    towers = {f"clip.{name}": value for name, value in STATE.items() if value.is_floating_point()}
    torch.save({**towers, **more}, folder / "clip4clip.bin")
    return folder / "clip4clip.bin"


def lstm() -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    return {f"lstm_visual.{name}": value.detach() for name, value in torch.nn.LSTM(64, 64).named_parameters()}


def test_clip4clip_s_header_is_loaded_where_the_model_has_it(tmp_path: Path):
    path = clip4clip(tmp_path, **lstm())
    model, _ = make(path, "--sim_header", "seqLSTM")
    assert all(torch.equal(getattr(model.similarity.lstm, name[12:]), value) for name, value in lstm().items())
    assert not [name for name in model.new_names if name.startswith("similarity.")]
    assert model.config.activation == "quick_gelu"
    for other in ("meanP", "seqTransf"):
        with pytest.raises(
            CheckpointError, match=r"clip4clip\.bin: brings a similarity header .* give its --sim_header"
        ):
            make(path, "--sim_header", other)


def test_clip4clip_s_patch_layer_over_three_frames_is_taken_as_it_is(tmp_path: Path):
    deep = torch.randn(64, 3, 3, 8, 8)
    path = clip4clip(tmp_path, **{"clip.visual.conv2.weight": deep})
    model, _ = make(path)
    assert model.config.linear_patch == "3d" and torch.equal(model.clip.visual.conv1.weight, deep)
    with pytest.raises(CheckpointError, match=r"conv1\.weight has shape \(64, 3, 3, 8, 8\), the model needs"):
        make(path, "--linear_patch", "2d")
