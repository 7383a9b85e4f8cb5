"""Zero-shot retrieval: gathered over ranks, nothing counted twice, nothing silently left out."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from dataloaders.samples import collate
from tests import tiny
from tests.processes import run_ranks
from utils.distributed import Runtime, find_runtime
from utils.retrieval_eval import BadVideos, zero_shot_retrieval
from utils.sampler import EvaluationSampler

ONE = Runtime(0, 1, 0, torch.device("cpu"))


class Pairs(Dataset):
    """Random clips and texts; those in `bad` could not be read."""

    def __init__(self, length: int, config: Any, bad: tuple[int, ...] = ()) -> None:
        self.length, self.config, self.bad = length, config, bad

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, where: tuple[int, int]) -> dict[str, Any]:
        sample = tiny.sample(where[1], self.config)
        for name in ("mlm_mask", "noun_mask", "verb_mask", "plm_start", "random_keys"):
            del sample[name]
        bad = where[1] in self.bad
        sample["video_mask"] &= not bad
        return {**sample, "bad_video": f"clip{where[1]}.mp4: no frame decodes" if bad else ""}


def evaluate(model: Any, runtime: Runtime, length: int, bad: tuple[int, ...] = (), on_bad: str = "error") -> dict:
    data = Pairs(length, model.config, bad)
    sampler = EvaluationSampler(length, runtime.rank, runtime.world_size)
    loader = DataLoader(data, sampler=sampler, batch_size=3, collate_fn=collate)
    return zero_shot_retrieval(model.eval(), loader, runtime, on_bad)


def main(argv: list[str]) -> None:
    """Evaluate several lengths in this rank and write the results of rank 0."""
    parser = argparse.ArgumentParser()
    parser.add_argument("output", type=Path)
    parser.add_argument("--header", default="meanP")
    args = parser.parse_args(argv)
    runtime = find_runtime(device="cpu")
    with runtime.process_group():
        model = tiny.model(sim_header=args.header, header_layers=1)
        results = [evaluate(model, runtime, length) for length in (7, 4, 1)]
        results.append(evaluate(model, runtime, 7, bad=(0, 5, 6), on_bad="skip"))
        try:
            evaluate(model, runtime, 7, bad=(1, 6))
        except BadVideos as error:
            results.append({"error": str(error)})
    args.output.with_suffix(f".{runtime.rank}").write_text(json.dumps(results))


@pytest.mark.parametrize("header", ["meanP", "tightTransf"])
def test_two_processes_give_what_one_gives(tmp_path: Path, header: str):
    flags = ["--header", header]
    run_ranks(main, [str(tmp_path / "one"), *flags], tmp_path / "logs1")
    run_ranks(main, [str(tmp_path / "two"), *flags], tmp_path / "logs2", processes=2)
    one = json.loads((tmp_path / "one.0").read_text())
    assert [result.get("pairs") for result in one] == [7, 4, 1, 4, None]
    for rank in (0, 1):
        assert json.loads((tmp_path / f"two.{rank}").read_text()) == one


def test_unreadable_clips_stop_the_evaluation_and_are_all_listed():
    with pytest.raises(BadVideos) as caught:
        evaluate(tiny.model(), ONE, 7, bad=(1, 6))
    text = str(caught.value)
    assert text.startswith("2 test clips cannot be read") and "--on_bad_video skip" in text
    assert "clip1.mp4: no frame decodes" in text and "clip6.mp4" in text


def test_skipped_pairs_are_left_out_and_named():
    model = tiny.model()
    whole = evaluate(model, ONE, 5)
    assert whole["pairs"] == 5 and whole["skipped"] == []
    result = evaluate(model, ONE, 7, bad=(5, 6), on_bad="skip")
    assert result["skipped"] == [f"clip{i}.mp4: no frame decodes" for i in (5, 6)]
    assert {**result, "skipped": []} == whole


def test_no_readable_clip_is_an_error():
    with pytest.raises(BadVideos, match="none of the test clips can be read"):
        evaluate(tiny.model(), ONE, 2, bad=(0, 1), on_bad="skip")
