"""The page in a real browser: Chromium without a window, driven by Playwright.

Needs ``pip install -e '.[browser]'`` and a Chromium (Debian, Ubuntu: apt-get install chromium), or the one that
``VGEN_CHROMIUM`` names. Screenshots go to the folder that ``VGEN_TEST_ARTIFACTS`` names, if there is one.
"""

import base64
import io
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests import tiny
from tests.conftest import CHROMIUM
from tests.play.conftest import Start
from vgen_jax.command_line import configs
from vgen_jax.files import media
from vgen_jax.files.run_folder import resolved
from vgen_jax.play.server import PlayServer
from vgen_jax.runs import generate

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.usefixtures("no_sessions")]
Page = Any


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def tab(browser: Any, server: PlayServer) -> Iterator[Callable[..., Page]]:
    """Opens tabs. Whatever one of them complains about, or asks of another server, is a fault in the end."""
    contexts, faults = [], []

    def strangers(request: Any, url: str) -> None:
        if not request.url.startswith((url, "data:", "blob:")):
            faults.append(request.url)

    def opened(url: str = server.url, wait: bool = True, **options: Any) -> Page:
        context = browser.new_context(viewport={"width": 1280, "height": 900}, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda message: faults.append(message.text) if "Content Security" in message.text else None)
        page.on("request", lambda request: strangers(request, url))
        page.goto(url)
        if wait:
            until(page, "player.shown === 0 && player.drawn.length + player.nodes.size > 0 && !player.queue.length")
            page.locator("#videos canvas").first.wait_for()
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not faults


def until(page: Page, expression: str, seconds: float = 20) -> None:
    """Waits for an expression. (Playwright's own waiting needs ``eval``, which the page's policy forbids.)"""
    end = time.monotonic() + seconds
    while not page.evaluate(f"() => Boolean(window.player && ({expression}))"):
        assert time.monotonic() < end, f"never: {expression}; {page.evaluate('() => document.body.innerText')[:500]}"
        time.sleep(0.03)


def pixels(page: Page, video: int = 0) -> np.ndarray:
    """What a video's canvas shows, uint8 (H, W, 3)."""
    uri = page.evaluate("(n) => document.querySelectorAll('#videos canvas')[n].toDataURL('image/png')", video)
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB"))


def tapped(page: Page, *keys: str) -> None:
    """Presses keys one after another, each for one chunk, and waits until each chunk has been shown."""
    for key in keys:
        depth = page.evaluate("() => player.nodes.get(player.shown).depth")
        page.keyboard.press(key)
        until(page, f"player.nodes.get(player.shown).depth === {depth + 1} && !player.queue.length && !player.asking")


def keep(page: Page, name: str, tmp_path: Path) -> None:
    folder = Path(os.environ.get("VGEN_TEST_ARTIFACTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=str(folder / f"{name}.png"), full_page=True)
    assert (folder / f"{name}.png").stat().st_size > 10_000


def test_it_loads_and_says_what_the_keys_do(tab: Callable[..., Page], tmp_path: Path) -> None:
    page = tab(color_scheme="dark")
    titles = [figure.get_attribute("data-title") for figure in page.locator("figure").all()]
    assert titles == ["temp_lora", "none", "real"]
    labels = ["W ↑\ngo", "A ←\nturn", "S ↓\nforward −", "D →\nturn −"]
    assert page.locator("#keys button").all_inner_texts() == labels
    assert page.locator("#commands option").count() == 2
    assert page.evaluate("() => document.documentElement.dataset.theme") == "dark"
    canvas = page.locator("#videos canvas").first
    assert canvas.evaluate("(c) => getComputedStyle(c).imageRendering") == "pixelated"
    page.keyboard.press("?")
    assert page.locator("#keys-help").is_visible()
    page.keyboard.press("Escape")
    tapped(page, "w", "a", "w")
    keep(page, "play_dark", tmp_path)
    page.locator("#theme").click()
    assert page.evaluate("() => document.documentElement.dataset.theme") == "light"
    keep(page, "play_light", tmp_path)


def test_held_keys_move_the_picture_until_they_are_let_go(tab: Callable[..., Page]) -> None:
    page = tab()
    before = pixels(page)
    page.keyboard.down("w")
    until(page, "player.nodes.get(player.shown).depth >= 3 && player.held.length === 1")
    assert (pixels(page) != before).any() and page.locator("#caption").inner_text() == "go"
    assert "held" in page.locator("#keys button").first.get_attribute("class")
    page.keyboard.up("w")
    until(page, "!player.queue.length && !player.asking")
    depth = page.evaluate("() => player.nodes.size")
    time.sleep(0.5)
    assert page.evaluate("() => player.nodes.size") == depth, "nothing happens without a key"
    assert float(page.locator("#fps").inner_text()) > 0 and int(page.locator("#latency").inner_text()) > 0
    page.locator("#run-on").check()
    until(page, f"player.nodes.size > {depth + 1}")
    page.locator("#run-on").uncheck()


def test_two_keys_are_one_action_and_a_text_is_another(tab: Callable[..., Page]) -> None:
    page = tab()
    page.keyboard.down("d")
    page.keyboard.down("w")
    until(page, "[...player.nodes.values()].some((node) => (node.lines[0] || '').includes('-10.0, 1.0'))")
    page.keyboard.up("d")
    page.keyboard.up("w")
    until(page, "!player.queue.length && !player.asking")
    page.keyboard.press("Enter")
    page.keyboard.type("rotate")
    page.keyboard.press("Enter")
    until(page, "player.nodes.get(player.shown).text === 'rotate'")
    page.locator("#text").fill("fly away")
    page.locator("#say button").click()
    page.locator("#toasts .bad").wait_for()
    assert page.locator("#toasts .bad").inner_text() == "unknown command 'fly away'; the commands are: go, turn"


def test_memory_is_switched_while_playing(tab: Callable[..., Page]) -> None:
    page = tab()
    tapped(page, "w", "a", "w")
    assert (pixels(page, 0) != pixels(page, 1)).any(), "with and without memory, from the same actions"
    page.locator("#memory").select_option("none")
    until(page, "player.run.choice.memory === 'none' && !player.busy")
    page.locator("#beside").select_option("")
    until(page, "player.run.choice.beside === '' && !player.busy")
    page.evaluate("() => document.activeElement.blur()")
    tapped(page, "a")
    assert page.locator("figure").count() == 2
    page.keyboard.press("m")
    until(page, "player.run.choice.memory === 'context' && !player.busy")
    tapped(page, "a")
    assert page.locator("figure").first.get_attribute("data-title") == "context"


def test_pause_one_chunk_undo_and_branches(tab: Callable[..., Page]) -> None:
    page = tab()
    tapped(page, "w", "w")
    two = pixels(page)
    tapped(page, "w")
    page.keyboard.press("Backspace")
    until(page, "player.nodes.get(player.shown).depth === 2 && !player.queue.length && !player.looking")
    np.testing.assert_array_equal(pixels(page), two)
    tapped(page, "a")
    assert page.locator("#others .shot").count() == 1 and page.locator("#strip .fork").count() == 1
    page.locator("#strip .shot").nth(1).click()
    until(page, "player.nodes.get(player.shown).depth === 1")
    page.keyboard.press("Space")
    page.keyboard.down("w")
    time.sleep(0.4)
    assert page.evaluate("() => player.nodes.get(player.shown).depth") == 1
    assert page.locator("#state").inner_text() == "paused"
    page.keyboard.press(".")
    until(page, "player.nodes.get(player.shown).depth === 2 && !player.queue.length")
    page.keyboard.up("w")
    np.testing.assert_array_equal(pixels(page), two, "the same way once more")
    page.keyboard.press("x")
    until(page, "player.nodes.size === 1 && player.shown === 0")


def test_what_is_saved_is_generated_again_bit_by_bit(tab: Callable[..., Page], tmp_path: Path) -> None:
    page = tab()
    page.locator("#episode").fill("2")
    page.locator("#go-episode").click()
    until(page, "player.run.title === 'episode 2, frame 8' && !player.busy && player.nodes.size === 1")
    page.evaluate("() => document.activeElement.blur()")
    tapped(page, "w", "a", "w")
    page.keyboard.press("Backspace")
    until(page, "player.nodes.get(player.shown).depth === 2 && !player.looking")
    tapped(page, "d", "w")
    last = pixels(page)
    page.locator("#record").click()
    page.locator("#saved code").wait_for()
    config = page.locator("#saved code").inner_text().partition("--config=")[2].split(" ")[0]
    generate.run(resolved(configs.load(config), tmp_path), tmp_path)
    for name in ("video_0.npy", "video_0.mp4", "video_0.gif"):
        assert (tmp_path / "samples" / name).read_bytes() == (Path(config).parent / name).read_bytes()
    np.testing.assert_array_equal(media.read_video(tmp_path / "samples" / "video_0.npy")[-1], last)
    until(page, "document.querySelector('#saved video').videoWidth > 0")
    assert page.evaluate("() => document.documentElement.scrollWidth <= innerWidth"), "nothing sticks out"
    with page.expect_download() as download:
        page.locator("#saved a", has_text="actions.txt").click()
    assert download.value.path().read_text().splitlines()[0] == "go"


def test_a_picture_to_start_from_and_a_bad_one(tab: Callable[..., Page], tmp_path: Path) -> None:
    page = tab()
    (tmp_path / "notes.png").write_text("not a picture")
    page.locator("#file").set_input_files(tmp_path / "notes.png")
    page.locator("#toasts .bad").wait_for()
    assert page.locator("#toasts .bad").all_inner_texts() == [
        "this is no picture that can be read: give a whole PNG, JPEG, WebP, GIF or BMP"
    ]
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 255, (tiny.SIZE, tiny.SIZE, 3), dtype=np.uint8)
    media.write_png(tmp_path / "photo.png", picture)
    page.locator("#file").set_input_files(tmp_path / "photo.png")
    until(page, "player.run.title === 'your picture' && !player.busy && !player.queue.length")
    np.testing.assert_array_equal(pixels(page), picture)
    tapped(page, "w")


def test_a_wrong_token_is_refused(browser: Any, server: PlayServer) -> None:
    page = browser.new_page()
    answer = page.goto(server.url.replace(server.token, "x" * len(server.token)))
    assert answer.status == 403 and "use the whole one that the player printed" in page.locator("body").inner_text()
    page.close()


def test_tabs_are_sessions_of_their_own_up_to_a_limit(tab: Callable[..., Page], server: PlayServer) -> None:
    one, two = tab(), tab()
    tapped(one, "w")
    assert two.evaluate("() => player.nodes.size") == 1
    assert one.evaluate("() => player.session") != two.evaluate("() => player.session")
    others = [tab(), tab()]
    fifth = tab(wait=False)
    fifth.get_by_text("4 tabs play already").wait_for()
    others[0].close()  # and 5 seconds later it is freed
    until(fifth, "player.session", 30)
    one.reload()
    until(one, "player.nodes.size === 2 && player.shown === 1")
    tapped(one, "a")


def test_progress_is_shown_until_the_first_frame(tab: Callable[..., Page], start: Start, tmp_path: Path) -> None:
    ready = threading.Event()
    server = start(tmp_path, ready=ready)
    page = tab(server.url, wait=False)
    page.get_by_text("Compiling the sampler").wait_for()
    assert page.locator("#share").evaluate("(bar) => bar.value") == 0.2 and page.locator("#drive").is_hidden()
    ready.set()
    page.locator("#videos canvas").first.wait_for()
    server.shutdown()


def test_a_lost_server_is_said_and_found_again(tab: Callable[..., Page], start: Start, tmp_path: Path) -> None:
    server = start(tmp_path)
    page = tab(server.url)
    tapped(page, "w")
    server.shutdown()
    until(page, "true")
    page.keyboard.press("w")
    page.locator("#banner").wait_for()
    assert "does not answer" in page.locator("#banner").inner_text() and page.locator("#state").inner_text() == "lost"
    again = start(tmp_path, port=server.server_port)
    assert again.url == server.url
    page.locator("#banner").wait_for(state="hidden")
    page.get_by_text("A new one begins").wait_for()
    until(page, "player.session && player.nodes.size === 1 && !player.queue.length && !player.asking")
    tapped(page, "w")
    again.shutdown()
