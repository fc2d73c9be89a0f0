"""Imports of mindone that load what is asked for, not some 360 model families first.

`import mindone.transformers` runs every model's module: 5 of the 6 seconds that Kandinsky's pipelines take to import,
in every process of both pools. Its `__init__.py` files hold nothing but imports, so each is read instead of run, and a
name is imported when somebody asks for it (PEP 562). What is found is the same object either way. The same goes for
`transformers` and `unets` in `mindone.diffusers.models`, for mindone's adapters (`peft`), and for the parts of SciPy
that schedulers, losses and MindSpore's metrics import, none of which is used here.
"""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

#: Parents first.
PACKAGES = (
    "mindone.transformers",
    "mindone.transformers.models",
    "mindone.diffusers.models.transformers",
    "mindone.diffusers.models.unets",
    "mindone.peft",
    "mindone.peft.tuners",
)
#: Modules that run when something of them is used; parents first.
UNUSED = ("scipy.stats", "scipy.integrate", "scipy.optimize", "scipy.ndimage", "scipy.ndimage.morphology")
#: Functions of such modules that others take from them as they are imported; the module runs when one is called.
UNUSED_FUNCTIONS = (("scipy.optimize", "linear_sum_assignment"),)


def put_off() -> None:
    """Let the parts of SciPy that are not used run when something of them is; before MindSpore is imported."""
    for name in UNUSED:
        _put_off(name)
    for name, function in UNUSED_FUNCTIONS:
        _put_off_function(name, function)


def install() -> None:
    """Put the lazy packages in place; does nothing to one that has been imported already."""
    with _unread_metadata():
        _install()


@contextmanager
def _unread_metadata() -> Iterator[None]:
    """mindone.diffusers reads what every installed package holds as it is imported, and looks nothing up in it."""
    read = importlib.metadata.packages_distributions
    importlib.metadata.packages_distributions = dict
    try:
        yield
    finally:
        importlib.metadata.packages_distributions = read


def _install() -> None:
    for name in PACKAGES:
        if name in sys.modules:
            continue
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            raise ImportError(f"{name} is not installed", name=name)
        package = importlib.util.module_from_spec(spec)
        _make_lazy(package, ast.parse(Path(spec.origin).read_text(encoding="utf-8")))
        sys.modules[name] = package
        parent, _, child = name.rpartition(".")
        setattr(sys.modules[parent], child, package)


def _put_off(name: str) -> None:
    """Let the module run when something of it is asked for: `importlib.util.LazyLoader` runs it at the next import."""
    spec = importlib.util.find_spec(name)
    if name in sys.modules or spec is None or spec.loader is None:
        return
    module, loader = importlib.util.module_from_spec(spec), spec.loader

    def run(attribute: str) -> Any:
        vars(module).pop("__getattr__", None)
        loader.exec_module(module)
        return getattr(module, attribute)

    module.__getattr__ = run  # type: ignore[method-assign]
    sys.modules[name] = module
    parent, _, child = name.rpartition(".")
    if parent in UNUSED:
        setattr(sys.modules[parent], child, module)


def _put_off_function(name: str, function: str) -> None:
    module = sys.modules[name]
    if "__getattr__" not in vars(module):
        return

    def call(*arguments: Any, **named: Any) -> Any:
        if vars(module).get(function) is call:
            delattr(module, function)
        # Now the module is asked for it, and runs.
        return getattr(module, function)(*arguments, **named)

    setattr(module, function, call)


def _make_lazy(package: ModuleType, source: ast.Module) -> None:
    """Let the package import a name when it is asked for; plain values (`__version__`) it gets at once."""
    places = dict(_imported_names(source))
    for statement in source.body:
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Constant):
            for target in statement.targets:
                if isinstance(target, ast.Name):
                    setattr(package, target.id, statement.value.value)

    def find(name: str) -> Any:
        if name not in places:
            raise AttributeError(f"module {package.__name__!r} has no attribute {name!r}")
        module, attribute = places[name]
        found = importlib.import_module(module, package.__name__)
        value = found if attribute is None else getattr(found, attribute)
        setattr(package, name, value)
        return value

    package.__getattr__ = find  # type: ignore[method-assign]
    package.__dir__ = lambda: sorted({*vars(package), *places})  # type: ignore[method-assign]


def _imported_names(source: ast.Module) -> Iterator[tuple[str, tuple[str, str | None]]]:
    """name -> (relative module, its attribute; None where the name is the module), those under an `if` too."""
    for node in ast.walk(source):
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            for alias in node.names:
                own = alias.asname or alias.name
                yield own, (f".{alias.name}", None) if node.module is None else (f".{node.module}", alias.name)
