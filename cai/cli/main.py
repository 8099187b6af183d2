"""The command line: every command, mounted; and how an error becomes one line and an exit code.

Every import of the package happens inside a command, so that `cai --help` answers at once and a command that needs
no model never loads one.
"""

from __future__ import annotations

import errno
import os
import sys
from typing import Annotated, NoReturn

import typer

from cai.cli.audit import audits
from cai.cli.check import check_command
from cai.cli.constitution import constitutions
from cai.cli.endpoints import mock_server_command, requests
from cai.cli.export import export_command, push_command
from cai.cli.init import init_command
from cai.cli.judge_card import judge_card_command
from cai.cli.redteam import redteams
from cai.cli.run import retry_command, run_command, try_command
from cai.cli.show import failures_command, report_command, show_command
from cai.cli.train import iterate_command, score_command, train_command
from cai.core.errors import CaiError
from cai.core.safe_text import safe_text

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None,
    help="Constitutional AI and RLAIF: a constitution in, a preference dataset you can defend out.",
)  # fmt: skip
app.add_typer(constitutions, name="constitution")
app.command("run")(run_command)
app.command("try")(try_command)
app.command("show")(show_command)
app.command("failures")(failures_command)
app.command("retry")(retry_command)
app.command("report")(report_command)
app.command("export")(export_command)
app.command("push")(push_command)
app.command("check")(check_command)
app.command("judge-card")(judge_card_command)
app.command("train")(train_command)
app.command("score")(score_command)
app.command("iterate")(iterate_command)
app.add_typer(audits, name="audit")
app.add_typer(redteams, name="redteam")
app.command("mock-server")(mock_server_command)
app.add_typer(requests, name="requests")
app.command("init")(init_command)


@app.callback()
def _root(debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False) -> None:
    if debug:
        os.environ["CAI_DEBUG"] = "1"


def main() -> None:
    """The `cai` command: a CaiError is one line and its exit code, a traceback only with --debug."""
    try:
        _run_app()
    except CaiError as error:
        if os.environ.get("CAI_DEBUG"):
            raise
        print(f"cai: {safe_text(str(error))}", file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        _close_output()
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:  # a fault of cai or of the machine: one line all the same, and how to see the rest
        if os.environ.get("CAI_DEBUG"):
            raise
        print(f"cai: {_unexpected(error)}", file=sys.stderr)
        sys.exit(1)


def _run_app() -> None:
    try:
        app()
    except SystemExit:
        if type(sys.stdout).__name__ == "PacifyFlushWrapper":  # how click marks a closed pipe before it exits with 1
            _close_output()
        sys.stdout.flush()
        raise


def _close_output() -> NoReturn:
    """Whoever reads the output has closed it, as `cai show RUN | head` does: that is no error."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.exit(0)


def _unexpected(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS):
        return f"{error.filename or 'the output'}: cannot be written: {error.strerror}"
    return f"internal error: {type(error).__name__}: {safe_text(str(error))}; see it whole: cai --debug ..."
