"""The figure of client coherence and gamma, and the critical point in it."""

import math
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from fedagg import ConfigError
from fedagg.report.coherence import critical_point, draw_coherence, main
from fedagg.results import RunDirectory, read_run

COHERENCE = [0.24, 0.1, 0.02, -0.01, 0.03, -0.02]
GAMMA = [1.1, 1.0, 0.98, 0.97, 0.98, 0.96]


def run_with(path: Path, **series: Sequence[float]) -> Path:
    label = {"strategy": "fedlaw", "attack": "none", "data": "digits"}
    run = RunDirectory.create(path, {"seed": 3}, label, 3, rounds=6)
    for metric, values in series.items():
        run.append([(number, "server", None, metric, value) for number, value in enumerate(values, start=1)])
    run.finish("completed")
    return path


@pytest.mark.parametrize(
    ("coherence", "wanted"),
    [
        (COHERENCE, 4),
        ([0.2, 0.1], None),
        ([0.2, 0.0, 0.1], 2),
        ([-0.1, 0.2], 1),
        ([math.nan, 0.1, math.nan, -0.1], 4),
        ([], None),
    ],
)
def test_the_critical_point_is_the_first_round_at_zero_or_below(coherence: list[float], wanted: int | None) -> None:
    assert critical_point(range(1, len(coherence) + 1), coherence) == wanted


def test_rounds_keep_their_numbers() -> None:
    assert critical_point([5, 10, 15], [0.2, -0.1, -0.2]) == 10


def test_both_series_are_drawn_with_the_critical_point(tmp_path: Path) -> None:
    figure = draw_coherence(read_run(run_with(tmp_path, coherence=COHERENCE, gamma=GAMMA)))
    above, below = figure.axes
    for axes, values in ((above, COHERENCE), (below, GAMMA)):
        assert list(axes.lines[0].get_xdata()) == [1, 2, 3, 4, 5, 6]  # type: ignore[call-overload]
        assert list(axes.lines[0].get_ydata()) == values  # type: ignore[call-overload]
        assert [4, 4] in [list(line.get_xdata()) for line in axes.lines]  # type: ignore[call-overload]
    assert [text.get_text() for text in above.texts] == ["critical point: round 4"]
    words = " ".join(text.get_text() for text in figure.texts)
    assert "strategy=fedlaw, attack=none, data=digits, seed=3" in words
    assert "first round at 0 or below: 4." in words


def test_without_a_critical_point_none_is_drawn(tmp_path: Path) -> None:
    figure = draw_coherence(read_run(run_with(tmp_path, coherence=[0.3, 0.2], gamma=[1.0, 0.9])))
    assert [len(axes.lines) for axes in figure.axes] == [2, 2]
    assert "It never reached 0." in " ".join(text.get_text() for text in figure.texts)


def test_the_command_writes_both_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_with(tmp_path / "run", coherence=COHERENCE, gamma=GAMMA)
    assert main([str(run)]) == 0
    files = [str(run / "coherence.png"), str(run / "coherence.pdf")]
    assert capsys.readouterr().out.splitlines() == [*files, "critical point: round 4, the first at 0 or below"]
    with Image.open(run / "coherence.png") as picture:
        assert picture.width == 1440
    assert main([str(run), "--out", str(tmp_path / "elsewhere")]) == 0
    assert (tmp_path / "elsewhere.png").read_bytes() == (run / "coherence.png").read_bytes()


def test_the_command_says_that_there_is_no_critical_point(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(run_with(tmp_path / "run", coherence=[0.3, 0.2], gamma=[1.0, 0.9]))]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "critical point: none, coherence never reached 0"


def test_another_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = run_with(tmp_path / "other", gamma=GAMMA)
    with pytest.raises(ConfigError, match="no server/coherence; runs with strategy=fedlaw have both"):
        draw_coherence(read_run(other))
    assert main([str(tmp_path / "nothing")]) == 2
    assert "no run in" in capsys.readouterr().err
