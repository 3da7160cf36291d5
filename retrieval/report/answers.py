"""What did each query find, for people? One HTML file with its pictures in it."""

import os
from collections.abc import Sequence
from html import escape

from retrieval.report.page import captioned, save_page, whole_page
from retrieval.results import Hit, SearchResult


def save_answers(results: Sequence[SearchResult], path: str | os.PathLike[str]) -> None:
    """Write queries and their hits as one self-contained HTML file, which appears whole or not at all.

    Raises:
        RetrievalError: it cannot be written.
    """
    save_page(answers_page(results), path)


def answers_page(results: Sequence[SearchResult]) -> str:
    """The page as text; pictures that cannot be shown are replaced by their names and the reason."""
    queries = f"{len(results)} {'query' if len(results) == 1 else 'queries'}"
    models = ", ".join(sorted({result.model[:8] for result in results}))
    head = f"<header><h1>{queries}</h1><p>{escape(f'model {models}')}</p></header>"
    return whole_page("What was found", [head, *map(_section, results)])


def _section(result: SearchResult) -> str:
    hits = "".join(map(_hit, result.hits)) or '<p class="note">No picture.</p>'
    query = captioned("query", result.query, "query", result.query) if result.query else "<p>By indexed pictures</p>"
    return f'<section><div class="row">{query}<div class="seen">{hits}</div></div></section>'


def _hit(hit: Hit) -> str:
    sure = "" if hit.match_probability is None else f", {hit.match_probability:.0%} the same"
    return captioned("", str(hit.path), hit.product_id or hit.key, f"{hit.rank}. {hit.score:.3f}{sure}", name=hit.key)
