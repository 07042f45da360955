"""`completion`: scripts that make a shell complete commands, options and their values."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

_WHERE = {
    "bash": 'eval "$(rtc completion bash)"   # in ~/.bashrc',
    "zsh": 'eval "$(rtc completion zsh)"    # in ~/.zshrc, behind compinit',
    "fish": "rtc completion fish | source   # in ~/.config/fish/config.fish",
}


@click.command(epilog="\b\n" + "\n".join(_WHERE.values()), context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("shell", type=click.Choice(list(_WHERE)))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print a script that completes the commands and options in a shell."""
    root = context.find_root()
    name = root.info_name or "rtc"
    found = get_completion_class(shell)
    assert found is not None, "click knows these shells"
    variable = f"_{name.replace('-', '_')}_COMPLETE".upper()
    made = found(root.command, {}, name, variable)
    click.echo(made.source_template % made.source_vars(), nl=False)
