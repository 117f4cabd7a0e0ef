"""The house keeps its order: a module imports only from layers below its own."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "yoda_cli"

# From the ground up; modules on one line do not import each other.
LAYERS = [
    {"config", "errors"},
    {
        "diffusion",
        "noise",
        "resampling",
        "tiling",
        "folders",
        "processes",
        "pickles",
        "structures",
        "charts",
        "extras",
        "colour",
        "sizes",
        "memory",
    },
    {
        "yoda",
        "energy",
        "fidelity",
        "texture",
        "metrics",
        "images",
        "weights",
        "devices",
        "plots",
        "partition",
        "budget",
        "samplers",
        "chains",
    },
    {"backbones", "attention", "degradation", "recovery"},
    {"checkpoint", "data", "diffbir", "optimizers", "recipes"},
    {"reference", "importing", "sources"},
    {"models"},
    {"costs"},
    {"planning"},
    {"conditioning", "sampling", "limits"},
    {"surveys", "windows"},
    {"passes"},
    {"photo"},
    {"pipeline", "validation", "objective"},
    {"reproduction", "inspection", "scores"},
    {"inputs"},
    {"train", "targets", "manifest", "upscaling", "doctor", "arms", "datasets"},
    {"streaming", "records", "stages"},
    {"report", "maps", "bench", "speed", "batch", "api"},
    {"bench_report", "workers"},
    {"ray_engine"},
    {"cli"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
ENTRY = {"__init__", "__main__"}
PURE = {
    "diffusion",
    "samplers",
    "chains",
    "colour",
    "sizes",
    "noise",
    "resampling",
    "tiling",
    "partition",
    "budget",
    "yoda",
    "metrics/basic",
}
HEAVY_OR_OUTSIDE = {"PIL", "cv2", "rich", "typer", "requests", "pathlib", "os"}


def modules():
    return sorted(PACKAGE.rglob("*.py"))


def part_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path, *, top_level_only=False):
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_every_module_has_a_layer():
    assert {part_of(p) for p in modules()} - ENTRY <= set(LEVEL)


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_module_imports_only_from_below(path):
    own = part_of(path)
    if own in ENTRY:
        return
    for name in imports(path):
        if not name.startswith("yoda_cli."):
            continue
        other = name.split(".")[1]
        if other == own or other not in LEVEL:
            continue
        assert LEVEL[other] < LEVEL[own], f"{path.name} may not import {name}"


@pytest.mark.parametrize("name", sorted(PURE))
def test_the_mathematics_touches_no_file_and_no_screen(name):
    found = {module.split(".")[0] for module in imports(PACKAGE / f"{name}.py")}
    assert not found & HEAVY_OR_OUTSIDE


def test_only_the_renderer_knows_rich():
    users = {p.name for p in modules() if any(m.split(".")[0] == "rich" for m in imports(p))}
    assert all(name.startswith("_render") for name in users)


def test_backbones_do_not_know_they_are_masked():
    for path in (PACKAGE / "backbones").rglob("*.py"):
        assert "yoda_cli.yoda" not in set(imports(path))


def test_help_does_not_import_torch():
    code = "import sys, yoda_cli.cli; print('torch' in sys.modules, 'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_files_and_functions_stay_small():
    too_large = []
    for path in modules():
        text = path.read_text()
        limit = 600 if "nets" in path.parts else 300
        if text.count("\n") > limit:
            too_large.append(f"{path.name}: {text.count(chr(10))} lines")
        if "nets" in path.parts:
            continue
        for node in ast.walk(ast.parse(text)):
            # A command's signature is its list of options; what counts is what it does.
            if isinstance(node, ast.FunctionDef) and node.end_lineno - node.body[0].lineno >= 50:
                too_large.append(f"{path.name} {node.name}")
    assert not too_large
