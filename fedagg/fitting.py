"""Whether a strategy, its clients' local training and an attack belong together."""

from __future__ import annotations

from fedagg.clients.local import LocalTraining
from fedagg.contracts import Attack
from fedagg.errors import ConfigError
from fedagg.strategy import AnyStrategy


def check_halves(strategy: AnyStrategy, local: LocalTraining) -> None:
    """Raise ``ConfigError`` where one of these is half of a method and the other is not its other half."""
    server, client, half = type(strategy).__name__, type(local).__name__, getattr(strategy, "client_half", "")
    if half and half not in (kind.__name__ for kind in type(local).__mro__):
        raise ConfigError(
            f"{server} is the server's half of a method whose clients train with {half}; these train with {client}. "
            f"Set local={half.lower()}, or another strategy"
        )
    if local.server_half and not half:
        raise ConfigError(
            f"{client} is the clients' half of {local.server_half}, and the server runs {server}. "
            f"Set strategy={local.server_half.lower()}, or another local"
        )
    for name in getattr(strategy, "shared", ()):
        if getattr(strategy, name) != getattr(local, name):
            ours, theirs = getattr(strategy, name), getattr(local, name)
            raise ConfigError(f"{server} has {name}={ours!r} and {client} {name}={theirs!r}; make them agree")


def check_attack(strategy: AnyStrategy, attack: Attack) -> None:
    """Raise ``ConfigError`` where ``attack`` makes something else than clients of ``strategy`` send."""
    payload = getattr(strategy, "payload", "updates")
    if payload not in attack.payloads:
        hint = "attack=rank_reversal, or attack=ranked around another attack" if payload == "rankings" else "strategy=frl"
        raise ConfigError(
            f"{attack} makes {' or '.join(sorted(attack.payloads))}, and clients of {type(strategy).__name__} send {payload}; "
            f"take {hint}"
        )
