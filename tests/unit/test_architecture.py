"""The architecture: which package may import which, how large one may grow, and that a driver never loads MindSpore."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("manifests", "workers", "jobs")
MAY_IMPORT = {"manifests": {"manifests"}, "workers": {"manifests", "workers"}, "jobs": set(PACKAGES)}
#: The loop is what people would write without this project.
MINDONE_IMPORTERS = {"workers/kandinsky/pipelines.py", "jobs/benchmarks/peer_loop.py"}


def modules(*packages: str) -> list[Path]:
    return [path for package in packages for path in sorted((ROOT / package).rglob("*.py"))]


def imported(path: Path) -> set[str]:
    """Dotted names of all that a file imports, at its head or inside its functions; `from a import b` is a.b."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def package_of(dotted: str) -> str | None:
    """The sub-package that a module or a name of it belongs to (`workers.device`); at the top, the module itself."""
    parts = dotted.split(".")
    return ".".join(parts[:2]) if parts[0] in PACKAGES and len(parts) > 1 else None


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


@pytest.mark.parametrize("path", modules(*PACKAGES), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_one_way(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    assert {name.split(".")[0] for name in imported(path)} & set(PACKAGES) <= MAY_IMPORT[package]


def test_sub_packages_have_no_cycles() -> None:
    arrows: dict[str, set[str]] = {}
    for path in modules(*PACKAGES):
        if (package := package_of(module_name(path))) is not None and path.name != "__init__.py":
            targets = {target for name in imported(path) if (target := package_of(name)) is not None}
            arrows.setdefault(package, set()).update(targets - {package})
    assert len(arrows) > 20
    try:
        tuple(graphlib.TopologicalSorter(arrows).static_order())
    except graphlib.CycleError as error:
        pytest.fail(f"these import each other: {' <- '.join(error.args[1])}")


def test_no_package_has_more_than_ten_modules() -> None:
    sizes = {
        folder.relative_to(ROOT).as_posix(): sum(path.name != "__init__.py" for path in folder.glob("*.py"))
        for folder in {path.parent for path in modules(*PACKAGES)}
    }
    # Benchmarks are one module per sub-command, and scripts one per command that a person starts.
    del sizes["jobs/benchmarks"]
    assert {folder: size for folder, size in sizes.items() if size > 10 and folder != "jobs"} == {}


def test_only_scripts_stand_at_the_top_of_jobs() -> None:
    others = {
        path.name for path in (ROOT / "jobs").glob("*.py") if 'if __name__ == "__main__":' not in path.read_text()
    }
    assert others == {"__init__.py", "cli.py", "terminal.py"}, "what all scripts share"


def test_only_one_module_of_the_product_imports_mindone() -> None:
    importers = {
        path.relative_to(ROOT).as_posix()
        for path in modules(*PACKAGES)
        if any(name.split(".")[0] == "mindone" for name in imported(path))
    }
    assert importers <= MINDONE_IMPORTERS


def test_the_driver_loads_neither_mindspore_nor_mindone() -> None:
    names = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in modules("manifests", "jobs")
        if path.name != "__init__.py"
    ]
    program = (
        "import importlib, sys\n"
        f"for name in {names!r}: importlib.import_module(name)\n"
        "print(sorted({'mindspore', 'mindone', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


#: What a process of a stage may have imported, of other people's packages, before it builds a model: every one of them
#: imports each, on cores that are few when a run starts.
STAGE_PACKAGES = {
    "PIL",
    "annotated_types",
    "cloudpickle",
    "cython_runtime",
    "filelock",
    "fsspec",
    "numpy",
    "pyarrow",
    "pydantic",
    "pydantic_core",
    "safetensors",
    "tenacity",
    "tokenizers",
    "typing_extensions",
    "typing_inspection",
}


@pytest.mark.parametrize("stage", ["prior", "decoder", "encode", "inputs", "shards"])
def test_a_process_of_a_stage_imports_little_before_its_model_is_built(stage: str) -> None:
    program = f"""
import sys, workers.stages.{stage}
names = {{name.split(".")[0] for name in sys.modules if not name.startswith("_")}}
print(*sorted(names - set(sys.stdlib_module_names) - {{"workers", "manifests"}}))
"""
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert set(ended.stdout.split()) <= STAGE_PACKAGES


@pytest.mark.parametrize("script", ["redo", "score", "evaluate"])
def test_scripts_that_load_models_themselves_do_without_ray(script: str) -> None:
    # Once Ray has imported protobuf, MindSpore 2.8 cannot be imported in the same process.
    program = f"import sys, jobs.{script}; print(sorted({{'ray', 'google.protobuf'}} & set(sys.modules)))"
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"
