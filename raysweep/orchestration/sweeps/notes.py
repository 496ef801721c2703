"""What a reader of a table must know of single numbers in it."""

from __future__ import annotations

from raysweep.orchestration.planning.plan import Plan
from raysweep.orchestration.store.stages import StageStore

DIVISIBLE = ("pretrain", "fit", "distill")
"""Stages that train: whose results micro-batches may change."""


def notes_on(plan: Plan, store: StageStore) -> tuple[str, ...]:
    """Return a sentence on every stage whose batch statistics are not those of its settings."""
    rows: dict[str, list[str]] = {}
    for trial in plan.trials:
        for stage in trial.chain:
            if stage.name in DIVISIBLE and store.done(stage):
                changed = store.record(stage)["metrics"].get("batch_statistics")
                if changed is not None:
                    text = (
                        f"{stage} ran out of memory and took every batch in parts: its batch "
                        f"statistics are {changed}, and a larger machine may give other numbers"
                    )
                    rows.setdefault(text, []).append(trial.row)
    return tuple(f"{', '.join(dict.fromkeys(rows[text]))}: {text}" for text in rows)
