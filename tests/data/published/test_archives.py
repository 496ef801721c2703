import io
import stat
import tarfile
import zipfile

import pytest

from raysweep.config import ConfigError
from raysweep.data.published.archives import open_tree
from tests.data.published_trees import tarred, zipped

FILES = {"a/0.png": b"zero", "a/10.png": b"ten" * 5000, "a/2.png": b"", "b.txt": b"text"}


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "plain"
    for name, data in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def pack(folder, kind):
    archive = folder.parent / f"download{kind}"
    return zipped(folder, archive) if kind == ".zip" else tarred(folder, archive)


@pytest.mark.parametrize("kind", ["", ".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz"])
def test_reads_what_was_packed_in_any_order(folder, tmp_path, kind):
    tree = open_tree(pack(folder, kind) if kind else folder, scratch=tmp_path)
    prefix = "download/" if kind else ""
    assert tree.names == tuple(prefix + name for name in sorted(FILES))
    for name in reversed(tree.names):
        assert tree.read(name) == FILES[name.removeprefix("download/")]
    assert len({tree.stamp(name) for name in tree.names}) > 1
    tree.close()
    assert sorted(path.name for path in folder.rglob("*.png")) == ["0.png", "10.png", "2.png"]


def test_hidden_files_and_those_of_macos_are_left_out(folder, tmp_path):
    (folder / ".DS_Store").write_bytes(b"x")
    (folder / "__MACOSX").mkdir()
    (folder / "__MACOSX" / "0.png").write_bytes(b"x")
    assert set(open_tree(folder, scratch=tmp_path).names) == set(FILES)


ESCAPES = ["../evil.png", "/etc/evil.png", "a/../../evil.png", "C:/evil.png", "a\\..\\evil.png"]


@pytest.mark.parametrize("kind", [".zip", ".tar", ".tgz"])
@pytest.mark.parametrize("name", ESCAPES)
def test_refuses_a_member_that_would_escape(tmp_path, kind, name):
    archive = tmp_path / f"evil{kind}"
    if kind == ".zip":
        with zipfile.ZipFile(archive, "w") as sink:
            sink.writestr("fine.png", b"x")
            sink.writestr(name, b"x")
    else:
        with tarfile.open(archive, "w:gz" if kind == ".tgz" else "w") as sink:
            for member in ("fine.png", name):
                info = tarfile.TarInfo(member)
                info.size = 1
                sink.addfile(info, io.BytesIO(b"x"))
    with pytest.raises(ConfigError) as caught:
        open_tree(archive, scratch=tmp_path)
    assert "would escape" in str(caught.value)
    assert repr(name) in str(caught.value)


@pytest.mark.parametrize("kind", [".zip", ".tar"])
def test_refuses_links(tmp_path, kind):
    archive = tmp_path / f"links{kind}"
    if kind == ".zip":
        with zipfile.ZipFile(archive, "w") as sink:
            info = zipfile.ZipInfo("link.png")
            info.external_attr = (stat.S_IFLNK | 0o777) << 16
            sink.writestr(info, "/etc/passwd")
    else:
        with tarfile.open(archive, "w") as sink:
            info = tarfile.TarInfo("link.png")
            info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
            sink.addfile(info)
    with pytest.raises(ConfigError, match=r"member 'link\.png' is a link"):
        open_tree(archive, scratch=tmp_path)


@pytest.mark.parametrize("kind", [".zip", ".tar", ".tar.gz", ".tar.xz"])
def test_a_truncated_download_is_named(folder, tmp_path, kind):
    archive = pack(folder, kind)
    archive.write_bytes(archive.read_bytes()[: archive.stat().st_size // 3])
    with pytest.raises(ConfigError) as caught:
        open_tree(archive, scratch=tmp_path)
    assert str(caught.value).startswith(f"{archive}: damaged or truncated archive")
    assert not list(tmp_path.glob("*.spool*"))


def test_a_damaged_member_is_named(folder, tmp_path):
    archive = tmp_path / "stored.zip"
    with zipfile.ZipFile(archive, "w") as sink:
        sink.write(folder / "b.txt", "b.txt")
    archive.write_bytes(archive.read_bytes().replace(b"text", b"tExt"))
    with pytest.raises(ConfigError, match=r"b\.txt: cannot be read \(Bad CRC"):
        open_tree(archive, scratch=tmp_path).read("b.txt")


@pytest.mark.parametrize("kind", [".zip", ".tar"])
def test_refuses_a_name_that_occurs_twice(tmp_path, kind):
    archive = tmp_path / f"twice{kind}"
    if kind == ".zip":
        with zipfile.ZipFile(archive, "w") as sink:
            sink.writestr("a.png", b"1")
            with pytest.warns(UserWarning, match="Duplicate"):
                sink.writestr("a.png", b"2")
    else:
        with tarfile.open(archive, "w") as sink:
            for _ in range(2):
                sink.addfile(tarfile.TarInfo("a.png"))
    with pytest.raises(ConfigError, match=r"member 'a\.png' occurs twice"):
        open_tree(archive, scratch=tmp_path)


def test_a_new_download_is_not_read_from_the_old_stream(folder, tmp_path):
    archive = pack(folder, ".tgz")
    open_tree(archive, scratch=tmp_path).close()
    (folder / "b.txt").write_bytes(b"other text")
    pack(folder, ".tgz")
    assert open_tree(archive, scratch=tmp_path).read("download/b.txt") == b"other text"


@pytest.mark.parametrize("name", ["nothing", "notes.txt", "alone.gz"])
def test_refuses_what_is_neither_folder_nor_archive(tmp_path, name):
    if name != "nothing":
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ConfigError, match=r"does not exist|neither a folder nor an archive"):
        open_tree(tmp_path / name, scratch=tmp_path)
