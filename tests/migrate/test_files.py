"""Scripts on disk."""

import os
import stat

import pytest

from paramserve.errors import UsageError
from paramserve.migrate.files import find_scripts, read_script, write_script


def test_directories_are_walked_for_scripts(tmp_path):
    for name in ("b.py", "a.py", "notes.txt", "sub/c.py", ".git/d.py", "venv/lib/e.py"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    (tmp_path / "venv/pyvenv.cfg").write_text("")
    found = list(find_scripts([tmp_path, tmp_path / "notes.txt"]))
    assert [str(path.relative_to(tmp_path)) for path in found] == [
        "a.py",
        "b.py",
        "sub/c.py",
        "notes.txt",
    ]


@pytest.mark.parametrize(
    "content",
    [
        "# é\r\nx = 1\r\n".encode(),
        b"\xef\xbb\xbfx = 1\n",
        "# -*- coding: latin-1 -*-\n# é\n".encode("latin-1"),
    ],
    ids=["windows", "mark", "declared"],
)
def test_a_file_is_written_as_it_was_read(tmp_path, content):
    path = tmp_path / "a.py"
    path.write_bytes(content)
    path.chmod(0o755)
    script = read_script(path)
    write_script(script, script.text)
    assert path.read_bytes() == content
    assert stat.S_IMODE(path.stat().st_mode) == 0o755
    assert os.listdir(tmp_path) == ["a.py"]


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "real.py").write_text("old")
    link = tmp_path / "link.py"
    link.symlink_to("real.py")
    write_script(read_script(link), "new")
    assert link.is_symlink()
    assert (tmp_path / "real.py").read_text() == "new"


def test_what_cannot_be_read_says_why(tmp_path):
    with pytest.raises(UsageError, match=r"missing\.py: cannot be read: No such file"):
        read_script(tmp_path / "missing.py")
    (tmp_path / "a.py").write_bytes(b"# \xff\n")
    with pytest.raises(UsageError, match=r"a\.py: is no Python text"):
        read_script(tmp_path / "a.py")
    with pytest.raises(UsageError, match="is a notebook; run `jupyter nbconvert"):
        read_script(tmp_path / "a.ipynb")
