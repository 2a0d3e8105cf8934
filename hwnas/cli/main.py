"""Which commands are there? Each is one typed function; what is slow to import is imported inside it."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Annotated

import typer

from hwnas import __version__
from hwnas.cli.begin import init, recipe
from hwnas.cli.bench import app as bench_app
from hwnas.cli.data import data
from hwnas.cli.devices import app as devices_app
from hwnas.cli.examples import with_examples
from hwnas.cli.machine import doctor, plugins
from hwnas.cli.models import VERBS as MODEL_VERBS
from hwnas.cli.operators import operators
from hwnas.cli.profile import profile
from hwnas.cli.published import import_ofa
from hwnas.cli.runs import VERBS as RUN_VERBS
from hwnas.cli.tables import app as tables_app
from hwnas.cli.watch import VERBS as WATCH_VERBS
from hwnas.errors import HwnasError, one_line

app = typer.Typer(
    name="hwnas",
    help="Hardware-aware neural architecture search: one supernet, a Pareto archive of real models per device.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command()(init)
for verb in (*RUN_VERBS, *MODEL_VERBS, *WATCH_VERBS):
    app.command()(verb)
app.command()(data)
app.command()(operators)
app.command()(recipe)
app.command()(profile)
app.add_typer(devices_app, name="devices")
app.add_typer(tables_app, name="tables")
app.add_typer(bench_app, name="bench")
app.command("import-ofa")(import_ofa)
app.command()(plugins)
app.command()(doctor)
with_examples(app)


def _say_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"hwnas {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Take options that stand before any command."""


def main() -> None:
    """Run the command line; a user's mistake is one line and exit code 2, never a traceback.

    SIGTERM, with which clusters and containers stop a process, ends it as Ctrl-C does.
    """
    try:
        with _stopped_like_ctrl_c():
            app()
    except HwnasError as error:
        _fail(str(error))
    except MemoryError:
        _fail("there is not enough memory; give a smaller batch, fewer images or a smaller network")
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EPERM, errno.EFBIG):
            _fail(f"cannot write {error.filename or 'a file'}: {error.strerror}; free space, or allow writing there")
        if error.errno in (errno.ENAMETOOLONG, errno.ELOOP, errno.EMFILE, errno.EIO):
            _fail(f"cannot use {error.filename or 'a file'}: {error.strerror}; give another name or place")
        raise
    except SystemExit as end:
        if end.code == 130:  # what typer makes of Ctrl-C
            typer.echo("stopped; the same command continues where it stopped", err=True)
        raise


@contextmanager
def _stopped_like_ctrl_c() -> Iterator[None]:
    """Let SIGTERM do in this process what SIGINT does; processes that it forks end at once."""
    own = os.getpid()

    def stop(number: int, frame: FrameType | None) -> None:
        if os.getpid() == own:
            raise KeyboardInterrupt
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _fail(message: str) -> None:
    typer.echo(f"error: {one_line(message)}", err=True)
    sys.exit(2)
