from edge_cmcl.host.compare.comparison import Request, compare
from edge_cmcl.host.compare.search import search

__all__ = ["Request", "compare", "search"]
