"""Pre-aggregators: transform the rows before a rule sees them, ``pre(updates [n, d]) -> [n', d]``. One file per method."""
