"""Studies: units, the roles of their columns, their places and imagery, and the check of all of it."""

from causalsat.study.reading import StudyFileNotFoundError
from causalsat.study.report import Finding, StudyReport
from causalsat.study.study import Study

__all__ = ["Finding", "Study", "StudyFileNotFoundError", "StudyReport"]
