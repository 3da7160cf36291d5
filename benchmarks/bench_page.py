"""How long does somebody wait for the page's first results, against the same search by the API?

    RETRIEVE_BENCH_DATA=... python benchmarks/bench_page.py

5,000 Grocery photos, EfficientNet-Lite0, photos of test.txt, in Chromium. From the choice of a file until its hits are
in the page; and, in the same browser, from sending it until the answer is read. In random order, each photo once.
"""

import argparse
import base64
import shutil
import statistics
import tempfile
from pathlib import Path

import numpy as np
from playwright.sync_api import sync_playwright

from bench_serve import MODEL, PICTURES, server
from common import grocery_split, record
from retrieval.engine import SearchEngine
from training_sets import write_manifest

PHOTOS = 100
WARM_UP = 10
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
FILE = "const bytes = Uint8Array.from(atob(content), letter => letter.charCodeAt(0));"
BY_PAGE = f"""async content => {{
    {FILE}
    const given = new DataTransfer();
    given.items.add(new File([bytes], "photo.jpg", {{ type: "image/jpeg" }}));
    const input = document.getElementById("file");
    const shown = new Promise(resolve => {{
        const watch = new MutationObserver(changes => {{
            if (!changes.some(change => change.addedNodes.length)) return;
            watch.disconnect();
            resolve(performance.now());
        }});
        watch.observe(document.getElementById("hits"), {{ childList: true }});
    }});
    const start = performance.now();
    input.files = given.files;
    input.dispatchEvent(new Event("change", {{ bubbles: true }}));
    return (await shown) - start;
}}"""
BY_API = f"""async content => {{
    {FILE}
    const start = performance.now();
    const options = {{ method: "POST", body: new Blob([bytes]), headers: {{ "content-type": "image/jpeg" }} }};
    await (await fetch("/v1/search?k=24", options)).json();
    return performance.now() - start;
}}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8765)
    asked = parser.parse_args()
    gallery = [picture for name in ("train", "val", "test") for picture in grocery_split(name)][:PICTURES]
    photos = [picture.path for picture in grocery_split("test")][: PHOTOS + WARM_UP]
    by_page, by_api = [], []
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        index = Path(name) / "index"
        with SearchEngine.create(index, model=MODEL) as engine:
            engine.sync(write_manifest(Path(name) / "gallery.csv", gallery))
        with server(index, asked.port, "--read-only"):
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=ARGUMENTS)
            page = browser.new_page()
            page.goto(f"http://127.0.0.1:{asked.port}")
            page.wait_for_load_state("networkidle")
            for photo in photos:
                content = base64.b64encode(photo.read_bytes()).decode()
                for way in random.permutation(2):
                    script, times = ((BY_PAGE, by_page), (BY_API, by_api))[way]
                    times.append(page.evaluate(script, content))
                    page.wait_for_load_state("networkidle")
                    page.wait_for_timeout(200)  # thumbnails
            browser.close()
    page_ms, api_ms = (statistics.median(times[WARM_UP:]) for times in (by_page, by_api))
    ratio = statistics.median(a / b for a, b in zip(by_page[WARM_UP:], by_api[WARM_UP:], strict=True))
    record(
        "page",
        dataset=f"Grocery, {PICTURES} photos",
        protocol=f"{PHOTOS} photos chosen in the page, and sent to the API by the same browser",
        model=MODEL,
        values={"page_ms": page_ms, "api_ms": api_ms, "page_over_api": ratio},
    )


if __name__ == "__main__":
    main()
