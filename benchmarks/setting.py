"""Where and with what a measurement was made: the machine, the servers and their versions, the figures."""

import json
import os
import platform
import subprocess
import time
from collections.abc import Sequence
from importlib import metadata

import msgspec

from . import prepare
from .candidates import Candidate
from .figures import Figure
from .machine import processor


class Server(msgspec.Struct, frozen=True):
    """A server that was asked for. An empty version could not be found out."""

    name: str
    title: str
    version: str


class Machine(msgspec.Struct, frozen=True):
    """What a measurement ran on."""

    processor: str
    cores: int
    memory_bytes: int
    kernel: str
    system: str


class Setting(msgspec.Struct, frozen=True):
    """Everything about a measurement but its results."""

    measured_at: str
    machine: Machine
    rounds: int
    seconds: float
    servers: list[Server]
    figures: list[Figure]


def setting(candidates: Sequence[Candidate], figures: Sequence[Figure], rounds: int, seconds: float) -> Setting:
    """Of a measurement that begins now."""
    servers = [Server(candidate.name, candidate.title, version(candidate)) for candidate in candidates]
    today = time.strftime("%Y-%m-%d", time.gmtime())
    return Setting(today, machine(), rounds, seconds, servers, list(figures))


def machine() -> Machine:
    return Machine(
        processor=processor(),
        cores=os.cpu_count() or 1,
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        kernel=f"{platform.system()} {platform.release()}",
        system=platform.freedesktop_os_release().get("PRETTY_NAME", ""),
    )


PYTHON_PACKAGES = {
    "product": ("realtime_communication",),
    "uwebsockets": ("socketify",),
    "picows": ("picows", "uvloop"),
    "websockets": ("websockets", "uvloop"),
    "baseline": ("websockets", "uvloop", "msgspec"),
}
NODE_PACKAGES = {"ws": ("ws", "bufferutil"), "socketio": ("socket.io", "ws", "bufferutil")}


def version(candidate: Candidate) -> str:
    """The versions of what a server is made of, as far as they can be found out."""
    if candidate.missing() is not None:
        return ""
    name = candidate.name
    if name in PYTHON_PACKAGES:
        parts = [f"{package} {metadata.version(package)}" for package in PYTHON_PACKAGES[name]]
        return ", ".join([*parts, f"Python {platform.python_version()}"])
    if name in NODE_PACKAGES:
        parts = [f"{package} {node_version(package)}" for package in NODE_PACKAGES[name]]
        return ", ".join([*parts, f"Node.js {output('node', '--version').removeprefix('v')}"])
    if candidate.protocol == "nats":
        return f"nats-server {output(candidate.command[0], '--version').rpartition(' ')[2].removeprefix('v')}"
    if candidate.protocol == "centrifugo":
        return f"Centrifugo {go_version(candidate.command[0])}".rstrip()
    return ""


def node_version(package: str) -> str:
    found: str = json.loads((prepare.NODE_MODULES / package / "package.json").read_text())["version"]
    return found


def go_version(program: str) -> str:
    """The version of the module that a program was built from."""
    for line in output("go", "version", "-m", program).splitlines():
        words = line.split()
        if words[:1] == ["mod"]:
            return words[2].removeprefix("v")
    return ""


def output(*command: str) -> str:
    """What a command prints; nothing when there is no such command or it fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
