"""Whom a rule trusted, where it gives every client a weight."""

from collections.abc import Collection, Mapping


def trust(weights: Mapping[int, float], byzantine: Collection[int]) -> dict[str, float]:
    """Return what the weights a rule gave to clients say about whom it trusts; what is undefined is left out.

    ``byzantine_weight`` is the share that went to Byzantine clients. Clients of weight 0 are excluded: ``exclusion_precision``
    is the share of Byzantine clients among them, ``exclusion_recall`` the share of them among the Byzantine clients.
    """
    found = {}
    lying = {client for client in weights if client in byzantine}
    excluded = {client for client, weight in weights.items() if weight == 0}
    total = sum(weights.values())
    if total > 0:
        found["byzantine_weight"] = sum(weights[client] for client in lying) / total
    if excluded:
        found["exclusion_precision"] = len(excluded & lying) / len(excluded)
    if lying:
        found["exclusion_recall"] = len(excluded & lying) / len(lying)
    return found
