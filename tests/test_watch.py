"""The page that follows runs: its server, and the page itself in a real browser."""

import http.client
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import draw_shapes
from playwright.sync_api import Browser, Page, sync_playwright

from clprune import pipeline
from clprune.watch import MOST_POINTS, Watcher, serve

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
HOSTILE = "<img src=x onerror=alert(1)>"

# A model that takes its time: the run lasts long enough to be killed in the middle, on any machine.
SLOW_MODEL = """
import math, time, torch

class Slow(torch.nn.Sequential):
    def forward(self, images):
        time.sleep(0.06)
        return super().forward(images)

def slow(n_classes, input_shape):
    return Slow(torch.nn.Flatten(), torch.nn.Linear(math.prod(input_shape), n_classes))
"""
NOTE = "import os, sys; open(sys.argv[1], 'a').write(os.environ['CLPRUNE_END_EPOCH'] + chr(10))"


@pytest.fixture
def address() -> Iterator[Any]:
    """Starts a server on folders, in a thread that ends with the tests; gives its address."""

    def start(*runs: Path) -> str:
        ready: list[str] = []
        said = threading.Event()
        threading.Thread(target=serve, args=(runs,), kwargs={"on_ready": lambda told: (ready.append(told), said.set())}, daemon=True).start()
        assert said.wait(20)
        return ready[0]

    yield start


def ask(address: str, path: str = "/data", *, method: str = "GET", host: str | None = "127.0.0.1") -> tuple[int, str, Any]:
    connection = http.client.HTTPConnection(address.removeprefix("http://").rstrip("/"), timeout=20)
    connection.putrequest(method, path, skip_host=True)
    if host is not None:
        connection.putheader("Host", host)
    connection.endheaders()
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer.status, body, answer.headers


# ---- the server


def test_it_answers_this_machine_only_and_get_only(shapes_run: Path, address: Any) -> None:
    at = address(shapes_run)
    port = at.rstrip("/").rpartition(":")[2]
    for host in ("127.0.0.1", f"127.0.0.1:{port}", "localhost:9999", "LOCALHOST", "[::1]:80"):
        assert ask(at, host=host)[0] == 200, host
    for host in (
        "evil.example",
        f"evil.example:{port}",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "127.0.0.1@evil.example",
        "",
        "127.0.0.2",
        None,
    ):
        for path in ("/", "/data"):
            assert ask(at, path, host=host)[0] == 403, host
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD"):
        status, _, headers = ask(at, method=method)
        assert status == 405 and headers["Allow"] == "GET", method
    for path in ("/../../etc/passwd", "/run.json", "/data/", "/data?x"):
        assert ask(at, path)[0] == 404, path
    with socket.socket() as other, pytest.raises(OSError):  # another address of this machine: nobody listens there
        other.settimeout(5)
        other.connect(("127.0.0.2", int(port)))


def test_a_finished_run_without_a_live_file_shows_its_stored_curves(shapes_run: Path, tmp_path: Path) -> None:
    shutil.copytree(shapes_run, tmp_path / "old")
    with_file = Watcher([tmp_path / "old"]).look()["runs"][0]
    (tmp_path / "old" / "live.json").unlink()
    without = Watcher([tmp_path / "old"]).look()["runs"][0]
    assert without == with_file and without["status"] == "finished" and without["epochs_done"] == 3
    assert "not established" in without["words"] and len(without["curves"]["retention"]) == 12
    shutil.copytree(tmp_path / "old", tmp_path / "pruned" / "run")  # where `clprune prune --out pruned` puts its run
    assert Watcher([tmp_path / "pruned"]).look()["runs"][0] == without | {"name": str(tmp_path / "pruned")}


def test_a_run_of_which_nothing_has_a_label_is_finished_without_curves(tmp_path: Path) -> None:
    np.savez(tmp_path / "open.npz", x_train=draw_shapes(80, 0)[0], y_train=np.full(80, -1))
    pipeline.score(str(tmp_path / "open.npz"), tmp_path / "run", max_epochs=1)
    seen = Watcher([tmp_path / "run"]).look()["runs"][0]
    assert (seen["status"], seen["curves"], seen["epochs_done"]) == ("finished", {}, 0)
    assert seen["words"] == "Finished; no sample has a label, so nothing was trained."
    assert pipeline.detect(tmp_path / "run", live=True) == {"fired_epoch": None}


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"schema_version": 1}', '{"schema_version": 99, "kind": "live"}', "\x00\xff", None])
def test_a_broken_file_takes_nothing_from_view(shapes_run: Path, tmp_path: Path, content: str | None) -> None:
    run, watcher = tmp_path / "run", Watcher([tmp_path / "run"])
    assert watcher.look()["runs"][0]["status"] == "waiting"
    run.mkdir()
    assert watcher.look()["runs"][0]["status"] == "waiting"
    good = (shapes_run / "live.json").read_text().replace('"stopped"', '"running"')
    (run / "live.json").write_text(good)
    seen = watcher.look()["runs"][0]
    assert seen["status"] == "running" and len(seen["curve_epochs"]) == 12
    (run / "live.json").unlink()
    if content is None:
        (run / "live.json").mkdir()
    else:
        (run / "live.json").write_text(content, encoding="latin-1")
    assert watcher.look()["runs"][0]["curves"] == seen["curves"]
    assert Watcher([run]).look()["runs"][0]["status"] == "unreadable"
    json.dumps(watcher.look(), allow_nan=False)


def test_a_process_that_has_gone_and_a_run_that_was_said_to_be_finished(shapes_run: Path, tmp_path: Path) -> None:
    document = json.loads((shapes_run / "live.json").read_text())
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        pass
    for change, status, said in (
        ({"state": "running", "resumable": True}, "interrupted", "the same command goes on"),
        ({"state": "ended", "resumable": False, "fired_epoch": 2}, "interrupted", "finished or interrupted"),
        ({"state": "stopped"}, "finished", "not established"),
        ({"state": "stopped", "fired_epoch": 2}, "finished", "ended after epoch 2"),
        ({"state": "running", "host": "elsewhere", "border_epoch": 2.75}, "running", "memorization phase"),
        ({"state": "running", "host": "elsewhere", "border_epoch": 1.5}, "running", "forgetting phase since epoch 1.5"),
    ):
        (tmp_path / "live.json").write_text(json.dumps(document | {"pid": gone.pid} | change))
        seen = Watcher([tmp_path]).look()["runs"][0]
        assert seen["status"] == status and said in seen["words"], change


def test_long_curves_are_thinned_and_keep_their_last_point(shapes_run: Path, tmp_path: Path) -> None:
    document = json.loads((shapes_run / "live.json").read_text())
    for n in (1, MOST_POINTS, MOST_POINTS + 1, 7 * MOST_POINTS + 3):
        (tmp_path / "live.json").write_text(json.dumps(document | {"curve_epochs": list(range(n)), "curves": {"a": list(range(n))}}))
        seen = Watcher([tmp_path]).look()["runs"][0]
        assert seen["curve_epochs"] == seen["curves"]["a"] and seen["curve_epochs"][-1] == n - 1
        assert min(n, MOST_POINTS / 2) <= len(seen["curve_epochs"]) <= MOST_POINTS


def test_the_command_tells_its_address_and_ends_with_ctrl_c(tmp_path: Path) -> None:
    # A shell that runs the tests in the background hands down an ignored SIGINT: undo that, as a terminal would.
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from clprune.cli import main; main()"
    with subprocess.Popen([sys.executable, "-c", code, "watch", str(tmp_path / "run"), "--json"], stdout=-1, stderr=-1, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        told = json.loads(process.stdout.readline())
        assert told["address"] in process.stderr.readline()
        assert json.loads(ask(told["address"])[1])["runs"][0]["status"] == "waiting"
        port = told["address"].rstrip("/").rpartition(":")[2]
        taken = subprocess.run([sys.executable, "-m", "clprune", "watch", "x", "--port", port], capture_output=True, text=True)
        assert taken.returncode == 2 and "--port" in taken.stderr, taken.stderr
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0 and process.stdout.read() == ""


# ---- the page


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page that must neither complain nor ask anybody but this machine."""
    page, wrong = browser.new_page(), []
    page.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: wrong.append(request.url) if not request.url.startswith(("http://127.0.0.1:", "data:")) else None)
    page.on("dialog", lambda dialog: (wrong.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    page.set_default_timeout(60_000)
    yield page
    page.close()
    assert wrong == []


def points(page: Page) -> int:
    """Points drawn of the training accuracy, which has no gaps."""
    return int(page.evaluate("document.getElementById('text-training_accuracy')?.parentNode.querySelector('path')?.dataset.points ?? 0"))


def grown_beyond(page: Page, n: int) -> int:
    """Wait until more than `n` points are drawn."""
    deadline = time.monotonic() + 60
    while (now := points(page)) <= n and time.monotonic() < deadline:
        page.wait_for_timeout(100)
    assert now > n
    return now


def test_the_page_follows_a_run_that_is_killed_and_resumed(page: Page, address: Any, shapes_npz: Path, tmp_path: Path) -> None:
    run, notes = tmp_path / "run", tmp_path / "notes"
    (tmp_path / "slow_model.py").write_text(SLOW_MODEL)
    hook = shlex.join([sys.executable, "-c", NOTE, str(notes)])
    command = [sys.executable, "-m", "clprune", "score", str(shapes_npz), "--out", str(run), "--proxy", "slow_model:slow", "--max-epochs", "30"]
    command += ["--on-clp-end", hook, "--tensorboard", str(tmp_path / "events"), "--quiet"]
    status = lambda wanted: page.wait_for_selector(f".badge[data-status={wanted}]")  # noqa: E731
    page.goto(address(run))
    status("waiting")
    with subprocess.Popen(command, cwd=tmp_path) as first:
        status("running")
        before = 0
        for _ in range(3):
            before = grown_beyond(page, before)
        first.kill()
    status("interrupted")
    assert "the same command goes on" in page.inner_text(".run") and points(page) >= before
    before = points(page)
    assert not (run / "run.json").exists() and not notes.exists()
    with subprocess.Popen(command, cwd=tmp_path) as second:
        status("running")
        assert points(page) > 0  # what was known stays in view
        grown_beyond(page, before)
        assert second.wait() == 0
    status("finished")
    document = json.loads((run / "run.json").read_text())
    assert points(page) == 4 * document["epochs_run"] and document["clp"]["settled"]
    end = document["clp"]["end_epoch"]
    assert f"ended after epoch {end}" in page.inner_text(".run")
    recorded = [name for name, values in json.loads((run / "live.json").read_text())["curves"].items() if any(value is not None for value in values)]
    assert page.locator(".chart line.end").count() == page.locator(".chart").count() == len(recorded) > 10
    assert notes.read_text() == f"{end}\n"  # once, whatever was killed and started again
    assert any((tmp_path / "events").iterdir())


def test_it_can_be_read_in_words_by_keyboard_and_on_a_narrow_screen(page: Page, address: Any, shapes_run: Path) -> None:
    for width, scheme in ((400, "light"), (1280, "dark")):
        page.set_viewport_size({"width": width, "height": 800})
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        page.goto(address(shapes_run))
        page.wait_for_selector(".chart path")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        for name in page.locator(".chart h3").all_inner_texts():
            chart = page.locator(".chart", has=page.get_by_role("heading", name=name, exact=True))
            assert "points to epoch 3" in chart.locator("[id^=text-]").text_content()
        colours = page.evaluate("[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]")
        light, dark = (sum(map(int, colour[4:-1].split(","))) for colour in colours)
        assert (light > dark) == (scheme == "light")
    for _ in range(3):  # the charts are the only stops: one key each
        page.keyboard.press("Tab")
    reading = page.locator(".plot:focus")
    assert reading.get_attribute("aria-describedby") == page.locator(".chart [id^=text-]").nth(2).get_attribute("id")
    values = json.loads((shapes_run / "live.json").read_text())["curves"][reading.get_attribute("aria-describedby").removeprefix("text-")]
    for presses, place in (("End", -1), ("ArrowLeft", -2), ("ArrowLeft", -3), ("ArrowRight", -2), ("Home", 0)):
        page.keyboard.press(presses)
        epoch, _, value = reading.get_attribute("aria-valuetext").removeprefix("epoch ").partition(": ")
        assert float(epoch) == (3.25 + place / 4 if place < 0 else 0.25)
        assert value == "no value" if values[place] is None else float(value) == pytest.approx(values[place], rel=0.01)
    time.sleep(2.5)
    assert page.locator(".plot:focus").get_attribute("aria-valuetext").startswith("epoch 0.25")  # drawing again moves neither focus nor cross


def test_names_never_become_html(page: Page, address: Any, shapes_run: Path, tmp_path: Path) -> None:
    document = json.loads((shapes_run / "live.json").read_text())
    (tmp_path / HOSTILE).mkdir()
    text = document | {"title": HOSTILE, "waiting_for": HOSTILE, "state": "running", "pid": os.getpid(), "process_started": None}
    text["curves"] = document["curves"] | {HOSTILE: document["curves"]["fisher_trace"] if "fisher_trace" in document["curves"] else [1.0] * 12}
    (tmp_path / HOSTILE / "live.json").write_text(json.dumps(text))
    page.goto(address(tmp_path / HOSTILE, tmp_path / "</script><b>later"))
    page.wait_for_selector(".chart path")
    assert page.locator(".run h3").all_inner_texts() == [str(tmp_path / HOSTILE), str(tmp_path / "</script><b>later")]
    assert HOSTILE.replace("_", " ") in page.locator(".chart h3").all_inner_texts()
    assert f"The period's end waits for: {HOSTILE}" in page.locator(".run").first.inner_text()
    assert page.locator("img, h3 *").count() == 0 and page.locator("script").count() == 1
