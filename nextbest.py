"""The front door: `nextbest <verb>`. Each verb is one lazy line into a room, so that `nextbest --help` is quick."""

from pathlib import Path
from typing import Any

import click

from frontdoor import FrontDoor

FILE = click.Path(dir_okay=False, path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)
SEED = click.IntRange(0, 2**32 - 1)  # what numpy and torch both take

WORLDS = ("retail", "fatigue", "null", "confounded", "delayed", "rare", "drift", "new_content")
"""As in envs/worlds.py, written out because help imports no room; a test compares."""

TARGET = click.option("--target", default="127.0.0.1:50051", show_default=True, help="host:port of the service.")


@click.group(
    "nextbest", cls=FrontDoor, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(package_name="nextbest", message="nextbest %(version)s")
def main() -> None:
    """Learns from a company's log which channel, content and timing is best for each customer over the whole
    journey, proves it off-line, and serves it over gRPC.

    The verbs follow the loop. Mistakes in what you give them end with one message and exit status 2.
    """


@main.command()
@click.option("--world", default="retail", show_default=True, help=f"Which simulated company: {', '.join(WORLDS)}.")
@click.option(
    "--env",
    type=click.Choice(["world", "learned"]),
    default="world",
    show_default=True,
    help="learned: the environment of a training instead; held-out customers of its log meet its behaviour clone.",
)
@click.option("--run", "run_id", help="With --env learned: the training's MLflow run. [default: the latest]")
@click.option(
    "--out", type=FOLDER, required=True, help="Folder for the log: new, or an earlier simulated log to replace."
)
@click.option("--customers", type=click.IntRange(1), help="How many customers. [default: 2000; of a log: all]")
@click.option("--days", type=click.IntRange(1), default=28, show_default=True, help="How long they are observed.")
@click.option("--seed", type=SEED, default=0, show_default=True, help="The same seed gives the same log.")
@click.option("--policy", type=FOLDER, help="A bundle that decides. [default: the company's own soft policy]")
def simulate(env: str, world: str, run_id: str | None, customers: int | None, days: int, **options: Any) -> None:
    """Write the log of a simulated company.

    Reads: nothing, or the bundle of --policy; with --env learned a training in mlruns/ and its log.

    Writes: OUT/decisions.parquet, events.parquet and customers.parquet (the log, with exact propensities),
    OUT/nextbest.toml (its spec) and OUT/world.json.
    """
    if env == "learned":
        from training.learned import run as run_learned

        run_learned(customers=customers, run_id=run_id, **options)
    else:
        from envs.simulate import run

        run(world, days=days, customers=customers or 2000, **options)


@main.command()
@click.argument("spec", type=FILE)
@click.option("--log", help="The log: a folder, or the URL of a database that Ibis can read.")
def check(spec: Path, log: str | None) -> None:
    """Check a spec and, with --log, the quality of a log.

    Reads: SPEC (nextbest.toml) and the tables decisions, events and customers of the log.

    Writes: a report on the terminal. Exit status 2 when something must be mended before training.
    """
    from training.logs import run

    run(spec, log)


@main.command()
@click.argument("spec", type=FILE, required=False)
@click.option("--log", help="The log: a folder, or the URL of a database that Ibis can read.")
@click.option("--experiment", help="MLflow experiment. [default: the spec's name]")
@click.option("--seed", type=SEED, help="Seed of everything that is random. [default: 0]")
@click.option("--steps", type=click.IntRange(1), help="Decisions PPO sees in training. [default: by the log's size]")
@click.option(
    "--allow-uncertified", flag_value=True, type=bool, help="Go on when the environment fails its certificate."
)
@click.option(
    "--pessimism/--no-pessimism",
    default=None,
    help="Take doubt from the environment's rewards, as much as the validation customers ask for. [default: do]",
)
@click.option("--again", metavar="RUN_ID", help="Do this training once more, and compare the bundles' digests.")
@click.option(
    "--resume",
    metavar="[RUN_ID]",
    is_flag=False,
    flag_value="latest",
    help="Go on with a training that was interrupted; without RUN_ID the latest one, of SPEC and --log if given.",
)
def train(
    spec: Path | None, log: str | None, experiment: str | None, again: str | None, resume: str | None, **wishes: Any
) -> None:
    """Fit the environment to a log and train policies.

    Reads: SPEC and the log; with --again or --resume the training's own, from its run in mlruns/.

    Writes: one MLflow run (mlruns/) with a child per candidate: parameters, metrics, plots and its bundle. The same
    log and seed give the same bundles, byte for byte, on the same machine.
    """
    from training.start import run

    run(spec, log, experiment, wishes, again, resume)


@main.command()
@click.argument("run_id", required=False)
@click.option("--trials", type=click.IntRange(1), default=20, show_default=True, help="Tries in all, earlier included.")
@click.option("--seconds", type=click.IntRange(1), help="Begin no try after so many seconds. [default: no limit]")
@click.option("--seed", type=SEED, default=0, show_default=True, help="The same seed gives the same tries.")
def tune(run_id: str | None, trials: int, seconds: int | None, seed: int) -> None:
    """Look for better settings for PPO, judged by validation customers.

    An interrupted search goes on when it is started again.

    Reads: the MLflow run RUN_ID (default: the latest training): its environment, its behaviour clone, its log.

    Writes: one MLflow run with a child per try; the search in mlruns/studies.db; when a try is better, a new training
    that has it as the candidate ppo_tuned beside all earlier ones, for `evaluate` and `promote`.
    """
    from training.tune import run

    run(run_id, trials, seconds, seed)


@main.command()
@click.argument("run_id", required=False)
@click.option("--bundle", "bundles", type=FOLDER, multiple=True, help="Judge these bundles instead of a training's.")
@click.option("--log", help="Judge on this log instead, all of its customers; needed with --bundle.")
@click.option(
    "--truth", help="A log that the first bundle's policy wrote itself: its value is shown beside the estimate."
)
@click.option("--model", help="Registered model whose champion is judged beside them. [default: the spec's name]")
@click.option(
    "--look",
    metavar="K",
    type=click.IntRange(1),
    help="You look again and again: this is the K-th time. All looks share the error of one. [default: the only look]",
)
@click.option(
    "--contacts",
    metavar="TIMES",
    type=click.FloatRange(0, min_open=True),
    default=2.0,
    help="How many times the log's contacts per customer and week a policy may make. [default: 2]",
)
def evaluate(
    run_id: str | None, bundles: tuple[Path, ...], log: str | None, truth: str | None, model: str | None, **terms: Any
) -> None:
    """Estimate what the trained policies are worth.

    Off-policy, with intervals: nobody has met these policies yet.

    Reads: the bundles of the MLflow run RUN_ID (default: the latest training) and the held-out customers of its log;
    or what the options say.

    Writes: the comparison on the terminal; estimates, plots and a report into that run, unless --bundle or --log.
    """
    from training.evaluate import run
    from training.evaluation import Terms

    run(run_id, bundles, (log, truth), model, Terms(**terms))


@main.command()
@click.argument("run_id", required=False)
@click.option("--model", help="Name of the registered model. [default: the spec's name]")
@click.option("--force", metavar="CANDIDATE", help="Promote this one whatever the gate says; the version will say so.")
@click.option(
    "--margin",
    type=click.FloatRange(0),
    default=0.0,
    show_default=True,
    help="How much more per journey than the champion a new one has to earn for certain, in the reward's currency.",
)
def promote(run_id: str | None, model: str | None, force: str | None, margin: float) -> None:
    """Make the best policy champion, if the evidence allows.

    When no candidate passes the gate, the champion stays; where there is none, the behaviour clone is promoted: it goes
    on as the log did, with known probabilities.

    Reads: the evaluation in the MLflow run RUN_ID (default: the latest training).

    Writes: a new version of the registered model with the alias `champion`, and the reasons.
    """
    from training.gate import run

    run(run_id, model, force, margin)


@main.command()
@click.argument("model")
@click.option("--out", type=FOLDER, required=True, help="Folder for the bundle, new or empty.")
def export(model: str, out: Path) -> None:
    """Fetch the bundle of a registered model.

    Reads: MODEL in the MLflow registry, as NAME@ALIAS (retail@champion) or NAME/VERSION (retail/3).

    Writes: OUT with policy.onnx, actions.onnx, the spec and card.json.
    """
    from training.export import run

    run(model, out)


@main.command()
@click.argument("bundle", type=FOLDER)
@click.option("--store", type=FILE, required=True, help="SQLite file with decisions, events and states.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=50051, show_default=True, help="0 takes a free one.")
@click.option("--salt", default="", help="Secret of the draws. [default: the store's, made up for a new one]")
@click.option("--request-clock", is_flag=True, help="Every request says its time; for simulations only.")
def serve(bundle: Path, store: Path, host: str, port: int, salt: str, request_clock: bool) -> None:
    """Answer over gRPC, until SIGTERM or Ctrl-C.

    Both let the calls under way end. One process at a time may use a store.

    Reads: the folder BUNDLE, and the store when it exists.

    Writes: the store: every decision and event is in it before it is acknowledged.
    """
    from serving.server import run

    run(bundle, store, host, port, salt, request_clock)


@main.command()
@click.argument("customer_id")
@TARGET
@click.option("--context", default="{}", help="JSON object with the features that the spec declares.")
@click.option("--request-id", help="Makes the call repeatable: the same id gets the same answer. [default: a new one]")
@click.option("--time-zone", help="The customer's IANA zone, e.g. Europe/Berlin. [default: the remembered one, or UTC]")
@click.option("--moment", help="One of the spec's moments.")
@click.option("--at", help="Time of the decision (ISO-8601 with zone), for a service with --request-clock.")
@click.option("--explain", is_flag=True, help="Show every action: its probability, or why it was not eligible.")
def decide(target: str, customer_id: str, context: str, **options: Any) -> None:
    """Ask the service: what next for this customer?

    Reads: the answer of the service at --target.

    Writes: the decision into the store of the service, and on the terminal.
    """
    from serving.client import decide as ask

    ask(target, customer_id, context, **options)


@main.command()
@click.argument("customer_id")
@click.argument("kind")
@TARGET
@click.option("--value", type=float, help="In the unit that the spec declares for this kind.")
@click.option("--decision-id", help="The decision that the event answers to.")
@click.option("--event-id", help="Makes the call repeatable: the same id counts once. [default: a new one]")
@click.option("--channel", help="Channel that the event belongs to. [default: that of the decision]")
@click.option("--content", help="Content that the event belongs to. [default: that of the decision]")
@click.option("--at", help="When it happened (ISO-8601 with zone). [default: now]")
@click.option("--properties", default="{}", help="JSON object of texts that are kept with the event.")
def track(target: str, customer_id: str, kind: str, **options: Any) -> None:
    """Tell the service what a customer did.

    Reads: the receipt of the service at --target.

    Writes: one event of KIND into the store of the service, and its id on the terminal.
    """
    from serving.client import track as tell

    tell(target, customer_id, kind, **options)


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(1, 65535), default=5000, show_default=True, help="Port to listen on.")
def ui(host: str, port: int) -> None:
    """Compare runs and models in the MLflow UI.

    Reads: mlruns/ in the folder where it is started.

    Writes: nothing but what you change in the UI.
    """
    from training.views import ui as show

    show(port=port, host=host)


if __name__ == "__main__":
    main()
