"""Files of a data set on this machine: found, read, and checked byte by byte. Nothing is imported and nothing downloaded."""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from fedagg.errors import DatasetUnavailable


@dataclass(frozen=True)
class Files:
    """The files of one data set inside an installed package that happens to ship them.

    The package is never imported, so it may be installed without what it depends on, and none of its code runs. Where its
    files lie is no promise of its authors: a version is named, and the content is compared with what that version holds.

    Args:
        data: name of the data set, as in ``data=NAME``.
        package: which distribution ships the files.
        version: the one that was read when the loader was written.
        folder: where the files lie, seen from where distributions are installed; absolute for a system package.
        names: the files in this folder, patterns allowed. ``NAME.gz`` is unpacked.
        sha256: of their contents, unpacked, one after another in ascending order of their paths.
        install: the command that brings them.
    """

    data: str
    package: str
    version: str
    folder: str
    names: tuple[str, ...]
    sha256: str
    install: str

    def read(self, dir: str | Path | None = None) -> tuple[dict[str, bytes], str]:
        """Read the files from the first place that is named: ``dir``, the environment variable, the package.

        A place without the files is an error, and the next one is not tried.

        Returns:
            Path within the folder -> content, unpacked; and where that is, for ``Dataset.source``.

        Raises:
            DatasetUnavailable: the package is not installed, files are missing, or their content is another one.
        """
        folder, origin, source = self._place(dir)
        paths = sorted({path for name in self.names for path in folder.glob(name) if path.is_file()})
        missing = [name for name in self.names if not any(folder.glob(name))]
        if missing:
            raise self._unavailable(f"{', '.join(missing)} in {folder} ({origin}); found no such file")
        contents = {path.relative_to(folder).as_posix(): self._content(path) for path in paths}
        digest = hashlib.sha256()
        for content in contents.values():
            digest.update(content)
        if digest.hexdigest() != self.sha256:
            raise self._unavailable(
                f"the content that {self.package} {self.version} has, with SHA-256 {self.sha256}; "
                f"{folder} ({origin}) has {digest.hexdigest()}"
            )
        return contents, source

    @property
    def environment(self) -> str:
        """The environment variable that may name the folder."""
        return f"FEDAGG_{self.package.upper().replace('-', '_')}"

    def _place(self, dir: str | Path | None) -> tuple[Path, str, str]:
        """Return where to look, who said so, and what to call it."""
        if dir is not None:
            return (given := Path(dir).expanduser()), "data.dir", str(given)
        if named := os.environ.get(self.environment):
            return (given := Path(named).expanduser()), f"environment variable {self.environment}", str(given)
        if Path(self.folder).is_absolute():
            return Path(self.folder), f"where {self.package} {self.version} puts them", self.folder
        try:
            found = distribution(self.package)
        except PackageNotFoundError:
            raise self._unavailable(f"files of the package {self.package} {self.version}, which is not installed") from None
        place = f"{self.package} {found.version}"
        told = place if found.version == self.version else f"{place}; {self.version} is expected"
        return Path(str(found.locate_file(self.folder))), told, place

    def _content(self, path: Path) -> bytes:
        try:
            content = path.read_bytes()
            return gzip.decompress(content) if path.suffix == ".gz" else content
        except (OSError, EOFError, zlib.error) as error:
            raise self._unavailable(f"to read {path}, which may be cut short: {error}") from error

    def _unavailable(self, needs: str) -> DatasetUnavailable:
        return DatasetUnavailable(
            f"data={self.data} needs {needs}. Install it with '{self.install}', name a folder that holds "
            f"{' and '.join(self.names)} with data.dir=FOLDER or {self.environment}=FOLDER, or take data=digits"
        )
