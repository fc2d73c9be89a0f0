"""Dependencies: whatever the code imports is declared in pyproject.toml, and nothing else; all of it is pinned."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from typing import Any

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
PRODUCT = ("manifests", "workers", "jobs")
AROUND = ("tests", "infra")
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

#: Packages whose modules have another name. pydantic pins pydantic_core to one version, and its documentation sends
#: there for the types of errors.
PACKAGE_OF = {
    "faiss": "faiss-cpu",
    "PIL": "pillow",
    "yaml": "pyyaml",
    "markdown_it": "markdown-it-py",
    "pydantic_core": "pydantic",
}

#: Files and folders that run in an environment of their own, which they make or are told.
OTHER_ENVIRONMENTS = {
    "jobs/benchmarks/kernel_times_pytorch.py": {"diffusers", "torch"},
    "jobs/benchmarks/peer_pytorch.py": {"diffusers", "torch"},
    "infra/demo_checkpoint": {"diffusers", "torch"},
    "tests/goldens/reference.py": {"diffusers", "torch"},
    "tests/goldens/count_flops.py": {"diffusers", "torch"},
    "tests/goldens/distances.py": {"distance", "pytorch-fid", "torch"},
}

#: Declared and never imported: commands, plugins of pytest, and what fsspec loads when it meets a URL.
NOT_IMPORTED = {"mypy", "pytest-timeout", "pytest-xdist", "ruff", "s3fs"}


def package(requirement: str) -> str:
    """The name in a requirement or of a module, in the one spelling of package indexes."""
    (name,) = re.findall(r"^[A-Za-z0-9._-]+", requirement)
    return re.sub(r"[-_.]+", "-", name).lower()


def imported(path: Path) -> set[str]:
    """Packages that a file imports, at its head or inside its functions; not the standard library's, not ours."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
    # pip is in every environment that `make` sets up, like the standard library.
    names -= {*sys.stdlib_module_names, "tomllib", "pip", *PRODUCT, *AROUND}
    packages = {package(PACKAGE_OF.get(name, name)) for name in names}
    return packages.difference(
        *(there for place, there in OTHER_ENVIRONMENTS.items() if relative(path).startswith(place))
    )


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def files(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def of_its_own(path: Path) -> set[str]:
    """What the nearest folder above a file declares in a `requirements.txt`: an environment of that folder's own."""
    for folder in path.relative_to(ROOT).parents:
        requirements = ROOT / folder / "requirements.txt"
        if requirements.is_file():
            lines = requirements.read_text(encoding="utf-8").splitlines()
            return {package(line) for line in lines if line and not line.startswith("#")}
    return set()


def undeclared(folders: tuple[str, ...], declared: set[str]) -> dict[str, set[str]]:
    """Files that import what is not declared, with the packages."""
    missing = {relative(path): imported(path) - declared - of_its_own(path) for path in files(*folders)}
    return {file: packages for file, packages in missing.items() if packages}


RUNNING = {package(requirement) for requirement in PROJECT["dependencies"]}
#: What one option of one script needs, which says so where it is not installed, and the only module that imports it.
EXTRAS = {"export": "jobs/exporting/selection.py", "duplicates": "jobs/ranking/vectors.py"}
OPTIONAL = {package(requirement) for extra in EXTRAS for requirement in PROJECT["optional-dependencies"][extra]}
DEVELOPING = {package(requirement) for requirement in PROJECT["optional-dependencies"]["dev"]}


def test_what_the_product_imports_is_declared() -> None:
    assert undeclared(PRODUCT, RUNNING | OPTIONAL) == {}


def test_what_an_extra_brings_is_imported_by_its_own_module_only() -> None:
    assert set(undeclared(PRODUCT, RUNNING)) == set(EXTRAS.values())


def test_what_tests_and_infra_import_is_declared_for_developing() -> None:
    assert undeclared(AROUND, RUNNING | DEVELOPING) == {}


def test_what_is_declared_is_imported() -> None:
    by_product = set().union(*map(imported, files(*PRODUCT)))
    around = set().union(*map(imported, files(*AROUND)))
    assert RUNNING - by_product - {"tomli"} == set()
    assert DEVELOPING - around - NOT_IMPORTED - OPTIONAL == set()


def test_other_environments_still_need_what_is_excused() -> None:
    for place, packages in OTHER_ENVIRONMENTS.items():
        files_there = [ROOT / place] if place.endswith(".py") else files(place)
        text = "\n".join(path.read_text(encoding="utf-8") for path in files_there)
        modules = {name.replace("-", "_") for name in packages}
        assert all(re.search(rf"^\s*(import|from) {name}\b", text, re.MULTILINE) for name in modules), place


@pytest.mark.parametrize("extra", [None, *PROJECT["optional-dependencies"]])
def test_everything_declared_is_pinned(extra: str | None) -> None:
    requirements = PROJECT["dependencies"] if extra is None else PROJECT["optional-dependencies"][extra]
    lines = (ROOT / "infra" / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {package(line) for line in lines if "==" in line.split(";")[0]}
    # Those of an older Python alone are not in the file, which is of one Python.
    assert {package(one) for one in requirements if "python_version <" not in one} - pinned == set()
