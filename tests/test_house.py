"""The house keeps its order: a package imports only from packages below its own."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "yoda_cli"

#: From the ground up; packages on one line do not import each other.
LAYERS = [
    {"arrays"},
    {"diffusion", "errors", "config", "version"},
    {"files", "tiling"},
    {"devices", "weights"},
    {"images"},
    {"attention", "models"},
    {"upscaling"},
    {"evaluation", "reports"},
    {"training"},
    {"cli"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
PURE = ("diffusion", "tiling")
OUTSIDE = {"PIL", "cv2", "rich", "typer", "requests", "pathlib", "os"}


def modules(*room):
    found = sorted(PACKAGE.joinpath(*room).rglob("*.py"))
    assert found, f"no module in {room}: a test of it would pass whatever it says"
    return found


def part_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_imports(path):
    """What a module imports from this package, by package."""
    return {name.split(".")[1] for name in imports(path) if name.startswith("yoda_cli.")}


def test_the_top_is_small():
    tops = [p for p in PACKAGE.iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()]
    assert sum(p.is_dir() for p in tops) <= 13
    assert sum(p.is_file() for p in tops) <= 6  # with __init__ and __main__
    assert len(LAYERS) <= 10


def test_every_module_lives_in_a_room_of_the_plan():
    assert {part_of(p) for p in modules()} - {"__init__", "__main__"} == set(LEVEL)


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_module_imports_only_from_below(path):
    own = part_of(path)
    assert "yoda_cli" not in set(imports(path)) or own == "__main__", "the face is for users"
    if own in ("__init__", "__main__"):
        return
    for other in own_imports(path) - {own}:
        assert LEVEL[other] < LEVEL[own], f"{path.name} may not import from {other}"


@pytest.mark.parametrize("package", PURE)
def test_the_mathematics_touches_no_file_and_no_screen(package):
    for path in modules(package):
        assert not {name.split(".")[0] for name in imports(path)} & OUTSIDE, path.name


def test_what_enlarges_a_tensor_reads_no_file():
    allowed = {"resize", "color", "fidelity", "degradation"}
    disk = {"animation", "picture", "streaming", "api", "provenance"}
    for path in modules("upscaling"):
        if path.parent.name != "upscaling":
            continue  # ``batch`` goes from disk to disk
        used = {n.split(".")[2] for n in imports(path) if n.startswith("yoda_cli.images.")}
        assert path.stem in disk or used <= allowed, path.name


def test_only_the_renderer_knows_rich():
    users = {p.name for p in modules() if any(m.split(".")[0] == "rich" for m in imports(p))}
    assert users
    assert all(name.startswith("_render") for name in users)


def test_backbones_do_not_know_they_are_masked():
    for path in modules("models", "nets"):
        assert "yoda_cli.diffusion.yoda" not in set(imports(path))


def loaded_by(code):
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; {code}; print(*sys.modules)"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return set(done.stdout.split())


def test_help_does_not_import_torch():
    assert not {"torch", "numpy"} & loaded_by("import yoda_cli.cli")


def test_weights_do_without_torch():
    assert "torch" not in loaded_by("import yoda_cli.weights")


def test_a_run_can_be_made_without_torch():
    """ncnn may run the network; nothing else then needs torch."""
    loaded = loaded_by("import yoda_cli.cli._upscaling, yoda_cli.upscaling.batch.run")
    assert not {"torch", "cv2"} & loaded


def test_training_runs_on_a_bare_gpu_machine():
    """Without what only reading users' files, caches and memory limits need."""
    assert not {"psutil", "platformdirs"} & loaded_by("import yoda_cli.training.loop")


def test_files_and_functions_stay_small():
    too_large = []
    for path in modules():
        text = path.read_text()
        limit = 600 if "nets" in path.parts else 300
        if text.count("\n") > limit:
            too_large.append(f"{path.name}: {text.count(chr(10))} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = node.end_lineno - node.lineno + 1
                if lines > 50:
                    too_large.append(f"{path.name} {node.name}: {lines} lines")
    assert not too_large
