"""Which commands are there? Each is one typed function; what is slow to import is imported inside it."""

from __future__ import annotations

import errno
import sys
from typing import Annotated

import typer

from hwnas import __version__
from hwnas.cli.bench import app as bench_app
from hwnas.cli.data import data
from hwnas.cli.devices import app as devices_app
from hwnas.cli.machine import doctor, plugins
from hwnas.cli.profile import profile
from hwnas.cli.published import import_ofa
from hwnas.cli.runs import VERBS
from hwnas.cli.tables import app as tables_app
from hwnas.errors import HwnasError, OutputError, escaped

app = typer.Typer(
    name="hwnas",
    help="Hardware-aware neural architecture search: one supernet, a Pareto archive of real models per device.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for verb in VERBS:
    app.command()(verb)
app.command()(data)
app.command()(profile)
app.add_typer(devices_app, name="devices")
app.add_typer(tables_app, name="tables")
app.add_typer(bench_app, name="bench")
app.command("import-ofa")(import_ofa)
app.command()(plugins)
app.command()(doctor)


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
    """Run the command line; a user's mistake is one line and exit code 2, never a traceback."""
    try:
        app()
    except HwnasError as error:
        _fail(str(error))
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EPERM):
            raise
        _fail(
            str(OutputError(f"cannot write {error.filename or 'a file'}: {error.strerror}; free space or choose --out"))
        )
    except SystemExit as end:
        if end.code == 130:  # what typer makes of Ctrl-C
            typer.echo("stopped; the same command continues where it stopped", err=True)
        raise


def _fail(message: str) -> None:
    typer.echo(f"error: {escaped(' '.join(message.split()))}", err=True)
    sys.exit(2)
