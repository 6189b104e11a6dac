"""An nn.Module into a graph.

The code is in `trace_network`, a file that also runs by itself on a user's machine.
"""

from .trace_network import as_network, left_out, trace

__all__ = ["as_network", "left_out", "trace"]
