"""Click commands from option records: parameters, grouped help, and exit statuses for errors."""

from __future__ import annotations

import errno
import os
import sys
import traceback
import typing
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

import click

from whisperbench.config.option import Group, Option, Options
from whisperbench.errors import ConfigError, WhisperbenchError
from whisperbench.text import printable, redact

R = TypeVar("R", bound=Options)

UNEXPECTED = 70
"""Exit status of a defect (EX_SOFTWARE of sysexits.h); status 1 is reserved for failures and regressions."""
REFUSALS = (
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENAMETOOLONG, errno.ELOOP
)  # fmt: skip
"""Errors of a file that are no defects: permissions, space, and paths that no file can have."""
STATUSES = (
    "Exit status: 0 success; 1 the run failed, or the gate found a regression; 2 wrong usage, not comparable, or the "
    "gate is undecided; 3 no tracking server; 70 unexpected error; 128+n signal n."
)


class Command(click.Command):
    """Prints an error as one sentence on stderr and exits with its status; `groups` maps options to headings."""

    groups: Mapping[str, str] = MappingProxyType({})

    def invoke(self, ctx: click.Context) -> Any:
        from whisperbench.processes.signals import Interrupted

        try:
            return super().invoke(ctx)
        except WhisperbenchError as error:
            _print_error(str(error))
            sys.exit(error.exit_status)
        except Interrupted as signal:
            _print_error(f"stopped by {signal}")
            sys.exit(signal.exit_status)
        except KeyboardInterrupt:
            _print_error("stopped by SIGINT")
            sys.exit(130)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.filename and error.errno in REFUSALS:
                _print_error(f"{os.fsdecode(error.filename)} cannot be used ({error.strerror}). Choose another path.")
                sys.exit(ConfigError.exit_status)
            click.echo(printable(redact(traceback.format_exc(), os.environ)), err=True)
            _print_error(
                f"unexpected {type(error).__name__}: {error}. Please report this defect with the output above."
            )
            sys.exit(UNEXPECTED)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows: dict[str, list[tuple[str, str]]] = {heading: [] for heading in ("Most used", *typing.get_args(Group))}
        for parameter in self.get_params(ctx):
            if (row := parameter.get_help_record(ctx)) is not None:
                rows.setdefault(self.groups.get(parameter.name or "", "Help"), []).append(row)
        for heading, lines in rows.items():
            if lines:
                with formatter.section(heading):
                    formatter.write_dl(lines)


def command(record: type[R], text: str | None) -> Callable[[Callable[[R], None]], Command]:
    """Decorator that makes a command from a function of a record; `text` is the help of the command.

    The record parses the values, so that error messages are equal in a shell, in `mlflow run` and in a sweep.
    """

    def decorate(function: Callable[[R], None]) -> Command:
        def call(**texts: str) -> None:
            function(record.from_params(texts))

        options = record.declared().values()
        main = Command(
            "main",
            callback=call,
            params=[_click_option(each, takes_list=record.takes_list(each)) for each in options],
            help=text,
            epilog=STATUSES,
            context_settings={"token_normalize_func": lambda name: name.replace("_", "-"), "max_content_width": 100},
        )
        main.groups = {each.name: "Most used" if each.common else each.group for each in options}
        return main

    return decorate


def _click_option(each: Option, *, takes_list: bool) -> click.Option:
    """The click option of a declaration; a Boolean option without a value means true."""
    more: dict[str, Any] = {"is_flag": False, "flag_value": "true"} if each.type is bool and not takes_list else {}
    engines = f" ({', '.join(each.engines)})" if each.engines else ""
    kind = {bool: "[true|false]", int: "N", float: "X", str: "TEXT"}[each.type]
    return click.Option(
        [f"--{each.name.replace('_', '-')}", each.name],
        default=each.default_text,
        show_default=True,
        metavar=("|".join(each.choices) or kind) + (",…" if takes_list else ""),
        help=f"{each.help}{engines}",
        **more,
    )


def _print_error(message: str) -> None:
    """Print a message in red, with secrets hidden and control characters escaped."""
    click.secho(f"error: {printable(redact(message, os.environ))}", fg="red", err=True)
