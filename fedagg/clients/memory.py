"""What clients remember from one round in which they take part to the next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

Kept = dict[str, Tensor]
"""Name -> [k, L], one row for each of k clients."""


class ClientMemory:
    """Vectors by name, for every client that has taken part.

    Memory is L numbers a name and client. It stays where the Grid is, so a client may train anywhere.

    Args:
        names: what is remembered.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._rows: dict[str, dict[int, Tensor]] = {name: {} for name in names}

    def take(self, clients: Sequence[int], first: Mapping[str, Tensor]) -> Kept:
        """Return copies of what these clients remember, in their order.

        Args:
            clients: whose.
            first: name -> [L], what a client remembers that has not taken part yet.
        """
        taken = {}
        for name, rows in self._rows.items():
            new = first[name]
            taken[name] = (
                torch.stack([rows.get(client, new) for client in clients]) if len(clients) else new.new_empty(0, len(new))
            )
        return taken

    def put(self, clients: Sequence[int], kept: Kept) -> None:
        """Remember ``kept``, whose rows belong to these clients, in their order."""
        for name, rows in self._rows.items():
            for client, row in zip(clients, kept[name], strict=True):
                if client in rows:
                    rows[client].copy_(row)
                else:
                    rows[client] = row.clone()

    def state_dict(self) -> dict[str, Any]:
        """Return name -> the clients that remember something, and their rows."""
        return {
            name: {"clients": sorted(rows), "rows": [rows[client] for client in sorted(rows)]}
            for name, rows in self._rows.items()
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state``."""
        self._rows = {
            name: {client: row.clone() for client, row in zip(saved["clients"], saved["rows"], strict=True)}
            for name, saved in state.items()
        }
