"""Compare this project with stored outputs of the released code: `python -m tests.golden STEM [--only PREFIX]...`.

STEM names a pair `STEM.json`, `STEM.npz`, by path or by name in tests/golden_data. One line per entry with its largest
relative error; the exit status is 1 when an entry is out of tolerance or not covered.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modules.batch import finish_batch
from modules.beam_search import SearchSettings
from modules.config import Behaviour
from modules.decoder import CachedDecoder
from modules.fusion_encoder import VideoTokens
from modules.objectives.answers import Answers
from modules.objectives.masked_tokens import MaskedTokens
from modules.objectives.matching import Matching, Pool
from modules.objectives.next_tokens import NextTokens
from modules.objectives.set_matching import SetMatching
from modules.released_checkpoint import config_from_released, convert, released_names
from modules.reranking import OFFSET, PairScorer, TextTokens, rerank_both
from modules.tasks.answering import AnswerModel
from modules.tasks.captioning import CaptionModel
from modules.tasks.multiple_choice import MultipleChoiceModel
from modules.tasks.pretrain import PretrainModel
from modules.tasks.retrieval import RetrievalModel
from modules.tasks.task_model import TaskModel
from tests.golden_data import recipe
from utils.evaluation.metrics import ranks_of_diagonal, retrieval_metrics, text_to_video_ranks, video_to_text_ranks
from utils.training.optimizer import BertAdam

DATA = Path(__file__).parent / "golden_data"
TOLERANCES = {"activation": 1e-4, "loss": 1e-4, "gradient": 1e-3, "exact": 0.0}
LOSS_NAMES = {"answer": "qa"}  # ours -> stored
INPUTS = ("hard_negative_video", "hard_negative_text", "answer_ids", "video_mask")  # stored inputs, not outputs


@dataclass
class Check:
    """One compared entry: largest error relative to the stored array's largest magnitude (absolute where that is 0)."""

    entry: str
    error: float
    kind: str

    @property
    def passed(self) -> bool:
        return self.error <= TOLERANCES[self.kind]


def relative_error(value: Any, stored: Any) -> float:
    """Largest absolute difference over the stored array's largest magnitude."""
    value, stored = np.asarray(value, np.float64), np.asarray(stored, np.float64)
    if value.shape != stored.shape:
        raise ValueError(f"shape {value.shape} against stored {stored.shape}")
    if not value.size:
        return 0.0
    scale = np.abs(stored).max()
    return float(np.abs(value - stored).max() / (scale if scale else 1.0))


class Golden:
    """A stored pair of files, and the model and inputs that it was made from."""

    def __init__(self, stem: Path) -> None:
        self.meta = json.loads(stem.with_suffix(".json").read_text())
        self.arrays = np.load(stem.with_suffix(".npz"))
        self.seed, self.dims = self.meta["seed"], self.meta["dims"]

    def model(self, cls: type = PretrainModel, extra_keys: dict | None = None, **choices: Any) -> Any:
        """The released weights in our model, through the released-checkpoint converter; dropout 0, training mode."""
        keys = {**self.meta["keys"], **(extra_keys or {})}
        state = {k: torch.from_numpy(np.array(recipe.weight(k, s, self.seed))) for k, s in keys.items()}
        defaults = {"need_object": True, "use_action": True, "object_layer": self.dims["object_layer"], "dropout": 0.0}
        config = config_from_released(state, max_words=self.dims["words"], **{**defaults, **choices})
        model = cls(config, Behaviour.preset("released"))
        model.load_state_dict(convert(state, model).state, strict=True)
        return model

    def batch(self, size: int | None = None, change: Callable[[dict], None] | None = None, **more: Tensor) -> dict:
        """The recipe's batch under our names; `change` edits it before it is finished."""
        size = size or self.meta.get("batch", 2)
        raw = {k: torch.from_numpy(v) for k, v in recipe.inputs(self.seed, size, vocab=self.dims["vocab_size"]).items()}
        batch = {
            "video": raw["video"],
            "video_mask": torch.ones(size, self.dims["frames"], dtype=torch.bool),
            "text_ids": raw["input_ids"],
            "boxes": raw["boxes"],
            "box_trajectory": raw["box_classes"],
            "trajectory_ids": raw["trajectory_classes"],
            **{name: raw[name].bool() for name in ("mlm_mask", "noun_mask", "verb_mask")},
            "text_mask": raw["input_mask"].bool(),
            **more,
        }
        if change:
            change(batch)
        return finish_batch(batch)

    def stored(self, entry: str) -> np.ndarray:
        return self.arrays[entry]

    def check(self, entry: str, value: Any, kind: str = "activation", stored: Any = None) -> Check:
        if isinstance(value, Tensor):
            value = value.detach().numpy()
        return Check(entry, relative_error(value, self.stored(entry) if stored is None else stored), kind)

    def gradients(self, task: str, model: TaskModel) -> Check:
        """Gradient norms of all stored parameters as one entry, `gradient_norms.{task}`: the worst of them."""
        names = released_names(list(self.meta["keys"]))
        norms = {
            names[n]: 0.0 if p.grad is None else p.grad.norm().item() for n, p in model.named_parameters() if n in names
        }
        worst = 0.0
        for key, stored in self.meta["gradient_norms"][task].items():
            stored = stored or 0.0
            worst = max(worst, abs(norms.get(key, 0.0) - stored) / (stored or 1.0))
        return Check(f"gradient_norms.{task}", worst, "gradient")


def pretrain(golden: Golden) -> Iterator[Check]:
    """Every intermediate result and loss of pre-training."""
    size = golden.meta.get("batch", 2)
    model, batch = golden.model(), golden.batch(**_negatives(golden, "pretrain", size))
    g, name = golden, "pretrain."
    seen = model.clip.visual(batch["video"], model.object_tokens(batch))
    video, text = model.encode_video(batch), model.encode_text(batch["text_ids"])
    yield g.check(name + "frame_features", video.frames.flatten(0, 1))
    yield g.check(name + "object_tokens", seen.objects.tokens)
    yield g.check(name + "object_padding", seen.objects.is_padding, "exact")
    used = video.trajectory_mask.numpy()
    stored = g.stored(name + "trajectory_tokens")[:, : used.shape[1]][used]
    yield g.check(name + "trajectory_tokens", video.trajectories.detach().numpy()[used], stored=stored)
    yield g.check(name + "action_tokens", video.actions)
    yield from _text_checks(g, model, batch, text)
    yield g.check(name + "similarity", model.similarity_logits(video, text, batch["text_lengths"]).text_to_video)
    yield from _fusion_checks(g, model, batch, video, text)
    yield from _losses(g, "pretrain", model, batch)


def _negatives(golden: Golden, task: str, size: int) -> dict[str, Tensor]:
    """Drawn negatives of the stored run; with two samples, the other one."""
    entry = f"{task}.hard_negative_"
    if entry + "video" in golden.arrays:
        return {f"hard_negative_{k}": torch.from_numpy(golden.stored(entry + k)).long() for k in ("video", "text")}
    other = torch.arange(size).flip(0)
    return {"hard_negative_video": other, "hard_negative_text": other}


def _text_checks(g: Golden, model: PretrainModel, batch: dict, text: Tensor) -> Iterator[Check]:
    masked = model.encode_text(batch["text_ids"].masked_fill(batch["mlm_mask"], 0))
    mask = batch["text_mask"].numpy()
    for entry, value in (("pretrain.text_tokens", text), ("pretrain.text_tokens_masked", masked)):
        stored = g.stored(entry)[:, : mask.shape[1]][mask]
        yield g.check(entry, value.detach().numpy()[mask], stored=stored)
    yield g.check("pretrain.text_feature", model.text_feature(text, batch["text_lengths"]))


def _fusion_checks(g: Golden, model: PretrainModel, batch: dict, video: Any, text: Tensor) -> Iterator[Check]:
    start = model.fusion.text_start
    rows, index = model.objective(MaskedTokens).rows(model.encoded(batch)), batch["mlm_index"]
    clip = torch.arange(len(rows))[:, None].expand_as(batch["mlm_positions"]).flatten()[index]
    at = batch["mlm_positions"].flatten()[index]
    stored = g.stored("pretrain.fusion_mlm")[clip, start + at]
    yield g.check("pretrain.fusion_mlm", rows.flatten(0, 1)[index], stored=stored)

    yield _matching_rows(g, "pretrain", model, batch)

    yield _next_token_rows(g, "pretrain", model, batch, video, text)


def _next_token_rows(g: Golden, task: str, model: TaskModel, batch: dict, video: Any, text: Tensor) -> Check:
    predicted = batch["text_mask"].numpy()[:, 1:]
    stored = g.stored(f"{task}.fusion_next_token")[:, : predicted.shape[1]][predicted]
    value = model.objective(NextTokens).rows(model.fusion, video, text).detach().numpy()[predicted]
    return g.check(f"{task}.fusion_next_token", value, stored=stored)


def _matching_rows(g: Golden, task: str, model: TaskModel, batch: dict) -> Check:
    """The two rows that the matching head reads, of positives and negatives."""
    pairs = _pairs(model, batch)
    ends = model.fusion.text_start + pairs.text_lengths.numpy() - 1
    all_rows = g.stored(f"{task}.fusion_vtm")
    stored = np.stack([all_rows[:, model.fusion.mean_row], all_rows[np.arange(len(ends)), ends]], axis=1)
    return g.check(f"{task}.fusion_vtm", model.fusion.matching_rows(*pairs), stored=stored)


def _pairs(model: TaskModel, batch: dict) -> Pool:
    matching, encoded = model.objective(Matching), model.encoded(batch)
    return matching.pairs(encoded, matching.negatives(encoded))


def retrieval(golden: Golden) -> Iterator[Check]:
    size = golden.meta.get("batch", 2)
    model, batch = golden.model(RetrievalModel), golden.batch(**_negatives(golden, "retrieval", size))
    yield _matching_rows(golden, "retrieval", model, batch)
    yield from _losses(golden, "retrieval", model, batch)


def action_only_retrieval(golden: Golden) -> Iterator[Check]:
    name = "optional.action_only.retrieval"
    batch = golden.batch(**_negatives(golden, name, 2))
    yield from _losses(golden, name, golden.model(RetrievalModel, action_only=True), batch)


def multiple_choice(golden: Golden) -> Iterator[Check]:
    size = golden.meta.get("batch", 2)
    model, batch = golden.model(MultipleChoiceModel, need_object=False, use_action=False), golden.batch()
    yield from _losses(golden, "mc", model, batch)
    ids, mask = recipe.options(golden.seed, size, vocab=golden.dims["vocab_size"])
    texts = {"text_ids": torch.from_numpy(ids).flatten(0, 1), "text_mask": torch.from_numpy(mask).flatten(0, 1).bool()}
    options = finish_batch({**{k: batch[k] for k in ("video", "video_mask")}, **texts})
    with torch.no_grad():
        yield golden.check("mc.option_scores", model.eval().score_options(options))


def caption(golden: Golden) -> Iterator[Check]:
    model, batch = golden.model(CaptionModel), golden.batch()
    model.set_active_losses({"caption"})
    video, text = model.encode_video(batch), model.encode_text(batch["text_ids"])
    yield _next_token_rows(golden, "caption", model, batch, video, text)
    yield from _losses(golden, "caption", model, batch)


def action_only_caption(golden: Golden) -> Iterator[Check]:
    model = golden.model(CaptionModel, action_only=True)
    model.set_active_losses({"caption"})
    yield from _losses(golden, "optional.action_only.caption", model, golden.batch())


@torch.no_grad()
def greedy(golden: Golden) -> Iterator[Check]:
    """Greedy captions, compared up to the first end token."""
    spec, size = golden.meta["greedy"], 3
    model, batch = golden.model(CaptionModel).eval(), golden.batch(size)
    model.fusion.positional_embedding.mul_(spec["position_embedding_scale"])
    model.vocabulary_head.bias[spec["end_token"]] += spec["added_to_end_bias"]
    found = model.generate(batch, SearchSettings(max_tokens=golden.dims["words"] - 1))
    lengths, tokens = golden.stored("greedy.lengths"), found.tokens.numpy()
    ended = np.where((tokens == spec["end_token"]).any(1), (tokens == spec["end_token"]).argmax(1), tokens.shape[1])
    yield golden.check("greedy.lengths", ended, "exact")
    compared = np.arange(tokens.shape[1]) <= lengths[:, None]
    yield golden.check("greedy.ids", tokens[compared], "exact", stored=golden.stored("greedy.ids")[compared])
    decoder = CachedDecoder(model, model.vocabulary_head, model.encode_video(batch), beams=1, steps=tokens.shape[1])
    column, chosen = torch.full((size, 1), spec["start_token"]), []
    for step in range(tokens.shape[1]):
        following = decoder.advance(column)
        column = found.tokens[:, step : step + 1]
        chosen.append(following[:, 0].gather(1, column))
    stored = golden.stored("greedy.best_logprob")[compared]
    yield golden.check("greedy.best_logprob", torch.cat(chosen, dim=1).numpy()[compared], stored=stored)


def question_answering(golden: Golden) -> Iterator[Check]:
    model, batch = golden.model(AnswerModel), golden.batch()
    answers = torch.from_numpy(golden.stored("qa.answer_ids")).long()
    batch |= {"text_clip": torch.arange(len(answers)), "answer": answers}
    yield golden.check(
        "qa.fusion", model.objective(Answers).slots(model.encoded(batch)), stored=golden.stored("qa.fusion")[:, -1]
    )
    yield golden.check("qa.predicted_ids", model.predict(batch), "exact")
    yield from _losses(golden, "qa", model, batch)


@torch.no_grad()
def rerank(golden: Golden) -> Iterator[Check]:
    """Two-stage retrieval from stored features; metrics of the re-ranked matrices."""
    spec, width = golden.meta["rerank"], golden.dims["embed_dim"]
    count = spec["pairs"]

    def cached(name: str, *shape: int) -> Tensor:
        return torch.from_numpy(np.array(recipe.weight(f"cached.{name}", (count, *shape), golden.seed)))

    raw = recipe.inputs(golden.seed, batch=count, vocab=golden.dims["vocab_size"], resolution=16)
    model = golden.model(RetrievalModel).eval()
    model.matching_head.match.mul_(spec["match_matrix_scale"])
    model.matching_head.unmatch.mul_(spec["match_matrix_scale"])
    text_feature, tokens = 8 * cached("text_feature", width), 8 * cached("text_tokens", golden.dims["words"], width)
    frames = 8 * (cached("frame_features", golden.dims["frames"], width) + cached("text_feature", width)[:, None] / 16)
    videos = VideoTokens(
        frames,
        torch.ones(frames.shape[:2], dtype=torch.bool),
        8 * cached("trajectory_tokens", 2 * golden.dims["object_count"], width),
        torch.from_numpy(raw["trajectory_classes"]) != 0,
        8 * cached("action_tokens", 4, width),
    )
    lengths = torch.from_numpy(raw["input_mask"].sum(1))
    first = model.similarity_matrix(text_feature, frames, videos.frame_mask)
    yield golden.check("rerank.similarity", first)
    scorer = PairScorer(
        model.fusion,
        model.matching_head,
        videos,
        lambda i: TextTokens(tokens[i], lengths[i]),
        lengths,
        torch.device("cpu"),
    )
    both = rerank_both(first, spec["top"], scorer.probabilities, model.matching_head.is_pairwise)
    for name, scores in (("t2v", both.text_to_video), ("v2t", both.video_to_text.t())):
        lifted = scores >= OFFSET / 2
        if not np.array_equal(lifted.numpy(), golden.stored(f"rerank.{name}") >= OFFSET / 2):
            yield Check(f"rerank.{name}", float("inf"), "activation")
            continue
        stored = golden.stored(f"rerank.{name}") - OFFSET * lifted.numpy()
        yield golden.check(f"rerank.{name}", scores - OFFSET * lifted, stored=stored)


def metrics(golden: Golden) -> Iterator[Check]:
    """Retrieval metrics of stored matrices; the error of a matrix is that of the metrics made from it."""
    spec, square, groups = golden.meta["metrics"], golden.stored("metrics.square"), golden.stored("metrics.groups")
    sizes = np.array(spec["group_sizes"])
    owner = np.arange(len(sizes)).repeat(sizes)
    similarity = groups[np.isfinite(groups).all(-1)]
    best = np.maximum.reduceat(similarity, np.cumsum(sizes) - sizes, axis=0).T
    yield golden.check("metrics.groups_video_to_text", best)
    made = {
        "metrics.square": {
            "square_rows": retrieval_metrics(ranks_of_diagonal(square)),
            "square_columns": retrieval_metrics(ranks_of_diagonal(square.T)),
        },
        "metrics.groups": {
            "groups_text_to_video": retrieval_metrics(text_to_video_ranks(similarity, owner), lower_median=True),
            "groups_video_to_text": retrieval_metrics(video_to_text_ranks(similarity, owner)),
        },
    }
    for entry, tables in made.items():
        pairs = [
            (values[name], spec[table][name])
            for table, values in tables.items()
            for name in values
            if name in spec[table]
        ]
        yield golden.check(entry, [ours for ours, _ in pairs], stored=[stored for _, stored in pairs])


def _losses(g: Golden, task: str, model: TaskModel, batch: dict) -> Iterator[Check]:
    losses = {k: v for k, v in model(batch).items() if not k.endswith("_accuracy")}
    sum(losses.values()).backward()
    matching = [losses.pop(k) for k in ("object_noun", "action_verb") if k in losses]
    if isinstance(model, PretrainModel):  # 0 where a variant has nothing to match
        losses["matching"] = sum(matching, torch.zeros(()))
    for name, value in losses.items():
        yield g.check(f"{task}.loss.{LOSS_NAMES.get(name, name)}", value, "loss")
    if task not in OTHER_GRADIENTS and task in g.meta["gradient_norms"]:
        yield g.gradients(task, model)


# -- corner cases of pre-training
# ------------------------------------------------------------------------------------------


def _no_boxes(batch: dict, samples: slice = slice(0, 1)) -> None:
    batch["boxes"][samples] = -1
    batch["box_trajectory"][samples] = 0
    batch["trajectory_ids"][samples] = 0


def _no_tags(batch: dict) -> None:
    batch["noun_mask"][1] = batch["verb_mask"][1] = False


def _no_boxes_no_tags(batch: dict) -> None:
    _no_boxes(batch)
    _no_tags(batch)


CASES: dict[str, tuple[Callable[[dict], None] | None, dict[str, Any]]] = {
    "no_boxes": (_no_boxes, {}),
    "no_tags": (_no_tags, {}),
    "optional.no_boxes_no_tags": (_no_boxes_no_tags, {}),
    "optional.no_boxes_any": (lambda batch: _no_boxes(batch, slice(None)), {}),
    "optional.no_action": (None, {"use_action": False}),
    "optional.layer_10": (None, {"object_layer": 10}),
    "optional.attention_only": (None, {"object_fuse": "attention"}),
}
# The released code loses the gradient of the frames' positions there; ours has it.
OTHER_GRADIENTS = ("optional.attention_only",)


def corner_cases(golden: Golden) -> Iterator[Check]:
    for name, (change, choices) in CASES.items():
        model = golden.model(**choices)
        batch = golden.batch(2, change, **_negatives(golden, name, 2))
        video, text = model.encode_video(batch), model.encode_text(batch["text_ids"])
        if video.actions is not None:
            yield golden.check(f"{name}.action_tokens", video.actions)
        yield golden.check(f"{name}.frame_features", video.frames.flatten(0, 1))
        pairs = _pairs(model, batch)
        yield golden.check(f"{name}.fusion_vtm_video_row", model.fusion.matching_rows(*pairs)[:, 0])
        yield _assignments(golden, name, model, batch, video, text)
        yield from _losses(golden, name, model, batch)


def _assignments(g: Golden, name: str, model: PretrainModel, batch: dict, video: Any, text: Tensor) -> Check:
    """The stored assignments against ours; the error counts those that differ."""
    matching = model.objective(SetMatching)
    solved = matching.solve(batch, matching.scores(batch, video, text, model.active_losses))
    ours = []
    for sample in range(2):
        for kind, words in (("object_noun", "noun_positions"), ("action_verb", "verb_positions")):
            pairs = solved.get(kind, ([], [], []))
            rows = [r for s, r in zip(pairs[0], pairs[1], strict=True) if s == sample]
            columns = [batch[words][sample].index(w) for s, w in zip(pairs[0], pairs[2], strict=True) if s == sample]
            if rows:
                ours.append((rows, columns))
    stored = [(m["rows"], m["columns"]) for m in g.meta["matching"][name]]
    return Check(
        f"matching.{name}",
        float(abs(len(ours) - len(stored)) + sum(a != b for a, b in zip(ours, stored, strict=False))),
        "exact",
    )


# -- optimiser, similarity headers, object tokens inside the tower
# ----------------------------------------------------------


def optimiser(golden: Golden) -> Iterator[Check]:
    spec = golden.meta["optimiser"]
    for schedule in spec["lr"]:
        named = {
            n: torch.nn.Parameter(torch.from_numpy(np.array(recipe.weight(n, s, golden.seed))))
            for n, s in spec["shapes"].items()
        }
        groups = [{**group, "params": [named[n] for n in group["names"]]} for group in spec["groups"]]
        for group in groups:
            del group["names"]
        constants = {"schedule": schedule, "warmup": spec["warmup"], "t_total": spec["t_total"]}
        optimizer = BertAdam(groups, lr=0.0, **constants)  # each group has its own rate
        rates = []
        for step in range(1, spec["steps"] + 1):
            scale = {1: 1.0, 2: 4.0, 0: 0.05}[step % 3]
            for n, parameter in named.items():
                grad = recipe.weight(f"grad.{n}.{step}", spec["shapes"][n], golden.seed)
                parameter.grad = torch.from_numpy(np.array(grad)) * scale
            rates.append([optimizer.rate(group) for group in optimizer.param_groups])
            optimizer.step()
            if step in spec["stored_steps"]:
                for n, parameter in named.items():
                    yield golden.check(f"optimiser.{schedule}.step{step}.{n}", parameter)
        yield golden.check(f"optimiser.{schedule}.lr", rates)


@torch.no_grad()
def similarity(golden: Golden) -> Iterator[Check]:
    spec, size = golden.meta["similarity"], 3
    mask = torch.from_numpy(golden.stored("similarity.video_mask")).bool()
    for header, keys in spec["extra_keys"].items():
        model = golden.model(extra_keys=keys, sim_header=header, header_layers=spec["cross_num_hidden_layers"]).eval()
        batch = golden.batch(size)
        video, text = model.encode_video(batch), model.encode_text(batch["text_ids"])
        feature = model.text_feature(text, batch["text_lengths"])
        if header == "meanP":
            yield golden.check("similarity.frame_features", video.frames)
            yield golden.check("similarity.text_feature", feature)
            all_frames = model.similarity_logits(video, text, batch["text_lengths"]).text_to_video
            yield golden.check("similarity.meanP_all_frames", all_frames)
        logits = model.similarity_logits(video._replace(frame_mask=mask), text, batch["text_lengths"])
        yield golden.check(f"similarity.{header}", logits.text_to_video)


@torch.no_grad()
def attention(golden: Golden) -> Iterator[Check]:
    for layer in (12, 11, 10, -3, None):
        choices = {"object_layer": layer, "object_fuse": "attention"} if layer else {}
        model, batch = golden.model(**choices).eval(), golden.batch(2)
        seen = model.clip.visual(batch["video"], model.object_tokens(batch))
        name = f"attention.{str(layer).lower()}"
        yield golden.check(f"{name}.frame_features", seen.frame_features)
        if f"{name}.object_tokens" in golden.arrays:
            yield golden.check(f"{name}.object_tokens", seen.objects.tokens)


# Which entries each function covers, by prefix.
PARTS: tuple[tuple[Callable[[Golden], Iterator[Check]], tuple[str, ...]], ...] = (
    (pretrain, ("pretrain.",)),
    (retrieval, ("retrieval.",)),
    (action_only_retrieval, ("optional.action_only.retrieval.",)),
    (multiple_choice, ("mc.",)),
    (caption, ("caption.",)),
    (action_only_caption, ("optional.action_only.caption.",)),
    (greedy, ("greedy.",)),
    (question_answering, ("qa.",)),
    (rerank, ("rerank.",)),
    (metrics, ("metrics.",)),
    (corner_cases, ("no_boxes.", "no_tags.", "optional.")),
    (optimiser, ("optimiser.",)),
    (similarity, ("similarity.",)),
    (attention, ("attention.",)),
)


def entries(golden: Golden) -> list[str]:
    """Everything that has to be covered: stored arrays that are outputs, gradient norms, assignments."""
    names = [name for name in golden.arrays if name.split(".")[-1] not in INPUTS]
    names += [f"gradient_norms.{task}" for task in golden.meta.get("gradient_norms", {})]
    return names + [f"matching.{case}" for case in golden.meta.get("matching", {})]


def run(golden: Golden, only: list[str]) -> tuple[list[Check], list[str]]:
    """Checks of the wanted entries, and the wanted entries that nothing covers (`optional.*` may be left out)."""

    def starts(entry: str, prefixes: Iterable[str]) -> bool:
        case = entry.removeprefix("gradient_norms.").removeprefix("matching.") + "."
        return any(entry.startswith(p) or case.startswith(p) for p in prefixes)

    missing = [entry for entry in entries(golden) if not only or starts(entry, only)]
    checks = []
    for part, prefixes in PARTS:
        if any(starts(entry, prefixes) for entry in missing):
            checks += [check for check in part(golden) if not only or starts(check.entry, only)]
    done = {check.entry for check in checks}
    return checks, [entry for entry in missing if entry not in done and "optional." not in entry]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stem", help="path or name (in tests/golden_data) of the pair of files, without extension")
    parser.add_argument(
        "--only", action="append", default=[], metavar="PREFIX", help="entries that start so; repeatable"
    )
    args = parser.parse_args(argv)
    stem = Path(args.stem)
    checks, uncovered = run(Golden(stem if stem.with_suffix(".json").exists() else DATA / args.stem), args.only)
    for check in checks:
        print(f"{'ok  ' if check.passed else 'FAIL'} {check.error:9.2e}  {check.entry}")
    for entry in uncovered:
        print(f"FAIL not covered  {entry}")
    failed = sum(not check.passed for check in checks) + len(uncovered)
    print(f"{len(checks) - failed + len(uncovered)} of {len(checks) + len(uncovered)} entries within tolerance")
    return 1 if failed or not checks else 0


if __name__ == "__main__":
    sys.exit(main())
