"""Studies: many runs from one file, that survive being killed, and one table of what they measured."""

from __future__ import annotations

from fedagg.study.plan import Study
from fedagg.study.run import Summary, run_study
from fedagg.study.store import Store
from fedagg.study.table import load_study, write_table

__all__ = ["Store", "Study", "Summary", "load_study", "run_study", "write_table"]
