"""Files that are whole or not there, one writer at a time, and what to say when the disk refuses."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

from fedagg.errors import FedaggError, InUse

try:
    import fcntl
except ImportError:  # Windows; two processes in one folder are then the user's own affair
    fcntl = None  # type: ignore[assignment]


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the system says while ``path`` is written into a message that says what to do.

    Raises:
        FedaggError: naming the file and the reason, a full disk for one.
        FileExistsError: as it is.
    """
    try:
        yield
    except FileExistsError:
        raise
    except OSError as error:
        raise FedaggError(
            f"{path} cannot be written: {error.strerror or error}. What was written before is whole: make room (or mend the "
            "disk), then go on with fedagg resume RUN_DIR"
        ) from error


def write_whole(path: Path, *parts: str | bytes | memoryview, replace: bool = True) -> None:
    """Write a file so that a reader sees the old contents or the new ones, also after a crash.

    Raises:
        FileExistsError: there is a file, and ``replace`` is False.
        FedaggError: the disk refuses; the old file is as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with writing(path):
        try:
            with open(temporary, "wb") as file:
                for part in parts:
                    file.write(part.encode() if isinstance(part, str) else part)
                file.flush()
                os.fsync(file.fileno())
            if replace:
                os.replace(temporary, path)
            else:
                _claim(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def _claim(temporary: Path, path: Path) -> None:
    """Give the file its name unless the name is taken, also when two processes try at once."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if path.exists():
            raise FileExistsError(path) from None
        os.replace(temporary, path)


class Lock:
    """A folder that one process works in. The system lets go of it when the process ends, however it ends.

    Args:
        folder: made if it does not exist.

    Raises:
        InUse: on entering, when another process has it.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / ".lock"

    def __enter__(self) -> Lock:
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self.path, "a+", encoding="utf-8")
        try:
            if fcntl is not None:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.seek(0)
            owner = self._file.read().strip() or "?"
            self._file.close()
            raise InUse(f"{self.path.parent} is in use by process {owner}; wait for it, or stop it") from None
        except OSError:  # a file system without locks
            return self
        if not self.path.exists() or os.fstat(self._file.fileno()).st_ino != self.path.stat().st_ino:
            self._file.close()  # its last owner has just removed it
            return self.__enter__()
        with suppress(OSError):  # on a full disk the lock holds, and only the message about its owner is poorer
            os.ftruncate(self._file.fileno(), 0)
            os.write(self._file.fileno(), f"{os.getpid()}\n".encode())
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.path.unlink(missing_ok=True)
        self._file.close()
