"""The files of a report: report.json, and report.html made of it."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from edgecompress.errors import InputError
from edgecompress.record.report import SCHEMA_VERSION, Report

REPORT, PAGE = "report.json", "report.html"


def report_files(report: Report) -> dict[str, bytes]:
    """Name -> content."""
    from edgecompress.report.html import page

    return {REPORT: report.to_json().encode(), PAGE: page(report).encode()}


def read_report(path: str | Path) -> Report:
    """A report.json, or the one in a folder. Raises InputError for what is none, or of another version."""
    file = Path(path)
    if file.is_dir():
        file = file / REPORT
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise InputError(f"{file}: {reason}; expected the output folder of a conversion, with its {REPORT}") from error
    try:
        return Report.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        raise InputError(
            f"{file}: no report of schema version {SCHEMA_VERSION}: {where}: {first['msg']}; convert again to make one"
        ) from error
