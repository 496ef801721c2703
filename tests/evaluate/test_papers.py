import pandas as pd
import pytest

from raysweep.evaluate import papers, tables
from raysweep.evaluate.paper_tables import (
    GANORCON_APPENDIX_E as APPENDIX_E,
)
from raysweep.evaluate.paper_tables import (
    LAGM_FIGURE_4,
    LAGM_TABLE_2,
    LAGM_TABLE_C8,
)


def printed(segmentor, moco):
    i, j = APPENDIX_E.rows.index(segmentor), APPENDIX_E.columns.index(moco)
    return APPENDIX_E.values[i][j]


def test_transpose_keeps_every_number_with_its_labels():
    turned = papers.transpose(APPENDIX_E)
    assert (turned.row_axis, turned.column_axis) == ("moco", "segmentor")
    assert turned.values[turned.rows.index(96)][turned.columns.index(256)] == printed(256, 96)
    assert papers.transpose(turned) == APPENDIX_E


def test_cells_are_matched_by_rank():
    ranks = {"moco": 0, "segmentor": 1}
    assert papers.paper_cell(APPENDIX_E, ranks) == "ganorcon_appE[segmentor=256, moco=96]"
    assert papers.paper_cell(APPENDIX_E, {"moco": 3, "segmentor": 0}) is None


@pytest.mark.parametrize("ranks", [{"moco": 0}, {"moco": 0, "segmenter": 1}])
def test_ranks_must_name_the_papers_axes(ranks):
    with pytest.raises(ValueError, match=r"\['moco', 'segmentor'\]"):
        papers.paper_cell(APPENDIX_E, ranks)


def test_a_cell_names_its_table():
    cell = papers.paper_cell(APPENDIX_E, {"moco": 0, "segmentor": 1})
    assert papers.table_of(cell) == "ganorcon_appE"
    assert papers.table_of("lagm_fig4") == "lagm_fig4"


@pytest.fixture
def ours():
    frame = pd.DataFrame({"pretrain": ["16"], "segmentor": ["32"], "repeat": [0], "miou": [0.2]})
    return tables.pivot(
        frame,
        rows="pretrain",
        columns="segmentor",
        value="miou",
        title="t",
        row_order=["16"],
        column_order=["32"],
    )


def test_beside_carries_the_caveat_and_the_other_data(ours):
    text = papers.beside(ours, [APPENDIX_E])
    assert text.startswith(tables.to_markdown(ours))
    assert "Face34" in text
    assert "never number by number" in text
    assert "| 256 | 0.4687 | 0.5022 | 0.4876 |" in text


def test_several_tables_follow_in_order_with_values_as_printed(ours):
    text = papers.beside(ours, [LAGM_TABLE_2, APPENDIX_E, LAGM_TABLE_C8])
    where = [text.index(f" {name}**") for name in ("Table 2", "Appendix E", "Table C.8")]
    assert where == sorted(where)
    assert "| Head (default) | 1.00 | 33.56 +- 0.17 |" in text
    assert "scores in percent" in text
    assert "| Output | 0.34 | - |" in text


def test_of_a_figure_only_the_claim_is_shown(ours):
    text = papers.beside(ours, [LAGM_FIGURE_4])
    shown = text.removeprefix(tables.to_markdown(ours))
    assert LAGM_FIGURE_4.claim in shown
    assert "cannot be checked" in shown
    assert "|" not in shown


def test_without_papers_only_our_table_is_shown(ours):
    assert papers.beside(ours, []) == tables.to_markdown(ours)
