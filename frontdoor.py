"""How the front door answers: a user's mistake is one message and status 2, an interruption one line and status 130."""

import errno
import signal
import sqlite3
from typing import Any

import click

from engine.errors import NextBestError

EXTRAS = "pip install 'nextbest[serving,training]'"
ROOMS = ("engine", "envs", "serving", "training")
FULL = "no space is left on the disk; free some and type it again (`nextbest train --resume` goes on with a training)"


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
        except Exception as problem:
            if not _disk_is_full(problem):
                raise
            raise UserError(FULL) from problem
        except KeyboardInterrupt:
            click.echo("Interrupted.", err=True)
            ctx.exit(130)
        finally:
            signal.signal(signal.SIGTERM, before)


def _disk_is_full(problem: BaseException | None) -> bool:
    """Is that what lies at the bottom of it? MLflow and its database wrap it several times."""
    seen: set[int] = set()
    while problem is not None and id(problem) not in seen:
        seen.add(id(problem))
        if isinstance(problem, OSError) and problem.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if isinstance(problem, sqlite3.Error) and problem.sqlite_errorname == "SQLITE_FULL":
            return True
        problem = problem.__cause__ or problem.__context__
    return False
