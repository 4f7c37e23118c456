"""What is installed elsewhere: a wheel, in an environment that has the dependencies but not this checkout."""

import importlib.util
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from fedagg.results import read_run

ROOT = Path(__file__).parent.parent


def output_of(*words: str | Path, cwd: Path) -> str:
    """Run a command without any of our own settings and return what it prints."""
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(list(map(str, words)), cwd=cwd, env=environment, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module", name="wheel")
def _wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    here = ["--no-build-isolation"] if importlib.util.find_spec("hatchling") else []
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    output_of(*pip, "wheel", "--no-deps", *here, "--wheel-dir", folder, ROOT, cwd=folder)
    (wheel,) = folder.glob("fedagg-*.whl")
    return wheel


@pytest.fixture(scope="module", name="installed")
def _installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ``bin`` of a new environment; the dependencies are those of this one, seen through a .pth file."""
    home = tmp_path_factory.mktemp("installed")
    output_of(sys.executable, "-m", "venv", "--without-pip", home, cwd=home)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", home / "bin" / "python"]
    output_of(*pip, "install", "--no-deps", "--no-index", wheel, cwd=home)
    packages = sysconfig.get_path("purelib", vars={"base": str(home)})
    (Path(packages) / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")  # editable installs stay unseen
    return home / "bin"


def test_the_wheel_holds_the_packages_and_every_config(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    expected = set()
    for package in ("fedagg", "strategies"):
        files = [file for file in (ROOT / package).rglob("*") if file.suffix in (".py", ".css", ".typed")]
        expected |= {file.relative_to(ROOT).as_posix() for file in files}
    configs = [file for file in (ROOT / "configs").rglob("*.yaml") if file.parent.name != "machine"]
    expected |= {f"fedagg/{file.relative_to(ROOT).as_posix()}" for file in configs}
    assert names == expected
    metadata = zipfile.ZipFile(wheel).read(next(n for n in zipfile.ZipFile(wheel).namelist() if n.endswith("/METADATA")))
    assert b"License-File: LICENSE" in metadata


def test_it_runs_from_another_folder(installed: Path, tmp_path: Path) -> None:
    code = "import fedagg, strategies; from strategies import Krum; print(fedagg.__file__, strategies.__file__, sep='\\n')"
    for file in output_of(installed / "python", "-c", code, cwd=tmp_path).splitlines():
        assert Path(file).is_relative_to(installed.parent)
    out = output_of(installed / "fedagg", "run", "rounds=1", "population=4", "strategy=median", cwd=tmp_path)
    assert "round 1/1" in out
    (directory,) = (tmp_path / "runs").iterdir()
    run = read_run(directory)
    assert run.status == "completed"
    assert run.config["strategy"]["rule"]["_target_"] == "strategies.Median"
    assert run.info["versions"]["commit"] is None  # whatever checkout there may be, this is not it
    assert "trimmed_mean" in output_of(installed / "fedagg", "list", "strategy", cwd=tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"runs"}
