"""The command line: one small module a verb, loaded when it is called."""

import sys

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> None:
    """Run `retrieve`; every error ends as one line on standard error and an exit code."""
    from retrieval.cli.stopping import INTERRUPTED, Interrupts

    try:
        with Interrupts() as interrupts:  # before anything that takes time to import
            from retrieval.cli.app import run
        code = run(arguments, interrupts)
    except KeyboardInterrupt:
        print("retrieve: interrupted", file=sys.stderr)
        code = INTERRUPTED
    sys.exit(code)
