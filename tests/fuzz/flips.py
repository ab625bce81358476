"""Single flipped bits: where they are put, and what may come of one (FORMAT.md, "Flipped bits").

A flip is a function of its subject, the seed and its number, so that the id SUBJECT/SEED/NUMBER replays it. Each kind
of region (a kind of file; in a tar, headers and padding, too) gets the same share of the flips: the small documents
that decide are not drowned by the large blobs.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edge_cmcl.errors import EdgeCmclError

BLOCK = 512
EXIT_CODES = (3, 4, 5)
"""By which a flipped bit may be refused: unusable input, damaged, and, where the signature is lost, refused."""


@dataclass(frozen=True)
class Region:
    """Bytes `start` to `stop` of `path`, under the name by which outcomes are counted."""

    kind: str
    path: Path
    start: int
    stop: int


@dataclass(frozen=True)
class Flip:
    """One bit of one file."""

    ident: str
    kind: str
    path: Path
    offset: int
    bit: int

    def __str__(self) -> str:
        return f"{self.ident}: bit {self.bit} of byte {self.offset} of {self.path.name} ({self.kind})"


class Subject(Protocol):
    """What flips are put into, and how it is used afterwards.

    Attributes:
        name: the first part of its flips' ids.
        regions: where flips go.
    """

    name: str
    regions: Sequence[Region]

    def outcome(self, flip: Flip) -> str:
        """Use what is damaged now; return what came of it in words, or raise what refuses it.

        Raises:
            EdgeCmclError: it is refused.
            AssertionError: it is accepted with another effect than FORMAT.md says.
        """


def nth_flip(subject: Subject, seed: int, number: int) -> Flip:
    """Return the flip SUBJECT/SEED/NUMBER."""
    ident = f"{subject.name}/{seed}/{number}"
    chance = random.Random(ident)
    kind = chance.choice(sorted({region.kind for region in subject.regions}))
    region = chance.choice([region for region in subject.regions if region.kind == kind])
    return Flip(ident, region.kind, region.path, chance.randrange(region.start, region.stop), chance.randrange(8))


@contextmanager
def flipped(flip: Flip) -> Iterator[None]:
    """Flip the bit in place, and back when the block ends; the file may be another one by then."""
    good = _read_byte(flip)
    _write_byte(flip, good ^ (1 << flip.bit))
    try:
        yield
    finally:
        _write_byte(flip, good)


def survey(subject: Subject, numbers: Sequence[int], seed: int = 0) -> Counter[tuple[str, str]]:
    """Put each flip into `subject` alone; return how often each outcome came, by region.

    Raises:
        AssertionError: one did what none may do; the message has the id that replays it.
    """
    outcomes: Counter[tuple[str, str]] = Counter()
    for number in numbers:
        flip = nth_flip(subject, seed, number)
        outcomes[flip.kind, attempt(subject, flip)] += 1
    return outcomes


def attempt(subject: Subject, flip: Flip) -> str:
    """Return the outcome of one flip: in the words of the subject, or "refused: " and the error's class."""
    with flipped(flip):
        try:
            return subject.outcome(flip)
        except EdgeCmclError as error:
            if error.exit_code not in EXIT_CODES or len(str(error)) > 4000:
                raise AssertionError(f"{flip} gives exit code {error.exit_code}: {str(error)[:1000]}") from error
            return f"refused: {type(error).__name__}"
        except Exception as error:
            raise AssertionError(f"{flip} fails: {type(error).__name__}: {error}") from error


def file_regions(root: Path, kind_of: Callable[[Path], str]) -> list[Region]:
    """Return one region for each file below `root` that is not empty."""
    files = [path for path in sorted(root.rglob("*")) if path.is_file() and path.stat().st_size]
    return [Region(kind_of(path), path, 0, path.stat().st_size) for path in files]


def tar_regions(path: Path, kind_of: Callable[[Path], str]) -> list[Region]:
    """Return the regions of an uncompressed ustar: headers, data and padding of its members, and its end."""
    regions, at, data = [], 0, path.read_bytes()
    while any(data[at : at + BLOCK]):
        name = data[at : at + 100].rstrip(b"\0").decode()
        size = int(data[at + 124 : at + 135], 8)
        regions.append(Region("tar header", path, at, at + BLOCK))
        at += BLOCK
        regions.append(Region(kind_of(Path(name)), path, at, at + size))
        padded = at + size + -size % BLOCK
        if padded > at + size:
            regions.append(Region("tar padding", path, at + size, padded))
        at = padded
    return [*regions, Region("tar end", path, at, len(data))]


def table(outcomes: Counter[tuple[str, str]]) -> str:
    """Return the outcomes as lines of "region: count outcome, ..."."""
    lines = []
    for kind in dict.fromkeys(kind for kind, _ in sorted(outcomes)):
        found = {outcome: count for (each, outcome), count in outcomes.items() if each == kind}
        shown = ", ".join(f"{count} {outcome}" for outcome, count in sorted(found.items(), key=lambda item: -item[1]))
        lines.append(f"  {kind}: {shown}")
    return "\n".join(lines)


def _read_byte(flip: Flip) -> int:
    with flip.path.open("rb") as file:
        file.seek(flip.offset)
        return file.read(1)[0]


def _write_byte(flip: Flip, value: int) -> None:
    with flip.path.open("r+b") as file:
        file.seek(flip.offset)
        file.write(bytes([value]))
