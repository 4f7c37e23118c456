"""How a rule reports that it could not do what its paper says and did something else."""

from __future__ import annotations

from fedagg import Rule


def report_fallback(rule: Rule, reason: str | None) -> None:
    """Put ``reason`` into ``rule.last_info["fallback"]``; None, when all went well, removes what an earlier call left."""
    if reason is None:
        rule.last_info.pop("fallback", None)
    else:
        rule.last_info["fallback"] = reason
