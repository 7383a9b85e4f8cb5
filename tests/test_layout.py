"""The house rules that a reader relies on: which package imports which, what stays free of what, and --help."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAY_IMPORT = {
    "modules": {"modules"},
    "dataloaders": {"dataloaders", "modules"},
    "utils": {"utils", "dataloaders", "modules"},
    "tasks": {"tasks", "utils", "dataloaders", "modules"},
}
# Which rooms of utils/ a room may import, itself aside: DESIGN's table, the top is open to all of them.
EVALUATION = {"runtime", "settings"}
DATA = {"evaluation", *EVALUATION}
TRAINING = {"data", "models", *DATA}
INFERENCE = {"training", "preparation", *TRAINING}
ROOMS: dict[str, set[str]] = {
    "settings": set(),
    "runtime": {"settings"},
    "models": {"runtime", "settings"},
    "evaluation": EVALUATION,
    "data": DATA,
    "training": TRAINING,
    "preparation": {"runtime", "settings"},
    "inference": INFERENCE,
    "pictures": {"inference", *INFERENCE},
    "demo": {"runtime", "settings"},
    "checks": {"data", "preparation", *DATA},
    "report": {"pictures", "demo"},
}
# Modules without a test file at the mirrored place, each with the reason.
TESTED_ELSEWHERE = {
    "utils/evaluation/result.py": "fields without behaviour, which the tests of every evaluation read",
}
NO_COMMAND = {"__init__.py", "predictor.py"}  # users import Predictor from the top
FILES = {package: sorted((ROOT / package).glob("**/*.py")) for package in MAY_IMPORT}
# They run beside TensorFlow, and TensorFlow and PyTorch in one process crash.
WITHOUT_TORCH = (
    "dataloaders.frames",
    "dataloaders.container_end",
    "dataloaders.tfrecord",
    "dataloaders.stored_clips",
    "dataloaders.stored_frames",
    "dataloaders.files",
    "dataloaders.built_caches",
    "dataloaders.lmdb_files",
    "dataloaders.datasets.msrvtt",
    "dataloaders.datasets.msvd",
    "dataloaders.datasets.lsmdc",
    "dataloaders.datasets.didemo",
    "dataloaders.multiple_choice",
    "modules.boxes",
    "modules.tracking",
    "modules.utils_object_tractor",
    "utils.checks.clips",
    "utils.checks.records",
    "utils.preparation.clip_encoding",
    "utils.preparation.caption_rows",
    "utils.preparation.conversion_flags",
    "utils.preparation.video_workers",
    "utils.preparation.shard_files",
    "utils.preparation.shard_parts",
    "utils.preparation.shards",
    "utils.preparation.tar_members",
    "utils.preparation.tar_rows",
    "utils.preparation.webvid_rows",
    "utils.webvid_to_tfrecord",
)
MAINS = [
    path for package in ("utils", "tasks") for path in FILES[package] if '__name__ == "__main__"' in path.read_text()
]
COMMANDS = [path for path in MAINS if path.parent.name in ("utils", "tasks")]


def imports(path: Path) -> Iterator[tuple[str, ast.stmt]]:
    """Every module that a file imports, wherever the statement stands."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert all(alias.name != "*" for alias in node.names), f"{path}: star import"
            yield node.module or "", node


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_run_downwards_only(package: str):
    assert FILES[package]
    for path in FILES[package]:
        ours = {name.split(".")[0] for name, _ in imports(path)} & {*MAY_IMPORT, "tests"}
        assert ours <= MAY_IMPORT[package], f"{path.relative_to(ROOT)} imports {sorted(ours - MAY_IMPORT[package])}"


def rooms_imported(path: Path) -> set[str]:
    """Rooms of utils/ that a file imports, its own included; "" stands for the top."""
    found = set()
    for name, node in imports(path):
        names = [name] if not isinstance(node, ast.ImportFrom) else [f"{name}.{alias.name}" for alias in node.names]
        for parts in (one.split(".") for one in names if one.split(".")[0] == "utils"):
            found.add(parts[1] if parts[1] in ROOMS else "")
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_import_what_the_table_says(room: str):
    files = sorted((ROOT / "utils" / room).glob("*.py"))
    assert len(files) > 1
    for path in files:
        others = rooms_imported(path) - {room}
        assert others <= ROOMS[room], f"{path.relative_to(ROOT)} imports {sorted(others - ROOMS[room])}"


def test_every_folder_of_utils_is_a_room_without_folders():
    assert {path.name for path in (ROOT / "utils").iterdir() if path.is_dir() and path.name != "__pycache__"} == {
        *ROOMS
    }
    assert not [path for room in ROOMS for path in (ROOT / "utils" / room).glob("*/*.py")]


def test_the_table_of_rooms_has_no_circle():
    for room, others in ROOMS.items():
        for other in others:
            assert room not in ROOMS[other], f"{room} and {other} import each other"
            assert ROOMS[other] <= others or room == "report", f"{room} lacks what {other} imports"


def mirrored(path: Path) -> Path:
    """Where the tests of a module are."""
    return ROOT / "tests" / path.relative_to(ROOT).parent / f"test_{path.name}"


def test_tests_mirror_the_tree():
    modules = [path for package in FILES if package != "tasks" for path in FILES[package] if path.stem != "__init__"]
    without = {path.relative_to(ROOT).as_posix() for path in modules if not mirrored(path).is_file()}
    assert without == set(TESTED_ELSEWHERE) and len(TESTED_ELSEWHERE) <= 25


def test_no_circle_between_files():
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts) for files in FILES.values() for path in files}
    graph: dict[str, set[str]] = {name: set() for name in names}
    for path in [path for files in FILES.values() for path in files]:
        for name, node in imports(path):
            inside = [f"{name}.{alias.name}" for alias in node.names] if isinstance(node, ast.ImportFrom) else []
            graph[".".join(path.relative_to(ROOT).with_suffix("").parts)] |= names & {name, *inside}
    left = dict(graph)
    while free := [name for name, needs in left.items() if not needs & set(left)]:
        for name in free:
            del left[name]
    assert not left, f"files import each other in a circle: {sorted(left)}"


def test_the_top_of_utils_holds_short_commands():
    for path in (ROOT / "utils").glob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert ('__name__ == "__main__"' in text) != (path.name in NO_COMMAND), path.name
        assert text.count("\n") <= 120, f"{path.name} has {text.count(chr(10))} lines: what it does belongs in a room"


def test_commands_alone_edit_the_path_and_in_one_line_before_their_imports():
    line = "sys.path.insert(0, str(Path(__file__).resolve().parents[1]))"
    for path in [path for files in FILES.values() for path in files]:
        text = path.read_text(encoding="utf-8")
        ours = [node.lineno for name, node in imports(path) if name.split(".")[0] in MAY_IMPORT]
        needed = path in COMMANDS and bool(ours)
        assert text.count("sys.path") == text.count(line) == needed, path.relative_to(ROOT)
        if needed:
            assert text[: text.index(line)].count("\n") + 1 < min(ours), path.relative_to(ROOT)


def test_no_file_shadows_the_standard_library():
    """`python utils/x.py` puts utils/ first on the path."""
    names = {path.stem for package in ("utils", "tasks") for path in FILES[package]}
    assert not names & (set(sys.stdlib_module_names) - {"__init__"})


def test_tensorflow_is_imported_by_the_shard_writer_alone():
    users = {
        path.relative_to(ROOT).as_posix()
        for files in FILES.values()
        for path in files
        if any(name.split(".")[0] == "tensorflow" for name, _ in imports(path))
    }
    assert users == {"utils/webvid_to_tfrecord.py"}


def test_packages_are_empty_folders_of_files():
    for package in MAY_IMPORT:
        assert (ROOT / package / "__init__.py").read_text() == ""


def test_what_runs_beside_tensorflow_imports_no_torch():
    code = f"import sys, {', '.join(WITHOUT_TORCH)}; sys.exit('torch' in sys.modules or 'tensorflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr or "torch or tensorflow was imported"


def test_library_functions_do_not_print():
    for path in [path for files in FILES.values() for path in files if path not in COMMANDS]:
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        names = [call.func.id for call in calls if isinstance(call.func, ast.Name)]
        assert not {"print", "eval", "exec"} & set(names), path.relative_to(ROOT)
    for path in COMMANDS:  # text of data is escaped on its way to a terminal: utils/runtime/terminal.py
        calls = [node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        assert "print" not in {call.id for call in calls if isinstance(call, ast.Name)}, path.relative_to(ROOT)


@pytest.mark.slow
def test_every_command_explains_itself():
    """One process for all of them: what a command imports, the next one finds imported."""
    code = """
import contextlib, importlib, io, sys
for name in sys.argv[1:]:
    text = io.StringIO()
    try:
        with contextlib.redirect_stdout(text):
            importlib.import_module(name).main(["--help"])
    except SystemExit as stop:
        assert stop.code in (None, 0), f"{name} --help: {stop.code}"
    assert text.getvalue().startswith("usage:"), name
"""
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in COMMANDS]
    assert {"tasks.pre_training", "utils.webvid_to_tfrecord", "utils.make_demo_data"} <= set(names)
    done = subprocess.run([sys.executable, "-c", code, *names], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_command_runs_as_a_file_from_anywhere(tmp_path: Path):
    command = [sys.executable, str(ROOT / "utils/tag_captions.py"), "--help"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "usage: tag_captions.py" in done.stdout, done.stderr


def test_torch_files_are_read_at_one_place_and_archives_never_run():
    product = {path.relative_to(ROOT).as_posix(): path.read_text() for files in FILES.values() for path in files}
    assert [name for name, text in product.items() if "= torch.load(" in text] == ["utils/runtime/checkpoint.py"]
    calls = re.compile(r"^[^#`]*\btorch\.jit\.load\(", re.MULTILINE)
    assert not [name for name, text in product.items() if calls.search(text)]
