import base64
import dataclasses
import re

import pandas as pd
import pytest

from raysweep.evaluate import report, tables
from raysweep.evaluate.fit_costs import FitCost
from raysweep.evaluate.paper_tables import GANORCON_APPENDIX_E, LAGM_FIGURE_4, LAGM_TABLE_C8

PNG = b"\x89PNG not really"


def make_report(**changes):
    frame = pd.DataFrame(
        {
            "pretrain": ["raw colour", "16 px"],
            "segmentor": ["64 px", "64 px"],
            "repeat": [0, 0],
            "miou": [0.1, 0.2],
        }
    )
    table = tables.pivot(
        frame,
        rows="pretrain",
        columns="segmentor",
        value="miou",
        title="pretraining <resolution>",
        row_order=["raw colour", "16 px", "32 px"],
        column_order=["64 px"],
    )
    full = report.Report(
        table=table,
        command="python jobs/sweep_resolution.py --preset smoke",
        preset="smoke",
        dataset={"name": "faces", "fingerprint": "abc123", "train": 16},
        machine="2 CPU cores",
        revision="0123abc",
        figure=report.Picture("heat map", PNG),
        baselines=("raw colour",),
        pictures=(report.Picture("best cell", PNG + b"2"),),
        costs=(FitCost("16 px", 3, 12.34, 1.75),),
        papers=(GANORCON_APPENDIX_E, LAGM_FIGURE_4, LAGM_TABLE_C8),
        lineage=(report.Lineage("16 px", "64 px", 0, {"pretrain": "k1", "fit": "k2"}),),
        failures=(report.Failure("32 px / 64 px", "loss is nan <at step 3>", "runs/log"),),
    )
    return dataclasses.replace(full, **changes)


def test_the_page_refers_to_nothing_outside_itself():
    page = report.html(make_report())
    assert all(
        source.startswith("data:image/png;base64,") for source in re.findall(r'src="([^"]*)', page)
    )
    assert not re.search(r"<link|<script|url\(|https?://|@import", page)


def test_pictures_travel_in_the_page():
    page = report.html(make_report())
    for png in (PNG, PNG + b"2"):
        assert base64.b64encode(png).decode() in page


@pytest.mark.parametrize(
    "text",
    [
        "0.200 +- - (1)", "jobs/sweep_resolution.py --preset smoke", "abc123", "2 CPU cores",
        "0123abc", "k1", "k2", "32 px / 64 px", "never number by number", "0.4687", "best cell",
        "resumes the sweep", "12.3", "1.75", "ran beside", "Figure 4", "only curves are printed",
        "0.34",
    ],
)  # fmt: skip
def test_the_page_shows(text):
    assert text in report.html(make_report())


def test_text_is_escaped():
    page = report.html(make_report())
    assert "pretraining &lt;resolution&gt;" in page
    assert "loss is nan &lt;at step 3&gt;" in page
    assert "<resolution>" not in page


@pytest.mark.parametrize(
    ("changes", "heading"),
    [
        ({"papers": ()}, "For orientation"),
        ({"costs": ()}, "What a fit costs"),
        ({"lineage": ()}, "Lineage"),
        ({"failures": ()}, "Failures"),
        ({"pictures": ()}, "Pictures"),
    ],
)
def test_a_section_without_content_is_left_out(changes, heading):
    assert f"<h2>{heading}" in report.html(make_report())
    assert f"<h2>{heading}" not in report.html(make_report(**changes))


def test_the_best_cell_is_marked_and_baselines_are_ruled_off():
    page = report.html(make_report())
    assert re.search(r'class="best">0\.200', page)
    assert not re.search(r'class="best">0\.100', page)
    ruled = re.findall(r'<tr class="border">\s*<th>([^<]*)', page)
    assert ruled == ["raw colour"]
    assert '<tr class="border">' not in report.html(make_report(baselines=()))


def test_write_leaves_the_page(tmp_path):
    path = report.write(make_report(), tmp_path / "report.html")
    assert path.read_text(encoding="utf-8") == report.html(make_report())


def test_every_paper_is_to_be_cited_once():
    page = report.html(make_report())
    cited = page[page.index("Citing these numbers") :]
    for paper in (GANORCON_APPENDIX_E, LAGM_FIGURE_4):
        assert cited.count(f"<i>{paper.paper}</i>") == 1
    assert "cite the method" not in report.html(make_report(papers=()))


def test_a_figure_without_values_has_no_table_and_no_caveat():
    page = report.html(make_report(papers=(LAGM_FIGURE_4,), lineage=(), costs=()))
    assert page.count("<table>") == 1
    assert "number by number" not in page
    assert LAGM_FIGURE_4.claim in page
