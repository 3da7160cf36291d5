"""`python -m retrieval.cli`: the same as `retrieve`."""

from retrieval.cli import main

main()
