"""The one-page report of an analysis: one HTML file that needs no network and prints well."""

from causalsat.report.page import Figure, Page, Section, Table, render_page

__all__ = ["Figure", "Page", "Section", "Table", "render_page"]
