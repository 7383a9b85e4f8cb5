"""The fixtures of the report's tests."""

from tests.utils.report.quickstart import html, quickstart  # noqa: F401
