"""What publish would send: names, and everything that stands in the way, at once."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from replicad.cli import scan as scanning
from replicad.cli.scan import scan
from replicad.errors import ConflictError, InputError, NotAllowedError, NotFoundError, ReplicadError


def tree(root: Path, *names: str) -> Path:
    """Files of these names, each holding its name."""
    for name in names:
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(name)
    return root


def published(given: list[Path], target: str = "") -> list[str]:
    return sorted(source.path for source in scan(given, target))


def test_the_contents_of_a_directory_land_below_the_target(tmp_path: Path) -> None:
    root = tree(tmp_path / "repo", "a.pkg", "pkgs/b.pkg", "pkgs/deep/c.pkg")
    assert published([root]) == ["a.pkg", "pkgs/b.pkg", "pkgs/deep/c.pkg"]
    assert published([root], "munki/") == ["munki/a.pkg", "munki/pkgs/b.pkg", "munki/pkgs/deep/c.pkg"]


def test_a_single_file_takes_the_target_as_its_path(tmp_path: Path) -> None:
    file = tree(tmp_path, "a.pkg") / "a.pkg"
    assert published([file]) == ["a.pkg"]
    assert published([file], "pkgs/b.pkg") == ["pkgs/b.pkg"]
    assert published([file], "pkgs/") == ["pkgs/a.pkg"]


def test_several_paths_land_below_the_target(tmp_path: Path) -> None:
    root = tree(tmp_path, "a.pkg", "dir/b.pkg")
    assert published([root / "a.pkg", root / "dir"], "x") == ["x/a.pkg", "x/b.pkg"]


def test_sizes_and_links(tmp_path: Path) -> None:
    root = tree(tmp_path / "repo", "a.pkg")
    (tmp_path / "elsewhere").write_bytes(b"x" * 1000)
    (root / "link.pkg").symlink_to(tmp_path / "elsewhere")
    assert {source.path: source.size for source in scan([root], "")} == {"a.pkg": 5, "link.pkg": 1000}


def test_a_loop_of_links_is_an_error_not_an_endless_walk(tmp_path: Path) -> None:
    root = tree(tmp_path / "repo", "a/b/c.pkg")
    (root / "a" / "b" / "up").symlink_to(root / "a")
    with pytest.raises(InputError, match=r"a/b/up leads back") as caught:
        scan([root], "")
    assert caught.value.error_code == "loop"


def test_the_same_directory_twice_side_by_side_is_no_loop(tmp_path: Path) -> None:
    root = tree(tmp_path / "repo", "a/c.pkg")
    (root / "again").symlink_to(root / "a")
    assert published([root]) == ["a/c.pkg", "again/c.pkg"]


def test_special_files_are_refused(tmp_path: Path) -> None:
    root = tree(tmp_path / "repo", "a.pkg")
    os.mkfifo(root / "pipe")
    with pytest.raises(InputError, match="pipe is neither") as caught:
        scan([root], "")
    assert caught.value.error_code == "special-file"
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(tmp_path / "door"))
        with pytest.raises(InputError, match="door is neither"):
            scan([tmp_path / "door"], "")


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no such file"):
        scan([tmp_path / "missing"], "")
    tree(tmp_path / "repo", "a.pkg")
    (tmp_path / "repo" / "dangling").symlink_to("nowhere")
    with pytest.raises(NotFoundError, match="dangling: no such file"):
        scan([tmp_path / "repo"], "")
    (tmp_path / "empty").mkdir()
    with pytest.raises(NotFoundError, match="nothing to publish"):
        scan([tmp_path / "empty"], "")


def test_unreadable_files_are_found_before_anything_is_sent(tmp_path: Path, unprivileged: None) -> None:
    root = tree(tmp_path / "repo", "a.pkg", "closed/b.pkg", "secret.pkg")
    (root / "secret.pkg").chmod(0)
    (root / "closed").chmod(0)
    try:
        with pytest.raises(NotAllowedError, match="2 problems") as caught:
            scan([root], "")
    finally:
        (root / "closed").chmod(0o700)
    assert "secret.pkg: permission denied" in caught.value.message
    assert "closed: permission denied" in caught.value.message


def test_here_is_named_as_the_directory_that_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "above" / "here").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "above" / "here")
    with pytest.raises(NotFoundError, match=f"no file below {tmp_path}/above/here: nothing"):
        scan([Path()], "")
    with pytest.raises(NotFoundError, match=f"no file below {tmp_path}/above: nothing"):
        scan([Path("..")], "")
    (tmp_path / "above" / "here").rmdir()
    with pytest.raises(NotFoundError, match=r"no file below \. in a directory that was removed: nothing"):
        scan([Path()], "")


def test_a_directory_of_too_many_files_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scanning, "ENTRIES_PER_CALL_MAX", 2)
    tree(tmp_path / "few", "a", "b")
    tree(tmp_path / "more", "c")
    assert len(scan([tmp_path / "few"], "")) == 2
    with pytest.raises(InputError, match=f"more than 2 files in one publication, with those below {tmp_path}/more;"):
        scan([tmp_path / "few", tmp_path / "more"], "")


@pytest.mark.parametrize("name", ["a:b.pkg", "dot.", "q?.pkg", "new\nline"])
def test_names_that_a_share_cannot_hold(tmp_path: Path, name: str) -> None:
    tree(tmp_path, name)
    with pytest.raises(InputError, match="path") as caught:
        scan([tmp_path], "")
    assert caught.value.error_code == "bad-path"


def test_a_name_that_is_not_unicode(tmp_path: Path) -> None:
    file = os.fsencode(tmp_path) + b"/caf\xe9.pkg"
    os.close(os.open(file, os.O_CREAT | os.O_WRONLY))
    with pytest.raises(InputError, match="not valid Unicode"):
        scan([tmp_path], "")


def test_two_files_under_one_name(tmp_path: Path) -> None:
    root = tree(tmp_path / "repo", "Foo.pkg", "foo.pkg")
    with pytest.raises(ConflictError, match="one name in the share"):
        scan([root], "")
    tree(tmp_path / "one", "a.pkg")
    tree(tmp_path / "two", "A.pkg")
    with pytest.raises(ConflictError, match="one name in the share"):
        scan([tmp_path / "one", tmp_path / "two"], "")


def test_a_file_where_a_directory_would_have_to_be(tmp_path: Path) -> None:
    tree(tmp_path / "one", "a/b.pkg")
    tree(tmp_path / "two", "A")
    with pytest.raises(ConflictError, match=r"a file .* and a directory"):
        scan([tmp_path / "one", tmp_path / "two"], "")


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    root = tree(tmp_path / "repo", "good.pkg", "bad:name.pkg")
    os.mkfifo(root / "pipe")
    (root / "dangling").symlink_to("nowhere")
    with pytest.raises(ReplicadError, match="3 problems, nothing was sent") as caught:
        scan([root], "")
    assert type(caught.value) is ReplicadError
    assert caught.value.exit_code == 1
    for word in ("bad:name", "pipe", "dangling"):
        assert word in caught.value.message
