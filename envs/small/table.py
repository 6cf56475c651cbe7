"""What policies are worth in the small worlds: `python -m envs.small.table` prints it.

All values are computed; the last column is measured, so that anybody can see that the two agree.
"""

import argparse
from dataclasses import dataclass

import numpy as np
from rich.console import Console

from engine.records import DAY, HOLD
from envs.simulate import value
from envs.small.solve import Problem
from envs.small.world import START, SmallWorld
from envs.worlds import NAMES, world

HEAD = "| world | hold | logging | best constant | greedy | optimum |"
DAYS, SEED = 28, 0
LATER = START + DAYS * DAY
"""Where the days after a log of the default length begin."""


@dataclass(frozen=True, slots=True)
class Row:
    """Values per customer over DAYS days, in EUR, discounted. best: the best constant's action.

    measured, error: mean and standard error of the optimum's returns in a simulation.
    """

    name: str
    hold: float
    logging: float
    constant: float
    best: str
    greedy: float
    optimum: float
    measured: float
    error: float


def rows(customers: int) -> list[Row]:
    """One for each small world; two for the one whose contents change after the log."""
    small = [place for place in map(world, NAMES) if isinstance(place, SmallWorld)]
    cases = [(place, START) for place in small]
    cases += [(place, LATER) for place in small if place.eligible(1, START).sum() < place.eligible(1, LATER).sum()]
    return [_row(place, start, customers) for place, start in cases]


def _row(place: SmallWorld, start: float, customers: int) -> Row:
    problem = Problem.of(place, DAYS, start)
    best, constant = problem.best_constant()
    optimum = problem.optimum()
    returns = value(place, optimum, customers, DAYS, SEED, start)
    return Row(
        name=place.name if start == START else f"{place.name}, later",
        hold=problem.value(problem.constant(HOLD)),
        logging=problem.value(place.logging_policy()),
        constant=constant,
        best=str(place.spec.catalogue.actions[best]).removesuffix("/now"),
        greedy=problem.value(problem.greedy()),
        optimum=problem.value(optimum),
        measured=float(returns.mean()),
        error=float(returns.std() / np.sqrt(customers)),
    )


def main(arguments: list[str] | None = None) -> None:
    """Print the table in Markdown."""
    parser = argparse.ArgumentParser(prog="python -m envs.small.table", description=main.__doc__)
    parser.add_argument(
        "--customers", type=int, default=4000, help="how many meet the optimum in the last column (4000)"
    )
    asked = parser.parse_args(arguments)
    console = Console()
    console.print(f"{HEAD} optimum, measured |", markup=False, soft_wrap=True)
    console.print("|---|" + "---:|" * 6, markup=False, soft_wrap=True)
    for row in rows(asked.customers):
        console.print(f"{line(row)} {row.measured:.2f} ± {row.error:.2f} |", markup=False, soft_wrap=True)


def line(row: Row) -> str:
    """What is computed, as in the README."""
    name, _, when = row.name.partition(",")
    values = (
        f"{row.hold:.2f}",
        f"{row.logging:.2f}",
        f"{row.constant:.2f} ({row.best})",
        f"{row.greedy:.2f}",
        f"{row.optimum:.2f}",
    )
    return f"| `{name}`{when and ','}{when} | {' | '.join(values)} |"


if __name__ == "__main__":
    main()
