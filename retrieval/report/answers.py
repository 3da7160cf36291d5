"""What did each query find, for people? One HTML file with its pictures in it."""

import os
from collections.abc import Mapping, Sequence
from html import escape

from retrieval.report.page import captioned, save_page, whole_page
from retrieval.results import Hit, SearchResult


def save_answers(
    results: Sequence[SearchResult], path: str | os.PathLike[str], contents: Mapping[str, bytes] | None = None
) -> None:
    """Write queries and their hits as one self-contained HTML file, which appears whole or not at all.

    Args:
        results: what was found.
        path: the file.
        contents: the bytes of queries that are no files, by what the results call them.

    Raises:
        RetrievalError: it cannot be written.
    """
    save_page(answers_page(results, contents or {}), path)


def answers_page(results: Sequence[SearchResult], contents: Mapping[str, bytes]) -> str:
    """The page as text; pictures that cannot be shown are replaced by their names and the reason."""
    queries = f"{len(results)} {'query' if len(results) == 1 else 'queries'}"
    models = ", ".join(sorted({result.model[:8] for result in results}))
    head = f"<header><h1>{queries}</h1><p>{escape(f'model {models}')}</p></header>"
    return whole_page("What was found", [head, *(_section(result, contents) for result in results)])


def _section(result: SearchResult, contents: Mapping[str, bytes]) -> str:
    hits = "".join(map(_hit, result.hits)) or '<p class="note">No picture.</p>'
    if result.query is None:
        query = "<p>By indexed pictures</p>"
    elif result.query in contents:
        query = captioned("query", contents[result.query], "query", "standard input")
    else:
        query = captioned("query", result.query, "query", result.query)
    return f'<section><div class="row">{query}<div class="seen">{hits}</div></div></section>'


def _hit(hit: Hit) -> str:
    sure = "" if hit.match_probability is None else f", {hit.match_probability:.0%} the same"
    return captioned("", str(hit.path), hit.product_id or hit.key, f"{hit.rank}. {hit.score:.3f}{sure}", name=hit.key)
