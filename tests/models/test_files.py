"""Files are whole or absent, whatever happens while they are written."""

import os
import signal
import subprocess
import sys

import pytest

from models.core.files import clear_parts, replacing


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


def test_what_killed_processes_left_is_cleared_unless_it_is_fresh(tmp_path):
    old, fresh, kept = (tmp_path / name for name in (".a.png.0a1b2c3d.part", ".b.png.0a1b2c3d.part", ".hidden.png"))
    for path in (old, fresh, kept):
        path.write_bytes(b"x")
    os.utime(old, (0, 0))
    clear_parts(tmp_path, older=3600)
    assert sorted(path.name for path in tmp_path.iterdir()) == [fresh.name, kept.name]
    clear_parts(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [kept.name]
