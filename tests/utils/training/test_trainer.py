"""The training loop in one process; several processes are in test_trainer_processes.py."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
from pathlib import Path

import pytest
import torch

from tests.utils.toy_run import ToyData, ToyModel, collate, make_settings, make_trainer, run_processes
from utils.runtime.checkpoint import CheckpointError, load
from utils.runtime.run_log import read_metrics
from utils.training.trainer import NonFiniteLoss

TIMES = ("clips_per_second", "data_wait")


def numbers(folder: Path) -> list[dict]:
    return [{k: v for k, v in line.items() if k not in TIMES} for line in read_metrics(folder / "metrics.jsonl")]


def assert_same_state(first: dict, second: dict) -> None:
    assert first.keys() == second.keys()
    for name in first:
        if isinstance(first[name], dict):
            assert_same_state(first[name], second[name])
        elif isinstance(first[name], torch.Tensor):
            assert torch.equal(first[name], second[name]), name
        elif name == "random_states" or isinstance(first[name], list):
            assert str(first[name]) == str(second[name]), name
        elif name != "output_dir":
            assert first[name] == second[name], name


@pytest.mark.parametrize("parts", [1, 2])
def test_killed_run_ends_like_an_undisturbed_one(tmp_path, parts):
    """SIGKILL at random forward passes, with a loader worker and dropout from torch's own generator."""
    options = ["--workers", "1", "--dropout", "0.5", "--settings", json.dumps({"gradient_accumulation_steps": parts})]
    assert run_processes(str(tmp_path / "whole"), *options)[0] == [0]
    was_killed = False
    kills = [random.randint(4 * parts + 1, 12 * parts), *(random.randint(1, 4 * parts) for _ in range(3))]
    for forward in kills:  # passes are counted anew after each start; a run that gets to its end first exits with 0
        codes, output = run_processes(str(tmp_path / "killed"), *options, "--kill_at", str(forward))
        assert codes[0] in (-signal.SIGKILL, 0), (kills, output)
        was_killed = was_killed or codes[0] != 0
    codes, output = run_processes(str(tmp_path / "killed"), *options)
    assert was_killed and codes == [0] and "resumed" in output[0], (kills, output)
    assert_same_state(load(tmp_path / "whole" / "restore.bin"), load(tmp_path / "killed" / "restore.bin"))
    assert numbers(tmp_path / "whole") == numbers(tmp_path / "killed"), kills


def test_cadence_of_lines_saves_and_evaluations(tmp_path):
    result = make_trainer(make_settings(tmp_path), evaluate=lambda step: {"R1": step}).fit()
    assert (result.step, result.stopped, result.skipped) == (12, False, 0)
    lines = numbers(tmp_path)
    assert [line["step"] for line in lines if line["kind"] == "train"] == [3, 6, 9, 12]
    assert [line["step"] for line in lines if line["kind"] == "evaluation"] == [5, 6, 10, 12]
    assert sorted(p.name for p in (tmp_path / "ckpt").iterdir()) == [f"pytorch_model.bin.{n}" for n in (12, 4, 6, 8)]
    assert lines[0]["lr"] == {"clip": 0.05, "fusion": 0.05} and lines[0]["vtm_accuracy"] == 0.5
    assert "contrastive" in lines[0] and "contrastive" not in lines[-1]
    losses = [line["vtm"] for line in lines if line["kind"] == "train"]
    assert losses[-1] < losses[0]
    log = (tmp_path / "log.txt").read_text()
    assert "step 12/12" in log and "saved" in log


def test_max_steps_ends_run_and_schedule(tmp_path):
    settings = make_settings(tmp_path, max_steps=5, schedule="warmup_linear")
    trainer = make_trainer(settings)
    assert trainer.fit().step == 5
    assert trainer.optimizer.rates() == {"clip": 0.0, "fusion": 0.0}
    assert make_trainer(settings).fit().step == 5  # already complete: nothing is done


def test_a_run_that_would_change_nothing_says_so(tmp_path):
    rates = {"lr": 0.0, "fusion_lr": 0.0, "object_lr": 0.0}
    with pytest.raises(ValueError, match="every learning rate is 0: nothing to train"):
        make_trainer(make_settings(tmp_path, **rates))
    make_trainer(make_settings(tmp_path, max_steps=2))
    assert "changes nothing" not in (tmp_path / "log.txt").read_text()
    make_trainer(make_settings(tmp_path, max_steps=1, schedule="warmup_linear", warmup_proportion=0.1))
    assert "WARNING one update in all" in (tmp_path / "log.txt").read_text()


def test_accumulated_parts_equal_the_whole_batch(tmp_path):
    def data() -> ToyData:
        every = ToyData()
        every.__class__ = type("Even", (ToyData,), {"__getitem__": even_item})
        return every

    def even_item(self, key):
        sample = ToyData.__getitem__(self, key)
        return {**sample, "mask": torch.ones(4, dtype=torch.bool)}  # equal counts: means of parts are the mean

    states = []
    for parts in (1, 2):
        settings = make_settings(tmp_path / str(parts), gradient_accumulation_steps=parts)
        trainer = make_trainer(settings, data=data())
        trainer.fit()
        states.append(trainer.model.state_dict())
    for name, value in states[0].items():
        assert torch.allclose(value, states[1][name], rtol=1e-4, atol=1e-5), name


def test_logit_scale_is_clamped(tmp_path):
    trainer = make_trainer(make_settings(tmp_path, epochs=1))
    assert trainer.model.clip.logit_scale.item() > 4.606
    trainer.fit()
    assert trainer.model.clip.logit_scale.item() <= 4.6052


def test_parameters_that_no_loss_reaches_stay(tmp_path):
    trainer = make_trainer(make_settings(tmp_path), contrastive_epochs=0)
    before = trainer.model.clip.text_projection.detach().clone()
    trainer.fit()
    assert torch.equal(before, trainer.model.clip.text_projection)


def test_frozen_layers_stay_frozen_when_losses_change(tmp_path):
    model = ToyModel()
    model.clip.token_embedding = torch.nn.Embedding(3, 3)
    trainer = make_trainer(make_settings(tmp_path, freeze_layer_num=0), model=model)
    trainer.fit()
    assert not model.clip.token_embedding.weight.requires_grad


def test_what_is_to_be_said_of_reading_a_clip_is_said_once(tmp_path, caplog):
    class Noting(ToyData):
        def __getitem__(self, key):
            return {**super().__getitem__(key), "notes": ["phone.avi: by number"] if key[1] == 5 else []}

    def collate_notes(samples):
        return {**collate(samples), "notes": [sample["notes"] for sample in samples]}

    trainer = make_trainer(make_settings(tmp_path), data=Noting())
    make_loader = trainer.make_loader

    def noting(epoch: int, start: int):
        loader = make_loader(epoch, start)
        loader.collate_fn = collate_notes
        return loader

    trainer.make_loader = noting
    assert trainer.fit().step == 12
    assert caplog.text.count("phone.avi: by number") == 1 and trainer.skips.total == 0


def test_non_finite_loss_names_step_losses_and_clips_and_saves_nothing(tmp_path):
    trainer = make_trainer(make_settings(tmp_path, save_every=1), data=ToyData(bad=11))
    with pytest.raises(NonFiniteLoss, match=r"at step \d+ \(.*vtm nan\) with the clips .*clip11\b"):
        trainer.fit()
    for path in tmp_path.rglob("*.bin*"):
        assert all(value.isfinite().all() for value in load(path)["model"].values())
    assert all(value.isfinite().all() for value in trainer.model.state_dict().values())


def test_signal_saves_and_the_same_command_goes_on(tmp_path):
    undisturbed = make_trainer(make_settings(tmp_path / "whole"), dropout=0.5)
    torch.manual_seed(0)
    undisturbed.fit()
    torch.manual_seed(0)
    stopped = make_trainer(make_settings(tmp_path / "cut"), dropout=0.5, data=ToyData(signal_at=17))
    torch.manual_seed(0)
    previous = signal.getsignal(signal.SIGTERM)
    result = stopped.fit()
    assert result.stopped and 0 < result.step < 7
    assert signal.getsignal(signal.SIGTERM) is previous
    assert "stopped by a signal" in (tmp_path / "cut" / "log.txt").read_text()
    resumed = make_trainer(make_settings(tmp_path / "cut"), dropout=0.5)
    assert resumed.fit().step == 12
    assert_same_state(undisturbed.model.state_dict(), resumed.model.state_dict())


def test_evaluation_that_a_kill_cut_off_is_run_first(tmp_path):
    def dies(step):
        raise InterruptedError

    with pytest.raises(InterruptedError):
        make_trainer(make_settings(tmp_path, eval_every=4), evaluate=dies).fit()
    assert load(tmp_path / "restore.bin")["evaluation_due"]
    steps: list[int] = []
    make_trainer(make_settings(tmp_path), evaluate=steps.append).fit()
    assert steps == [4, 5, 6, 10, 12]


def test_lines_of_a_run_that_was_killed_before_it_saved_are_not_repeated(tmp_path):
    def dies(step):
        raise InterruptedError

    with pytest.raises(InterruptedError):
        make_trainer(make_settings(tmp_path, n_display=1, eval_every=2), evaluate=dies).fit()
    assert [line["step"] for line in numbers(tmp_path)] == [1, 2] and not (tmp_path / "restore.bin").exists()
    make_trainer(make_settings(tmp_path, n_display=1)).fit()
    assert [line["step"] for line in numbers(tmp_path)] == list(range(1, 13))


def test_full_disk_stops_the_run_and_keeps_the_last_restore_file(tmp_path, monkeypatch):
    trainer = make_trainer(make_settings(tmp_path))
    replace, calls = os.replace, []

    def full(source, target):
        calls.append(target)
        if len(calls) > 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(CheckpointError, match="No space left"):
        trainer.fit()
    monkeypatch.undo()
    assert load(tmp_path / "restore.bin")["global_step"] == 4
    assert make_trainer(make_settings(tmp_path)).fit().step == 12


def test_settings_of_the_new_command_win_and_are_logged(tmp_path):
    make_trainer(make_settings(tmp_path, epochs=1)).fit()
    trainer = make_trainer(make_settings(tmp_path, lr=0.01, fusion_lr=0.02))
    assert trainer.fit().step == 12
    assert trainer.optimizer.rates() == {"clip": 0.01, "fusion": 0.02}
    assert trainer.optimizer.param_groups[0]["step"] == 12
    assert "--lr 0.05; this run goes on with 0.01" in (tmp_path / "log.txt").read_text()


def test_extra_values_travel_in_the_restore_file(tmp_path):
    trainer = make_trainer(make_settings(tmp_path, epochs=1))
    trainer.extra["best"] = {"R1": 40.0, "step": 3}
    trainer.fit()
    later = make_trainer(make_settings(tmp_path))
    later.fit()
    assert later.extra == {"best": {"R1": 40.0, "step": 3}}


def test_a_loader_that_ends_early_and_missing_losses_are_errors(tmp_path):
    trainer = make_trainer(make_settings(tmp_path / "a"))
    trainer.steps_per_epoch += 1
    with pytest.raises(RuntimeError, match="the loader ended at step 6"):
        trainer.fit()
    trainer = make_trainer(make_settings(tmp_path / "b"))
    trainer.model.forward = lambda batch: {"vtm": batch["x"].sum()}
    with pytest.raises(ValueError, match="loss weights name contrastive; the model returned vtm"):
        trainer.fit()
    trainer = make_trainer(make_settings(tmp_path / "c"))
    trainer.loss_weights = lambda epoch: {"vtm": 0.0}
    with pytest.raises(ValueError, match="every loss has weight 0"):
        trainer.fit()
    with pytest.raises(ValueError, match="do not fill one update"):
        make_trainer(make_settings(tmp_path / "d", batch_size=100))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_reduced_precision_keeps_fp32_parameters_and_resumes(tmp_path, precision):
    trainer = make_trainer(make_settings(tmp_path, precision=precision, epochs=1))
    assert trainer.fit().step == 6
    assert all(p.dtype == torch.float32 for p in trainer.model.parameters())
    lines = numbers(tmp_path)
    assert ("loss_scale" in lines[-1]) == (precision == "fp16")
    scale = trainer.scaler.get_scale()
    later = make_trainer(make_settings(tmp_path, precision=precision))
    later.fit()
    assert later.scaler.get_scale() == scale


def test_old_checkpoints_are_removed_when_asked(tmp_path):
    make_trainer(make_settings(tmp_path, keep_checkpoints=2)).fit()
    kept = ["pytorch_model.bin.12", "pytorch_model.bin.8"]
    assert sorted(p.name for p in (tmp_path / "ckpt").iterdir()) == kept
    # As after a kill between the last save and the removal: the run that goes on has nothing more to save.
    shutil.copy(tmp_path / "ckpt" / kept[1], tmp_path / "ckpt" / "pytorch_model.bin.4")
    make_trainer(make_settings(tmp_path, keep_checkpoints=2)).fit()
    assert sorted(p.name for p in (tmp_path / "ckpt").iterdir()) == kept
