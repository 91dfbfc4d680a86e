"""Files that are whole or absent, whatever happens while they are written."""

import contextlib
import os
import secrets
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

from .errors import UserError


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write to, which takes the place of `path` once the block ends, or vanishes if it raises.

    It lies beside `path`, hidden, until it is on the disk. Killed at any moment, `path` is what it was or what it was
    to become; a hidden `.NAME.….part` may stay.

    Raises:
        OSError: the folder is missing or cannot be written, or the disk is full; with the name of `path`.
    """
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with part.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException as error:
        part.unlink(missing_ok=True)
        # The system names no file where the disk is full, and the part where it cannot be made.
        if isinstance(error, OSError) and error.errno is not None and error.filename in (None, str(part)):
            error.filename = str(path)
        raise
    sync_folder(path.parent)


@contextlib.contextmanager
def alone_in(folder: Path, work: str) -> Iterator[None]:
    """Keep others, in any process, from the same work in a folder while the block runs; a process that dies lets go.

    Where the file system knows no locks, others are not kept away.

    Args:
        work: what it is, for the error: "training".

    Raises:
        UserError: another is at it.
    """
    lock = FileLock(folder / f".{work}.lock", timeout=0)
    with contextlib.suppress(OSError, NotImplementedError):
        try:
            lock.acquire()
        except Timeout as error:
            raise UserError(f"{folder} is in use by another {work}: let it end, or take another folder") from error
    try:
        yield
    finally:
        lock.release()


def clear_parts(folder: Path, older: float = 0.0) -> None:
    """Remove what processes that were killed within `replacing` left in a folder.

    Args:
        older: seconds; what was written to since is left, as another process may be at it.
    """
    for part in folder.glob(".*.part"):
        with contextlib.suppress(OSError):  # another process may have been faster
            if time.time() - part.stat().st_mtime >= older:
                part.unlink()


def writable_folder(folder: Path) -> None:
    """Make a folder if need be, and find out that it can be written to before any work is done.

    Raises:
        UserError: it cannot be made or written to.
    """
    with _telling(folder):
        folder.mkdir(parents=True, exist_ok=True)
    check_writable(folder)


def check_writable(folder: Path) -> None:
    """Find out that a folder can be written to, or made, without making it.

    Raises:
        UserError: it cannot.
    """
    there = folder.absolute()
    while not os.path.lexists(there):
        there = there.parent
    if not there.is_dir():
        raise UserError(f"cannot write to {folder}: {there} is not a folder")
    with _telling(folder):
        tempfile.TemporaryFile(dir=there).close()


@contextlib.contextmanager
def _telling(folder: Path) -> Iterator[None]:
    """A block whose OSError is a UserError that names the folder."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}") from error


def sync_folder(folder: Path) -> None:
    """Put the names in a folder on the disk, so that they outlive a loss of power too."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
