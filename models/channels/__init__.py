"""Structured pruning's ground: which channels belong together, and a network without some of them."""

from .groups import Channels, Group, Member, analyse
from .narrowing import distinct_widths, narrow, scaled

__all__ = ["Channels", "Group", "Member", "analyse", "distinct_widths", "narrow", "scaled"]
