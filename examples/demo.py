"""`make demo`: the whole loop, told as a story. Every chapter calls the verb that you would type yourself.

python -m examples.demo [retail | complete-journey | open-bandit]
"""

import json
import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from itertools import count
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.panel import Panel
from rich.progress import track as progress
from rich.rule import Rule
from rich.table import Table

from engine.bundle import Bundle
from engine.errors import NextBestError
from engine.records import Floats
from examples.live import live, replayed

if TYPE_CHECKING:
    from training.evaluation import Report

RUNS = Path("runs")
BRING_YOUR_OWN = ("[bold]docs/bring-your-own-data.md[/bold]", "  your own log, with the same verbs")
CUSTOMERS, DAYS = 6000, 28
LIVE_CUSTOMERS, LIVE_SEED = 600, 900
REPLAYED_CUSTOMERS = 200

console = Console()


def retail() -> None:
    """A simulated retailer: the truth is known, so every claim can be held against it."""
    from envs.simulate import run as simulate
    from envs.worlds import world

    folder = _fresh("retail")
    log, spec = folder / "log", folder / "log" / "nextbest.toml"
    _chapter("A log", "A simulated shop contacts its customers by its own soft rules, for four weeks.")
    simulate("retail", log, CUSTOMERS, DAYS, seed=1)
    bundle = _learn(spec, str(log), "retail", folder)
    _chapter("Live", "The champion now runs as a gRPC service. New customers meet it over a real socket.")
    lived = live(world("retail"), bundle, folder / "store.db", LIVE_CUSTOMERS, DAYS, LIVE_SEED)
    gain, low, high = lived.lift
    console.print(
        f"{len(lived.latency):,} decisions asked with Decide, {lived.events:,} events told with Track, "
        f"{LIVE_CUSTOMERS} customers over {DAYS} days."
    )
    console.print(
        f"Worth per customer: [bold]{lived.realised.mean():.2f} EUR[/bold] with the champion, "
        f"{lived.logging.mean():.2f} EUR had the shop gone on as before (same customers, same luck)."
    )
    console.print(f"Realised lift: [bold]{gain:+.2f} EUR[/bold] per customer, 95 % interval {low:+.2f} to {high:+.2f}.")
    _tell_service(lived.latency, lived.skew)
    shopper = '{"loyalty": "new", "device": "app", "weather": "sun", "availability": "plenty", "basket_value": 40}'
    _next(folder, shopper)


def complete_journey() -> None:
    """A year of a grocer's campaigns, as they really happened; who was chosen and why is not in the data."""
    from examples.complete_journey.convert import convert
    from training.journeys import Journeys
    from training.logs import read_log

    folder = _fresh("complete-journey")
    log = folder / "log"
    spec = Path("examples/complete_journey/nextbest.toml")
    _chapter("A log", "2,469 households, a year of baskets, campaigns A, B and C, coupons redeemed.")
    convert(log)
    bundle = _learn(spec, str(log), "complete-journey", folder)
    _chapter("Live", "The champion runs as a gRPC service; households of the log pass through it once more.")
    served = Bundle.load(bundle).spec
    journeys = Journeys.of(served, read_log(served, str(log)))
    some = journeys.take(np.arange(min(REPLAYED_CUSTOMERS, len(journeys.customer_ids))))
    latency, events, skew = replayed(some, bundle, folder / "store.db")
    console.print(f"{len(latency):,} decisions asked with Decide, {events:,} logged events told with Track.")
    console.print("Nobody knows how these households would have answered: there is no true value to print.")
    _tell_service(latency, skew)
    _next(folder, json.dumps({"starts": "a"}))


def open_bandit() -> None:
    """Two policies of a fashion shop, each estimated from the other's log, beside what that other log says."""
    from examples.open_bandit.convert import convert

    folder = _fresh("open-bandit")
    _chapter("Logs", "A random policy and a learning one (Bernoulli TS) chose items, in three campaigns; 10,000 each.")
    logs = convert(folder)
    campaigns = sorted({campaign for campaign, _ in logs})
    _chapter("Train", "What did each policy do? A behaviour clone of every log becomes a bundle.")
    clones = {
        key: _clone(log, f"open-bandit-{key[0]}-{key[1]}") for key, log in progress(logs.items(), "cloning policies")
    }
    console.print(f"{len(clones)} logs read, checked and cloned; each training's report is in {folder}/*/*/train.txt.")
    _chapter("Evaluate", "Each policy is estimated from the log of the other. The truth is what its own log says.")
    table = Table("campaign", "policy", "from the log of", "clicks per 1,000 [95 %]", "ESS", "truth", "that log's own")
    for campaign in campaigns:
        for policy, other in (("bts", "random"), ("random", "bts")):
            report = _estimate(clones[campaign, policy], logs[campaign, other], logs[campaign, policy])
            table.add_row(campaign, policy, other, *_clicks(report))
    console.print(table)
    console.print(
        "Each log holds 38 to 69 clicks, so the truth itself is uncertain by about 15 %. Where the log of one policy "
        "cannot tell about the other, there is no number: an estimate without support is worse than none."
    )
    _end(f"Logs: {folder}/      Runs, plots and models: mlruns/", ["make ui", *BRING_YOUR_OWN])


def _clone(log: Path, experiment: str) -> Path:
    """The bundle of the behaviour clone of a log; what training says goes to a file beside the log."""
    from training.candidates import CLONE
    from training.tracking import Tracking
    from training.train import Wishes
    from training.train import run as train

    with (log / "train.txt").open("w") as said, redirect_stdout(said):
        run = train(log / "nextbest.toml", str(log), experiment, Wishes(steps=10_000, allow_uncertified=True))
    return next(child.bundle for child in Tracking().candidates(run) if child.name == CLONE)


def _estimate(bundle: Path, log: Path, truth: Path) -> "Report":
    from training.evaluate import run as evaluate

    with (log / "evaluate.txt").open("w") as said, redirect_stdout(said):
        return evaluate(candidates=[bundle], logs=(str(log), str(truth)))


def _clicks(report: "Report") -> tuple[str, str, str, str]:
    """Estimate with interval, effective sample size, truth with its standard error, the log's own rate."""
    (found,) = report.evaluations
    best = found.values[0]
    said = "no support"
    if best.value is not None and best.lower is not None and best.upper is not None:
        said = f"{1e3 * best.value:.1f} [{1e3 * best.lower:.1f}, {1e3 * best.upper:.1f}]"
    truth = f"{1e3 * found.truth.value:.1f} ± {1e3 * found.truth.value_error:.1f}" if found.truth else "?"
    return said, f"{best.ess:,.0f}", truth, f"{1e3 * (report.logged.value or 0.0):.1f}"


def _learn(spec: Path, log: str, name: str, folder: Path) -> Path:
    """Check, train, evaluate, promote, export: from a log to the champion's bundle."""
    from training.evaluate import run as evaluate
    from training.export import run as export
    from training.gate import run as promote
    from training.logs import run as check
    from training.train import run as train

    _chapter("Check", "Before anything is learned: can this log be believed, and what does it cover?")
    check(spec, log)
    _chapter("Train", "An environment is fitted to the log and checked; policies are trained in it and beside it.")
    run = train(spec, log, name)
    _chapter("Evaluate", "Every candidate is judged as the bundle that would be served, on customers no learner saw.")
    evaluate(run, model=name)
    _chapter("Promote", "One door to champion: support, certificate, then a lower bound on the gain over the log.")
    promote(run, name)
    bundle = folder / "champion"
    export(f"{name}@champion", bundle)
    return bundle


def _tell_service(latency: Floats, skew: float) -> None:
    p50, p99 = np.percentile(latency * 1e3, [50, 99])
    console.print(
        f"Latency at the client: median {p50:.1f} ms, 99th percentile {p99:.1f} ms, with 8 calls in flight and the "
        "client and the customers on the same cores."
    )
    console.print(
        "One log: training read back what the service wrote and computed every propensity again; the largest "
        f"difference is {skew:.1e}."
    )


def _fresh(name: str) -> Path:
    """An empty folder for what the demo writes."""
    folder = RUNS / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


_numbers = count(1)


def _chapter(title: str, what: str) -> None:
    console.print()
    console.print(Rule(f"[bold]{next(_numbers)} · {title}[/bold]", align="left"))
    console.print(f"[dim]{what}[/dim]")


def _next(folder: Path, context: str) -> None:
    todo = [
        "[bold]make ui[/bold]",
        "  compare the candidates in MLflow: estimates, calibration, learning curves, what each one sends",
        f"[bold]nextbest serve {folder}/champion --store {folder}/new.db[/bold]",
        "  answer over gRPC",
        f"[bold]nextbest decide somebody --explain --context '{context}'[/bold]",
        "  ask it, from another terminal",
        *BRING_YOUR_OWN,
    ]
    _end(f"Log, store and champion: {folder}/      Runs, plots and models: mlruns/", todo)


def _end(where: str, todo: Sequence[str]) -> None:
    console.print()
    text = "\n".join([where, "", *todo])
    console.print(Panel(text, title="Where everything is, and what to type next", title_align="left"))
    console.print("[dim]nextbest is in .venv/bin; `. .venv/bin/activate` puts it on your PATH.[/dim]")


DEMOS: dict[str, Callable[[], None]] = {
    "retail": retail,
    "complete-journey": complete_journey,
    "open-bandit": open_bandit,
}


def main(argv: list[str]) -> int:
    name = argv[0] if argv else "retail"
    if name not in DEMOS:
        console.print(f"DATA={name} is unknown; there is: {', '.join(DEMOS)}")
        return 2
    began = perf_counter()
    try:
        DEMOS[name]()
    except NextBestError as mistake:
        console.print(f"Error: {mistake}", style="red", markup=False)
        return 2
    except KeyboardInterrupt:
        console.print("Interrupted.")
        return 130
    console.print(f"[dim]{perf_counter() - began:.0f} seconds.[/dim]")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
