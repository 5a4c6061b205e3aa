"""What the commands share: options made from a record, and one place where errors become exit codes."""

from __future__ import annotations

import dataclasses
import functools
import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import click

from whisperbench.config.option import Options, kind_of, parse, text_of
from whisperbench.errors import WhisperbenchError
from whisperbench.processes.signals import Interrupted
from whisperbench.text import escape_control, redact

F = TypeVar("F", bound=Callable[..., Any])


def options_of(record: type[Options]) -> Callable[[F], F]:
    """Give a command one option per field of `record`: `--max_num_seqs`, or `--max-num-seqs`.

    Values arrive as text and are parsed to the type of the field's default, so that `mlflow run`,
    a shell and a test all go through the same reading and get the same messages.
    """

    def decorate(command: F) -> F:
        for field in reversed(dataclasses.fields(record)):
            spellings = dict.fromkeys((f"--{field.name}", f"--{field.name.replace('_', '-')}"))
            command = click.option(
                *spellings,
                field.name,
                default=text_of(field.default),
                show_default=True,
                metavar=_metavar(field),
                help=field.metadata["help"],
                callback=functools.partial(_parse, kind=kind_of(field)),
            )(command)
        return command

    return decorate


def errors_end_the_command(command: F) -> F:
    """Print a `WhisperbenchError` as one red line on stderr and exit with its status; 128 + n on a signal."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except WhisperbenchError as error:
            fail(error)
        except Interrupted as interrupted:
            click.secho(f"stopped by {interrupted}", fg="red", err=True)
            sys.exit(interrupted.exit_status)

    return run  # type: ignore[return-value]


def fail(error: WhisperbenchError) -> NoReturn:
    """What others wrote may be in the message: no secret is shown, and a terminal obeys nothing."""
    lines = redact(str(error), os.environ).splitlines()
    click.secho(f"error: {chr(10).join(map(escape_control, lines))}", fg="red", err=True)
    sys.exit(error.exit_status)


def _metavar(field: dataclasses.Field[Any]) -> str:
    rule = field.metadata["rule"]
    if rule.choices:
        return "|".join(rule.choices)
    return {bool: "true|false", int: "N", float: "X", str: "TEXT"}[kind_of(field)]


def _parse(_context: click.Context, parameter: click.Parameter, value: str, *, kind: type[Any]) -> Any:
    try:
        return parse(value, kind, str(parameter.name))
    except WhisperbenchError as error:
        fail(error)
