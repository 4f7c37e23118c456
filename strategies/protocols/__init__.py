"""Protocols: strategies that are more than a weighting and a rule. One file per method."""
