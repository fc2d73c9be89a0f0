"""Tensors out of a file that PyTorch saved (.pth, .pt), without PyTorch and without running what the file says.

Such a file is a zip of raw numbers and a pickle that tells how they are cut into tensors. A pickle may name anything to
be called; here it gets the few names of TABLE, which build dictionaries and arrays, and every other one is refused.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

#: Kinds of storage -> how their numbers lie in the file; NumPy has no bfloat16, so it comes as its 16 bits.
_STORAGES = {
    "FloatStorage": "f4",
    "DoubleStorage": "f8",
    "HalfStorage": "f2",
    "BFloat16Storage": "u2",
    "LongStorage": "i8",
    "IntStorage": "i4",
}


def read_torch(data: bytes) -> dict[str, Array]:
    """The tensors of a saved state dict by name; those of other kinds in it, such as numbers, are left out.

    Raises:
        ValueError: it is no such file, it was saved by a PyTorch before 1.6, or it wants something else to be called.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            files = {name.partition("/")[2]: name for name in archive.namelist()}
            order = archive.read(files["byteorder"]).decode() if "byteorder" in files else "little"
            content = _Unpickler(archive, files, ">" if order == "big" else "<").load()
    except zipfile.BadZipFile as error:
        raise ValueError("it is not a zip, as PyTorch has saved since 1.6; load it there and save it again") from error
    except KeyError as error:
        raise ValueError(f"it lacks {error}, which PyTorch's files have") from error
    except (pickle.UnpicklingError, EOFError, AttributeError, IndexError, TypeError) as error:
        raise ValueError(str(error) or "its pickle is damaged") from error
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping):
        raise ValueError("it holds no state dict")
    return {str(name): value for name, value in content.items() if isinstance(value, np.ndarray)}


class _Unpickler(pickle.Unpickler):
    """Knows the names of TABLE and no others."""

    def __init__(self, archive: zipfile.ZipFile, files: Mapping[str, str], order: str) -> None:
        super().__init__(io.BytesIO(archive.read(files["data.pkl"])))
        self._archive, self._files, self._order = archive, files, order

    def find_class(self, module: str, name: str) -> Any:
        """What a name stands for.

        Raises:
            UnpicklingError: it is not one that a state dict needs.
        """
        if module == "torch" and name in _STORAGES:
            return name
        if (module, name) not in TABLE:
            raise pickle.UnpicklingError(f"it asks for {module}.{name} to be called, which no weights need")
        return TABLE[module, name]

    def persistent_load(self, pid: Any) -> Array:
        """The numbers of a storage: ('storage', kind, name, device, count)."""
        _, kind, name, _, count = pid
        numbers = np.frombuffer(self._archive.read(self._files[f"data/{name}"]), f"{self._order}{_STORAGES[kind]}")
        if len(numbers) < count:
            raise pickle.UnpicklingError(f"storage {name} has {len(numbers)} of {count} numbers")
        # Shifted to the upper half of a float32, which is what a bfloat16 is.
        return (numbers.astype(np.uint32) << 16).view(np.float32) if kind == "BFloat16Storage" else numbers


def _tensor(storage: Array, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object) -> Array:
    last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    if min([offset, *size, *stride], default=0) < 0 or (0 not in size and last >= len(storage)):
        raise pickle.UnpicklingError(f"a tensor of {size} lies outside of its numbers")
    steps = [step * storage.itemsize for step in stride]
    return np.lib.stride_tricks.as_strided(storage[offset:], size, steps, writeable=False).copy()


def _parameter(data: Array, *_: object) -> Array:
    return data


#: Everything that a file may have called.
TABLE: Mapping[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
}
