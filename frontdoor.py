"""How the front door answers: a user's mistake is one message and status 2, an interruption one line and status 130."""

import signal
from typing import Any

import click

from engine.errors import NextBestError

EXTRAS = "pip install 'nextbest[serving,training]'"
ROOMS = ("engine", "envs", "serving", "training")


class UserError(click.ClickException):
    """A user's mistake: its message on stderr, exit status 2."""

    exit_code = 2


class FrontDoor(click.Group):
    """Lists the verbs in the order of the loop; turns a user's mistake into one message instead of a traceback."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002, click's signature
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # a stopped job ends like an interrupted one
        try:
            return super().invoke(ctx)
        except NextBestError as mistake:
            raise UserError(str(mistake)) from mistake
        except ModuleNotFoundError as missing:
            package = (missing.name or "").partition(".")[0]
            if package in {"", *ROOMS}:
                raise
            raise UserError(f"{ctx.invoked_subcommand} needs the package {package}: {EXTRAS}") from missing
        except KeyboardInterrupt:
            click.echo("Interrupted.", err=True)
            ctx.exit(130)
        finally:
            signal.signal(signal.SIGTERM, before)
