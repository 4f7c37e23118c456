"""Errors a user can act on. Each message says what was required, what was found, and what to do."""

from __future__ import annotations

import re


class FedaggError(Exception):
    """Base of the errors below; the command line shows the message without a traceback."""

    exit_code = 1


class ConfigError(FedaggError, ValueError):
    """A setting is unknown, malformed or impossible. Raised before any training; exit code 2."""

    exit_code = 2


class InUse(ConfigError):
    """Another process works in the folder."""


class DatasetUnavailable(FedaggError, OSError):
    """A data set is not on this machine. Says what was looked for, where, and the command that brings it; exit code 2."""

    exit_code = 2


class ClientError(FedaggError, RuntimeError):
    """A client raised. Carries client id, round, stage and the original traceback."""

    def __init__(self, client_id: int, round: int, stage: str, detail: str) -> None:
        super().__init__(f"client {client_id} failed in round {round} while it was asked to {stage}:\n{detail}")
        self.client_id, self.round, self.stage, self.detail = client_id, round, stage, detail

    def __reduce__(self) -> tuple[type[ClientError], tuple[int, int, str, str]]:
        return type(self), (self.client_id, self.round, self.stage, self.detail)  # an exception is pickled by its message


def refuses_number_of_rows(error: ValueError) -> bool:
    """Whether it is the number of rows that a part refused with ``error``: the contracts have it name ``n=`` then."""
    return re.search(r"\bn=\d", str(error)) is not None
