#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How long it takes to list many sandboxes.

    bench/list.py [--stopped N] [--running N] [--runs N] [--machines]

Those that do not run are copies of one that has. Of those that run, this process holds lock and
sockets, as listing asks no machine; with --machines they are real ones ($MSB_ENGINE).
"""
import argparse
import contextlib
import fcntl
import json
import os
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "tests", "e2e"))
import harness


def copy(home, name):
    old, new = f"{home}/sandboxes/first", f"{home}/sandboxes/{name}"
    subprocess.run(["cp", "-a", old, new], check=True)
    with open(f"{new}/config.json") as f:
        config = json.load(f)
    with open(f"{new}/config.json", "w") as f:
        json.dump(dict(config, name=name), f)


def hold(home, name, held):
    """Be in the place of its owner and machine."""
    folder = f"{home}/sandboxes/{name}"
    lock = os.open(f"{folder}/lock", os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)
    fcntl.lockf(lock, fcntl.LOCK_EX)
    held.append(lock)
    for name in ("agent.sock", "control.sock"):
        s = socket.socket(socket.AF_UNIX)
        s.bind(f"{folder}/{name}")
        s.listen()
        held.append(s)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--stopped", type=int, default=200)
    parser.add_argument("--running", type=int, default=20)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--machines", action="store_true")
    args = parser.parse_args()
    held = []
    with tempfile.TemporaryDirectory(prefix="msb-bench-") as top:
        home = os.path.join(top, "home")
        env = harness.environment(home)
        msb = lambda *words: subprocess.run([harness.MSB, *words], env=env, check=True, stdout=subprocess.PIPE).stdout
        try:
            msb("load", "-q", "-i", harness.busybox_image(os.path.join(top, "busybox.tar")))
            msb("run", "--engine", harness.ENGINE, "-n", "first", "--label", "k=v", "busybox", "--", "true")
            for i in range(1, args.stopped):
                copy(home, f"stopped-{i}")
            for i in range(args.running):
                if args.machines:
                    msb("create", "--engine", harness.ENGINE, "-m", "64M", "-n", f"running-{i}", "busybox")
                else:
                    copy(home, f"running-{i}")
            msb("ls")
            if not args.machines:
                with contextlib.closing(sqlite3.connect(f"{home}/msb.db")) as db:
                    db.execute("UPDATE sandboxes SET state = 'running' WHERE name LIKE 'running-%'")
                    db.commit()
                for i in range(args.running):
                    hold(home, f"running-{i}", held)
            states = [s["status"] for s in json.loads(msb("ls", "--format", "json"))]
            assert sorted(states) == ["running"] * args.running + ["stopped"] * args.stopped, states
            for words in (("ls",), ("ps",), ("ps", "-a"), ("ls", "--format", "json"), ("ls", "-q", "--label", "k=v")):
                times = []
                for _ in range(args.runs):
                    began = time.perf_counter()
                    msb(*words)
                    times.append((time.perf_counter() - began) * 1000)
                print(f"msb {' '.join(words):22} min {min(times):6.2f} ms, median {statistics.median(times):6.2f} ms, "
                      f"max {max(times):6.2f} ms", flush=True)
            print(f"msb --version{'':13} min", end=" ")
            times = []
            for _ in range(args.runs):
                began = time.perf_counter()
                msb("--version")
                times.append((time.perf_counter() - began) * 1000)
            print(f"{min(times):6.2f} ms, median {statistics.median(times):6.2f} ms")
        finally:
            harness.stop_leftovers(home)


main()
