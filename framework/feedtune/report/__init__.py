"""The report: a run folder, or several, as one HTML page that needs nothing but itself."""

from feedtune.report.page import write_report

__all__ = ["write_report"]
