"""Settings that ``fedagg tune`` found, for the runs of a study."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedagg.errors import ConfigError
from fedagg.overrides import parsed

ATTACK, FOUND = "attack", ("validation", "test_accuracy")  # columns between place and setting, and behind it


@dataclass(frozen=True)
class Settings:
    """What a table of ``fedagg tune`` says, as far as it was found in peace: nobody knows who will attack.

    Args:
        file: the table.
        columns: the axes on which places differ; those that the search left at one point say nothing.
        settings: place on these axes -> key -> value.
    """

    file: Path
    columns: tuple[str, ...]
    settings: dict[tuple[str, ...], dict[str, Any]]

    @classmethod
    def read(cls, file: Path) -> Settings:
        """Read ``tuned.csv``.

        Raises:
            ConfigError: there is no such table, or it is none of ``fedagg tune``.
        """
        try:
            head, *rows = csv.reader(file.read_text(encoding="utf-8").splitlines())
        except (OSError, UnicodeDecodeError, ValueError) as error:
            raise ConfigError(f"tuned: {file} cannot be read: {error}. fedagg tune writes it beside its runs") from None
        if ATTACK not in head or tuple(head[-2:]) != FOUND or any(len(row) != len(head) for row in rows):
            raise ConfigError(f"tuned: {file} is no table of fedagg tune; its first line is {','.join(head)}")
        at = head.index(ATTACK)
        axes, keys = head[:at], head[at + 1 : -len(FOUND)]
        varied = [i for i in range(at) if len({row[i] for row in rows}) > 1]
        settings: dict[tuple[str, ...], dict[str, Any]] = {}
        for row in rows:  # the first row of a place was found in peace
            values = {key: parsed(f"{key}={text}").value() for key, text in zip(keys, row[at + 1 :], strict=False)}
            settings.setdefault(tuple(row[i] for i in varied), values)
        return cls(file, tuple(axes[i] for i in varied), settings)

    def at(self, place: Mapping[str, str]) -> dict[str, Any]:
        """Return the setting for a place on the axes of a study.

        Raises:
            ConfigError: none was found for it.
        """
        wanted = tuple(place.get(axis, "") for axis in self.columns)
        if wanted not in self.settings:
            words = ", ".join(f"{axis}={point or '(no such axis)'}" for axis, point in zip(self.columns, wanted, strict=True))
            raise ConfigError(f"tuned: {self.file} has no setting for {words}; run fedagg tune for it, or leave the point out")
        return self.settings[wanted]
