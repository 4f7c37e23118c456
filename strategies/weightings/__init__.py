"""Weightings: how much each client of a round counts, ``weighting(cohort) -> w [n]``. One file per method."""
