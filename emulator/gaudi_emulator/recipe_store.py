"""Which recipes did earlier processes compile? A folder with one small file per recipe.

Several processes may share the folder, and each may be killed at any time: a file appears whole or
not at all, and one that is not what its name promises is ignored. Of processes that lack the same
recipe one compiles it and the others wait for its file. An emulated recipe holds no machine code,
only facts; what a card's recipe costs is modelled in :mod:`.recipes`.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

logger = logging.getLogger("gaudi_emulator.recipes")

_SUFFIX = ".recipe"
_MAGIC = b"gaudi-emulator recipe 1"
_KEY = re.compile(r"[0-9a-f]{64}")
_ABANDONED_S = 3600.0  # a temporary file of this age has no writer any more


@dataclass(frozen=True)
class Recipe:
    """What is known of a compiled graph.

    Attributes:
        key: 64 hexadecimal digits, the hash of everything that the graph depends on.
        kind: how it came about, such as "graph_capture".
        detail: a text for a person.
        operators: how many operators it has.
        microseconds: what its compilation took.
    """

    key: str
    kind: str
    detail: str
    operators: int
    microseconds: int


def _packed(recipe: Recipe) -> bytes:
    body = json.dumps(asdict(recipe), sort_keys=True).encode()
    return b"\n".join([_MAGIC, hashlib.sha256(body).hexdigest().encode(), body])


def _unpacked(data: bytes, key: str) -> Recipe:
    """Raises ValueError for anything but the recipe ``key``."""
    parts = data.split(b"\n", 2)
    if len(parts) != 3 or parts[0] != _MAGIC:
        raise ValueError("it is not a recipe of this software")
    if hashlib.sha256(parts[2]).hexdigest().encode() != parts[1]:
        raise ValueError("its checksum does not match")
    fields = json.loads(parts[2])
    if not isinstance(fields, dict) or fields.get("key") != key:
        raise ValueError("it belongs to another graph")
    try:
        return Recipe(**fields)
    except TypeError:
        raise ValueError("it has other fields") from None


def _locked(path: Path) -> int:
    """A descriptor of the file ``path``, which no other process has locked."""
    while True:
        lock = os.open(path, os.O_CREAT | os.O_RDWR, 0o666)
        fcntl.flock(lock, fcntl.LOCK_EX)
        # Whoever had it before has deleted it; another one may be in its place.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(lock), path.stat()):
                return lock
        os.close(lock)


class RecipeStore:
    """The recipes in a folder, at most ``limit_bytes`` of them; the oldest make room."""

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self.folder = folder
        self._limit = limit_bytes
        self._writable = True
        self._ignored = False

    def clear(self) -> None:
        """Delete all recipes, and nothing else that lies in the folder."""
        for path in self._files():
            path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def turn(self, key: str) -> Iterator[None]:
        """Within, no other process is at the recipe ``key``; one that is killed leaves its turn."""
        path, lock = self._path(key).with_suffix(f"{_SUFFIX}.lock"), None
        with contextlib.suppress(OSError):  # without a folder there is nothing to wait for
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = _locked(path)
        try:
            yield
        finally:
            if lock is not None:
                path.unlink(missing_ok=True)
                os.close(lock)

    def damage(self, key: str) -> None:
        """Change one bit of the recipe ``key``, if there is one, as a failing disk does."""
        with contextlib.suppress(OSError):
            path = self._path(key)
            data = path.read_bytes()
            path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))

    def load(self, key: str) -> Recipe | None:
        """The recipe ``key``, or None; files that are none are ignored with one line for all."""
        path = self._path(key)
        try:
            recipe = _unpacked(path.read_bytes(), key)
        except (FileNotFoundError, NotADirectoryError):  # nothing can be there
            return None
        except (OSError, ValueError, RecursionError) as error:
            if not self._ignored:
                self._ignored = True
                logger.warning(
                    "Ignored the recipe %s, which is compiled again: %s. Others like it are not "
                    "logged.",
                    path,
                    error,
                )
            return None
        # The least recently used goes first. It may be gone meanwhile, or not ours to touch.
        with contextlib.suppress(OSError):
            os.utime(path)
        return recipe

    def save(self, recipe: Recipe) -> None:
        """Write ``recipe``; whoever reads it sees the old file, none, or the new one."""
        if not self._writable:
            return
        path = self._path(recipe.key)
        if path.is_dir():
            return  # not ours to remove; loading has said so
        unfinished = path.with_name(f"{path.name}.{os.getpid()}.{time.monotonic_ns()}")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            unfinished.write_bytes(_packed(recipe))
            os.replace(unfinished, path)
            self._evict(keep=path)
        except OSError as error:
            self._writable = False
            logger.warning("Recipes are no longer kept in %s: %s.", self.folder, error)

    def _path(self, key: str) -> Path:
        if _KEY.fullmatch(key) is None:
            raise ValueError(f"'{key}' is not the key of a recipe: 64 hexadecimal digits")
        return self.folder / f"{key}{_SUFFIX}"

    def _files(self) -> list[Path]:
        """Files whose names are those of recipes."""
        return [p for p in self.folder.glob(f"*{_SUFFIX}") if _KEY.fullmatch(p.stem)]

    def _evict(self, keep: Path) -> None:
        now, files = time.time(), []
        for path in self.folder.glob(f"*{_SUFFIX}*"):
            if _KEY.fullmatch(path.name.partition(".")[0]) is None:
                continue
            try:
                status = path.stat()
            except FileNotFoundError:
                continue
            if path.suffix == _SUFFIX:
                files.append((status.st_mtime_ns, status.st_size, path))
            elif now - status.st_mtime > _ABANDONED_S:
                path.unlink(missing_ok=True)
        total = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if total <= self._limit:
                break
            if path != keep:
                path.unlink(missing_ok=True)
                total -= size
