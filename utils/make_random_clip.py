"""Write a CLIP with random weights as a TorchScript file with the keys of OpenAI's archives.

For the demo, tests and benchmarks: any size, loaded exactly as `ViT-B-16.pt` is.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict, fields, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file

from modules.config import ACTIVATIONS
from utils.models.random_clip import PRESETS, ClipSizes, half_weights, random_state_dict, save_archive
from utils.runtime.terminal import show, show_error


def parse_arguments(argv: list[str] | None = None) -> tuple[argparse.Namespace, ClipSizes]:
    """The command's arguments, and the sizes that they ask for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--output", type=Path, required=True, help="file to write, for instance ViT-B-16.pt")
    parser.add_argument("--preset", choices=sorted(PRESETS), default="demo", help="sizes (default: %(default)s)")
    demo = asdict(PRESETS["demo"])
    for field in fields(ClipSizes):
        kind, choices = (str, ACTIVATIONS) if field.type == "str" else (int, None)
        help_text = f"instead of the preset's (demo: {demo[field.name]})"
        parser.add_argument(f"--{field.name}", type=kind, choices=choices, help=help_text)
    parser.add_argument("--seed", type=int, default=0, help="random seed (default: %(default)s)")
    parser.add_argument("--fp16", action="store_true", help="the tensors in half precision that OpenAI's files hold so")
    args = parser.parse_args(argv)
    given = {field.name: getattr(args, field.name) for field in fields(ClipSizes)}
    given = {name: value for name, value in given.items() if value is not None}
    try:
        return args, replace(PRESETS[args.preset], **given)
    except ValueError as error:
        parser.error(str(error))


def main(argv: list[str] | None = None) -> int:
    """Write the archive and print its size."""
    args, sizes = parse_arguments(argv)
    state = random_state_dict(sizes, args.seed)
    try:
        save_archive(half_weights(state) if args.fp16 else state, args.output)
    except OSError as error:
        show_error(f"make_random_clip: {error}")
        return 1
    parameters = sum(value.numel() for value in state.values() if value.is_floating_point())
    show(f"{args.output}: {parameters:,} parameters, {args.output.stat().st_size / 2**20:.0f} MiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
