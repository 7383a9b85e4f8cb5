"""A trained model on videos: captions, answers, matches, and features to search in.

Three lines are enough:

    from utils.predictor import Predictor
    predictor = Predictor("output/caption_msrvtt/best.bin")
    print(predictor.caption(["clip.mp4"]))
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from dataloaders.label_map import load_label_map
from dataloaders.object_files import ObjectFiles
from dataloaders.question_samples import AnswerCode, QuestionDataset, collate_questions
from dataloaders.questions import Question
from dataloaders.retrieval import ClipReader, VideoDataset
from dataloaders.samples import SampleSettings, collate
from dataloaders.video_files import CachedVideos, PathVideos, VideoSource
from modules.batch import Batch, to_device
from modules.beam_search import SearchSettings
from modules.config import ModelConfig
from modules.fusion_encoder import VideoTokens
from modules.similarity import LooseSimilarity
from modules.tasks.answering import AnswerModel
from modules.tasks.captioning import CaptionModel
from modules.tasks.pretrain import PretrainModel
from modules.tasks.retrieval import RetrievalModel
from modules.tokenizer import ClipTokenizer
from utils.data.clips import evaluation_loader, object_settings, sample_settings
from utils.evaluation.bad_videos import check_bad_videos
from utils.evaluation.captions import generate_captions
from utils.evaluation.retrieval import (
    TextBank,
    VideoBank,
    encode_texts,
    encode_videos,
    first_stage,
    pair_scores,
)
from utils.inference.detection import ChosenDetector, DetectedClips
from utils.inference.embedding import Embeddings, check_texts, text_array
from utils.inference.loading import load_for_inference, use_settings
from utils.models.setup import ModelClass
from utils.runtime.checkpoint import CheckpointError
from utils.runtime.distributed import find_runtime
from utils.runtime.precision import autocast, resolve_for_use

# Parts of a model that a checkpoint must have trained; the answer head is a classifier or, as released, the vocabulary.
NEEDS: dict[ModelClass, tuple[str, ...]] = {
    CaptionModel: ("vocabulary",),
    AnswerModel: ("answer", "vocabulary"),
    RetrievalModel: (),
    PretrainModel: (),
}
DEFAULTS = {"num_thread_reader": 0, "batch_size_val": 8}
NO_REPEAT = 3
CHOSEN = ("max_frames", "max_words")  # sizes that CLIP weights leave open, and a trained model has


class Answer(NamedTuple):
    """An answer and its probability; `others` are the next best with theirs."""

    video: str
    question: str
    answer: str
    probability: float
    others: list[tuple[str, float]]


class Match(NamedTuple):
    """How well a text fits a video.

    similarity: of the dual encoder; a cosine for the loose headers, a logit for tightTransf. probability: P(match) of
    the matching head, None for a checkpoint whose head has not been trained.
    """

    video: str
    text: str
    similarity: float
    probability: float | None


class Captions(dict[str, str]):
    """A caption by path; `skipped` says which videos could not be read, and why."""

    skipped: list[str]


class Matches(list[Match]):
    """Matches of videos and texts; `skipped` as in `Captions`."""

    skipped: list[str]


class Predictor:
    """One checkpoint; its model is built for a task when that task is first asked for.

    A pre-trained checkpoint captions, matches and searches; a fine-tuned one does its own task.

    Args:
        checkpoint: own, released, or CLIP weights.
        log: receives remarks, such as that no objects are seen.
        load_log: receives lines on which parameters came from where.
        progress: show a bar.
        flags: flags of the tasks by name, which win over what the checkpoint and its run say. Useful: `object_path`,
            folder of object files {stem}.json (without one a model with objects sees none), `labelmap_path`, `device`,
            `precision`, `batch_size_val`, `num_thread_reader`, `feature_framerate`, `on_bad_video`. `precision` auto is
            bf16 on CUDA and on processors with bf16 matrix instructions; scores are fp32 whatever it is. `max_frames`
            and `max_words` are for CLIP weights; a trained model keeps its own. `detector`, a name or a `Detector`,
            finds the objects in the frames that are read, with flags of its own (utils/preparation/choosing.py);
            nothing is written unless `object_path` is given too, where what is found is kept for the next time.

    Raises:
        CheckpointError, ValueError, FileNotFoundError: something is missing or does not fit; names file and remedy.
    """

    def __init__(
        self,
        checkpoint: str | Path,
        log: Callable[[str], None] = lambda line: None,
        load_log: Callable[[str], None] = lambda line: None,
        progress: bool = False,
        **flags: Any,
    ) -> None:
        given = {**DEFAULTS, **{name: value for name, value in flags.items() if value is not None}}
        self._chosen = {name: given.pop(name) for name in CHOSEN if name in given}
        self.detector = ChosenDetector(given)
        self.settings = use_settings(checkpoint, given)
        sizes = self.settings.model
        self.settings.model = replace(sizes, **{n: v for n, v in self._chosen.items() if getattr(sizes, n) is None})
        self._check_chosen()
        self.runtime = find_runtime(None, self.settings.device)
        self.settings.precision = resolve_for_use(self.settings.precision, self.runtime.device)
        self.log, self.load_log, self.progress = log, load_log, progress
        self.has_object_files = "object_path" in given
        self._models: dict[ModelClass, Any] = {}
        self._objects: ObjectFiles | None = None
        self._detected: DetectedClips | None = None
        self._has_looked = False

    def caption(self, videos: Sequence[str | Path], search: SearchSettings | None = None) -> Captions:
        """A caption by path, of the videos that can be read.

        Args:
            search: how it is looked for; default: 5 beams, no three tokens twice.

        Raises:
            BadVideos: a video cannot be read and `on_bad_video` is "error", or none can be read.
        """
        model = self.model(CaptionModel)
        search = search or SearchSettings(5, model.config.max_words - 1, 1.0, NO_REPEAT)
        found, skipped = generate_captions(model, self._clips(model, videos), self.runtime, search, self.settings)
        captions = Captions(found)
        captions.skipped = skipped
        return captions

    @torch.no_grad()
    def answer(self, video: str | Path, questions: Sequence[str], top: int = 5) -> list[Answer]:
        """Answer questions on a video, which is read and encoded once.

        Args:
            top: answers that are returned, the best included.

        Raises:
            BadVideos: the video cannot be read.
        """
        model: AnswerModel = self.model(AnswerModel)
        code = AnswerCode(model.config.answers if model.is_classifier else None, ClipTokenizer(model.config.vocab_size))
        asked = [Question(str(place), str(video), question, "") for place, question in enumerate(questions)]
        dataset = QuestionDataset(asked, self.reader(model.config, [str(video)]), code)
        [batch] = self.batches(dataset, collate_questions)
        check_bad_videos([reason for reason in batch["bad_video"] if reason], "error")
        with autocast(self.settings.precision, self.runtime.device):
            probabilities = model.probabilities(to_device(batch, self.runtime.device)).float()
        best = probabilities.topk(min(top, probabilities.shape[-1]))
        results = []
        for question, values, targets in zip(questions, best.values.tolist(), best.indices.tolist(), strict=True):
            ranked = [(code.answer(target), value) for target, value in zip(targets, values, strict=True)]
            results.append(Answer(str(video), question, *ranked[0], ranked[1:]))
        return results

    @torch.no_grad()
    def match(self, videos: Sequence[str | Path], texts: Sequence[str]) -> Matches:
        """Every text with every video that can be read: video by video, the best text first.

        Raises:
            BadVideos: as `caption`.
        """
        bank = self.encode(videos)
        texts_bank = self.encode_texts(texts)
        similarity = self.similarity(texts_bank, bank.tokens)
        pairs = torch.cartesian_prod(torch.arange(len(texts)), torch.arange(len(bank.kept)))
        scores = self.match_scores(texts_bank, bank.tokens, pairs[:, :1], pairs[:, 1:])
        probability = None if scores is None else scores.view(similarity.shape)
        results = Matches()
        results.skipped = bank.skipped
        for column, index in enumerate(bank.kept):
            own = [
                Match(str(videos[index]), text, float(similarity[row, column]), _cell(probability, row, column))
                for row, text in enumerate(texts)
            ]
            results += sorted(
                own, key=lambda match: -(match.similarity if match.probability is None else match.probability)
            )
        return results

    @torch.no_grad()
    def embed(self, videos: Sequence[str | Path], texts: Sequence[str] = ()) -> Embeddings:
        """Features of length 1 of the videos that can be read, each path once, and of the texts.

        All are held in memory: with T frames of width E a video takes 4 * (T + 1) * E bytes, and about twice that while
        it is worked on.

        Raises:
            BadVideos: as `caption`.
            CheckpointError: the header is tightTransf, which has no feature of a video.
            ValueError: a text without a word, or features that are not finite.
        """
        model = self.model(RetrievalModel)
        if not isinstance(model.similarity, LooseSimilarity):
            raise CheckpointError(
                f"{self.settings.init_model}: its similarity header, {model.config.sim_header}, reads every text with "
                "the frames of every video, so that a video has no feature of its own; use match or search, or a "
                "checkpoint with meanP, seqLSTM or seqTransf"
            )
        check_texts(texts)
        ids = text_array(dict.fromkeys(map(str, videos)), "paths")
        text_ids = text_features = None
        if texts:
            text_ids, text_features = text_array(texts, "texts"), self.encode_texts(texts).features
            self._note_cut(texts, model.config)
        clips = self._clips(model, ids.tolist(), with_objects=False)
        bank = encode_videos(model, clips, self.runtime, self.settings, with_objects=False)
        pooled = self.pool(bank.tokens)
        assert pooled is not None
        return Embeddings.of(ids, bank, pooled, text_ids, text_features, self.logit_scale)

    def _note_cut(self, texts: Sequence[str], config: ModelConfig) -> None:
        tokenizer = ClipTokenizer(config.vocab_size)
        if count := sum(len(tokenizer.encode(text)) > config.max_words - 2 for text in texts):
            self.log(f"{count} of {len(texts)} texts are cut to {config.max_words} tokens (--max_words)")

    def encode(self, videos: Sequence[str | Path]) -> VideoBank:
        """Tokens of the videos that can be read, on the host; `kept` are their indices in `videos`.

        Raises:
            BadVideos: as `caption`.
        """
        model = self.model(RetrievalModel)
        with_objects = model.is_trained("matching")
        clips = self._clips(model, videos, with_objects=with_objects)
        return encode_videos(model, clips, self.runtime, self.settings, with_objects=with_objects)

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str]) -> TextBank:
        """Features of texts, on the host."""
        model = self.model(RetrievalModel)
        return encode_texts(model, list(texts), self.runtime, self.settings)

    @torch.no_grad()
    def similarity(self, texts: TextBank, videos: VideoTokens, pooled: Tensor | None = None) -> Tensor:
        """(M, V) of the dual encoder; cosines for the loose headers, logits for tightTransf.

        Args:
            pooled: of `pool`, for those who ask often.
        """
        if pooled is not None:
            return F.normalize(texts.features, dim=-1) @ pooled.t()
        return first_stage(self.model(RetrievalModel), texts, videos, self.runtime) / self.logit_scale

    @torch.no_grad()
    def pool(self, videos: VideoTokens) -> Tensor | None:
        """One feature of length 1 for each video, (V, E) on the host; None for tightTransf, which has none."""
        model, device = self.model(RetrievalModel), self.runtime.device
        if not isinstance(model.similarity, LooseSimilarity):
            return None
        return model.similarity.video_feature(videos.frames.to(device), videos.frame_mask.to(device)).float().cpu()

    @property
    def logit_scale(self) -> float:
        """Logits of the dual encoder per unit of `similarity`."""
        model = self.model(RetrievalModel)
        return float(model.clip.logit_scale.detach().exp()) if isinstance(model.similarity, LooseSimilarity) else 1.0

    def match_scores(
        self, texts: TextBank, videos: VideoTokens, text_index: Tensor, video_index: Tensor
    ) -> Tensor | None:
        """P(match) of groups of pairs, (Q, k) indices twice -> (Q, k); None without a trained matching head."""
        model = self.model(RetrievalModel)
        if not self.can_rerank:
            return None
        scores = pair_scores(model, texts, videos, self.runtime, self.settings)
        return scores(text_index, video_index)

    @property
    def can_rerank(self) -> bool:
        """Whether the checkpoint has a trained matching head."""
        return self.model(RetrievalModel).is_trained("matching")

    def model(self, model_class: ModelClass) -> Any:
        """The checkpoint as a task's model, in evaluation mode.

        Raises:
            CheckpointError, ValueError: it cannot be used for the task.
        """
        if model_class not in self._models:
            model = load_for_inference(
                model_class, self.settings, self.runtime.device, self.load_log, NEEDS[model_class]
            )
            self._check_chosen()
            self._models[model_class] = model
        return self._models[model_class]

    def _check_chosen(self) -> None:
        """Raise ValueError if a trained model has another size than was chosen; a released one has it once built."""
        for name, value in self._chosen.items():
            own = getattr(self.settings.model, name)
            if own != value:
                raise ValueError(
                    f"{self.settings.init_model}: was trained with {name} {own} and is used so, not with {value}; "
                    f"leave out --{name}, which is for CLIP weights"
                )

    def sample_settings(self, config: ModelConfig) -> SampleSettings:
        """The settings by which clips become tensors."""
        return sample_settings(self.settings, config, training=False)

    def object_files(self, config: ModelConfig) -> ObjectFiles | None:
        """The object files of clips; None for a model without objects, without `object_path`, or with a detector."""
        if config.need_object and not self._has_looked and not self.detector.is_given:
            self._has_looked = True  # the models of a checkpoint have the same sizes, and one remark is enough
            self._objects = self._open_objects(config)
        return self._objects if config.need_object else None

    def _open_objects(self, config: ModelConfig) -> ObjectFiles | None:
        if not self.has_object_files:
            self.log("no object files (--object_path): a model with objects sees none of them")
            return None
        label_map = load_label_map(self.settings.labelmap_path)
        return ObjectFiles(self.settings.object_path, label_map, object_settings(self.settings, config))

    def detected(self, config: ModelConfig) -> DetectedClips | None:
        """Clips in which a detector finds the objects; None without one, or for a model without objects."""
        if self.detector.is_given and not self._has_looked:
            self._has_looked = True
            if config.need_object:
                self._detected = self.detector.clips(self._source, self.settings, config, self.runtime.device)
            else:
                self.log("--detector: this model was trained without objects; none are looked for")
        return self._detected

    def reader(self, config: ModelConfig, videos: Sequence[str], *, with_objects: bool = True) -> ClipReader:
        """Reads these clips by path; the object file of a clip has its stem.

        Args:
            with_objects: whether they are needed, so that a detector has to look for them.
        """
        settings = self.sample_settings(config)
        if self.detector.is_given:
            detected = self.detected(config) if with_objects else None
            original = replace(settings, choices=replace(settings.choices, box_coordinates="original"))
            return ClipReader(detected, original, detected) if detected else ClipReader(self._source, settings)
        stems = {path: Path(path).stem for path in videos}
        objects = self.object_files(config)
        if objects and not any(objects.path(stem) for stem in stems.values()):
            self.log(f"{objects.object_path}: no object file of these videos; a model with objects sees none of them")
        return ClipReader(self._source, settings, objects, stems)

    @cached_property
    def _source(self) -> VideoSource:
        """Videos by path, with the frame cache before them if there is one."""
        cache = self.settings.cache.open()
        return PathVideos() if cache is None else CachedVideos(PathVideos(), cache)

    def batches(self, dataset: Dataset, collate_fn: Callable[..., Batch] = collate) -> Iterable[Batch]:
        """Batches of clips in order, with a progress bar if wanted."""
        loader = evaluation_loader(self.settings, dataset, self.runtime, collate_fn)
        yield from tqdm(loader, unit="batch", desc="videos", disable=not self.progress)
        for line in self._detected.remarks(self.settings.labelmap_path) if self._detected else ():
            self.log(line)

    def _clips(self, model: Any, videos: Sequence[str | Path], *, with_objects: bool = True) -> Iterable[Batch]:
        names = [str(path) for path in videos]
        return self.batches(VideoDataset(names, self.reader(model.config, names, with_objects=with_objects)))


def _cell(values: Tensor | None, row: int, column: int) -> float | None:
    return None if values is None else float(values[row, column])
