"""The page in a real browser: what people do with it, what they see when nothing matches or nobody answers."""

import base64
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Request, expect, sync_playwright

from retrieval.engine import SearchEngine
from serving import Served, serving

MODEL = "efficientnet_lite0"
THINGS = ("apple", "banana", "bicycle", "butterfly", "camera", "car")
APPLE = "apple/noto.png"
CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
PICTURES = Path(__file__).resolve().parent.parent.parent / "build" / "page"  # screenshots, for people to look at
SCRIPT = "<img src=x onerror=\"document.title='owned'\">"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, demo_gallery: Path) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("shop")
    with SearchEngine.create(folder / "index", model=MODEL) as engine:
        for price, path in enumerate(sorted(p for thing in THINGS for p in (demo_gallery / thing).iterdir()), 1):
            metadata: dict[str, Any] = {"price": price, "maker": path.stem, "sale": price % 2 == 0, "note": SCRIPT}
            engine.upsert(f"{path.parent.name}/{path.name}", path, product_id=path.parent.name, metadata=metadata)
    with serving(folder / "index", log=folder / "log") as served:
        yield served


@pytest.fixture
def page(browser: Browser, served: Served) -> Iterator[Page]:
    """The page, fresh; it may not have called any other host, nor have left an error in the console."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    strangers: list[str] = []
    errors: list[str] = []

    def note(request: Request) -> None:
        if not request.url.startswith((served.url, "blob:")):
            strangers.append(request.url)

    page.on("request", note)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(served.url)
    expect(page.locator("#holds")).to_contain_text("12 pictures")
    yield page
    assert strangers == []
    assert errors == []
    page.close()


def hits(page: Page) -> list[str]:
    return [str(key) for key in page.locator("#hits li").evaluate_all("items => items.map(item => item.dataset.key)")]


def answered(page: Page, count: int) -> list[str]:
    expect(page.locator("#status")).to_have_text(f"{count} hit{'s' if count > 1 else ''}")
    return hits(page)


def hand_over(page: Page, kind: str, path: Path) -> None:
    """Drop or paste a file, as a browser says it."""
    content = base64.b64encode(path.read_bytes()).decode()
    page.evaluate(
        """([kind, content, name]) => {
            const bytes = Uint8Array.from(atob(content), (char) => char.charCodeAt(0));
            const files = new DataTransfer();
            files.items.add(new File([bytes], name, { type: "image/png" }));
            const init = { bubbles: true, cancelable: true };
            document.body.dispatchEvent(kind === "drop"
                ? new DragEvent("drop", { ...init, dataTransfer: files })
                : new ClipboardEvent("paste", { ...init, clipboardData: files }));
        }""",
        [kind, content, path.name],
    )


def test_it_begins_with_what_can_be_done(page: Page) -> None:
    expect(page.get_by_text("Find what looks alike")).to_be_visible()
    expect(page.get_by_text("Drop, paste or choose a picture")).to_be_visible()
    page.screenshot(path=PICTURES / "empty.png")


@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_a_picture_is_searched_with(page: Page, demo_gallery: Path, kind: str) -> None:
    hand_over(page, kind, demo_gallery / APPLE)
    assert answered(page, 12)[0] == APPLE
    first = page.locator("#hits li").first
    expect(first.locator(".name")).to_have_text("apple")
    expect(first.locator(".score")).to_contain_text("score 1.000")
    expect(first.locator("img")).to_have_js_property("naturalWidth", 64)


def test_a_picture_is_chosen(page: Page, demo_gallery: Path) -> None:
    page.set_input_files("#file", demo_gallery / APPLE)
    assert answered(page, 12)[0] == APPLE
    page.screenshot(path=PICTURES / "light.png", full_page=True)
    page.get_by_role("button", name="Another picture").click()
    expect(page.get_by_text("Find what looks alike")).to_be_visible()


def test_metadata_is_text_whatever_it_says(page: Page, demo_gallery: Path) -> None:
    page.set_input_files("#file", demo_gallery / APPLE)
    answered(page, 12)
    expect(page.locator("#hits li").first.locator("dd", has_text="onerror")).to_be_visible()
    assert page.title() == "retrieve"


def test_a_box_is_drawn_and_taken_back(page: Page, demo_gallery: Path) -> None:
    page.set_input_files("#file", demo_gallery / APPLE)
    answered(page, 12)
    whole = page.locator("#hits .score").first.text_content()
    edges = page.locator("#picture").bounding_box()
    assert edges is not None
    middle = edges["x"] + edges["width"] / 2, edges["y"] + edges["height"] / 2
    page.mouse.move(middle[0] - 60, middle[1] - 60)
    page.mouse.down()
    page.mouse.move(middle[0], middle[1], steps=4)
    page.mouse.up()
    expect(page.locator("#box")).to_be_visible()
    expect(page.locator("#hits .score").first).not_to_have_text(str(whole))
    page.get_by_role("button", name="Search with all of it").click()
    expect(page.locator("#hits .score").first).to_have_text(str(whole))
    page.get_by_text("Box by numbers").click()
    for label, value in zip(("Left", "Top", "Width", "Height"), (5, 5, 40, 40), strict=True):
        page.get_by_label(label).fill(str(value))
    page.get_by_role("button", name="Apply").click()
    expect(page.locator("#hits .score").first).not_to_have_text(str(whole))


def test_filters_are_those_of_what_pictures_have(page: Page, demo_gallery: Path) -> None:
    page.set_input_files("#file", demo_gallery / APPLE)
    answered(page, 12)
    page.get_by_label("price at most").fill("4")
    page.get_by_label("price at most").press("Tab")
    assert sorted(answered(page, 4)) == ["apple/fluent.webp", "apple/noto.png", "banana/fluent.webp", "banana/noto.png"]
    page.get_by_label("sale").select_option("yes")
    answered(page, 2)
    page.get_by_label("maker").select_option("fluent")
    expect(page.get_by_text("Nothing matches")).to_be_visible()
    page.screenshot(path=PICTURES / "no-match.png")
    page.get_by_label("maker").select_option("any")
    answered(page, 2)
    page.get_by_label("product_id").select_option("banana")
    assert sorted(answered(page, 1)) == ["banana/noto.png"]


def test_one_picture_a_product_and_no_low_scores(page: Page, demo_gallery: Path) -> None:
    page.set_input_files("#file", demo_gallery / APPLE)
    answered(page, 12)
    page.get_by_label("One picture a product").check()
    answered(page, 6)
    page.get_by_label("Least score").evaluate(
        "it => { it.value = 0.99; for (const kind of ['input', 'change']) it.dispatchEvent(new Event(kind)); }"
    )
    assert answered(page, 1) == [APPLE]


def test_more_and_less_like_a_hit(page: Page, demo_gallery: Path) -> None:
    page.set_input_files("#file", demo_gallery / APPLE)
    answered(page, 12)
    page.get_by_role("button", name="More like car/noto.png").click()
    assert "car/noto.png" not in answered(page, 11)
    page.get_by_role("button", name="Less like banana/noto.png").click()
    assert "banana/noto.png" not in answered(page, 10)
    page.get_by_role("button", name="Leave out: More like car/noto.png").click()
    answered(page, 11)


def test_its_address_brings_a_search_back(page: Page, browser: Browser, demo_gallery: Path) -> None:
    page.set_input_files("#file", demo_gallery / APPLE)
    answered(page, 12)
    page.get_by_role("button", name="Less like car/noto.png").click()
    page.get_by_label("price at least").fill("2")
    page.get_by_label("price at least").press("Tab")
    expected = answered(page, 10)
    elsewhere = browser.new_page()
    elsewhere.goto(page.url)
    assert answered(elsewhere, 10) == expected
    expect(elsewhere.get_by_label("price at least")).to_have_value("2")
    expect(elsewhere.get_by_text("came with the link")).to_be_visible()
    elsewhere.close()


def test_its_address_is_searched_where_no_filters_can_be_shown(browser: Browser, served: Served) -> None:
    page = browser.new_page()
    page.route("**/v1/fields", lambda route: route.fulfill(status=500, json={"detail": "a fault of the server"}))
    page.goto(f"{served.url}#like={APPLE}&where=%7B%22price%22%3A%7B%22%3E%3D%22%3A3%7D%7D")
    answered(page, 10)
    page.close()


def test_what_is_no_picture_is_said(page: Page, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"nothing")
    page.set_input_files("#file", tmp_path / "a.png")
    expect(page.get_by_text("This could not be searched")).to_be_visible()


def test_a_server_that_is_gone_is_said_and_tried_again(page: Page, served: Served, demo_gallery: Path) -> None:
    page.set_input_files("#file", demo_gallery / APPLE)
    answered(page, 12)
    served.process.send_signal(signal.SIGSTOP)
    page.context.set_offline(True)
    try:
        page.get_by_label("One picture a product").check()
        expect(page.get_by_text("The server cannot be reached")).to_be_visible()
        page.screenshot(path=PICTURES / "unreachable.png")
    finally:
        page.context.set_offline(False)
        served.process.send_signal(signal.SIGCONT)
    page.get_by_role("button", name="Try again").click()
    answered(page, 6)


def test_it_works_by_keyboard_alone(page: Page) -> None:
    page.goto(f"{page.url}#like={APPLE}")
    answered(page, 11)
    page.keyboard.press("Tab")
    expect(page.get_by_text("Skip to results")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.locator("#hits .like").first).to_be_focused()
    page.keyboard.press("Enter")
    answered(page, 10)


@pytest.mark.parametrize("theme", ["light", "dark", "phone"])
def test_it_has_no_serious_fault_for_assistive_technology(
    browser: Browser, served: Served, demo_gallery: Path, theme: str
) -> None:
    size = {"width": 390, "height": 844} if theme == "phone" else {"width": 1280, "height": 900}
    context = browser.new_context(color_scheme="dark" if theme == "dark" else "light", viewport=size, bypass_csp=True)
    page = context.new_page()
    page.goto(served.url)
    page.set_input_files("#file", demo_gallery / APPLE)
    answered(page, 12)
    page.screenshot(path=PICTURES / f"{theme}.png", full_page=True)
    found = Axe().run(page).response["violations"]
    assert [(one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in ("serious", "critical")] == []
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    context.close()
