"""The report in a real browser without a network: its videos play, its two looks differ."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import CHROMIUM
from vgen_jax.files import media
from vgen_jax.files.report import Plot, Table, Text, Video, write_report

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture
def offline() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        context = browser.new_context(offline=True, viewport={"width": 1000, "height": 900})
        yield context
        browser.close()


def test_videos_play_and_both_looks_are_there(offline: Any, tmp_path: Path) -> None:
    frames = np.zeros((16, 32, 32, 3), np.uint8)
    frames[np.arange(16), :, np.arange(16) * 2] = 255
    captioned = media.caption_frames(frames, ["go forward"] * 16)
    with media.VideoWriter(tmp_path / "video.mp4", 8, captioned.shape[1:3]) as writer:
        writer.write(captioned)
    (tmp_path / "config.json").write_text('{"run": "generate"}')
    sections = [
        Text("What was generated."), Video(tmp_path / "video.mp4", "A rollout"),
        Plot({"loss": ([0, 1, 2], [3.0, 2.0, 1.0])}, "Loss"), Table(["metric", "value"], [["psnr", 24.1]], "Numbers"),
    ]  # fmt: skip
    path = write_report(tmp_path, "A report", sections, command="python -m vgen_jax.main --config=quickstart")
    page, asked = offline.new_page(), []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    video = page.locator("video")
    assert video.evaluate("(v) => [v.controls, v.loop, v.muted]") == [True, True, True]
    end = time.monotonic() + 20
    while not video.evaluate("(v) => v.readyState >= 2 && !v.paused && v.currentTime > 0.2"):
        assert time.monotonic() < end, video.evaluate("(v) => [v.readyState, v.error && v.error.message]")
        time.sleep(0.05)
    assert video.evaluate("(v) => v.videoHeight") == captioned.shape[1]
    assert all(url.startswith(("file:", "data:")) for url in asked)
    colours = []
    for look in ("light", "dark"):
        page.locator(f"label:has(#{look})").click()
        colours.append(page.evaluate("() => getComputedStyle(document.body).backgroundColor"))
        folder = Path(os.environ.get("VGEN_TEST_ARTIFACTS") or tmp_path)
        folder.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=str(folder / f"report_{look}.png"), full_page=True)
    assert len(set(colours)) == 2
    page.locator("a", has_text="config.json").click()
    assert '"generate"' in page.locator("body").inner_text()
