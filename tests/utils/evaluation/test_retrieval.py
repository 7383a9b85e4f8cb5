"""Text-video retrieval of a test set: the same however many ranks share it, and nothing silently left out."""

from __future__ import annotations

import argparse
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader

from dataloaders.caption_split import CaptionSplit, TextVideoPair
from dataloaders.decoders import UnreadableVideo
from dataloaders.retrieval import ClipReader, VideoDataset
from dataloaders.samples import Sample, SampleSettings, collate
from modules.config import ModelConfig
from modules.fusion_encoder import join, pad_columns
from modules.reranking import OFFSET, Reranked
from modules.similarity import LooseSimilarity
from modules.tasks.retrieval import CaptionRankedModel, RetrievalModel
from modules.tokenizer import ClipTokenizer
from tests import tiny
from tests.plain_forms import match_probabilities, next_token
from tests.processes import run_ranks
from utils.evaluation import retrieval
from utils.evaluation.bad_videos import BadVideos
from utils.evaluation.metrics import retrieval_metrics
from utils.evaluation.retrieval import (
    FIRST_STAGE,
    RankingSettings,
    RetrievalResult,
    evaluate_retrieval,
    gather_rows,
    own_part,
)
from utils.evaluation.retrieval_report import describe
from utils.runtime.distributed import Runtime, find_runtime
from utils.runtime.sampler import EvaluationSampler
from utils.settings.groups import ReadSettings

retrieval.TEXTS_TOGETHER = 4  # so that there are several batches
ONE = Runtime(0, 1, 0, torch.device("cpu"))
NO_OBJECTS = {"need_object": False, "use_action": False}
CLIP_PARTS = ("video", "video_mask", "boxes", "box_trajectory", "trajectory_ids")
WORDS = ("a", "dog", "runs", "over", "the", "old", "bridge", "while", "two", "men", "sing", "and", "cook", "soup")


class Clips(ClipReader):
    """Random clips `clip{number}`, every third a frame short; the numbers in `bad` cannot be read."""

    def __init__(self, config: ModelConfig, bad: Collection[int] = ()) -> None:
        self.config, self.bad = config, bad
        count = config.object_count if config.need_object else 0
        self.settings = SampleSettings(
            config.image_resolution, config.max_frames, config.max_words, config.vocab_size, count
        )

    def read(self, video_id: str, key: int) -> Sample:
        number = int(video_id.removeprefix("clip"))
        if number in self.bad:
            raise UnreadableVideo(f"{video_id}.mp4: no frame decodes")
        made = tiny.sample(number, self.config)
        # Noise alone looks the same to the model in every clip: give each frame shades of its own.
        shades = torch.from_numpy(np.random.default_rng(number).integers(0, 224, (self.config.max_frames, 3, 4, 4)))
        made["video"] = made["video"] // 8 + F.interpolate(shades.float(), scale_factor=8).to(torch.uint8)
        made["video_mask"][-1] = number % 3 > 0
        return {name: made[name] for name in (CLIP_PARTS if self.config.need_object else CLIP_PARTS[:2])} | {
            "notes": []
        }


def captioned(numbers: Collection[int]) -> CaptionSplit:
    """Clips with one to three captions each; clips of the same number have the same ones."""
    pairs = [
        TextVideoPair(f"clip{i}", " ".join(np.random.default_rng([i, j]).choice(WORDS, 2 + (i + j) % 6)))
        for i in numbers
        for j in range(1 + i % 3)
    ]
    return CaptionSplit.from_pairs(pairs)


def make_model(kind: type[RetrievalModel] = RetrievalModel, **choices: Any) -> RetrievalModel:
    model = tiny.model(kind, vocab_size=ClipTokenizer().vocab_size, header_layers=1, **choices).eval()
    model.matching_head.match.data.mul_(50)  # so that the second stage moves ranks
    if not isinstance(model.similarity, LooseSimilarity):
        # Let the clip weigh as much as the text, or all scores of a text all but agree.
        model.similarity.transformer.resblocks[-1].attn.out_proj.weight.data.mul_(30)
    return model


def evaluate(
    model: RetrievalModel,
    split: CaptionSplit,
    runtime: Runtime = ONE,
    bad: Collection[int] = (),
    rerank_top: int = 0,
    dsl: bool = False,
    **choices: Any,
) -> RetrievalResult:
    data = VideoDataset(split.video_ids, Clips(model.config, bad))
    sampler = EvaluationSampler(len(data), runtime.rank, runtime.world_size)
    loader = DataLoader(data, sampler=sampler, batch_size=3, collate_fn=collate)
    ranking = RankingSettings(rerank_top, dsl, "caption" if isinstance(model, CaptionRankedModel) else "matching")
    return evaluate_retrieval(model, split, loader, runtime, ReadSettings(**choices), ranking)


def content(result: RetrievalResult) -> dict[str, Any]:
    """All that a result says, as plain values."""
    return {
        "metrics": result.metrics(),
        "ranks": {direction: ranks.tolist() for direction, ranks in result.ranks().items()},
        "scores": [scores.tolist() for scores in (result.first_stage, *result.final)],
        "videos": result.split.video_ids,
        "skipped": result.skipped,
    }


def main(argv: list[str]) -> None:
    """Evaluate sets of several lengths in this rank and write what came of it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("output", type=Path)
    parser.add_argument("--header", default="meanP")
    args = parser.parse_args(argv)
    runtime, results = find_runtime(device="cpu"), []
    with runtime.process_group():
        for kind, choices, tops in (
            (RetrievalModel, {}, (3, 32)),
            (RetrievalModel, NO_OBJECTS, (0, 3)),
            (CaptionRankedModel, {}, (3,)),
        ):
            model = make_model(kind, sim_header=args.header, **choices)
            for top in tops:
                for length in (7, 4, 1):
                    results.append(content(evaluate(model, captioned(range(length)), runtime, rerank_top=top)))
            for bad in ((0, 5, 6), (3, 4, 5, 6)):  # the second leaves nothing to the last of two ranks
                skip = evaluate(model, captioned(range(7)), runtime, bad, on_bad_video="skip", rerank_top=3)
                results.append(content(skip))
        with pytest.raises(BadVideos) as caught:
            evaluate(model, captioned(range(7)), runtime, bad=(1, 6))
        results.append({"error": str(caught.value)})
    args.output.with_suffix(f".{runtime.rank}").write_text(json.dumps(results))


@pytest.mark.slow
@pytest.mark.parametrize("header", ["meanP", "tightTransf"])
def test_two_processes_give_what_one_gives(tmp_path: Path, header: str):
    flags = ["--header", header]
    run_ranks(main, [str(tmp_path / "one"), *flags], tmp_path / "logs1")
    run_ranks(main, [str(tmp_path / "two"), *flags], tmp_path / "logs2", processes=2)
    one, two, other = (json.loads((tmp_path / name).read_text()) for name in ("one.0", "two.0", "two.1"))
    assert two == other
    assert [len(result["videos"]) for result in one[:-1]] == [7, 4, 1, 7, 4, 1, 4, 3] * 2 + [7, 4, 1, 4, 3]
    for found, expected in zip(two, one, strict=True):
        # Matrix products of other sizes round otherwise in the last place; ranks and metrics are the same numbers.
        for scores, wanted in zip(found.pop("scores", []), expected.pop("scores", []), strict=True):
            np.testing.assert_allclose(scores, wanted, rtol=1e-6, atol=2e-6)
        assert found == expected


def plain_scores(model: RetrievalModel, split: CaptionSplit, top: int) -> tuple[torch.Tensor, Reranked]:
    """Clips and captions encoded one by one with all padding, queries re-ranked one by one, by the definition."""
    config, tokenizer = model.config, ClipTokenizer()
    clips = []
    data = VideoDataset(split.video_ids, Clips(config))
    for index in range(len(data)):
        video = model.encode_video(collate([data[0, index]]))
        paths = [pad_columns(part, config.num_trajectories) for part in (video.trajectories, video.trajectory_mask)]
        clips.append(video._replace(trajectories=paths[0], trajectory_mask=paths[1]))
    videos = join(clips)
    padded = [tokenizer.to_tensor_ids(caption, config.max_words) for caption in split.captions]
    tokens = torch.cat([model.encode_text(torch.from_numpy(ids)[None]) for ids, _ in padded])
    lengths = torch.tensor([int(mask.sum()) for _, mask in padded])
    ends = F.normalize(tokens[torch.arange(len(tokens)), lengths - 1], dim=-1)
    pooled = (F.normalize(videos.frames, dim=-1) * videos.frame_mask[..., None]).sum(1)
    similarity = model.clip.logit_scale.exp() * ends @ F.normalize(pooled, dim=-1).t()
    final = []
    for is_turned in (False, True):
        first = similarity.t() if is_turned else similarity
        scores = first.double().clone()
        for query, row in enumerate(first):
            best = row.topk(min(top, len(row))).indices
            pair = (torch.full_like(best, query)[None], best[None])
            matching = match_probabilities(model, videos, tokens, lengths, *(pair[::-1] if is_turned else pair))[0]
            scores[query, best] = row[best].double().softmax(-1) * matching.double() * 1000 + OFFSET
        final.append(scores.t() if is_turned else scores)
    return similarity, Reranked(*final)


@pytest.mark.parametrize("top", [3, 32])
@torch.no_grad()
def test_final_scores_equal_a_plain_loop_over_queries(top: int):
    model, split = make_model(), captioned(range(6))
    assert len(split.captions) == 12
    result = evaluate(model, split, rerank_top=top)
    similarity, final = plain_scores(model, split, top)
    torch.testing.assert_close(result.first_stage, similarity, rtol=1e-5, atol=1e-5)
    for found, expected in zip(result.final, final, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-3)
    ranks = {}
    for stage, scores in (("", final.text_to_video), ("first_stage_", similarity)):
        ranks[stage] = (scores >= scores[range(12), split.caption_video, None]).sum(1).numpy() - 1
        assert result.metrics()[f"{stage}t2v_MeanR"] == ranks[stage].mean() + 1
    assert result.ranks()["t2v"].tolist() == ranks[""].tolist() != ranks["first_stage_"].tolist()


@torch.no_grad()
def test_ranked_by_captions_a_candidate_has_its_likelihood_in_place_of_the_match():
    model, split = make_model(CaptionRankedModel), captioned(range(6))
    result = evaluate(model, split, rerank_top=3)
    assert torch.equal(result.first_stage, evaluate(model, split).first_stage)
    data, tokenizer = VideoDataset(split.video_ids, Clips(model.config)), ClipTokenizer()
    clips = [model.encode_video(collate([data[0, index]])) for index in range(len(data))]
    for query in (0, 4, 11):
        row = result.first_stage[query]
        ids, mask = tokenizer.to_tensor_ids(split.captions[query], model.config.max_words)
        best = row.topk(3).indices
        likelihood = []
        for video in (clips[clip] for clip in best.tolist()):
            text = torch.from_numpy(ids)[None, : mask.sum()]
            steps = next_token(model, model.fusion.context(video), text)
            logits = model.vocabulary_head(torch.cat(steps), model.clip.word_vectors).double()
            likelihood.append(logits.log_softmax(-1).gather(1, text[0, 1:, None]).mean().exp())
        expected = row[best].double().softmax(-1) * torch.stack(likelihood) * 1000 + OFFSET
        torch.testing.assert_close(result.final.text_to_video[query, best], expected, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize(("owner", "median"), [([0, 0, 1, 1], 1.0), ([0, 1], 1.5)])
def test_the_median_is_the_lower_one_from_several_captions_per_video_to_videos_alone(owner: list[int], median: float):
    scores = torch.tensor([[3.0, 1.0]] * owner.count(0) + [[2.0, 1.0]] * owner.count(1))
    split = CaptionSplit(["a", "b"], ["caption"] * len(owner), np.array(owner))
    metrics = RetrievalResult(split, [], scores, Reranked(scores, scores), FIRST_STAGE).metrics()
    assert (metrics["t2v_MedianR"], metrics["v2t_MedianR"]) == (median, 1.5)


def test_without_a_second_stage_the_first_decides():
    result = evaluate(make_model(**NO_OBJECTS), captioned(range(5)))
    assert all(torch.equal(scores, result.first_stage.double()) for scores in result.final)
    assert not any(name.startswith(("first_stage", "dsl")) for name in result.metrics())


def test_unreadable_clips_stop_the_evaluation_and_are_all_listed():
    with pytest.raises(BadVideos) as caught:
        evaluate(make_model(), captioned(range(7)), bad=(1, 6))
    text = str(caught.value)
    assert text.startswith("2 clips cannot be read") and "--on_bad_video skip" in text
    assert "clip1.mp4: no frame decodes" in text and "clip6.mp4: no frame decodes" in text


def test_skipped_clips_are_left_out_with_their_captions_and_counted():
    model = make_model()
    without = content(evaluate(model, captioned((0, 2, 3, 6)), rerank_top=3))
    result = evaluate(model, captioned(range(7)), bad=(1, 4, 5), on_bad_video="skip", rerank_top=3)
    found = content(result)
    assert result.split.captions == captioned((0, 2, 3, 6)).captions
    assert found.pop("skipped") == [f"clip{i}.mp4: no frame decodes" for i in (1, 4, 5)]
    for one, other in zip(found.pop("scores"), without.pop("scores"), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-3)
    without.pop("skipped")
    assert found == without
    assert describe(result, ["clip9"]).metrics["skipped"] == 4


def test_no_readable_clip_is_an_error():
    with pytest.raises(BadVideos, match="none of the clips can be read"):
        evaluate(make_model(), captioned(range(2)), bad=(0, 1), on_bad_video="skip")


def test_dual_softmax_results_stand_beside_the_others_and_leave_them_unchanged():
    model, split = make_model(), captioned(range(7))
    plain = evaluate(model, split, rerank_top=3)
    result = evaluate(model, split, rerank_top=3, dsl=True)
    metrics, similarity = result.metrics(), plain.first_stage.double()
    assert {k: v for k, v in metrics.items() if not k.startswith("dsl_")} == plain.metrics()
    scores = similarity * similarity.softmax(0)
    ranks = (scores >= scores[range(len(scores)), split.caption_video, None]).sum(1) - 1
    expected = retrieval_metrics(ranks.numpy(), lower_median=True)
    assert {name: metrics[f"dsl_t2v_{name}"] for name in expected} == expected
    assert {f"dsl_v2t_{name}" for name in expected} < set(metrics)
    assert expected != {name: metrics[f"first_stage_t2v_{name}"] for name in expected}


@pytest.mark.parametrize(("length", "ranks"), [(7, 2), (4, 3), (1, 2), (0, 2), (5, 1)])
def test_own_parts_cover_everything_once_as_evenly_as_it_goes(length: int, ranks: int):
    parts = [range(length)[own_part(length, Runtime(r, ranks, r, ONE.device))] for r in range(ranks)]
    assert [index for part in parts for index in part] == list(range(length))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert parts == [EvaluationSampler(length, r, ranks).indices for r in range(ranks)]


def gather_main(argv: list[str]) -> None:
    """Rank 1 has no rows in the first gathering and more than rank 0 in the second."""
    runtime = find_runtime(device="cpu")
    with runtime.process_group():
        for counts in ((2, 0), (1, 3)):
            rows = torch.arange(sum(counts) * 2).view(-1, 2)
            for everything in (rows, rows.float() + 0.5, rows % 3 == 0):
                gathered = gather_rows(everything.split(counts)[runtime.rank], runtime)
                assert gathered.dtype == everything.dtype and torch.equal(gathered, everything)


def test_rows_of_all_ranks_are_gathered_in_order_whatever_their_number_and_type(tmp_path: Path):
    run_ranks(gather_main, [], tmp_path, processes=2)
    rows = torch.rand(2, 3)
    assert gather_rows(rows, ONE) is rows
