"""The tutorial, step by step: its commands in the order of the page, its files, its page in a browser."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By

from serving.asking import until
from serving.browser import chromium
from serving.commands import environment
from serving.documents import Block, all_blocks
from serving.processes import free_port

PAGE = "docs/tutorial.md"
BUILDING = "ci/build"  # was done before the tests


class Reader:
    """Somebody who follows the page: one folder, and one process for each command that goes on."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ports = {"8081": str(free_port()), "8000": str(free_port())}
        self._metrics_port = free_port()
        self._running: list[subprocess.Popen[bytes]] = []
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        # Without this the commands look for the server at the port of the page.
        url = f"ws://localhost:{self._ports['8081']}/ws"
        self.environment = environment(PATH=path, PYTHONUNBUFFERED="1", RTC_URL=url)

    def follow(self, block: Block) -> str:
        """Do what the block says. What it wrote; of one that goes on, nothing yet."""
        text = block.text
        for port, free in self._ports.items():
            text = text.replace(port, free)
        if "file" in block.marks:
            (self._folder / block.marks["file"]).write_text(text)
            return ""
        text = text.replace("rtc serve", f"rtc serve --metrics.port={self._metrics_port}")
        # Variables that are exported hold in the terminal from then on.
        log = self._folder / f"{block.line}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                ["bash", "-euo", "pipefail", "-c", f"{text}\nexport -p >.terminal"],
                cwd=self._folder,
                env=self.environment | self._exported(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        if "runs until" in block.marks:
            self._running.append(process)
            return ""
        assert process.wait(60) == 0, f"{block}:\n{log.read_text()}"
        return log.read_text()

    def written(self, block: Block) -> str:
        """All that a command that goes on has written so far."""
        return (self._folder / f"{block.line}.log").read_text()

    def waits_for(self, block: Block, words: str) -> None:
        """Until a command that goes on has written that."""
        until(lambda: words in self.written(block), lambda: f"{block} wrote no {words!r}:\n{self.written(block)}")

    def leave(self) -> None:
        """End what goes on."""
        for process in reversed(self._running):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        for process in self._running:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def _exported(self) -> dict[str, str]:
        said = self._folder / ".terminal"
        if not said.exists():
            return {}
        told = subprocess.run(
            ["bash", "-c", f"source {said}; env -0"], env={}, capture_output=True, text=True, check=True
        ).stdout
        return dict(pair.partition("=")[::2] for pair in told.split("\0") if pair)


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    made = Reader(tmp_path)
    try:
        yield made
    finally:
        made.leave()


@pytest.fixture
def browser() -> Iterator[webdriver.Chrome]:
    driver = chromium()
    try:
        yield driver
    finally:
        driver.quit()


def test_a_chat_between_a_browser_and_a_back_end(reader: Reader, browser: webdriver.Chrome) -> None:
    steps = [block for block in all_blocks() if block.path == PAGE and BUILDING not in block.text]
    bot = None
    for block in steps:
        said = reader.follow(block)
        if "backend.py" in block.text:
            bot = block
            continue  # it has somebody to answer when the page is open
        if awaited := block.marks.get("runs until"):
            reader.waits_for(block, awaited)
        if said.startswith("http://"):
            chat(browser, said.strip())
    assert bot is not None
    reader.waits_for(bot, bot.marks["runs until"])
    until(lambda: "bot: from curl" in lines(browser), lambda: lines(browser))
    assert lines(browser) == [
        "bot: Good day. Say something.",
        "alice: hello",
        "bot: You said: hello",
        "bot: from the command line",
        "bot: from curl",
    ]


def chat(browser: webdriver.Chrome, address: str) -> None:
    """Open the page, read the greeting, say something, read the answer."""
    browser.get(address)
    until(lambda: "bot: Good day. Say something." in lines(browser), lambda: lines(browser))
    browser.find_element(By.ID, "text").send_keys("hello\n")
    until(lambda: "bot: You said: hello" in lines(browser), lambda: lines(browser))


def lines(browser: webdriver.Chrome) -> list[str]:
    """What the page shows."""
    return [
        str(line) for line in browser.execute_script("return [...messages.children].map((line) => line.textContent)")
    ]
