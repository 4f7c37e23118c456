"""Rules: combine the rows of a round, ``rule(updates [n, d], weights [n] | None) -> delta [d]``. One file per method."""
