"""One owner per store: two services with their own memory of the same customers would break caps."""

import fcntl
import os
from pathlib import Path

from engine.errors import StoreError


class SingleOwner:
    """A lock beside the store, `<store>.lock`, held until `release` or the death of the process."""

    def __init__(self, path: Path) -> None:
        """Raises StoreError when the folder cannot be written or another process holds the lock."""
        self._lock = Path(f"{path}.lock")
        self._file = -1
        if path.is_dir():
            raise StoreError(f"{path}: the store cannot be opened: it is a folder, expected a file")
        while self._file < 0:
            self._file = self._take(path)

    def release(self) -> None:
        """Gives the lock back; a second call does nothing."""
        if self._file >= 0:
            self._lock.unlink(missing_ok=True)
            os.close(self._file)
            self._file = -1

    def _take(self, path: Path) -> int:
        """The locked file, or -1 when its last owner has just removed it."""
        try:
            file = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StoreError(f"{path}: the store cannot be written: {error.strerror}") from None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(file)
            raise StoreError(f"{path}: the store is in use by another process") from None
        if self._lock.exists() and os.path.samestat(os.fstat(file), self._lock.stat()):
            return file
        os.close(file)
        return -1
