"""CLIP weights of any origin: finding the file that a user means, and reading it with what describes it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from modules.config import HEAD_WIDTH, MAX_SIZE, QUICK_GELU, ModelConfig
from modules.initialise import config_from_clip
from modules.module_clip import CLIP
from utils.models.clip_description import Description, all_of_table, check_vocabulary, from_open_clip, from_table
from utils.models.clip_layouts import CLIP4CLIP, HUGGING_FACE, Translated, no_place, to_openai_names
from utils.models.hugging_face_config import from_hugging_face, is_hugging_face
from utils.models.random_clip import IS_QUICK_GELU, STATED_HEAD_WIDTH, STATED_TEXT_HEAD_WIDTH
from utils.models.weight_files import INDEX, SUFFIXES, read_configuration, read_weight_file
from utils.runtime.checkpoint import FORMAT, CheckpointError

CLIP_FILE = "ViT-B-16.pt"
CLIP_URL = (
    "https://openaipublic.azureedge.net/clip/models/"
    "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f/ViT-B-16.pt"
)
# sha256 of OpenAI's files, as in their addresses (open_clip.pretrained lists these too)
OPENAI_FILES = {
    "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af": "ViT-B-32.pt",
    "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f": CLIP_FILE,
    "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836": "ViT-L-14.pt",
    "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02": "ViT-L-14-336px.pt",
}
CLIP_FOLDERS = ("modules/clip", "modules", "data/models/clip", "data/models")
# Names by which weights are known in a folder, the first that is there; whoever has several has the same in all.
KNOWN_NAMES = (
    CLIP_FILE, "open_clip_model.safetensors", "open_clip_pytorch_model.bin", "model.safetensors",
    f"model.safetensors{INDEX}", "pytorch_model.bin", f"pytorch_model.bin{INDEX}",
)  # fmt: skip
OPEN_CLIP_CONFIG, HUGGING_FACE_CONFIG = "open_clip_config.json", "config.json"
TELLING_SIZES = ("vision_width", "vision_layers", "patch_size", "text_width", "text_layers", "embed_dim")
REPOSITORY = Path(__file__).resolve().parents[2]


class ClipWeights(NamedTuple):
    """A CLIP by OpenAI's names, and what describes it.

    Attributes:
        state: the entries of both towers.
        described: fields of ModelConfig that no shape tells: activation, widths of heads, mean and deviation.
        header: entries of a similarity header of CLIP4Clip, by this project's names.
        source: who states the description.
        remarks: lines for the log.
    """

    state: dict[str, Tensor]
    described: dict[str, Any]
    header: dict[str, Tensor]
    source: str
    remarks: list[str]


def find_clip_archive(path: str | Path, flag: str = "--clip_archive") -> Path:
    """The CLIP weights that a flag means: itself, or those in its folder; for --clip_archive OpenAI's in usual places.

    A folder with weights of its own, or with the configuration of some, means no others.

    Raises:
        CheckpointError: nothing there; lists the places and the address of the official file.
    """
    given = Path(path)
    if given.is_file():
        return given
    if known := next((given / name for name in KNOWN_NAMES if (given / name).is_file()), None):
        return known
    inside = sorted(f for f in given.iterdir() if f.suffix in SUFFIXES) if given.is_dir() else []
    if len(inside) == 1:
        return inside[0]
    folders = [REPOSITORY / folder for folder in CLIP_FOLDERS] if flag == "--clip_archive" else []
    described = [name for name in (OPEN_CLIP_CONFIG, HUGGING_FACE_CONFIG) if (given / name).is_file()]
    for folder in folders if not (inside or described) else ():
        if (folder / CLIP_FILE).is_file():
            return folder / CLIP_FILE
    found = f" It holds {described[0]} without weights: fetch them too." if described else ""
    found = f" It holds several files ({', '.join(f.name for f in inside)}): name one." if inside else found
    places = "\n  ".join([str(given), *(str(folder / CLIP_FILE) for folder in [given, *folders])])
    raise CheckpointError(
        f"no CLIP weights at {flag} {path}.{found} Looked in:\n  {places}\n"
        f"OpenAI's ViT-B/16 is at {CLIP_URL}; utils/make_random_clip.py writes one with random weights."
    )


def read_clip_weights(path: str | Path, clip_model: str | None = None, activation: str | None = None) -> ClipWeights:
    """Read CLIP weights of OpenAI, open_clip, Hugging Face, CLIP4Clip or utils/make_random_clip.py.

    What no tensor tells comes from the configuration beside the file, else from the flags, else from the file itself.
    Nothing in the file is run, whoever made it.

    Args:
        clip_model: a name of open_clip's table.
        activation: "gelu" or "quick_gelu".

    Raises:
        CheckpointError: the file is damaged or of another kind, an entry has no place or is missing, sizes are not
            those stated, two sources contradict each other, or nothing states the activation; names file and remedy.
    """
    path = Path(path)
    beside = _configuration(path, HUGGING_FACE if path.name.startswith(("model.", "pytorch_model.")) else "")
    file = read_weight_file(path)
    translated = to_openai_names(file.entries, path)
    said = _said_of_itself(path, translated, file.is_random)
    named = from_table(clip_model) if clip_model else None
    if named and activation not in (None, named.activation):
        raise CheckpointError(
            f"--activation {activation} contradicts --clip_model {clip_model}, which has {named.activation}; leave one "
            "out (names that end in -quickgelu have QuickGELU)"
        )
    described = beside or named or _by_itself(path, translated, said, activation)
    for other in (named, said, activation):
        if other and other is not described:
            _check_agreement(described, other)
    config = _config(path, translated.state, described)
    _check_entries(path, translated.state, config)
    return ClipWeights(
        translated.state, described.fields(), translated.header, described.source, list(described.remarks)
    )


def _configuration(path: Path, family: str) -> Description | None:
    """Description by the configuration beside a file, that of its own family first; None where there is none."""
    of_open_clip, of_hugging_face = path.parent / OPEN_CLIP_CONFIG, path.parent / HUGGING_FACE_CONFIG
    for place in (of_hugging_face, of_open_clip) if family == HUGGING_FACE else (of_open_clip, of_hugging_face):
        if not place.is_file():
            continue
        content = read_configuration(place)
        if content.get("format") == FORMAT:
            raise CheckpointError(f"{path}: a checkpoint of this project and no CLIP weights; give it to --init_model")
        if place == of_open_clip:
            return from_open_clip(content, str(place))
        if is_hugging_face(content):
            return from_hugging_face(content, place)
    return None


def _check_agreement(stated: Description, other: Description | str) -> None:
    """Raise CheckpointError where a flag, or the file itself, says otherwise than what describes the file."""
    pairs: list[tuple[str, Any, Any]] = []
    if isinstance(other, str):
        pairs.append(("activation", stated.activation, other))
        source = f"--activation {other}"
    else:
        names = ("activation", "head_width", "text_head_width")
        pairs += [(name, getattr(stated, name), getattr(other, name)) for name in names]
        pairs += [(name, size, other.sizes.get(name, size)) for name, size in stated.sizes.items()]
        source = other.source
    if differing := [f"{name} {one} by the one, {two} by the other" for name, one, two in pairs if one != two]:
        raise CheckpointError(
            f"{stated.source} and {source} contradict each other: {'; '.join(differing)}; leave one out"
        )


def _said_of_itself(path: Path, translated: Translated, is_random: bool) -> Description | None:
    """What a file says of itself, which leaves its entries; None for a bare one that could be anybody's."""
    names = (STATED_HEAD_WIDTH, STATED_TEXT_HEAD_WIDTH, IS_QUICK_GELU)
    said = {name: _stated(name, translated.state.pop(name), path) for name in names if name in translated.state}
    if not (said or is_random or whose(path)):
        return None
    width = said.get(STATED_HEAD_WIDTH, HEAD_WIDTH)
    activation = QUICK_GELU if said.get(IS_QUICK_GELU, 1) else "gelu"
    return Description(str(path), activation, width, said.get(STATED_TEXT_HEAD_WIDTH, width))


def _stated(name: str, value: Tensor, path: Path) -> int:
    """A number that a file says of itself: 0 or 1 for the activation, a width above 0."""
    lowest, highest = (0, 1) if name == IS_QUICK_GELU else (1, MAX_SIZE)
    is_whole = value.numel() == 1 and not (value.is_floating_point() or value.is_complex())
    if not is_whole or not lowest <= int(value) <= highest:
        raise CheckpointError(f"{path}: its {name} is no number that a CLIP can have; fetch it again")
    return int(value)


def _by_itself(path: Path, translated: Translated, said: Description | None, activation: str | None) -> Description:
    """Description of a file without a configuration: as it says of itself, by the flag, or as CLIP4Clip's are."""
    if said:
        return said
    chosen = activation or (QUICK_GELU if translated.layout == CLIP4CLIP else None)
    if chosen is None:
        raise CheckpointError(
            f"{path}: nothing states its activation: OpenAI's CLIP has QuickGELU, most of open_clip's have GELU, and "
            "with the wrong one features are wrong without a sign. Give --clip_model NAME (of open_clip's table, such "
            "as ViT-B-16 or ViT-B-16-quickgelu) or --activation gelu or quick_gelu, or put its configuration beside it "
            f"({OPEN_CLIP_CONFIG}, or Hugging Face's {HUGGING_FACE_CONFIG})"
        )
    is_taken_for = f"{path}: taken for a checkpoint of CLIP4Clip, whose code has QuickGELU; else give --activation gelu"
    heads, is_known = _usual_heads(path, _sizes(path, translated.state))
    remarks: tuple[str, ...] = () if activation else (is_taken_for,)
    if not is_known and translated.layout != CLIP4CLIP:
        remarks += (f"{path}: nothing states how wide its attention heads are; taken for {HEAD_WIDTH}, as OpenAI's",)
    return Description(str(path), chosen, *heads, remarks=remarks)


def _usual_heads(path: Path, sizes: ModelConfig) -> tuple[tuple[int, int], bool]:
    """Widths of the heads of a bare file: those of the models of its sizes in open_clip's table, and True.

    Where the table has none of them, OpenAI's 64, unless it has towers of that width with other heads, and False.
    """
    exact, of_vision, of_text = set(), {HEAD_WIDTH}, {HEAD_WIDTH}
    for named in all_of_table():
        if named.sizes["vision_width"] == sizes.vision_width:
            of_vision.add(named.head_width)
        if named.sizes["text_width"] == sizes.text_width:
            of_text.add(named.text_head_width)
        if all(named.sizes[size] == getattr(sizes, size) for size in TELLING_SIZES):
            exact.add((named.head_width, named.text_head_width))
    if len(exact) == 1:
        return exact.pop(), True
    is_usual = of_vision == of_text == {HEAD_WIDTH}
    if exact or not is_usual or sizes.vision_width % HEAD_WIDTH or sizes.text_width % HEAD_WIDTH:
        raise CheckpointError(
            f"{path}: nothing states how wide its attention heads are; give --clip_model NAME, or put its "
            f"configuration beside it ({OPEN_CLIP_CONFIG}, or Hugging Face's {HUGGING_FACE_CONFIG})"
        )
    return (HEAD_WIDTH, HEAD_WIDTH), False


def _sizes(path: Path, state: Mapping[str, Tensor], **described: Any) -> ModelConfig:
    length = state.get("positional_embedding")
    words = {"max_words": min(ModelConfig.max_words, len(length))} if length is not None and length.ndim else {}
    try:
        return config_from_clip(state, **{**described, **words})
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error


def _config(path: Path, state: Mapping[str, Tensor], described: Description) -> ModelConfig:
    """Sizes of the tensors, which have to be those that are stated."""
    config = _sizes(path, state, **described.fields())
    check_vocabulary(config.vocab_size, str(path))
    sizes = {name: (stated, getattr(config, name)) for name, stated in described.sizes.items()}
    if differing := [f"{name} {one} stated, {two} there" for name, (one, two) in sizes.items() if one != two]:
        raise CheckpointError(f"{path}: not the sizes that {described.source} states: {'; '.join(differing)}")
    return config


def _check_entries(path: Path, state: Mapping[str, Tensor], config: ModelConfig) -> None:
    """Raise CheckpointError unless each entry has its place, and each place its fractions of the right shape."""
    try:
        with torch.device("meta"):
            places = {name: tuple(parameter.shape) for name, parameter in CLIP(config).named_parameters()}
    except RuntimeError as error:  # more numbers than can be counted
        raise CheckpointError(f"{path}: no model has the sizes that it states ({error})") from error
    if strange := [name for name in state if name not in places]:
        raise no_place(strange, path)
    problems = [f"{name} is missing" for name in places if name not in state]
    problems += [
        f"{name} has shape {tuple(state[name].shape)}, not {shape}"
        for name, shape in places.items()
        if name in state and tuple(state[name].shape) != shape
    ]
    problems += [f"{name} holds {value.dtype}" for name, value in state.items() if not value.is_floating_point()]
    if problems:
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise CheckpointError(f"{path}: not a whole CLIP: {'; '.join(problems[:5])}{more}; fetch it again")


def whose(path: str | Path) -> str:
    """Name of OpenAI's file that this is by its sha256; "" for another's."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while chunk := file.read(2**20):
            digest.update(chunk)
    return OPENAI_FILES.get(digest.hexdigest(), "")


def origin(path: str | Path) -> str:
    """Whose a CLIP file is, for the log."""
    name = whose(path)
    return f"OpenAI's {name} by its sha256" if name else "none of OpenAI's own files"
