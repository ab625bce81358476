"""Tags of a shared folder, one small file each, and the `index.json` drawn up from them (SYNC.md, "Folders")."""

from __future__ import annotations

import re
import secrets

from edge_cmcl.bundle import limits
from edge_cmcl.bundle.documents import TAG, Descriptor, Index, from_json, index_from_json, index_to_json, to_json
from edge_cmcl.bundle.layout import INDEX_FILE
from edge_cmcl.bundle.media_types import TAG_ANNOTATION
from edge_cmcl.errors import FormatError, RemoteError
from edge_cmcl.sync.files import Files

TAGS = "tags"
_MAX_TAG_BYTES = 1 << 16
_MAX_NAME = 250
_FOLDS = 8


class TagFiles:
    """The tags of one folder.

    Args:
        files: the folder.
        name: of the remote, for errors.
    """

    def __init__(self, files: Files, name: str) -> None:
        self._files = files
        self._name = name

    def get(self, tag: str) -> Descriptor | None:
        """Return what a tag points to, None where there is no such tag.

        Raises:
            FormatError: its file breaks its format.
        """
        data = self._files.read(_path(tag), _MAX_TAG_BYTES)
        if data is None:
            return self._foreign().get(tag)
        return from_json(Descriptor, data, f"{self._name}: the tag {tag}")

    def set(self, tag: str, entry: Descriptor) -> None:
        """Point a tag to a manifest, at one instant."""
        self._files.replace(_path(tag), to_json(entry))

    def remove(self, tag: str) -> bool:
        """Remove a tag; False where there is none."""
        return self._files.remove(_path(tag))

    def names(self) -> list[str]:
        """Return every tag, sorted."""
        names = self._files.names(TAGS)
        return sorted(self._foreign()) if names is None else sorted(filter(None, map(_tag_of, names)))

    def make(self, scratch: str) -> None:
        """Make the folder of tags; those of an index that another tool wrote become files of it, at one instant.

        Args:
            scratch: a folder to do that in.
        """
        if self._files.has_folder(TAGS):
            return
        foreign = self._foreign()
        new = f"{scratch}/{TAGS}-{secrets.token_hex(8)}"
        self._files.make_folder(new)
        for tag, entry in foreign.items():
            self._files.replace(f"{new}/{_path(tag).removeprefix(f'{TAGS}/')}", to_json(entry))
        self._files.move(new, TAGS)  # another writer may have been first, with the same tags

    def fold(self) -> None:
        """Draw up `index.json`. It is done again until no tag changed meanwhile.

        Every writer's tag is there before that writer looks, so whoever replaces the index last has seen them all.

        Raises:
            RemoteError: they are more than an index may have.
        """
        entries = self._entries()
        for _ in range(_FOLDS):
            if len(entries) > limits.MAX_INDEX_ENTRIES:
                expected = f"at most {limits.MAX_INDEX_ENTRIES} tags"
                hint = "remove tags of old generations"
                raise RemoteError(
                    f"{self._name} has too many tags", expected=expected, got=str(len(entries)), hint=hint
                )
            self._files.replace(INDEX_FILE, index_to_json(Index.of(*entries)))
            before, entries = entries, self._entries()
            if before == entries:
                return

    def _entries(self) -> list[Descriptor]:
        found = []
        for tag in self.names():
            entry = self.get(tag)
            if entry is not None:
                annotations = {**(entry.annotations or {}), TAG_ANNOTATION: tag}
                found.append(entry.model_copy(update={"annotations": annotations}))
        return found

    def _foreign(self) -> dict[str, Descriptor]:
        """Return the tags of `index.json` where there is no folder of tags: another tool wrote this layout."""
        if self._files.has_folder(TAGS):
            return {}
        data = self._files.read(INDEX_FILE, limits.MAX_DOCUMENT_BYTES + 1)
        if data is None:
            return {}
        if len(data) > limits.MAX_DOCUMENT_BYTES:
            expected = f"at most {limits.MAX_DOCUMENT_BYTES} bytes"
            raise FormatError(f"{self._name}: {INDEX_FILE} is too large", expected=expected, got="more")
        entries = index_from_json(data, f"{self._name}: {INDEX_FILE}").manifests
        return {entry.tag: entry for entry in entries if TAG.fullmatch(entry.tag)}


def _path(tag: str) -> str:
    """Return the file of a tag. Capitals are written `=a`: vfat does not tell them from small letters.

    Raises:
        FormatError: it is no tag, or too long for a file's name.
    """
    name = re.sub("[A-Z]", lambda match: f"={match[0].lower()}", tag) + ".json"
    if not TAG.fullmatch(tag) or len(name) > _MAX_NAME:
        expected = "1 to 128 letters, digits and . _ -, not beginning with . or -"
        raise FormatError(f"{tag[:140]!r} is not a tag", expected=expected, got=repr(tag[:140]))
    return f"{TAGS}/{name}"


def _tag_of(name: str) -> str:
    """Return the tag whose file has this name, "" for a file that is none."""
    tag = re.sub("=([a-z])", lambda match: match[1].upper(), name.removesuffix(".json"))
    if not name.endswith(".json") or not TAG.fullmatch(tag) or len(name) > _MAX_NAME:
        return ""
    return tag if _path(tag) == f"{TAGS}/{name}" else ""
