"""Files are whole or absent, whatever happens while they are written."""

import os
import signal
import subprocess
import sys

import pytest

from models.core.files import replacing


def write(path, content):
    with replacing(path) as file:
        file.write(content)


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    """Killed while it writes, a process leaves the file as it was."""
    path = tmp_path / "file"
    write(path, b"old")
    code = (
        "import os, signal, sys; from pathlib import Path; from models.core.files import replacing\n"
        "os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)\n"
        "with replacing(Path(sys.argv[1])) as file: file.write(b'new and longer')"
    )
    result = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert result.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"

    def full(_):
        raise OSError("disk full")

    before = set(tmp_path.iterdir())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="disk full"):
            write(path, b"new")
    assert set(tmp_path.iterdir()) == before, "the temporary file is gone"
    write(path, b"new")
    assert path.read_bytes() == b"new"


def test_files_are_readable_as_the_user_has_it(tmp_path):
    mask = os.umask(0o027)
    try:
        write(tmp_path / "file", b"")
    finally:
        os.umask(mask)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640
