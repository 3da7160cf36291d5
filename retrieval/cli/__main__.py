"""`python -m retrieval.cli`: the same as `retrieve`."""

from retrieval.cli.app import main

main()
