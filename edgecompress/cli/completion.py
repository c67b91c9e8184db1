"""`edgecompress completion`: print the script with which a shell completes command lines."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from edgecompress.cli.options import debug_option
from edgecompress.support.echo import echo

VARIABLE = "_EDGECOMPRESS_COMPLETE"


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@debug_option
@click.pass_context
def command(context: click.Context, shell: str) -> None:
    """Print the completion script for SHELL.

    \b
    bash: eval "$(edgecompress completion bash)"      in ~/.bashrc
    zsh:  eval "$(edgecompress completion zsh)"       in ~/.zshrc
    fish: edgecompress completion fish | source       in ~/.config/fish/config.fish
    """
    made = get_completion_class(shell)
    assert made is not None  # click knows all of the choices
    root = context.find_root()
    echo(made(root.command, {}, root.info_name or "edgecompress", VARIABLE).source())
