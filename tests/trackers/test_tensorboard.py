"""TensorBoard: what its own reader finds in the event files."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.trackers.parts import go_on, kill, shown, table

pytest.importorskip("tensorboard", reason="tensorboard is not installed: pip install 'fedagg[tensorboard]'")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def read(directory: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(directory / "tensorboard"))
    return found.Reload()


def scalars(directory: Path) -> dict[str, list[tuple[int, float]]]:
    found = read(directory)
    return {tag: [(event.step, event.value) for event in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def as_float32(series: dict[str, list[tuple[int, float]]]) -> dict[str, list[tuple[int, float]]]:
    """TensorBoard keeps single precision."""
    return {name: [(round, float(np.float32(value))) for round, value in values] for name, values in series.items()}


def text(directory: Path, tag: str) -> str:
    (event,) = read(directory).Tensors(f"{tag}/text_summary")
    return str(event.tensor_proto.string_val[0].decode())


def hyperparameters(directory: Path) -> list[Any]:
    """Session start and end, in the order of their tags."""
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    data = read(directory).PluginTagToContent("hparams")
    return [HParamsPluginData.FromString(data[f"_hparams_/{tag}"]) for tag in ("session_start_info", "session_end_info")]


def test_every_aggregate_is_a_scalar_by_round(tmp_path: Path) -> None:
    shown(tmp_path / "run", "logger=tensorboard", "evaluation.clients=true")
    assert scalars(tmp_path / "run") == as_float32(table(tmp_path / "run"))


def test_the_config_is_there_as_text_and_as_hyperparameters(tmp_path: Path) -> None:
    shown(tmp_path / "run", "logger=tensorboard", "local.lr=0.25")
    lines = text(tmp_path / "run", "config").splitlines()
    assert all(line.startswith("    ") for line in lines)
    assert yaml.safe_load("\n".join(line[4:] for line in lines)) == yaml.safe_load((tmp_path / "run/config.yaml").read_text())
    start, end = hyperparameters(tmp_path / "run")
    values = start.session_start_info.hparams
    assert values["local.lr"].number_value == 0.25
    assert values["strategy"].string_value == "fedavg"
    assert values["sanitize"].number_value == 0
    assert end.session_end_info.status == 1  # STATUS_SUCCESS
    assert text(tmp_path / "run", "status") == "    completed"


def test_a_run_that_was_killed_has_every_round_once(tmp_path: Path) -> None:
    kill(tmp_path / "run", "logger=tensorboard")
    go_on(tmp_path / "run", "logger=tensorboard")
    assert len(list((tmp_path / "run/tensorboard").iterdir())) == 1
    assert scalars(tmp_path / "run") == as_float32(table(tmp_path / "run"))


def test_a_run_that_failed_says_so(tmp_path: Path) -> None:
    stops = f"+callbacks.stops={{_target_: {__name__}.fails}}"
    with pytest.raises(RuntimeError):
        shown(tmp_path / "run", "logger=tensorboard", stops)
    assert text(tmp_path / "run", "status") == "    failed\n    RuntimeError: broken"
    assert hyperparameters(tmp_path / "run")[1].session_end_info.status == 2  # STATUS_FAILURE


def fails() -> Any:
    from fedagg import Callback

    class Fails(Callback):
        def round_finished(self, done: Any) -> None:
            if done.round == 2:
                raise RuntimeError("broken")

    return Fails()
