"""Files are whole or absent, whatever happens while they are written."""

import os
import signal
import subprocess
import sys

import pytest

from models.core.errors import UserError
from models.core.files import alone_in, check_writable, clear_parts, replacing


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


def test_one_work_at_a_time_in_a_folder(tmp_path):
    """Also where the other is another process, which lets go when it is killed."""
    code = (
        "import sys, time; from pathlib import Path; from models.core.files import alone_in\n"
        "with alone_in(Path(sys.argv[1]), 'training'): print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(UserError, match="is in use by another training"), alone_in(tmp_path, "training"):
            pass
        with alone_in(tmp_path, "alignment"):
            pass
        other.kill()
        other.wait()
        with alone_in(tmp_path, "training"):
            pass


def test_whether_a_folder_could_be_written_to(tmp_path):
    check_writable(tmp_path / "new" / "folder")
    assert not (tmp_path / "new").exists()
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file is not a folder"):
        check_writable(tmp_path / "file" / "folder")
