"""The heat map, as it is drawn."""

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from fedagg.report import report
from fedagg.report.heatmap import colour_scale, draw_heatmap


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("attacks", [2, 22])
def test_no_number_leaves_its_cell(tmp_path, make_run, attacks):
    for place in range(attacks):
        for seed, value in enumerate((0.999, 0.0)):  # half an interval of 635 points, as wide as numbers get
            make_run(tmp_path / f"{place}-{seed}", "krum", f"attack_{place}", seed, [0.1, value])
    (table,) = report(tmp_path, quiet=True).tables
    figure = draw_heatmap(table, colour_scale([table]), "table.csv")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    axes, whole = figure.axes[0], figure.bbox
    cells = [patch.get_window_extent() for patch in axes.patches if patch.get_fill()]
    assert len(cells) == attacks + 1
    for text in axes.texts:
        box = text.get_window_extent(canvas.get_renderer())
        assert any(cell.x0 < box.x0 and box.x1 < cell.x1 for cell in cells), text.get_text()
    assert all(whole.x0 <= cell.x0 and cell.x1 <= whole.x1 for cell in cells)
