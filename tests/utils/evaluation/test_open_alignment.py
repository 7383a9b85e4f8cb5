"""What trajectories and action queries are nearest to among all words of a world."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from modules.config import MATCHING_LOSSES, Behaviour
from modules.fusion_encoder import VideoTokens
from modules.objectives.set_matching import ACTION_VERB, OBJECT_NOUN
from modules.tokenizer import ClipTokenizer
from tests import tiny
from tests.utils.checkpoints import SIZES
from utils.evaluation import open_alignment
from utils.evaluation.alignment import figure
from utils.evaluation.open_alignment import Opened, OpenWords, Sentence, TrueWords, open_shares
from utils.runtime.distributed import find_runtime

NOUNS, VERBS = ("star", "triangle"), ("growing", "spinning")
SENTENCES = [
    Sentence(f"{article} {noun} is {verb}", noun, verb) for article in ("a", "the") for noun in NOUNS for verb in VERBS
]


@pytest.fixture(scope="module", params=MATCHING_LOSSES)
def model(request: pytest.FixtureRequest) -> Any:
    return tiny.model(behaviour=Behaviour(matching_loss=request.param), **SIZES).eval()


@pytest.fixture(scope="module")
def words(model: Any) -> OpenWords:
    open_alignment.TEXTS_TOGETHER = 3  # so that there are several batches
    return OpenWords(model, SENTENCES, find_runtime(device="cpu"))


def video(trajectories: Tensor, actions: Tensor) -> VideoTokens:
    """Clips of these tokens."""
    clips = len(actions)
    frames, mask = torch.zeros(clips, 1, actions.shape[-1]), torch.ones(clips, 1, dtype=torch.bool)
    return VideoTokens(frames, mask, trajectories, trajectories[..., 0] != 0, actions)


def test_a_word_is_the_mean_of_its_tokens_in_all_of_its_sentences(model: Any, words: OpenWords):
    tokenizer = ClipTokenizer(model.config.vocab_size)
    assert words.nouns == list(NOUNS) and words.verbs == list(VERBS)
    pieces = {word: len(tokenizer.word_ids(word)) for word in (*NOUNS, *VERBS)}
    assert max(pieces.values()) > 1
    if model.behaviour.matching_loss == "contrastive":  # the last piece stands for its word
        pieces = dict.fromkeys(pieces, 1)
    assert words.columns[OBJECT_NOUN].words == [word for word in NOUNS for _ in range(pieces[word])]
    spoken = [word for word in words.columns[ACTION_VERB].words if word]
    assert sorted(spoken) == sorted(word for word in VERBS for _ in range(pieces[word]))
    assert words.columns[ACTION_VERB].words.count(None) == len(VERBS)
    tokens, pieces_of_triangle = [], len(tokenizer.word_ids("triangle"))
    for sentence in SENTENCES:
        if sentence.noun == "triangle":
            ids, mask = tokenizer.to_tensor_ids(sentence.text, model.config.max_words)
            with torch.no_grad():
                tokens.append(model.encode_text(torch.from_numpy(ids)[None])[0])
    place = words.columns[OBJECT_NOUN].words.index("triangle")
    first = 1 + len(tokenizer.word_ids("a"))
    piece = first if pieces["triangle"] == pieces_of_triangle else first + pieces_of_triangle - 1
    expected = torch.stack(tokens).mean(0)[piece]
    torch.testing.assert_close(words.columns[OBJECT_NOUN].tokens[place], expected, rtol=1e-4, atol=1e-5)


def nearest(words: OpenWords, kind: str, word: str | None) -> Tensor:
    """A token whose dot product is largest with a word, or with an end token (None)."""
    columns = words.columns[kind]
    index = columns.words.index(word)
    logits = torch.zeros(len(columns.words), 1)
    logits[index] = 5.0
    return torch.linalg.lstsq(columns.tokens, logits).solution[:, 0]


def test_counts_of_hand_made_tokens(model: Any, words: OpenWords):
    """The second clip has one trajectory, and queries that name a verb twice."""
    star, triangle = (nearest(words, OBJECT_NOUN, noun) for noun in NOUNS)
    growing, spinning, nothing = (nearest(words, ACTION_VERB, verb) for verb in (*VERBS, None))
    trajectories = torch.stack([torch.stack([star, star, star]), torch.stack([triangle, triangle * 0, triangle * 0])])
    actions = torch.stack([torch.stack([growing, nothing, nothing]), torch.stack([spinning, spinning, growing])])
    classes = [["star", "triangle", "wall"], ["triangle"]]
    true = [TrueWords({"star", "triangle"}, {"growing", "spinning"}), TrueWords({"triangle"}, {"spinning"})]
    first, second = words({}, video(trajectories, actions), classes, true)
    assert first == Opened(2, 1, 1.0, verbs=1, true=2, hit=1, hit_by_chance=1.0)
    assert second == Opened(1, 1, 0.5, verbs=2, true=1, hit=1, hit_by_chance=1.0)
    found = {name: figure(one) for name, one in open_shares([first, second]).items()}
    percent = {name: one.percent for name, one in found.items()}
    assert percent["open_nouns"] == percent["precision"] == percent["recall"] == percent["f1"] == pytest.approx(200 / 3)
    assert found["open_nouns"].chance == pytest.approx(50) and found["f1"].chance == pytest.approx(400 / 6)


def test_a_class_that_is_not_in_the_clip_has_no_right_noun(words: OpenWords):
    star = nearest(words, OBJECT_NOUN, "star")[None, None]
    actions = nearest(words, ACTION_VERB, None)[None, None]
    [found] = words({}, video(star, actions), [["star"]], [TrueWords({"triangle"}, {"growing"})])
    assert (found.trajectories, found.right, found.verbs, found.true, found.hit) == (0, 0, 0, 1, 0)
    assert {name: figure(one).percent for name, one in open_shares([found]).items()} == {"recall": 0, "f1": 0}


def test_a_model_without_actions_names_no_verb():
    model = tiny.model(**{**SIZES, "use_action": False}).eval()
    words = OpenWords(model, SENTENCES, find_runtime(device="cpu"))
    tokens = nearest(words, OBJECT_NOUN, "star")[None, None]
    clip = video(tokens, tokens)._replace(actions=None)
    [found] = words({}, clip, [["star"]], [TrueWords({"star"}, {"growing"})])
    assert found == Opened(1, 1, 0.5, 0, 0, 0, 0)
    assert set(open_shares([found])) == {"open_nouns"}
