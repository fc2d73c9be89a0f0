"""Import of transformers that does not read all its models first.

To know which name is where, `import transformers` reads the text of its 2,800 model files, and `transformers.models`
reads it again: a second of CPU in every process of both pools, for the tokenizers and configs of two families. So both
packages are put in place empty. A name is looked up in the package's own table of names that are no model's, then in
the families below; for any other the package runs as ever. What is found is the same object either way.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

PACKAGE = "transformers"
#: Parents first.
PACKAGES = (PACKAGE, "transformers.models")
#: What mindone and the checkpoints' `model_index.json` ask for; each reads its own few files.
FAMILIES = ("clip", "xlm_roberta", "auto")


def install() -> None:
    """Put the empty packages in place; does nothing where transformers has been imported already."""
    if PACKAGE in sys.modules:
        return
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            raise ImportError(f"{name} is not installed", name=name)
        package = importlib.util.module_from_spec(spec)
        source = ast.parse(Path(spec.origin).read_text(encoding="utf-8")) if name == PACKAGE else ast.Module([], [])
        _make_lazy(package, source)
        sys.modules[name] = package
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, package)
    # Its own modules ask for the whole package by this, to look names up in it later.
    for name in (f"{PACKAGE}.utils", f"{PACKAGE}.utils.import_utils"):
        vars(importlib.import_module(name))["direct_transformers_import"] = _package


def _package(path: str, file: str = "__init__.py") -> ModuleType:
    return sys.modules[PACKAGE]


def was_run(name: str = PACKAGE) -> bool:
    """Whether the package is the one that has read all its models."""
    return "_class_to_module" in vars(sys.modules[name])


def _make_lazy(package: ModuleType, source: ast.Module) -> None:
    constants = _constants(source)
    if "__version__" in constants:
        package.__version__ = constants["__version__"]  # type: ignore[attr-defined]
    modules: Mapping[str, list[str]] = constants.get("_import_structure", {})
    places = {name: module for module, names in modules.items() for name in names}

    def find(name: str) -> Any:
        if name.startswith("__"):
            # What the import system and others ask of any module; it is no reason to run this one.
            raise AttributeError(f"module {package.__name__!r} has no attribute {name!r}")
        value = _find(package.__name__, name, places)
        setattr(package, name, value)
        return value

    package.__getattr__ = find  # type: ignore[method-assign]
    package.__dir__ = lambda: dir(_run(package.__name__))  # type: ignore[method-assign]


def _find(package: str, name: str, places: Mapping[str, str]) -> Any:
    if importlib.util.find_spec(f"{package}.{name}") is not None:
        return importlib.import_module(f"{package}.{name}")
    if name in places:
        return getattr(importlib.import_module(f"{package}.{places[name]}"), name)
    for family in FAMILIES if package == PACKAGE else ():
        module = importlib.import_module(f"{package}.models.{family}")
        if name in dir(module):
            return getattr(module, name)
    return getattr(_run(package), name)


def _run(name: str) -> ModuleType:
    """The package as it would be without this module; from now on others import that one."""
    spec = importlib.util.find_spec(name)
    if spec is None or spec.loader is None:
        raise ImportError(f"{name} is not installed", name=name)
    if was_run(name):
        return sys.modules[name]
    sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])
    # It has put another object in its place.
    return sys.modules[name]


def _constants(source: ast.Module) -> dict[str, Any]:
    """Top-level names with a literal value; the first, where one is assigned more than once."""
    found: dict[str, Any] = {}
    for statement in source.body:
        if isinstance(statement, ast.Assign) and isinstance(target := statement.targets[0], ast.Name):
            try:
                found.setdefault(target.id, ast.literal_eval(statement.value))
            except ValueError:
                continue
    return found
