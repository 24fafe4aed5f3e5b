"""JSON files that one step writes and another reads, as frozen pydantic models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from sat_xception.errors import DataError, faults_of
from sat_xception.storage.atomic import read_stored_bytes, write_stored_bytes
from sat_xception.storage.files import dump_json, json_text

__all__ = ["Document", "Part"]

_VERSION_KEY = "schema_version"
# Errors of one file that a message names.
_MAX_ERRORS = 3


class Part(BaseModel):
    """Base class of the parts of a document. Immutable; keys that this version doesn't know are ignored."""

    # NaN stays NaN until the file is written, which refuses it with its key.
    model_config = ConfigDict(frozen=True, populate_by_name=True, ser_json_inf_nan="constants")

    def content(self) -> dict[str, Any]:
        """Return this part as JSON types, under the keys of the file."""
        return self.model_dump(mode="json", by_alias=True)


class Document(Part):
    """Base of a JSON file in the folder that a step writes.

    Attributes:
        file_name: Name of the file.
        made_by: Verb of the step that writes it.
        advice: What to do about a file that can't be used, for messages. Default: to run the step again.
        schema_version: Version of the file's content. A file without a version is of the first one.
    """

    file_name: ClassVar[str]
    made_by: ClassVar[str]
    advice: ClassVar[str] = ""
    schema_version: ClassVar[int] = 1

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the document from the folder that its step wrote, local or in a bucket.

        Raises:
            ConfigError: The file can't be read.
            DataError: The file is missing, damaged, or of a newer version.
            ServiceError: The bucket can't be read.
        """
        found = cls.find(folder)
        if found is None:
            raise DataError(
                f"{folder / cls.file_name} is missing: is {folder} a folder that `sat_xception {cls.made_by}` wrote?"
            )
        return found

    @classmethod
    def find(cls, folder: Path) -> Self | None:
        """Read the document from a folder, local or in a bucket; None if the file doesn't exist.

        Raises:
            ConfigError: The file can't be read.
            DataError: The file is damaged, or of a newer version.
            ServiceError: The bucket can't be read.
        """
        path = folder / cls.file_name
        text = read_stored_bytes(path)
        return None if text is None else cls.from_json(text, str(path))

    @classmethod
    def from_json(cls, text: str | bytes, origin: str, advice: str = "") -> Self:
        """Read the document from the text of its file.

        Args:
            text: The text.
            origin: Where it is from, for messages.
            advice: As the class's own, where the origin has a better one.

        Raises:
            DataError: The text is damaged, or of a newer version.
        """
        advice = advice or cls.advice or f"run `sat_xception {cls.made_by}` again"
        try:
            content = cls._converted(json.loads(text))
        except ValueError as error:
            raise DataError(f"{origin} can't be read: {error}; {advice}") from None
        if not isinstance(content, dict):
            raise DataError(f"{origin} holds a {type(content).__name__}, expected an object; {advice}")
        version = content.pop(_VERSION_KEY, None)
        if version is not None and (type(version) is not int or version < 1):
            raise DataError(f"{origin} has the {_VERSION_KEY} {version!r}, expected a whole number from 1; {advice}")
        if version is not None and version > cls.schema_version:
            raise DataError(
                f"{origin} has the {_VERSION_KEY} {version}, of a newer version of sat-xception; this one reads up to "
                f"{cls.schema_version}. Update sat-xception, or {advice}"
            )
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            why = "was written by an earlier version, or is damaged" if version is None else "is damaged"
            raise DataError(f"{origin} {why}: {_explain(error)}; {advice}") from None

    def write(self, folder: Path) -> None:
        """Write the document into a local folder that no other process reads yet.

        Raises:
            DataError: A number is NaN or infinite; nothing is written.
        """
        (folder / self.file_name).write_text(self.to_json(), encoding="utf-8")

    def replace(self, folder: Path) -> None:
        """Replace the document in a folder, local or in a bucket, atomically; a missing folder is created.

        Raises:
            ConfigError: It can't be written, or there is no such bucket.
            DataError: A number is NaN or infinite; nothing is written.
            ServiceError: The disk is full, or the bucket can't be written.
        """
        write_stored_bytes(self.to_json().encode(), folder / self.file_name)

    def to_json(self, compact: bool = False) -> str:
        """Return the text of the file, or with `compact` the same on one line.

        Raises:
            DataError: A number is NaN or infinite.
        """
        content = {_VERSION_KEY: self.schema_version, **self.content()}
        return dump_json(content, ensure_ascii=False) if compact else json_text(content)

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """Return the JSON schema of the file."""
        schema = cls.model_json_schema(by_alias=True)
        versions = {"type": "integer", "const": cls.schema_version, "description": "Version of this schema."}
        schema["properties"] = {_VERSION_KEY: versions, **schema["properties"]}
        return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}

    @classmethod
    def _converted(cls, content: Any) -> Any:  # noqa: ANN401 - any JSON type
        """Return what a file holds in this version's form; a document whose earlier files had another replaces this."""
        return content


def _explain(error: ValidationError) -> str:
    faults = faults_of(error)
    named = [f"{fault.field or 'the file'}: {fault.why}" for fault in faults[:_MAX_ERRORS]]
    more = len(faults) - len(named)
    return "; ".join(named) + (f"; and {more:,} more" if more else "")
