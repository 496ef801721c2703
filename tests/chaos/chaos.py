"""Disturb sweeps at seeded random moments and see whether the same table comes out.

    python tests/chaos/chaos.py --runs 50                    everything, about an hour on two cores
    python tests/chaos/chaos.py --runs 5 --kinds trial,head  some kinds of faults
    python tests/chaos/chaos.py --only 17                    run 17 of the same seed again
    python tests/chaos/chaos.py --runs 1 --together --kinds trial,checkpoint    one after the other

Each run gives the command of the smoke sweep until it has ended well, and does one or more faults
to it on the way. Then the table must equal the undisturbed one byte for byte, no stage that was
finished at a fault may have been run again, and no attempt may have hung or ended without a word.
Nothing but descendants of this process is ever killed. Linux only; the disk needs root.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.chaos import processes
from tests.chaos.faults import ANYWHERE, FAULTS, VARIANTS, Blow, Context
from tests.chaos.scene import Scene, Variant, can_mount

MOST_ATTEMPTS = 6
SECOND_FAULT = 0.3
"""Probability that a run has one more fault."""


@dataclass(frozen=True)
class Reference:
    """An undisturbed sweep: its table, its seconds, its number of stages."""

    table: bytes
    seconds: float
    stages: int


@dataclass
class Result:
    """What became of a disturbed sweep."""

    blows: list[Blow] = field(default_factory=list)
    attempts: int = 0
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)
    """What should not have happened; empty when all is well."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run; return 0 if every sweep ended with the undisturbed table."""
    options = _options(argv)
    processes.adopt_orphans()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # scenes end what they started
    kinds = [kind for kind in options.kinds if kind != "disk" or can_mount()]
    if len(kinds) < len(options.kinds):
        print("disk: skipped, this user cannot mount a small disk of its own")
    results = []
    numbers = range(options.runs) if options.only is None else [options.only]
    for number in numbers:
        result = disturbed(number, kinds, options)
        results.append(result)
        _print_run(number, result)
    return _summary(results)


def disturbed(number: int, kinds: list[str], options: argparse.Namespace) -> Result:
    """Run one sweep under faults that are a function of the seed and its number."""
    draw = random.Random(f"{options.seed}-{number}")
    wanted = list(kinds) if options.together else [kinds[number % len(kinds)]]
    variant = next((VARIANTS[kind] for kind in wanted if kind in VARIANTS), Variant())
    if not options.together and draw.random() < SECOND_FAULT:
        wanted.append(draw.choice([kind for kind in ANYWHERE if kind in kinds] or wanted))
    reference = undisturbed(variant.workers)
    moments = sorted(draw.uniform(0.02, 0.9) for _ in wanted)
    if variant.workers > 1:  # pretrainings on workers come first, and are soon over
        moments[0] = draw.uniform(0, 2 / reference.stages)
    due = list(zip(moments, wanted, strict=True))
    result, started = Result(), time.monotonic()
    with scene_of(variant) as scene:
        context = Context(scene, draw, options.pause)
        before: list[dict[str, tuple[int, str]]] = []
        limit = options.limit or 120 + 6 * reference.seconds + options.pause
        while result.attempts < MOST_ATTEMPTS:
            result.attempts += 1
            if _attempt(context, due, before, result, reference, limit):
                break
        else:
            result.faults.append(f"not finished after {MOST_ATTEMPTS} attempts")
        result.seconds = time.monotonic() - started
        _judge(scene, before, due, reference, result)
        if options.keep and result.faults:
            _keep(scene, options.keep, number)
    return result


@contextmanager
def scene_of(variant: Variant) -> Iterator[Scene]:
    """Give a scene a short directory of its own: Ray's sockets have names of 107 bytes at most."""
    with (
        tempfile.TemporaryDirectory(prefix="rc", dir="/tmp") as folder,
        Scene(Path(folder) / "s", variant) as scene,
    ):
        yield scene


def _attempt(
    context: Context,
    due: list[tuple[float, str]],
    before: list[dict[str, tuple[int, str]]],
    result: Result,
    reference: Reference,
    limit: float,
) -> bool:
    """Give the command once, doing what is due; return whether the sweep is finished."""
    scene, blows = context.scene, len(result.blows)
    words = "".join(scene.said())
    scene.start()
    driver, deadline = scene.driver, time.monotonic() + limit
    assert driver is not None
    while driver.poll() is None:
        context.look()
        done = scene.finished()
        if due and len(done) >= due[0][0] * reference.stages:
            blow = FAULTS[due[0][1]](context)
            if blow is not None:
                due.pop(0)
                before.append(done)
                result.blows.append(blow)
        if time.monotonic() > deadline:
            result.faults.append(f"HUNG: attempt {result.attempts} after {limit:.0f} s")
            processes.end_all()
        processes.reap(spare=driver.pid)
        time.sleep(0.05)
    mine = result.blows[blows:]
    for action in [action for blow in mine for action in blow.after]:
        action()
    killed = any(blow.ends for blow in mine)
    if driver.returncode and not killed and "".join(scene.said()) == words:
        result.faults.append(f"attempt {result.attempts} ended with {driver.returncode}, silently")
    again = any(blow.after for blow in mine)  # what could not be written then
    return driver.returncode == 0 and not again


def _judge(
    scene: Scene,
    before: list[dict[str, tuple[int, str]]],
    due: list[tuple[float, str]],
    reference: Reference,
    result: Result,
) -> None:
    result.faults += [f"nothing to do {kind!r} to" for _, kind in due]
    if scene.table() != reference.table:
        result.faults.append("another table" if scene.table() else "no table")
    after = scene.finished()
    again = {place for known in before for place in known if known[place] != after.get(place)}
    if again:
        result.faults.append(f"run again: {', '.join(sorted(again))}")
    if "Traceback" in "".join(scene.said()):
        result.faults.append("a traceback on the terminal")


@cache
def undisturbed(workers: int) -> Reference:
    """Run the sweep once without faults.

    Raises:
        RuntimeError: it failed.
    """
    with scene_of(Variant(workers=workers)) as scene:
        started = time.monotonic()
        scene.start()
        assert scene.driver is not None
        try:
            code = scene.driver.wait(timeout=900)
        except subprocess.TimeoutExpired:
            code = None
        table, seconds = scene.table(), time.monotonic() - started
        if code != 0 or table is None:
            raise RuntimeError(f"the undisturbed sweep ended with {code}: {scene.said()}")
        stages, work = len(scene.finished()), scene.work_seconds()
    kind = f"{workers} workers" if workers > 1 else "one worker"
    print(f"undisturbed, {kind}: {seconds:.0f} s, {stages} stages of {work:.0f} s in all")
    return Reference(table, seconds, stages)


def _keep(scene: Scene, directory: str, number: int) -> None:
    place = Path(directory)
    place.mkdir(parents=True, exist_ok=True)
    logs = [*scene.storage.glob("*/log.txt"), *scene.storage.glob("*/logs/*.txt")]
    texts = [*scene.said(), *(path.read_text(errors="replace") for path in logs)]
    (place / f"run-{number}.txt").write_text("\n\n=====\n\n".join(texts))


def _print_run(number: int, result: Result) -> None:
    blows = ", ".join(f"{blow.kind} ({blow.what})" for blow in result.blows) or "no fault"
    redone = sum(blow.redone for blow in result.blows)
    verdict = "; ".join(result.faults) or "same table"
    print(
        f"run {number:3}  {blows}: {result.attempts} attempts, {result.seconds:.0f} s, "
        f"{redone:.1f} s of work redone: {verdict}",
        flush=True,
    )


def _summary(results: list[Result]) -> int:
    blows = [blow for result in results for blow in result.blows]
    good = [result for result in results if not result.faults]
    kinds = Counter(blow.kind for blow in blows)
    reference = undisturbed(1).seconds
    lost = sum(result.seconds - reference for result in results)
    print("\nfaults by kind: " + ", ".join(f"{kind} {count}" for kind, count in kinds.items()))
    print(f"work redone: {sum(blow.redone for blow in blows):.1f} s in {len(results)} runs")
    print(f"time lost: {lost:.0f} s against undisturbed sweeps, {lost / len(results):.0f} s a run")
    print(f"{len(good)} of {len(results)} runs ended with the table of the undisturbed sweep")
    return 0 if len(good) == len(results) else 1


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    flags = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    flags.add_argument("--runs", type=int, default=50, help="disturbed sweeps (default: 50)")
    flags.add_argument("--only", type=int, help="the number of one run, instead of --runs")
    flags.add_argument("--seed", type=int, default=0, help="of moments and victims (default: 0)")
    flags.add_argument(
        "--kinds",
        type=_kinds,
        default=list(FAULTS),
        help=f"comma-separated, of {', '.join(FAULTS)} (default: all)",
    )
    flags.add_argument("--together", action="store_true", help="all kinds in every run")
    flags.add_argument("--pause", type=float, default=60, help="seconds (default: 60)")
    flags.add_argument("--limit", type=float, help="seconds after which an attempt hangs")
    flags.add_argument("--keep", metavar="DIR", help="where the logs of bad runs go")
    return flags.parse_args(argv)


def _kinds(text: str) -> list[str]:
    kinds = text.split(",")
    for kind in kinds:
        if kind not in FAULTS:
            raise argparse.ArgumentTypeError(f"{kind!r}: allowed are {', '.join(FAULTS)}")
    return kinds


if __name__ == "__main__":
    sys.exit(main())
