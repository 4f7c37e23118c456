"""Where files of data sets are looked for, and what is said when they are not there or others."""

import gzip
import hashlib
from dataclasses import replace

import pytest

from fedagg.data.installed import Files
from fedagg.errors import DatasetUnavailable

FILES = Files(
    data="toys",
    package="toy-box",
    version="1.2.0",
    folder="toys/data",
    names=("a.txt", "b/*.txt.gz"),
    sha256=hashlib.sha256(b"onetwothree").hexdigest(),
    install="pip install --no-deps toy-box==1.2.0",
)


def fill(folder, one=b"one"):
    (folder / "b").mkdir(parents=True)
    (folder / "a.txt").write_bytes(one)
    for name, content in (("3", b"three"), ("2", b"two")):
        (folder / "b" / f"{name}.txt.gz").write_bytes(gzip.compress(content))
    return folder


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder of installed packages, with toy-box 1.2.0 in it."""
    monkeypatch.delenv("FEDAGG_TOY_BOX", raising=False)
    site = tmp_path / "site"
    (site / "toy_box-1.2.0.dist-info").mkdir(parents=True)
    (site / "toy_box-1.2.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-box\nVersion: 1.2.0\n")
    (site / "toys").mkdir()
    (site / "toys" / "__init__.py").write_text("raise AssertionError('a loader imported the package')")
    monkeypatch.syspath_prepend(site)
    return site


def test_files_of_a_package_are_read_unpacked_in_order_and_without_its_code(site):
    fill(site / "toys" / "data")
    contents, source = FILES.read()
    assert list(contents.items()) == [("a.txt", b"one"), ("b/2.txt.gz", b"two"), ("b/3.txt.gz", b"three")]
    assert source == "toy-box 1.2.0"


def test_the_first_place_that_is_named_decides(site, tmp_path, monkeypatch):
    fill(site / "toys" / "data")
    named, given = fill(tmp_path / "named"), fill(tmp_path / "given")
    monkeypatch.setenv("FEDAGG_TOY_BOX", str(named))
    assert FILES.read()[1] == str(named)
    assert FILES.read(str(given))[1] == str(given)
    with pytest.raises(DatasetUnavailable, match=r"a\.txt, b/\*\.txt\.gz in .*empty \(data\.dir\); found no such file"):
        FILES.read(tmp_path / "empty")
    monkeypatch.setenv("FEDAGG_TOY_BOX", str(tmp_path / "empty"))
    with pytest.raises(DatasetUnavailable, match=r"empty \(environment variable FEDAGG_TOY_BOX\)"):
        FILES.read()


def test_a_package_that_is_not_installed_names_the_version_and_the_command():
    with pytest.raises(DatasetUnavailable, match=r"^data=toys needs files of the package") as error:
        FILES.read()
    for told in ("toy-box 1.2.0, which is not installed", FILES.install, "data.dir=FOLDER", "FEDAGG_TOY_BOX=FOLDER", "digits"):
        assert told in str(error.value)


def test_another_version_is_named_where_it_lacks_the_files_and_serves_where_it_has_them(site):
    newer = replace(FILES, version="1.1.0")
    with pytest.raises(DatasetUnavailable, match=r"\(toy-box 1\.2\.0; 1\.1\.0 is expected\)"):
        newer.read()
    fill(site / "toys" / "data")
    assert newer.read()[1] == "toy-box 1.2.0"


def test_one_missing_file_is_enough(site):
    fill(site / "toys" / "data")
    (site / "toys" / "data" / "a.txt").unlink()
    with pytest.raises(DatasetUnavailable, match=r"needs a\.txt in "):
        FILES.read()


def test_other_content_is_refused(site):
    fill(site / "toys" / "data", one=b"One")
    with pytest.raises(DatasetUnavailable, match=f"{FILES.sha256}.*{hashlib.sha256(b'Onetwothree').hexdigest()}"):
        FILES.read()


def test_a_file_that_is_cut_short_is_no_crash(site):
    folder = fill(site / "toys" / "data")
    packed = folder / "b" / "2.txt.gz"
    packed.write_bytes(packed.read_bytes()[:-9])
    with pytest.raises(DatasetUnavailable, match=r"2\.txt\.gz, which may be cut short"):
        FILES.read()


def test_a_system_package_lies_where_it_lies(tmp_path):
    folder = fill(tmp_path / "system")
    assert replace(FILES, folder=str(folder)).read()[1] == str(folder)
    with pytest.raises(DatasetUnavailable, match=r"where toy-box 1\.2\.0 puts them"):
        replace(FILES, folder=str(tmp_path / "nowhere")).read()
