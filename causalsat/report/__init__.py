"""The one-page report of an analysis (one HTML file that needs no network and prints well), and tables for papers."""

from causalsat.report.models import ModelTable, compare_models
from causalsat.report.page import Figure, Page, Section, Table, render_page

__all__ = ["Figure", "ModelTable", "Page", "Section", "Table", "compare_models", "render_page"]
