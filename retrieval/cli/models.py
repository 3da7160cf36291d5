"""`retrieve models`: what can --model name?"""

from dataclasses import asdict

import click

from retrieval.cli.common import json_option, print_json
from retrieval.encoder.listing import list_models


@click.command("models")
@click.option("--all", "everything", is_flag=True, help="Also the names that torchvision and timm know; takes seconds.")
@json_option
def command(everything: bool, as_json: bool) -> None:
    r"""List the models that --model can name, and which of them work offline.

    Any model of torchvision or timm can be named; its weights are downloaded at first use.

    \b
    Example:
      retrieve models
    """
    models = list_models(everything=everything)
    if as_json:
        print_json({"models": [asdict(model) for model in models]})
        return
    for model in models:
        click.echo(f"{model.name:<40}{model.source:<14}{'offline' if model.is_at_hand else 'to download'}")
    if not everything:
        click.echo("... and every model of torchvision and timm: `retrieve models --all`", err=True)
