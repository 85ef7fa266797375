"""The JSON Schema of report.json, from the report's own types."""

import msgspec

from customization.json_types import JsonObject
from customization.report import ReportData


def report_schema() -> JsonObject:
    """Return the schema, draft 2020-12; fields that are added later are allowed, so that old readers go on."""
    schema: JsonObject = msgspec.json.schema(ReportData, schema_hook=_anything)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "report.json of a model customization run",
        **schema,
    }


def _anything(_: type[object]) -> JsonObject:
    """Return the schema of what the report passes on as it is, such as the run request."""
    return {"description": "passed on as it is"}


def schema_text() -> str:
    """Return the schema as docs/report.schema.json has it."""
    return msgspec.json.format(msgspec.json.encode(report_schema()), indent=1).decode() + "\n"
