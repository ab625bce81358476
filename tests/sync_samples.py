"""What tests of the sync room push: blobs of any bytes, and an update as large as real ones."""

from __future__ import annotations

import hashlib
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Sequence

from bundle_samples import updated_generation

from edge_cmcl.bundle import Loaded, Store
from edge_cmcl.bundle.documents import Descriptor
from edge_cmcl.sync.settings import LinkSettings

ADAPTER_BYTES, SKETCH_BYTES = 4 * 256 * 1800, 2 * 128 * 1800
"""An adapter of 256 x 1800 float32, a sketch of 128 x 1800 float16."""


def blob_of(data: bytes) -> Descriptor:
    """Return the descriptor of these bytes."""
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    return Descriptor(media_type="application/octet-stream", digest=digest, size=len(data))


def large_update(store: Store, share: float = 1.0, seed: int = 77, *, whole: bool = False) -> Loaded:
    """Commit an update of "current" as "large" whose new blobs, random bytes, are as large as real ones.

    Args:
        store: made by `make_store`.
        share: of the real sizes.
        seed: of what else the update holds.
        whole: do not cut its blobs into parts.
    """
    with store.writer():
        generation = updated_generation(store, "current", seed=seed)
        acc = generation.modalities["acc"]
        put = store.put if whole else store.put_in_parts
        adapter, sketch = (put(os.urandom(int(share * size))) for size in (ADAPTER_BYTES, SKETCH_BYTES))
        acc = acc.model_copy(update={"adapter_blob": adapter, "origins": (*acc.origins[:-1], sketch)})
        modalities = {**generation.modalities, "acc": acc}
        return store.load(store.commit(generation.model_copy(update={"modalities": modalities}), ["large"]))


def new_bytes(loaded: Loaded, *older: Loaded) -> int:
    """Return the bytes of a generation that none of `older` has: manifest, document and layers."""
    known = {layer.digest for each in older for layer in each.manifest.layers}
    layers = {layer.digest: layer.size for layer in loaded.manifest.layers if layer.digest not in known}
    return loaded.size + loaded.manifest.config.size + sum(layers.values())


_PUSH_AND_WAIT = """
import pickle, sys, time
from edge_cmcl.bundle import Store
from edge_cmcl.sync.connect import connect
from edge_cmcl.sync.push import push
count, url, settings, root, refs = pickle.load(sys.stdin.buffer)
def wait(stage, done, total):
    if done > count:
        print("waiting", flush=True)
        time.sleep(600)
store = Store(root)
with connect(url, settings) as remote:
    push(store, [store.load(ref) for ref in refs], remote, {}, wait)
"""


def kill_after(count: int, url: str, settings: LinkSettings, store: Store, refs: Sequence[str]) -> None:
    """Push generations in a process of its own, which is killed (SIGKILL) when `count` bytes were acknowledged.

    That is between two chunks: with one under way, a kill may cost a registry's upload of the blob (SYNC.md, "Chunks").
    """
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", _PUSH_AND_WAIT], **pipes) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(pickle.dumps((count, url, settings, store.root, refs)))
        process.stdin.close()
        assert process.stdout.readline() == b"waiting\n"
        process.send_signal(signal.SIGKILL)
