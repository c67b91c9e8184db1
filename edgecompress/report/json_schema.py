"""The JSON Schema of report.json, as it is published beside this file.

    python -m edgecompress.report.json_schema

writes it again after a change of record/report.py, which a test asks for.
"""

from __future__ import annotations

import json
from pathlib import Path

from edgecompress.record.report import Report

PATH = Path(__file__).with_name("report.schema.json")


def schema() -> str:
    """The schema's text."""
    made = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Report.model_json_schema(mode="serialization")}
    return json.dumps(made, indent=2) + "\n"


if __name__ == "__main__":
    PATH.write_text(schema(), encoding="utf-8")
