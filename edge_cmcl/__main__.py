"""`python -m edge_cmcl`, for where the console script is not on the path."""

from __future__ import annotations

from edge_cmcl.cli import main

if __name__ == "__main__":
    main()
