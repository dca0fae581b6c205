"""One page that shows what runs wrote and measured: self-contained, offline, sortable, for mouse, keyboard and screen reader."""

from __future__ import annotations

from steerlab.report.page import write_report

__all__ = ["write_report"]
