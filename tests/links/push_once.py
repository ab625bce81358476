"""Push generations of a store to a registry and print what that took, as one JSON object.

python push_once.py URL CA WORK STORE REF...
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from edge_cmcl.bundle import Store
from edge_cmcl.errors import EdgeCmclError
from edge_cmcl.sync.connect import connect
from edge_cmcl.sync.push import push
from edge_cmcl.sync.settings import LinkSettings


def main() -> None:
    url, ca, work, folder, *refs = sys.argv[1:]
    store = Store(Path(folder))
    with connect(url, LinkSettings(work=Path(work), ca_file=Path(ca))) as remote:
        try:
            loaded = [store.load(ref) for ref in refs]
            push(store, loaded, remote, {"device-1": loaded[-1].descriptor})
            error = ""
        except EdgeCmclError as caught:
            error = str(caught)
        print(json.dumps({"error": error, "payload_sent": remote.link.sent}))


if __name__ == "__main__":
    main()
