"""Data sets of the hub: a stand-in for the library says what is asked of it, a real one reads local files if it is there."""

import socket
import time

import numpy as np
import pytest
from PIL import Image

from fedagg.data import from_hub, hub
from fedagg.errors import ConfigError, DatasetUnavailable

STAND_IN = """
import os, time
import numpy as np

class Split(dict):
    features = property(dict.fromkeys)
    column_names = property(list)

class FederatedDataset:
    def __init__(self, dataset, subset, partitioners, shuffle):
        assert not partitioners and not shuffle
        self.dataset, self.subset = dataset, subset

    def load_split(self, name):
        offline = [os.environ.get(key) for key in ("HF_HUB_OFFLINE", "FLWR_TELEMETRY_ENABLED")]
        with open(os.environ["CALLS"], "a") as calls:
            print(self.dataset, self.subset, name, *offline, file=calls)
        if self.dataset == "me/online" and offline[0]:
            raise ConnectionError("OfflineModeIsEnabled")
        if self.dataset.endswith("/nowhere"):
            raise ConnectionError("Couldn't reach me/nowhere")
        if self.dataset == "me/hangs" and not offline[0]:
            time.sleep(60)
        if self.dataset == "me/hangs":
            raise ConnectionError("OfflineModeIsEnabled")
        if name not in ("train", "test"):
            raise ValueError(f"The given split: {name!r} is not present")
        rows = 6 if name == "train" else 2
        return Split(
            image=[[[number, 0, 0], [0, 0, 2 * number]] for number in range(rows)],
            colours=[np.full((1, 2, 3), (number, 7, 9), np.uint8) for number in range(rows)],
            uneven=[[0] * (1 + number) for number in range(rows)],
            text=["word"] * rows,
            label=[number % 2 for number in range(rows)],
            named=["dog" if number % 2 else "cat" for number in range(rows)],
            writer=["zoe", "ann", "zoe", "ann", "bob", "bob"][:rows],
        )
"""


@pytest.fixture
def calls(tmp_path, monkeypatch):
    """Put the stand-in where the library would be; returns a function that says what was asked of it so far."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "flwr_datasets.py").write_text(STAND_IN)
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    for name in ("HF_HUB_OFFLINE", "HF_ENDPOINT", "HTTPS_PROXY", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    return lambda: (tmp_path / "calls").read_text().splitlines() if (tmp_path / "calls").exists() else []


@pytest.fixture
def server(monkeypatch):
    """A server that accepts connections and never answers, as the hub's endpoint."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{listening.getsockname()[1]}")
        yield


def test_what_is_on_this_machine_is_read_without_asking_the_hub(calls):
    data = hub("me/here", subset="small")
    assert calls() == ["me/here small train 1 0", "me/here small test 1 0"]
    assert data.x_train.shape == (6, 2, 3)
    assert data.x_train[3].tolist() == [[3, 0, 0], [0, 0, 6]]
    assert data.y_train.tolist() == [0, 1, 0, 1, 0, 1]
    assert (len(data.y_test), data.num_classes, data.name, data.owners) == (2, 2, "me/here", None)
    assert data.features(data.x_train[1:2])[0, 0, 0] == np.float32(1) / 255


def test_channels_of_pictures_come_first(calls):
    data = hub("me/here", x="colours")
    assert data.x_train.dtype == np.uint8
    assert data.input_shape == (3, 1, 2)
    assert data.x_train[4].tolist() == [[[4, 4]], [[7, 7]], [[9, 9]]]


def test_names_of_classes_and_owners_are_numbered_in_order(calls):
    data = hub("me/here", y="named", owner="writer", scale=2)
    assert data.class_names == ("cat", "dog")
    assert data.y_train.tolist() == [0, 1, 0, 1, 0, 1]
    assert data.owner_names == ("ann", "bob", "zoe")
    assert data.owners.tolist() == [2, 0, 2, 0, 1, 1]


def test_without_a_test_split_a_share_of_every_class_is_taken(calls):
    data = hub("me/here", test=None, test_fraction=0.4, owner="writer")
    assert np.bincount(data.y_train).tolist() == [2, 2]
    assert np.bincount(data.y_test).tolist() == [1, 1]
    kept = data.x_train[:, 0, 0]  # the rows' numbers
    whose = np.array(["zoe", "ann", "zoe", "ann", "bob", "bob"])
    assert [data.owner_names[owner] for owner in data.owners] == whose[kept].tolist()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"x": "imag"}, r"data\.x=imag is no column \(did you mean image\?\); there are image, colours, uneven, text"),
        ({"y": "class"}, r"data\.y=class is no column"),
        ({"owner": "writers"}, r"data\.owner=writers .*did you mean writer"),
        ({"x": "uneven"}, r"data\.x=uneven must hold pictures or numbers of one shape; it holds shapes \[\(1,\), \(2,\)"),
        ({"x": "text"}, r"data\.x=text must hold pictures or numbers of one shape; it holds values of type str"),
        ({"test": "validation"}, r"data\.test=validation: The given split: 'validation' is not present"),
    ],
)
def test_what_does_not_fit_the_data_is_named(calls, options, says):
    with pytest.raises(ConfigError, match=says):
        hub("me/here", **options)


def test_a_name_or_a_folder_is_needed(tmp_path):
    with pytest.raises(ConfigError, match="OWNER/NAME"):
        hub()
    with pytest.raises(DatasetUnavailable, match=r"data\.dir=.*nowhere is none"):
        hub(dir=tmp_path / "nowhere")


def test_without_leave_nothing_is_downloaded(calls, server):
    with pytest.raises(DatasetUnavailable, match=r"me/online on this machine: .*OfflineMode.*data\.download=true") as error:
        hub("me/online")
    assert error.value.exit_code == 2
    assert calls() == ["me/online None train 1 0"]


def test_with_leave_the_hub_is_asked_once_this_machine_has_nothing(calls, server):
    assert len(hub("me/online", download=True).y_train) == 6
    assert calls() == ["me/online None train 1 0", "me/online None train None 0", "me/online None test None 0"]
    with pytest.raises(DatasetUnavailable, match=r"me/nowhere on this machine and on the hub: .*Couldn't reach me/nowhere"):
        hub("me/nowhere", download=True)


def test_a_folder_of_your_own_is_all_that_is_looked_at(calls, server, tmp_path):
    (tmp_path / "nowhere").mkdir()
    with pytest.raises(DatasetUnavailable, match="nowhere on this machine: "):
        hub("me/online", dir=tmp_path / "nowhere", download=True)
    assert calls() == [f"{tmp_path / 'nowhere'} None train 1 0"]


def test_an_endpoint_that_refuses_is_found_out_before_the_library_tries(calls, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{port}")
    with pytest.raises(DatasetUnavailable, match=f"127.0.0.1:{port} does not answer within 3 seconds"):
        hub("me/online", download=True)
    assert calls() == ["me/online None train 1 0"]


def test_a_download_that_hangs_ends_at_its_limit(calls, server):
    start = time.monotonic()
    with pytest.raises(DatasetUnavailable, match=r"not done after 2 seconds \(data\.timeout\)"):
        hub("me/hangs", download=True, timeout=2)
    assert time.monotonic() - start < 30


def test_a_proxy_is_what_must_answer(monkeypatch):
    asked = []

    def connect(place, timeout):
        asked.append((place, timeout))
        return Connection()

    monkeypatch.setattr(from_hub.socket, "create_connection", connect)
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    monkeypatch.delenv("HTTPS_PROXY", raising=False)
    monkeypatch.delenv("https_proxy", raising=False)
    from_hub._reach()
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    from_hub._reach()
    assert asked == [(("huggingface.co", 443), 3.0), (("proxy.example", 3128), 3.0)]


class Connection:
    def close(self):
        pass


def test_the_library_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setattr(from_hub, "find_spec", lambda _: None)
    with pytest.raises(DatasetUnavailable, match=r"needs the package flwr-datasets: pip install 'fedagg\[hub\]'"):
        hub("me/here")


# With the real library


@pytest.fixture
def real(tmp_path, monkeypatch):
    pytest.importorskip("flwr_datasets", reason="pip install flwr-datasets")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))


def test_local_parquet(real, tmp_path):
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    (tmp_path / "files").mkdir()
    for name, rows in (("train", 4), ("test", 2)):
        numbers = [[float(row), 0.5, 1.0] for row in range(rows)]
        table = pa.table({"numbers": numbers, "kind": ["b", "a"] * (rows // 2), "who": [7, 3] * (rows // 2)})
        parquet.write_table(table, tmp_path / "files" / f"{name}.parquet")
    data = hub(dir=tmp_path / "files", x="numbers", y="kind", owner="who", scale=1)
    assert data.x_train.tolist() == [[row, 0.5, 1] for row in range(4)]
    assert data.x_train.dtype == np.float32
    assert data.class_names == ("a", "b")
    assert data.y_train.tolist() == [1, 0, 1, 0]
    assert data.owner_names == ("3", "7")
    assert data.owners.tolist() == [1, 0, 1, 0]
    assert data.source == str(tmp_path / "files")


def test_a_folder_of_pictures_a_class(real, tmp_path):
    for part, level in (("train", 10), ("test", 20)):
        for kind, colour in (("cat", 1), ("dog", 2)):
            folder = tmp_path / "pictures" / part / kind
            folder.mkdir(parents=True)
            pixels = np.full((4, 5, 3), level, np.uint8)
            pixels[..., 2] = colour
            Image.fromarray(pixels).save(folder / "0.png")
    data = hub(dir=tmp_path / "pictures")
    assert data.input_shape == (3, 4, 5)
    assert data.x_train.dtype == np.uint8
    assert data.class_names == ("cat", "dog")
    assert [int(row[2, 0, 0]) - 1 for row in data.x_train] == data.y_train.tolist()
    assert (data.x_test[:, 0] == 20).all()


def test_a_data_set_that_is_not_cached(real):
    with pytest.raises(DatasetUnavailable, match=r"fedagg/there-is-none on this machine: .*Couldn't reach"):
        hub("fedagg/there-is-none")
