"""Everything that can go wrong through a user's input, as one tree.

NextBestError                 a mistake that its message explains; the command line prints it and exits 2
├── SpecError                 nextbest.toml: file, table, key, what was found, what is expected
├── CatalogueError            an action, channel, content or timing that does not exist
├── ClockError                an unknown time zone, an instant without a zone
├── LogError                  a log: file, row, column, what was found, what is expected
├── RequestError              a request to decide or to track: a list of field violations
├── BundleError               a bundle that is missing, corrupt or does not fit
├── StoreError                a store that cannot be read or written
├── TrainingError             a training job that cannot start or go on
└── ServiceError              a service that cannot start or be reached
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches


class NextBestError(Exception):
    """A user's mistake; the message alone must be enough to mend it."""


class SpecError(NextBestError):
    """nextbest.toml says something that cannot be."""


class CatalogueError(NextBestError):
    """An action, channel, content or timing that the catalogue does not hold."""


class ClockError(NextBestError):
    """A time zone that does not exist, or an instant without a zone."""


class LogError(NextBestError):
    """A log that cannot be read as the spec says."""


class BundleError(NextBestError):
    """A bundle that is missing, corrupt, or made for something else."""


class StoreError(NextBestError):
    """A store that cannot be opened, read or written."""


class TrainingError(NextBestError):
    """A training job that cannot start or go on."""


class ServiceError(NextBestError):
    """A service that cannot start or cannot be reached."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One field of a request that is wrong: its path (`context.loyalty`) and what is wrong with it."""

    field: str
    description: str


class RequestError(NextBestError):
    """A request with at least one bad field; `violations` names all that were found."""

    def __init__(self, violations: Iterable[Violation]) -> None:
        self.violations = tuple(violations)
        super().__init__("; ".join(f"{v.field}: {v.description}" for v in self.violations))


def nearest(name: str, known: Sequence[str]) -> str:
    """The end of a message: `; did you mean 'x'?` or the known names, at most eight of them."""
    close = get_close_matches(name, known, n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    shown = ", ".join(repr(k) for k in list(known)[:8])
    more = f" and {len(known) - 8} more" if len(known) > 8 else ""
    return f"; known: {shown}{more}" if known else "; none is declared"
