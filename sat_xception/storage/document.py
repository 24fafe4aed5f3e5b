"""JSON files that one step writes and another reads, as frozen pydantic models."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from sat_xception.errors import DataError
from sat_xception.storage.files import read_json, write_json

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
        schema_version: Version of the file's content. A file without a version is of the first one.
    """

    file_name: ClassVar[str]
    made_by: ClassVar[str]
    schema_version: ClassVar[int] = 1

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the document from the folder that its step wrote.

        Raises:
            DataError: The file is missing, damaged, or of a newer version.
        """
        path = folder / cls.file_name
        content = cls._read_content(path)
        version = content.pop(_VERSION_KEY, None)
        if version is not None and (type(version) is not int or version < 1):
            raise DataError(
                f"{path} has the {_VERSION_KEY} {version!r}, expected a whole number from 1; {cls._advice()}"
            )
        if version is not None and version > cls.schema_version:
            raise DataError(
                f"{path} has the {_VERSION_KEY} {version}, of a newer version of sat-xception; this one reads up to "
                f"{cls.schema_version}. Update sat-xception, or {cls._advice()} with this version"
            )
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            origin = "was written by an earlier version, or is damaged" if version is None else "is damaged"
            raise DataError(f"{path} {origin}: {_explain(error)}; {cls._advice()}") from None

    def write(self, folder: Path) -> None:
        """Write the document into a folder.

        Raises:
            DataError: A number is NaN or infinite; nothing is written.
        """
        write_json(folder / self.file_name, {_VERSION_KEY: self.schema_version, **self.content()})

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """Return the JSON schema of the file."""
        schema = cls.model_json_schema(by_alias=True)
        versions = {"type": "integer", "const": cls.schema_version, "description": "Version of this schema."}
        schema["properties"] = {_VERSION_KEY: versions, **schema["properties"]}
        return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}

    @classmethod
    def _read_content(cls, path: Path) -> dict[str, Any]:
        """Return what the file holds; a document whose earlier files had another form replaces this."""
        return read_json(path, made_by=cls.made_by)

    @classmethod
    def _advice(cls) -> str:
        return f"run `sat_xception {cls.made_by}` again"


def _explain(error: ValidationError) -> str:
    problems = error.errors(include_url=False)
    named = [
        f"{'.'.join(map(str, each['loc'])) or 'the file'}: {each['msg'].removeprefix('Value error, ')}"
        for each in problems[:_MAX_ERRORS]
    ]
    more = len(problems) - len(named)
    return "; ".join(named) + (f"; and {more:,} more" if more else "")
