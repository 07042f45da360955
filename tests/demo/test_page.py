"""The demo page in headless Chromium, against a server of the dev profile."""

import subprocess
import sys
import time

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from serving.browser import chromium
from serving.processes import free_port

WAIT_SECS = 30.0
POLICY = "--security.content_security_policy=default-src 'self'"  # as in the guide; the page must live with it


def until(what, condition):
    """The first true value of `condition`; `what` says what was waited for."""
    deadline = time.monotonic() + WAIT_SECS
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.05)
    return pytest.fail(f"{what}: not within {WAIT_SECS} s")


class DevServer:
    def __init__(self):
        self.port = free_port()
        self.process = None

    def start(self):
        command = [sys.executable, "-m", "realtime_communication.cli.main", "serve", "--profile=dev", "--workers=1"]
        self.process = subprocess.Popen(
            [*command, "--host=127.0.0.1", f"--port={self.port}", POLICY],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert b"listening" in self.process.stdout.readline()

    def stop(self):
        if self.process is not None:
            self.process.terminate()
            self.process.wait(30)
            self.process.stdout.close()
            self.process = None


class Page:
    """One visitor's tab, in a browser session of its own."""

    def __init__(self, driver, server, user):
        self.driver = driver
        self.user = user
        driver.get(f"http://127.0.0.1:{server.port}/?user={user}&room=lobby")
        until(f"{user} connects", lambda: self.state == "connected" and user in self.people)

    def run(self, script, *arguments):
        return self.driver.execute_script(script, *arguments)

    def find(self, selector):
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def text(self, selector):
        return self.run("return document.querySelector(arguments[0]).innerText", selector)

    @property
    def state(self):
        return self.run("return document.getElementById('state').dataset.state")

    @property
    def people(self):
        return self.run(
            "return [...document.querySelectorAll('#people .person')].map((each) => each.childNodes[1].textContent)"
        )

    @property
    def messages(self):
        return self.run("return [...document.querySelectorAll('#messages .message p')].map((each) => each.textContent)")

    @property
    def notices(self):
        return self.run("return [...document.querySelectorAll('#messages .notice')].map((each) => each.textContent)")

    def say(self, text):
        self.find("#text").send_keys(text, Keys.ENTER)

    def sees(self, text):
        until(f"{self.user} sees {text!r}", lambda: text in self.messages)

    def is_told(self, text):
        until(f"{self.user} is told {text!r}", lambda: any(text in notice for notice in self.notices))


@pytest.fixture
def server():
    server = DevServer()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def visit(server):
    drivers = []

    def open_page(user):
        driver = chromium()
        drivers.append(driver)
        return Page(driver, server, user)

    yield open_page
    for driver in drivers:
        driver.quit()


def test_two_people_chat_and_see_each_other(visit):
    alice, bob = visit("alice"), visit("bob")
    until("alice sees bob", lambda: sorted(alice.people) == ["alice", "bob"])
    alice.is_told("bob joined")
    alice.say("hello <b>bob</b>")
    bob.sees("hello <b>bob</b>")
    bob.say("hello alice")
    alice.sees("hello alice")
    assert alice.messages == bob.messages
    until("a latency is shown", lambda: alice.text("#latency").endswith(" ms"))
    envelopes = alice.text("#raw")
    assert '"type":"Broadcast"' in envelopes
    assert '"type":"Authenticate","token":"…"' in envelopes
    bob.driver.get("about:blank")
    alice.is_told("bob left")
    assert alice.people == ["alice"]
    console = [line["message"] for line in alice.driver.get_log("browser")]
    assert [line for line in console if "127.0.0.1" in line] == []


def test_direct_messages(visit):
    alice, bob = visit("alice"), visit("bob")
    until("alice sees bob", lambda: "bob" in alice.people)
    alice.find("#people li:nth-child(2) button").click()
    alice.say("just for you")
    alice.sees("just for you")
    until("bob's list shows it", lambda: "alice" in bob.text("#direct"))
    assert "just for you" not in bob.messages
    bob.find("#direct button").click()
    bob.sees("just for you")


def test_a_lost_connection_is_made_good(visit):
    alice, bob = visit("alice"), visit("bob")
    alice.say("before")
    bob.sees("before")
    # Keep alice away for as long as it takes bob to write.
    alice.run("window.real = window.fetch; window.fetch = () => Promise.reject(new Error('cut'))")
    alice.find("#drop").click()
    alice.is_told("Connection lost")
    bob.say("first")
    bob.say("second")
    bob.sees("second")
    alice.say("written while away")
    alice.run("window.fetch = window.real")
    alice.is_told("2 missed messages recovered, nothing is missing")
    bob.sees("written while away")
    until("both have the same", lambda: alice.messages == bob.messages)
    assert alice.messages == ["before", "first", "second", "written while away"]


def test_a_server_that_comes_back_and_what_is_said_about_it(visit, server):
    alice, bob = visit("alice"), visit("bob")
    alice.say("before the restart")
    bob.sees("before the restart")
    server.stop()
    until("alice notices", lambda: alice.state != "connected")
    alice.is_told("The server says: server shutting down")
    server.start()
    for page in (alice, bob):
        page.is_told("Some messages may be missing")
    until("both are back", lambda: sorted(alice.people) == ["alice", "bob"] == sorted(bob.people))
    bob.say("after the restart")
    alice.sees("after the restart")
    assert alice.messages == ["before the restart", "after the restart"]


def test_rooms_are_apart(visit):
    alice, bob = visit("alice"), visit("bob")
    alice.find("#room").send_keys("kitchen", Keys.ENTER)
    until("alice is in the kitchen", lambda: alice.text("#title") == "kitchen" and alice.people == ["alice"])
    alice.say("only here")
    alice.sees("only here")
    bob.say("in the lobby")
    until("the other room counts it", lambda: "1" in alice.text("#rooms"))
    assert bob.messages == ["in the lobby"]


def test_the_keyboard_reaches_everything(visit):
    alice = visit("alice")
    reached = set()
    for _ in range(30):
        alice.driver.switch_to.active_element.send_keys(Keys.TAB)
        reached.add(alice.run("return document.activeElement.id || document.activeElement.className"))
    assert {"skip", "drop", "name", "room", "direct-to", "messages", "text", "raw", "conversation"} <= reached
    unnamed = (
        "return [...document.querySelectorAll('input')].filter((each) => !each.labels.length).map((each) => each.id)"
    )
    assert alice.run(unnamed) == []
