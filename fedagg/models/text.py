"""Models that read token ids: characters or words by their numbers.

Rows arrive as floats like all features; they are exact up to 2^24, and the embedding turns them back into numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedagg.errors import ConfigError
from fedagg.models.sizes import probability, size, sizes

PADDING = 0
"""The token id that fills up short texts."""


def lstm(
    input_shape: Sequence[int],
    num_classes: int,
    vocabulary: int | None = None,
    embedding: int = 8,
    hidden: int = 256,
    layers: int = 2,
) -> nn.Module:
    """Return an embedding and stacked LSTM layers whose last output says the class, by default the next character.

    The network of LEAF (Caldas et al., "LEAF: A Benchmark for Federated Settings", 2018) for Shakespeare: 820,185 parameters
    for 81 characters. Batching its clients gains nothing: torch has no LSTM for many sets of weights and goes through them one
    after another.

    Args:
        input_shape: (tokens,).
        num_classes: C.
        vocabulary: how many token ids there are; None: as many as classes, since the next token is asked for.
        embedding: width of a token's vector.
        hidden: width of each LSTM layer.
        layers: how many there are.

    Raises:
        ConfigError: rows that are no lists of tokens; sizes that are no integers >= 1.
    """
    _tokens("lstm", input_shape)
    return LSTM(
        _vocabulary(vocabulary, num_classes),
        size("embedding", embedding),
        size("hidden", hidden),
        size("layers", layers),
        size("num_classes", num_classes),
    )


def mean_embedding(
    input_shape: Sequence[int], num_classes: int, vocabulary: int | None = None, embedding: int = 64
) -> nn.Module:
    """Return a linear classifier of the mean of a text's word vectors.

    Joulin, Grave, Bojanowski & Mikolov, "Bag of Tricks for Efficient Text Classification", EACL 2017, without n-grams.

    Args:
        input_shape: (tokens,).
        num_classes: C.
        vocabulary: how many token ids there are, see ``lstm``; id 0 is padding and does not count.
        embedding: width of a word's vector.

    Raises:
        ConfigError: rows that are no lists of tokens; sizes that are no integers >= 1.
    """
    _tokens("mean_embedding", input_shape)
    tokens = _vocabulary(vocabulary, num_classes)
    return MeanEmbedding(tokens, size("embedding", embedding), size("num_classes", num_classes))


def text_cnn(
    input_shape: Sequence[int],
    num_classes: int,
    vocabulary: int | None = None,
    embedding: int = 64,
    channels: int = 100,
    kernels: Sequence[int] = (3, 4, 5),
    dropout: float = 0.5,
) -> nn.Module:
    """Return convolutions over neighbouring words, the maximum of each over the text, and a linear classifier.

    Kim, "Convolutional Neural Networks for Sentence Classification", EMNLP 2014, with word vectors that are learned.

    Args:
        input_shape: (tokens,), at least as many as the widest kernel.
        num_classes: C.
        vocabulary: how many token ids there are, see ``lstm``; id 0 is padding.
        embedding: width of a word's vector.
        channels: features of each kernel size.
        kernels: how many neighbours a convolution sees.
        dropout: share of features dropped before the classifier.

    Raises:
        ConfigError: rows that are no lists of tokens, or shorter than a kernel; sizes that are no integers >= 1.
    """
    length, widths = _tokens("text_cnn", input_shape), sizes("kernels", kernels)
    if not widths or max(widths) > length:
        raise ConfigError(f"model.kernels must be 1 .. {length}, the number of tokens; got {widths}")
    return TextCNN(
        _vocabulary(vocabulary, num_classes),
        size("embedding", embedding),
        size("channels", channels),
        widths,
        probability("dropout", dropout),
        size("num_classes", num_classes),
    )


class LSTM(nn.Module):
    """See ``lstm``."""

    def __init__(self, vocabulary: int, embedding: int, hidden: int, layers: int, num_classes: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, embedding)
        self.lstm = nn.LSTM(embedding, hidden, layers, batch_first=True)
        self.classifier = nn.Linear(hidden, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map token ids [m, L] to logits [m, C]."""
        outputs, _ = self.lstm(self.embedding(x.long()))
        return self.classifier(outputs[:, -1])  # type: ignore[no-any-return]


class MeanEmbedding(nn.Module):
    """See ``mean_embedding``."""

    def __init__(self, vocabulary: int, embedding: int, num_classes: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, embedding)
        self.classifier = nn.Linear(embedding, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map token ids [m, L] to logits [m, C]."""
        words = (x != PADDING).unsqueeze(-1)
        mean = (self.embedding(x.long()) * words).sum(dim=1) / words.sum(dim=1).clamp(min=1)
        return self.classifier(mean)  # type: ignore[no-any-return]


class TextCNN(nn.Module):
    """See ``text_cnn``."""

    def __init__(
        self, vocabulary: int, embedding: int, channels: int, kernels: Sequence[int], dropout: float, num_classes: int
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, embedding)
        self.convolutions = nn.ModuleList(nn.Conv1d(embedding, channels, kernel) for kernel in kernels)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(channels * len(kernels), num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map token ids [m, L] to logits [m, C]."""
        words = self.embedding(x.long()).transpose(1, 2)
        found = [functional.relu(convolution(words)).amax(dim=2) for convolution in self.convolutions]
        return self.classifier(self.dropout(torch.cat(found, dim=1)))  # type: ignore[no-any-return]


def _tokens(model: str, input_shape: Sequence[int]) -> int:
    """Return how many tokens a row has."""
    shape = sizes("input_shape", input_shape)
    if len(shape) != 1:
        raise ConfigError(
            f"model={model} needs rows of token ids (tokens,), as of data=shakespeare or data=newsgroups; this data set's "
            f"rows have shape {tuple(shape)}"
        )
    return shape[0]


def _vocabulary(vocabulary: int | None, num_classes: int) -> int:
    """Return how many token ids there are; None: as many as classes."""
    return size("num_classes", num_classes) if vocabulary is None else size("vocabulary", vocabulary)
