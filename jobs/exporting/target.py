"""The folder that an export goes to: whose it is, what it holds already, and where it goes on.

    TO/.export/export.json        what was asked for, written first: the folder is this export's from then on
    TO/.export/files/00000.json   a file of the export is whole, and what it holds
    TO/.export/finished.json      all of them are

A folder that holds anything else, or another export, is refused before anything is written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from manifests import storage
from manifests.errors import StorageError, UsageError

#: Hidden, so that no tool takes it for data.
FOLDER = ".export"
MARK = f"{FOLDER}/export.json"


class Contents(BaseModel):
    """What one file of an export holds, or all of them.

    Attributes:
        images: rows, each with its image.
        bytes: of the image files.
        kinds: images by task, size and settings, in words.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    images: int = 0
    bytes: int = 0
    kinds: Mapping[str, int] = Field(default_factory=dict)

    def __add__(self, other: Contents) -> Contents:
        kinds = dict(self.kinds)
        for name, count in other.kinds.items():
            kinds[name] = kinds.get(name, 0) + count
        return Contents(images=self.images + other.images, bytes=self.bytes + other.bytes, kinds=kinds)


class Target:
    """The folder of one export.

    Args:
        url: a folder, absent, empty, or begun by the same export.
    """

    def __init__(self, url: str) -> None:
        self.url = url

    def refuse_others(self) -> None:
        """Make sure that nothing of anybody else lies there.

        Raises:
            UsageError: something does.
        """
        found = storage.others_in(self.url)
        if found and self._read(MARK) is None:
            raise UsageError(
                f"option --to: {self.url} holds {storage.in_words(found)}, and no export of this program; "
                "give a folder that is empty or not there"
            )

    def begin(self, asked: Mapping[str, Any]) -> None:
        """Write down what is asked for, or see that it is what was begun.

        Raises:
            UsageError: the folder holds another export; the text says what differs.
        """
        self.refuse_others()
        known = self._read(MARK)
        if known is None:
            self._write(MARK, asked)
            return
        changed = {name: value for name, value in asked.items() if known.get(name) != value}
        said = [f"{name} was {known.get(name)!r} and is {value!r}" for name, value in changed.items() if name[0] == "-"]
        if changed:
            raise UsageError(
                f"option --to: {self.url} holds another export: "
                f"{'; '.join(said or (f'{name} has changed' for name in changed))}; give another folder, or remove it"
            )

    def done(self) -> dict[int, Contents]:
        """The files that are whole, by their numbers."""
        names = storage.list_names(storage.join(self.url, FOLDER, "files"))
        return {int(name.removesuffix(".json")): self._contents(f"{FOLDER}/files/{name}") for name in names}

    def keep(self, file: int, contents: Contents) -> None:
        """A file is whole from now on."""
        self._write(f"{FOLDER}/files/{file:05d}.json", contents.model_dump(mode="json"))

    def is_finished(self) -> bool:
        """True where nothing is left to do."""
        return self._read(f"{FOLDER}/finished.json") is not None

    def finish(self, contents: Contents) -> None:
        """Nothing is left to do."""
        self._write(f"{FOLDER}/finished.json", contents.model_dump(mode="json"))

    def write_new(self, name: str, data: bytes) -> None:
        """Write a file for people, unless they have written it meanwhile."""
        if not storage.exists(storage.join(self.url, name)):
            storage.write_atomic(storage.join(self.url, name), data)

    def _contents(self, name: str) -> Contents:
        content = self._read(name)
        if content is None:
            raise StorageError(f"{self.url}/{name} is not there any more")
        return Contents.model_validate(content)

    def _read(self, name: str) -> dict[str, Any] | None:
        url = storage.join(self.url, name)
        try:
            content: dict[str, Any] = json.loads(storage.read_bytes(url))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise UsageError(f"{url} cannot be read ({error}); give another folder as --to") from error
        return content

    def _write(self, name: str, content: Mapping[str, Any]) -> None:
        data = json.dumps(content, indent=2, ensure_ascii=False).encode() + b"\n"
        storage.write_atomic(storage.join(self.url, name), data)
