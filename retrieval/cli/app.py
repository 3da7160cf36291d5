"""The `retrieve` command: finding the verb, and the one edge where errors become a line and an exit code."""

import errno
import importlib
import logging
import os
import sys
from pathlib import Path
from typing import Any

import click

from indexer.errors import IndexerError
from retrieval.cli.stopping import INTERRUPTED, Interrupts
from retrieval.errors import RetrievalError

FAILED = 1
_CANNOT_WRITE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)

VERBS = {
    "index": "Make a folder or manifest of pictures searchable.",
    "query": "Find the indexed pictures that look like a picture.",
    "dedup": "List pictures that are nearly the same.",
    "serve": "Answer programs and people over HTTP.",
    "train": "Teach an encoder what is the same product in your catalogue.",
    "evaluate": "Say how good a model or an index is.",
    "match": "Say whether two pictures show the same product.",
    "info": "Say what an index holds.",
    "remove": "Remove pictures from an index.",
    "feedback": "Write down which hits people chose or rejected.",
    "refresh": "Give an index that is in use a better model.",
    "rollback": "Go back to the model that an index had before.",
    "history": "List the models that an index has had.",
    "prune": "Let go of former models, and of what was removed.",
    "compact": "Merge an index's files, without what was removed.",
    "rebuild": "Search an index by another recipe.",
    "verify": "Check that an index is whole.",
    "backup": "Copy an index while it is in use.",
    "models": "List the models that --model can name.",
}


class _LazyVerbs(click.Group):
    """Knows the verbs' names and one-line helps; imports a verb's module only to run it or to show its help."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        command: click.Command = importlib.import_module(f"retrieval.cli.{cmd_name}").command
        # The docstrings are raw: click's mark for "as it stands" arrives as two characters.
        command.help = (command.help or "").replace("\\b\n", "\b\n")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


@click.group(cls=_LazyVerbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="retrieval-engine", prog_name="retrieve")
def retrieve() -> None:
    r"""A visual search engine for your own catalogue.

    \b
    Example:
      retrieve index ./gallery
      retrieve query photo.jpg
    """


def run(arguments: list[str] | None, interrupts: Interrupts) -> int:
    """Run `retrieve` with the streams of this process, and return its exit code."""
    _replace_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="surrogateescape")  # type: ignore[union-attr]  # names need not be UTF-8
    notices = logging.StreamHandler(sys.stderr)
    notices.setFormatter(logging.Formatter("retrieve: %(message)s"))
    log = logging.getLogger("retrieval")
    log.addHandler(notices)
    log.setLevel(logging.INFO)
    return _run(arguments, interrupts)


def _run(arguments: list[str] | None, interrupts: Interrupts) -> int:
    try:
        with interrupts:
            outcome: Any = retrieve.main(arguments, prog_name="retrieve", standalone_mode=False)
        sys.stdout.flush()
        return outcome if isinstance(outcome, int) else 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        _say("interrupted")
        return INTERRUPTED
    except (BrokenPipeError, SystemExit):  # the reader, say `head`, has seen enough; click makes an exit of it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (RetrievalError, IndexerError) as error:
        _say(str(error))
    except Exception as error:
        if isinstance(error, OSError) and error.filename is None and error.errno in _CANNOT_WRITE:
            _say(f"cannot write the results: {error.strerror}; send them elsewhere")
            return FAILED
        if os.environ.get("RETRIEVE_DEBUG"):
            raise
        _say(f"unexpected {type(error).__name__}: {error} (RETRIEVE_DEBUG=1 shows where; please report it)")
    return FAILED


def _replace_closed_streams() -> None:
    """Open the null device in place of each standard stream that is closed; or else some file takes its number."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode))  # noqa: SIM115 - as long as the process


def _say(message: str) -> None:
    click.echo(f"retrieve: {' '.join(message.splitlines())}", err=True)
