"""Specialised, staged search (first version: as NATv2)."""

from hwnas.search.natv2 import NATv2


class Hurricane(NATv2):
    """First version: one stage."""
