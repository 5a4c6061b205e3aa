"""The command `whisperbench`, with one module per subcommand."""

from __future__ import annotations

import importlib

import click

from whisperbench import __version__

COMMANDS = {
    "benchmark": "Measure one configuration.",
    "sweep": "Measure a grid of configurations, or search for the best one.",
    "compare": "Rank the runs of a tracking server, or check a run against a baseline.",
    "upload": "Log results that are on disk but not on the tracking server.",
    "doctor": "Check this machine before a long run.",
    "ui": "Show the runs in the browser.",
}


class Commands(click.Group):
    """Imports the module of a subcommand when it is called, so that --help stays fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:  # noqa: ARG002
        if name not in COMMANDS:
            return None
        found: click.Command = importlib.import_module(f"whisperbench.cli.{name}").main
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.command(cls=Commands, epilog="The help of each command lists its options and exit statuses.")
@click.version_option(__version__)
def main() -> None:
    """Measure OpenAI Whisper on vLLM over LibriSpeech: word error rate, throughput and cost of each run in MLflow."""
