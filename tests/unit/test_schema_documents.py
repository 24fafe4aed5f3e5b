"""The JSON schemas in the documentation are those of the documents."""

from pathlib import Path

import pytest

from sat_xception.steps.schemas import DOCUMENTS, schema_file, write_schemas

SCHEMAS = Path(__file__).parents[2] / "docs" / "schemas"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_schema_in_the_docs_is_the_documents_own(document, tmp_path):
    write_schemas(tmp_path)
    name = schema_file(document)
    advice = "run python -m sat_xception.steps.schemas docs/schemas"
    assert (SCHEMAS / name).read_text() == (tmp_path / name).read_text(), advice


def test_the_docs_have_no_schema_of_a_document_that_isnt_written(tmp_path):
    write_schemas(tmp_path)
    assert sorted(path.name for path in SCHEMAS.iterdir()) == sorted(path.name for path in tmp_path.iterdir())
