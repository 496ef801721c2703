import pandas as pd
import pytest

from raysweep.evaluate import papers, tables

APPENDIX_E = papers.GANORCON_APPENDIX_E


def printed(segmentor, moco):
    i, j = APPENDIX_E.rows.index(segmentor), APPENDIX_E.columns.index(moco)
    return APPENDIX_E.values[i][j]


def test_the_claim_check_agrees_with_the_numbers():
    assert printed(512, 512) - printed(256, 256) < 0.001
    lowest_loses_to_both = [
        segmentor
        for segmentor in APPENDIX_E.rows
        if printed(segmentor, 96) < min(printed(segmentor, 256), printed(segmentor, 512))
    ]
    assert lowest_loses_to_both == [256, 512]
    assert printed(96, 96) > printed(96, 512)


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


def test_every_table_is_known_by_its_id():
    assert all(name == table.id for name, table in papers.PAPER_TABLES.items())


def test_beside_carries_the_caveat_and_the_other_data():
    frame = pd.DataFrame({"pretrain": ["16"], "segmentor": ["32"], "repeat": [0], "miou": [0.2]})
    ours = tables.pivot(
        frame,
        rows="pretrain",
        columns="segmentor",
        value="miou",
        title="t",
        row_order=["16"],
        column_order=["32"],
    )
    text = papers.beside(ours, APPENDIX_E)
    assert text.startswith(tables.to_markdown(ours))
    assert "Face34" in text
    assert "never number by number" in text
    assert "0.4687" in text
