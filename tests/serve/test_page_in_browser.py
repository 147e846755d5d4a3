"""The page in a real browser: its fake camera is filmed, changed and shown. Run by ``make test-browser``."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from live2diff_trt.bundle.shipped import SHIPPED_BUNDLE
from live2diff_trt.engine.onnxruntime_backend import OnnxRuntimeOptions
from live2diff_trt.runtime.shared_engine import SharedEngine, open_shared_engine
from live2diff_trt.serve.jpeg import as_rgb, encode_jpeg
from tests.conftest import find_clip
from tests.restyled_bundle import restyle_bundle
from tests.serve.chromium import Chromium, Tab
from tests.serve.conftest import Serve
from tests.serve.made_up_server import RunningServer, wait_until

pytestmark = pytest.mark.browser
PICTURES = os.environ.get("LIVE2DIFF_PICTURES")
TOKEN = "a-token-of-a-test-123"
log = logging.getLogger(__name__)

ONLY_BY_A_RELAY = """
  const Plain = RTCPeerConnection;
  window.RTCPeerConnection = class extends Plain {
    constructor(configuration) { super({ ...configuration, iceTransportPolicy: "relay" }); }
  };
"""
"""As a network that lets no UDP through: there is no relay either, so no connection is made."""
REMEMBER_PICTURES = """
  window.seen = [];
  const Plain = WebSocket;
  window.WebSocket = class extends Plain {
    constructor(...words) {
      super(...words);
      this.addEventListener("message", async ({ data }) => {
        if (!(data instanceof Blob)) return;
        const digest = await crypto.subtle.digest("SHA-256", await data.slice(4).arrayBuffer());
        window.seen.push(btoa(String.fromCharCode(...new Uint8Array(digest))));
      });
    }
  };
"""
READ_PICTURE = """(() => {
  const shown = [...document.querySelectorAll(SELECTOR)].find((element) => !element.hidden);
  const canvas = Object.assign(document.createElement("canvas"), { width: 32, height: 32 });
  const context = canvas.getContext("2d");
  context.drawImage(shown, 0, 0, 32, 32);
  return [...context.getImageData(0, 0, 32, 32).data];
})()"""


@pytest.fixture(scope="module")
def shared() -> Iterator[SharedEngine]:
    engine = open_shared_engine(SHIPPED_BUNDLE, OnnxRuntimeOptions(), max_steps=4)
    yield engine
    engine.close()


@pytest.fixture(scope="module", autouse=True)
def kept_log() -> Iterator[None]:
    """What these tests say, kept for the docs if that is asked for."""
    log.setLevel(logging.INFO)
    handler = logging.FileHandler(Path(PICTURES) / "page.log", "w") if PICTURES else logging.NullHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.addHandler(handler)
    yield
    log.removeHandler(handler)
    handler.close()


@pytest.fixture(autouse=True)
def named_in_log(request: pytest.FixtureRequest) -> Iterator[None]:
    """The log tells how each test went."""
    failed = request.session.testsfailed
    yield
    result = "passed" if request.session.testsfailed == failed else "FAILED"
    log.info("%s: %s", result, request.node.name.removeprefix("test_").replace("_", " "))


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A camera that shows one frame of a real clip: what changes in the result is not the camera's doing."""
    path = tmp_path_factory.mktemp("camera") / "still.mjpeg"
    with av.open(find_clip("bigbuckbunny.mp4")) as clip:
        frame = next(frame for frame in clip.decode(video=0) if frame.time and frame.time > 3)
    path.write_bytes(encode_jpeg(as_rgb(frame)) * 30)
    return path


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory, still: Path) -> Iterator[Chromium]:
    folder = tmp_path_factory.mktemp("chromium")
    with Chromium(folder, f"--use-file-for-fake-video-capture={still}") as browser:
        yield browser
    assert not browser.console


def picture(tab: Tab, selector: str = "#output-video, #output-canvas") -> NDArray[Any]:
    pixels = tab.evaluate(READ_PICTURE.replace("SELECTOR", repr(selector)))
    return np.array(pixels, np.uint8).reshape(32, 32, 4)[..., :3].astype(int)


def distance(one: NDArray[Any], other: NDArray[Any]) -> float:
    return float(np.abs(one - other).mean())


def start(tab: Tab, state: str = "streaming", button: str = "#camera") -> None:
    tab.wait_for("document.querySelector('#facts').textContent !== ''")
    tab.click(button)
    wait_until(lambda: tab.text("#state").startswith(state), state, 40)


def wait_for_video(tab: Tab) -> None:
    wait_until(lambda: bool(np.ptp(picture(tab))), "a picture", 20)


def choose(tab: Tab, selector: str, value: object) -> None:
    tab.evaluate(
        f"(() => {{ const field = document.querySelector({selector!r}); field.value = {value!r};"
        "field.dispatchEvent(new Event('input')); field.dispatchEvent(new Event('change')); })()"
    )


def use_prompt(tab: Tab, text: str) -> None:
    choose(tab, "#transition", 0)
    choose(tab, "#prompts .text", text)
    tab.click("#prompt-form .main")


def keep(tab: Tab, name: str) -> None:
    """Keep a picture of the page for the docs, if that is asked for."""
    if PICTURES:
        tab.screenshot(Path(PICTURES) / name)
        with Image.open(Path(PICTURES) / name) as picture:
            picture.quantize(200).save(Path(PICTURES) / name, optimize=True)


def test_video_goes_in_and_comes_out_changed(chromium: Chromium, serve: Serve, shared: SharedEngine) -> None:
    server = serve(shared, prompt="a watercolour fox")
    tab = chromium.open(server.address, width=1140, height=1020)
    start(tab)
    wait_for_video(tab)
    assert "WebRTC" in tab.text("#facts")
    shown = picture(tab)
    assert distance(shown, picture(tab, "#input")) > 20
    wait_until(lambda: distance(shown, picture(tab)) > 1, "the next picture")
    time.sleep(12)  # until the warm-up is out of the figures
    assert float(tab.text("#fps")) > 1
    assert float(tab.text("#p50")) <= float(tab.text("#p99"))
    keep(tab, "page.png")
    log.info("WebRTC: %s FPS, latency p50 %s ms, p99 %s ms; %s", *map(tab.text, ("#fps", "#p50", "#p99", "#facts")))
    tab.resize(390, 844, mobile=True)
    time.sleep(0.5)
    keep(tab, "page-phone.png")
    tab.close()


def test_the_prompt_changes_what_comes_out(chromium: Chromium, serve: Serve, shared: SharedEngine) -> None:
    """The camera stands still, so a frame's picture is the same in every session, bit by bit, under the same prompt."""
    server = serve(shared, prompt="a watercolour fox")
    first, second = (watch_pictures(chromium, server) for _ in range(2))
    start(first)
    wait_for_pictures(first, 40)
    first.click("#stop")
    start(second)
    wait_for_pictures(second, 8)
    known = set(pictures_seen(first))
    under_the_same = pictures_seen(second)
    use_prompt(second, "a snowy forest")
    time.sleep(1)  # what was on its way leaves
    changed_at = len(pictures_seen(second))
    wait_for_pictures(second, changed_at + 8)
    under_another = pictures_seen(second)[changed_at:]
    same, other = known.intersection(under_the_same), known.intersection(under_another)
    log.info(
        "of %d pictures %d are those of the first session; under another prompt, of %d %d",
        *(len(under_the_same), len(same), len(under_another), len(other)),
    )
    assert len(same) >= 3  # the first session may have dropped some on their way out
    assert not other
    first.close()
    second.close()


def test_a_style_changes_what_comes_out_of_one_tab_alone(chromium: Chromium, serve: Serve, tmp_path: Path) -> None:
    """As with the prompt: a frame's picture is the same in every session, bit by bit, but under another style."""
    style = restyle_bundle(SHIPPED_BUNDLE, tmp_path / "ink", seed=5)
    with closing(open_shared_engine(SHIPPED_BUNDLE, OnnxRuntimeOptions(), styles={"ink": style})) as engine:
        server = serve(engine, prompt="a watercolour fox")
        first, second = (watch_pictures(chromium, server) for _ in range(2))
        for tab in (first, second):
            start(tab)
        wait_for_pictures(second, 12)
        press(second, "s")
        assert second.evaluate("document.activeElement.id") == "style"
        under_the_same = set(pictures_seen(second))
        choose(second, "#style", "ink")
        wait_until(lambda: "style ink" in second.text("#facts"), "its style is told", 20)
        time.sleep(1)  # what was on its way leaves
        changed_at = len(pictures_seen(second))
        wait_for_pictures(second, changed_at + 8)
        under_another = set(pictures_seen(second)[changed_at:])
        wait_for_pictures(first, 40)
        under_none = set(pictures_seen(first))
        assert "style" not in first.text("#facts")
        choose(second, "#style", "")
        wait_until(lambda: "style" not in second.text("#facts"), "none is told", 20)
        second.click("#stop")
        choose(second, "#style", "ink")
        start(second)  # a new session is told what the page shows
        wait_until(lambda: "style ink" in second.text("#facts"), "its style is told again", 20)
        log.info(
            "of %d pictures under another style, %d are the other tab's",
            len(under_another),
            len(under_another & under_none),
        )
        assert len(under_the_same & under_none) >= 3
        assert len(under_another) >= 2
        assert not under_another & under_none
        first.close()
        second.close()
        wait_until(lambda: server.metric("sessions") == 0, "all is freed", 10)


def test_without_styles_none_is_offered(chromium: Chromium, serve: Serve, shared: SharedEngine) -> None:
    tab = chromium.open(serve(shared).address)
    tab.wait_for("document.querySelector('#facts').textContent !== ''")
    assert tab.evaluate("document.querySelector('#style-choice').hidden && document.querySelector('#style-key').hidden")
    tab.close()


def watch_pictures(chromium: Chromium, server: RunningServer) -> Tab:
    """Open the page with its WebSocket chosen, and remember what every picture that comes is."""
    tab = chromium.open(server.address, script=REMEMBER_PICTURES)
    choose(tab, "#way", "websocket")
    return tab


def pictures_seen(tab: Tab) -> list[str]:
    seen: list[str] = tab.evaluate("window.seen")
    return seen


def wait_for_pictures(tab: Tab, count: int) -> None:
    tab.wait_for(f"window.seen.length >= {count}", 40)


def test_a_second_tab_queues_and_closing_the_first_frees_its_seat(
    chromium: Chromium, serve: Serve, shared: SharedEngine
) -> None:
    server = serve(shared, max_sessions=1)
    first, second = chromium.open(server.address), chromium.open(server.address)
    start(first)
    start(second, "queued")
    assert second.text("#output-empty") == "You are number 1 in the line"
    began = time.monotonic()
    first.close()
    wait_until(lambda: second.text("#state") == "streaming", "the second tab streams", 20)
    log.info("the second tab streamed %.1f s after the first was closed", time.monotonic() - began)
    second.close()
    wait_until(lambda: server.metric("sessions") == 0, "all is freed", 5)


def test_the_keyboard_and_the_buttons(chromium: Chromium, serve: Serve, shared: SharedEngine) -> None:
    server = serve(shared)
    tab = chromium.open(server.address)
    start(tab)
    wait_until(lambda: tab.text("#pause") == "Pause", "a pause is offered")
    press(tab, " ")
    wait_until(lambda: tab.text("#state") == "paused", "paused")
    press(tab, " ")
    wait_until(lambda: tab.text("#state") == "streaming", "streaming")
    press(tab, "r")
    wait_until(lambda: tab.text("#state") == "warming up", "warming up")
    wait_until(lambda: tab.text("#state") == "streaming", "streaming", 20)
    choose(tab, "#steps", "20, 30, 40")
    wait_until(lambda: "steps 20, 30, 40" in tab.text("#facts"), "other steps", 20)
    choose(tab, "#strength", 0.3)
    wait_until(lambda: "steps 20, 30, 40" not in tab.text("#facts"), "another strength", 20)
    choose(tab, "#steps", "40, 30")
    wait_until(lambda: "does not rise" in tab.text("#note"), "a refusal")
    tab.click("#stop")
    wait_until(lambda: server.metric("sessions") == 0, "the session is over", 5)
    assert tab.text("#state") == "ready"
    tab.close()


def press(tab: Tab, key: str) -> None:
    tab.evaluate("document.activeElement.blur()")
    for kind in ("keyDown", "keyUp"):
        tab.call("Input.dispatchKeyEvent", {"type": kind, "key": key, "text": key if kind == "keyDown" else ""})


def test_websocket_by_hand(chromium: Chromium, serve: Serve, shared: SharedEngine) -> None:
    tab = chromium.open(serve(shared).address)
    choose(tab, "#way", "websocket")
    start(tab)
    wait_for_video(tab)
    wait_until(lambda: "WebSocket and JPEG" in tab.text("#facts"), "its way is told")
    assert distance(picture(tab), picture(tab, "#input")) > 20
    time.sleep(12)  # until the warm-up is out of the figures
    log.info("WebSocket: %s FPS, latency p50 %s ms, p99 %s ms", *map(tab.text, ("#fps", "#p50", "#p99")))
    tab.close()


def test_where_webrtc_fails_the_page_says_so_and_uses_the_websocket(
    chromium: Chromium, serve: Serve, shared: SharedEngine
) -> None:
    tab = chromium.open(serve(shared).address, script=ONLY_BY_A_RELAY)
    start(tab)
    wait_for_video(tab)
    assert tab.text("#note").startswith("WebRTC did not work here")
    assert "WebSocket and JPEG" in tab.text("#facts")
    log.info("without a relay: %s", tab.text("#note"))
    tab.close()


def test_a_video_file(chromium: Chromium, serve: Serve, shared: SharedEngine, tmp_path: Path) -> None:
    clip = Path(shutil.copy(find_clip("bikes.mp4"), tmp_path))
    tab = chromium.open(serve(shared).address)
    tab.wait_for("document.querySelector('#facts').textContent !== ''")
    field = tab.call("Runtime.evaluate", {"expression": "document.querySelector('#file')"})["result"]["objectId"]
    tab.call("DOM.setFileInputFiles", {"files": [str(clip)], "objectId": field})
    wait_until(lambda: tab.text("#state") == "streaming", "streaming", 30)
    wait_for_video(tab)
    assert tab.evaluate("document.querySelector('#input').duration") == pytest.approx(10, abs=0.2)
    shown = picture(tab)
    assert distance(shown, picture(tab, "#input")) > 5
    wait_until(lambda: distance(picture(tab), shown) > 5, "the result moves with the clip", 20)
    tab.close()


def test_the_screen(chromium: Chromium, serve: Serve, shared: SharedEngine) -> None:
    tab = chromium.open(serve(shared).address)
    start(tab, button="#screen")
    wait_for_video(tab)
    shown = tab.evaluate("document.querySelector('video').srcObject.getVideoTracks()[0].getSettings().displaySurface")
    assert shown in ("browser", "window", "monitor")
    tab.close()


def test_a_token_comes_with_the_address_and_stays_in_the_browser(
    chromium: Chromium, serve: Serve, shared: SharedEngine
) -> None:
    server: RunningServer = serve(shared, token=TOKEN)
    tab = chromium.open(f"{server.address}/#token={TOKEN}")
    start(tab)
    assert TOKEN not in tab.evaluate("location.href")
    tab.close()
