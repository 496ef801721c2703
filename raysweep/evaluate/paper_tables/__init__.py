"""The papers' printed tables as data, one module per paper.

A constant is named after its paper and what the paper calls it. :data:`PAPER_TABLES` finds them by
id.
"""

from __future__ import annotations

from raysweep.evaluate.paper_tables.ganorcon import (
    GANORCON_APPENDIX_E,
    GANORCON_TABLE_2,
    GANORCON_TABLE_3,
)
from raysweep.evaluate.paper_tables.lagm import (
    LAGM_FIGURE_2,
    LAGM_FIGURE_4,
    LAGM_TABLE_1A,
    LAGM_TABLE_1B,
    LAGM_TABLE_2,
)
from raysweep.evaluate.paper_tables.lagm_appendix import (
    LAGM_TABLE_C2,
    LAGM_TABLE_C5,
    LAGM_TABLE_C6,
    LAGM_TABLE_C7,
    LAGM_TABLE_C8,
    LAGM_TABLE_C9,
    LAGM_TABLE_C10,
    LAGM_TABLE_C11,
    LAGM_TABLE_C13,
)
from raysweep.evaluate.paper_tables.pftgan import PFTGAN_TABLE_1, PFTGAN_TABLE_2, PFTGAN_TABLE_3
from raysweep.evaluate.papers import PaperTable

__all__ = [
    "GANORCON_APPENDIX_E",
    "GANORCON_TABLE_2",
    "GANORCON_TABLE_3",
    "LAGM_FIGURE_2",
    "LAGM_FIGURE_4",
    "LAGM_TABLE_C2",
    "LAGM_TABLE_1A",
    "LAGM_TABLE_1B",
    "LAGM_TABLE_2",
    "LAGM_TABLE_C5",
    "LAGM_TABLE_C6",
    "LAGM_TABLE_C7",
    "LAGM_TABLE_C8",
    "LAGM_TABLE_C9",
    "LAGM_TABLE_C10",
    "LAGM_TABLE_C11",
    "LAGM_TABLE_C13",
    "PAPER_TABLES",
    "PFTGAN_TABLE_1",
    "PFTGAN_TABLE_2",
    "PFTGAN_TABLE_3",
]

PAPER_TABLES: dict[str, PaperTable] = {
    table.id: table
    for table in (
        *(GANORCON_APPENDIX_E, GANORCON_TABLE_2, GANORCON_TABLE_3),
        *(LAGM_TABLE_1A, LAGM_TABLE_1B, LAGM_TABLE_2, LAGM_FIGURE_2, LAGM_FIGURE_4),
        *(LAGM_TABLE_C2, LAGM_TABLE_C5, LAGM_TABLE_C6, LAGM_TABLE_C7, LAGM_TABLE_C8),
        *(LAGM_TABLE_C9, LAGM_TABLE_C10, LAGM_TABLE_C11, LAGM_TABLE_C13),
        *(PFTGAN_TABLE_1, PFTGAN_TABLE_2, PFTGAN_TABLE_3),
    )
}
