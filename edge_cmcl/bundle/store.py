"""The store: a layout that grows by whole generations, with one writer at a time (FORMAT.md, "Store").

Blobs and manifests are written once and first; `index.json` is replaced last. Whatever instant the power fails at,
the tags point to whole generations: the old ones or the new one. A document that could not be read back is not written,
and the two that change are kept twice.
"""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from edge_cmcl.bundle import limits, marker
from edge_cmcl.bundle.canonical import digest_of
from edge_cmcl.bundle.documents import (
    TAG,
    Descriptor,
    Index,
    Manifest,
    State,
    index_from_json,
    index_to_json,
    state_from_json,
    state_to_json,
    to_json,
)
from edge_cmcl.bundle.generation import Generation, generation_from_json, layers_of
from edge_cmcl.bundle.layout import DAMAGED, INDEX_FILE, LAYOUT_FILE, Layout, Loaded
from edge_cmcl.bundle.lock import WAIT_S, locked
from edge_cmcl.bundle.media_types import BUNDLE, CHECK_ANNOTATION, GENERATION, OCI_MANIFEST
from edge_cmcl.bundle.parts import cut
from edge_cmcl.bundle.reading import check_size
from edge_cmcl.bundle.store_files import STATE_FILE, WORK, all_or_nothing, strangers, sweep
from edge_cmcl.bundle.tags import GENERATION_TAG
from edge_cmcl.bundle.twofold import DamagedFileWarning, copy_of, read_either, write_twice
from edge_cmcl.durable import make_folder, storage_errors, sync_folder, write_bytes, write_files
from edge_cmcl.errors import DigestError, EdgeCmclError, FormatError, ModelError, StorageError, UsageError


class Store(Layout):
    """A layout opened for reading and, inside `writer()`, for writing.

    Raises:
        ModelError, FormatError: as `Layout`.
    """

    _lock_depth = 0

    def __init__(self, root: Path, name: str = "") -> None:
        super().__init__(root, name)
        self._cut: dict[str, list[str]] = {}

    def _check_marker(self) -> None:
        """Check the marker; where it is damaged, an index that matches its checksum says as well what this is."""
        try:
            super()._check_marker()
        except (FormatError, ModelError, StorageError) as error:
            try:
                checked = CHECK_ANNOTATION in (self.index().annotations or {})
            except (FormatError, StorageError):
                checked = False
            if not checked or not marker.is_damaged(self.root):
                raise error from None
            warnings.warn(f"{error.message}: its index is read all the same", DamagedFileWarning, stacklevel=3)

    @classmethod
    def create(cls, root: Path) -> Store:
        """Make an empty store at `root`, or open the one that is there.

        Raises:
            ModelError: `root` holds something else.
            StorageError: the file system refused.
        """
        root = Path(root)
        if (root / LAYOUT_FILE).is_file():  # written last, so the store is complete
            return cls(root)
        found = strangers(root) if root.exists() else []
        if found:
            raise ModelError(
                f"{root} is not a store and not empty",
                expected="an empty or new folder, or a store",
                got=", ".join(found[:5]),
                hint="choose another folder with --store",
            )
        make_folder(root / "blobs" / "sha256")
        with locked(root):
            if not (root / LAYOUT_FILE).is_file():
                if not (root / INDEX_FILE).exists() and not copy_of(root / INDEX_FILE).exists():
                    write_twice(root / INDEX_FILE, index_to_json(Index.of()))
                write_bytes(root / LAYOUT_FILE, marker.MARKER)
        return cls(root)

    @contextmanager
    def writer(self, wait_s: float = WAIT_S) -> Iterator[None]:
        """Hold the store's writer lock; may be nested in one thread. What a killed writer left behind is removed.

        Args:
            wait_s: seconds to wait for another process that holds it.

        Raises:
            StoreLockedError: another process holds it.
            StorageError: the store cannot be written.
        """
        if self._lock_depth:
            yield
            return
        with locked(self.root, wait_s):
            self._lock_depth += 1
            try:
                sweep(self)
                marker.mend(self.root)
                yield
            finally:
                self._lock_depth -= 1

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """Yield a new folder in the store for work in progress; removed at the end, or by the next writer after a kill.

        Raises:
            StorageError: the file system refused.
        """
        self._need_lock()
        with storage_errors(self.root):
            folder = Path(tempfile.mkdtemp(prefix=WORK, dir=self.root))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def put(self, data: bytes) -> str:
        """Store one blob durably in one file and return its digest; one that is there and intact is left alone.

        Raises:
            FormatError: it is larger than a blob may be.
            StorageError: the file system refused.
        """
        self._need_lock()
        check_size(len(data))
        digest = digest_of(data)
        if not self._intact(digest, len(data)):
            write_bytes(self.blob_path(digest), data)
        return digest

    def put_in_parts(self, data: bytes) -> str:
        """Store a blob of a generation that `commit` writes next, in parts where it is large; return its own digest.

        Raises:
            FormatError, StorageError: as `put`.
        """
        self._need_lock()
        check_size(len(data))
        digest = digest_of(data)
        whole = self._intact(digest, len(data))  # as software that did not cut has left it
        pieces = [(digest_of(piece), piece) for piece in ([data] if whole else cut(data))]
        lacking = {each[7:]: piece for each, piece in pieces if not self._intact(each, len(piece))}
        write_files(self.blob_path(""), lacking)
        self._cut[digest] = [each for each, _ in pieces]
        return digest

    def commit(
        self,
        generation: Generation,
        tags: Iterable[str],
        accept: Callable[[Loaded], Mapping[str, Descriptor] | None] | None = None,
    ) -> str:
        """Write one generation whose blobs are all in the store, point `tags` to it, and return its manifest digest.

        The tags move last and together, in one replacement of `index.json`, in which the `generation-` tags of its
        parents end: history leads to those from now on, and the index does not grow with every update.

        Args:
            generation: its document.
            tags: tags to point to it.
            accept: called with the generation as it stands on the disk before a tag leads to it; refuses it by raising,
                and may return further tags to move with it (those of its signature).

        Raises:
            DigestError: a blob of it is missing.
            FormatError: it breaks a rule or limit of the format, or is not newer than a parent.
            StorageError: the file system refused; the tags are as they were.
        """
        self._need_lock()
        self.check_newer(generation)
        document = to_json(generation)
        generation_from_json(document, "the new generation")
        config = Descriptor(media_type=GENERATION, digest=digest_of(document), size=len(document))
        layers = layers_of(generation, self._pieces(generation))
        manifest = Manifest(schema_version=2, artifact_type=BUNDLE, config=config, layers=layers)
        data = to_json(manifest)
        self.put(document)
        digest = self.put(data)
        entry = Descriptor(media_type=OCI_MANIFEST, digest=digest, size=len(data), artifact_type=BUNDLE)
        further = accept(self.load_manifest(digest)) if accept is not None else None
        self._point({**dict.fromkeys(tags, entry), **(further or {})}, generation)
        return digest

    def check_newer(self, generation: Generation) -> None:
        """Check that `generation` has a higher counter than each of its parents that is present.

        Raises:
            FormatError: it has not.
        """
        for parent in generation.parents:
            if self.has(parent):
                older = self.load_manifest(parent).generation.counter
                if generation.counter <= older:
                    raise FormatError(
                        "the new generation is not newer than its parent",
                        expected=f"a counter above {older}",
                        got=str(generation.counter),
                    )

    def set_tag(self, tag: str, ref: str, drop: Iterable[str] = ()) -> str:
        """Point `tag` to the generation `ref` (as in `load`), which is verified first, and return its digest.

        Args:
            tag: the tag.
            ref: the generation.
            drop: tags to remove in the same replacement of `index.json`; one that is not there is no error.

        Raises:
            UsageError: `tag` is not a valid tag.
            ModelError, DigestError, FormatError: as `load`.
        """
        self._need_lock()
        loaded = self.load(ref)
        self.move_tags({tag: loaded.descriptor}, drop)
        return loaded.digest

    def move_tags(self, entries: Mapping[str, Descriptor], drop: Iterable[str] = ()) -> None:
        """Set tags to verified manifests and remove others, in one replacement of `index.json`.

        Args:
            entries: the manifest that each tag shall point to.
            drop: tags to remove first; one that is not there is no error.

        Raises:
            UsageError: a tag is not valid.
            StorageError: the file system refused; the tags are as they were.
        """
        self._need_lock()
        index = self.index()
        for tag in drop:
            index = index.without_tag(tag)
        for tag, entry in entries.items():
            if not TAG.fullmatch(tag):
                expected = "1 to 128 letters, digits and . _ -, not beginning with . or -"
                raise UsageError(f"{tag[:140]!r} is not a tag", expected=expected, got=repr(tag[:140]))
            index = index.with_tag(tag, entry)
        self._write_index(index)

    def index(self) -> Index:
        """Read `index.json`, or its copy where it is damaged.

        Raises:
            FormatError: both break their format or checksum.

        Warns:
            DamagedFileWarning: the copy was used.
        """
        return read_either(self.root / INDEX_FILE, index_from_json)

    def state(self) -> State:
        """Read `state.json`, or its copy where it is damaged; a store that has none yet is in the default state.

        Raises:
            FormatError: both break their format or checksum.

        Warns:
            DamagedFileWarning: the copy was used.
        """
        path = self.root / STATE_FILE
        if not path.exists() and not copy_of(path).exists():
            return State()
        return read_either(path, state_from_json)

    def save_state(self, state: State) -> None:
        """Replace `state.json`.

        Raises:
            StorageError: the file system refused.
        """
        self._need_lock()
        data = state_to_json(state)
        state_from_json(data, "the new state")
        write_twice(self.root / STATE_FILE, data)

    def adopt(self, loaded: Loaded, blobs: Iterable[Descriptor], entries: Mapping[str, Descriptor]) -> None:
        """Move verified blobs of a generation in a `scratch` folder into the store; then set tags, as `commit` does.

        Args:
            loaded: the generation; its layout holds the blobs, flushed to the disk.
            blobs: which of them move.
            entries: the manifest that each tag shall point to, all in one replacement of `index.json`.

        Raises:
            StorageError: the file system refused; the tags are as they were.
        """
        self._need_lock()
        target = self.blob_path("")
        with all_or_nothing(self):
            with storage_errors(target):
                for blob in blobs:
                    if not self._intact(blob.digest, blob.size):  # a reader may hold the file that is there
                        loaded.layout.blob_path(blob.digest).replace(self.blob_path(blob.digest))
                sync_folder(target)
            self._point(entries, loaded.generation)

    def _need_lock(self) -> None:
        if not self._lock_depth:
            raise EdgeCmclError("the store is written without its lock", expected="with store.writer(): ...")

    def _pieces(self, generation: Generation) -> dict[str, list[tuple[str, int]]]:
        """Return digest and size of what each blob of a new generation consists of here (`layers_of`)."""
        known = dict(self._cut)
        wanted = {digest for _, _, digest in generation.blobs()}
        older = self.lineage([*filter(self.has, generation.parents), *self.tags().values()], past=DAMAGED)
        while not wanted <= known.keys() and (loaded := next(older, None)) is not None:
            for digest, layers in loaded.blobs.items():
                known.setdefault(digest, [layer.digest for layer in layers])
        return {digest: [(each, self._size(each)) for each in known.get(digest, [digest])] for digest in wanted}

    def _size(self, digest: str) -> int:
        try:
            return self.blob_path(digest).stat().st_size
        except FileNotFoundError as error:
            raise DigestError(f"blob {digest} is missing in {self.root}", hint="put it before the commit") from error

    def _intact(self, digest: str, size: int) -> bool:
        try:
            self.verify(Descriptor(media_type=BUNDLE, digest=digest, size=size))
        except (DigestError, StorageError):
            return False
        return True

    def _point(self, entries: Mapping[str, Descriptor], generation: Generation) -> None:
        """Set the tags of a new generation; those end that only kept its parents findable, which it does itself now."""
        tags = self.tags().items()
        superseded = [tag for tag, digest in tags if tag.startswith(GENERATION_TAG) and digest in generation.parents]
        if entries:
            self.move_tags(entries, superseded)

    def _write_index(self, index: Index) -> None:
        count, most = len(index.manifests), limits.MAX_INDEX_ENTRIES
        if count > most:
            hint = "`edge-cmcl gc` removes old generations with their signatures"
            raise StorageError(f"{self.root}: the index is full", expected=f"at most {most}", got=str(count), hint=hint)
        data = index_to_json(index)
        index_from_json(data, "the new index")
        write_twice(self.root / INDEX_FILE, data)
