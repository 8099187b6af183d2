"""What can go wrong, as one tree. The command line turns each into one line and an exit code.

    CaiError
    ├── Mistake            a person's: says where, what, and what to do next     exit 2
    │   └── Refused        the endpoint will answer nothing: bad key, no such model
    ├── CallFailed         a model's: becomes a Failure row, never a number
    │   ├── Transient      worth another try (time-out, 429, 5xx, malformed body)
    │   └── Permanent      the same question will fail again (context too long, filter)
    ├── TooManyFailures    the run finished, more failed than the recipe allows   exit 3
    ├── BudgetReached      a limit on cost, calls or tokens stopped the run       exit 4
    └── GateFailed         a check or an audit passed its threshold               exit 100

Left out on purpose: one class per cause. `CallFailed.kind` is the closed, countable word for that.
"""

from __future__ import annotations


class CaiError(Exception):
    """Everything this package raises on purpose."""

    exit_code = 1


class Mistake(CaiError):
    """A person's mistake: `where` it is (file:line, option), `what` is wrong, and the `fix`."""

    exit_code = 2

    def __init__(self, where: str, what: str, fix: str = "") -> None:
        self.where, self.what, self.fix = where, what, fix
        super().__init__(f"{where}: {what}" + (f"; {fix}" if fix else ""))


class Refused(Mistake):
    """An endpoint that refuses every call (401, 403, unknown model): stop now, not after 10,000 failures."""


class CallFailed(CaiError):
    """One call to a model did not give an answer. `kind` is a short countable word, `attempts` how many tries."""

    answer: object = None
    """What the endpoint sent with the error, where that is JSON: it may say what the call used."""

    def __init__(self, kind: str, message: str, *, attempts: int = 1) -> None:
        self.kind, self.message, self.attempts = kind, message, attempts
        super().__init__(f"{kind}: {message}")


class Transient(CallFailed):
    """Worth asking again; `retry_after` in seconds when the endpoint named a time."""

    def __init__(self, kind: str, message: str, *, attempts: int = 1, retry_after: float | None = None) -> None:
        self.retry_after = retry_after
        super().__init__(kind, message, attempts=attempts)


class Permanent(CallFailed):
    """The same question would fail again."""


class TooManyFailures(CaiError):
    """The run is complete and kept, but more prompts failed than `max_failure_share` allows."""

    exit_code = 3


class BudgetReached(CaiError):
    """A limit on cost, calls or tokens was reached; what was done is kept and the run can go on."""

    exit_code = 4


class GateFailed(CaiError):
    """A check found something past its threshold."""

    exit_code = 100
