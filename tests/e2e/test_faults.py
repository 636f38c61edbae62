# SPDX-License-Identifier: Apache-2.0
"""Every change that a command makes to a sandbox's files fails in turn, or is the last that it makes."""
import contextlib
import json
import os
import shutil
import sqlite3
import subprocess

from harness import MSB, Case, deadline


class Faults(Case):
    # Not there with sanitizers, which do not bear a shim (tests/store/fault.c).
    SHIM = os.path.join(os.path.dirname(MSB), "tests/libfault.so")

    def setUp(self):
        super().setUp()
        if not os.path.exists(self.SHIM):
            self.skipTest("no libfault.so: not with sanitizers")
        self.own_home()

    def state(self):
        """What is said about sandboxes, in all places; what says something else in two of them fails."""
        listed = {s["name"]: (s["status"], s["labels"]) for s in json.loads(self.ok(self.msb("ls", "--format", "json")).text)}
        with contextlib.closing(sqlite3.connect(f"{self.home}/msb.db")) as db:
            self.assertEqual(db.execute("PRAGMA integrity_check").fetchall(), [("ok",)])
            self.assertEqual({n for n, in db.execute("SELECT name FROM sandboxes")}, set(listed))
            self.assertEqual({n for n, in db.execute("SELECT sandbox FROM image_refs")}, set(listed))
            rows = {name: {} for name in listed}
            for name, key, value in db.execute("SELECT sandbox, key, value FROM labels"):
                rows[name][key] = value
        self.assertEqual(set(os.listdir(f"{self.home}/sandboxes")), set(listed))
        self.assertEqual(os.listdir(f"{self.home}/tmp"), [])
        said = {}
        for name, (status, labels) in listed.items():
            with open(f"{self.home}/sandboxes/{name}/config.json") as f:
                config = json.load(f)["config"]
            self.assertEqual(rows[name], labels)
            self.assertEqual(sorted(f"{k}={v}" for k, v in labels.items()), sorted(config.get("labels", [])))
            said[name] = (status, config)
        return said

    def each(self, *words):
        """@words, from a copy of the store, with each fault; before or after is all that there may be."""
        base = self.path("base")
        os.rename(self.home, base)

        def fresh():
            shutil.rmtree(self.home, True)
            # With the holes in its disks.
            subprocess.run(["cp", "-a", base, self.home], check=True)
        fresh()
        before = self.state()
        self.ok(self.msb(*words))
        after = self.state()
        self.assertNotEqual(before, after)
        for kind in ("ENOSPC", "EIO", "KILL"):
            number, fired = 0, True
            while fired:
                number += 1
                fresh()
                reader, writer = os.pipe()
                done = self.msb(*words, pass_fds=[writer], env={
                    "LD_PRELOAD": self.SHIM, "FAULT": kind, "FAULT_AT": str(number), "FAULT_FD": str(writer)})
                os.close(writer)
                fired = os.read(reader, 1)
                os.close(reader)
                with self.subTest(words=words, kind=kind, number=number, done=str(done)):
                    now = self.state()
                    self.assertIn(now, (before, after))
                    if kind != "KILL" and done.code:
                        self.refused(done, 1)
                    if done.code == 0:
                        self.assertEqual(now, after)
                    elif now == before:
                        self.ok(self.msb(*words))
                        self.assertEqual(self.state(), after)
            self.assertGreater(number, 5, "the shim sees nothing")

    @deadline(900)
    def test_modify(self):
        self.ok(self.msb("run", "-n", "a", "--label", "old=1", "busybox", "--", "true"))
        self.each("modify", "-q", "--label", "k=v", "--label-rm", "old", "-m", "160M", "a")

    @deadline(900)
    def test_rm(self):
        for name in ("a", "b"):
            self.ok(self.msb("run", "-n", name, "--label", "old=1", "busybox", "--", "true"))
        self.each("rm", "a")


class PowerCut(Case):
    """Of changes that a disk may do in another order, those that have to be in order wait for each other."""
    def setUp(self):
        super().setUp()
        if not os.path.exists(Faults.SHIM):
            self.skipTest("no libfault.so: not with sanitizers")
        self.own_home()

    def changes(self, *words):
        """(call, file) of those that msb makes, and of those that its keeper does."""
        log = self.path("log")
        with open(log, "ab") as f:
            self.ok(self.msb(*words, pass_fds=[f.fileno()], env={"LD_PRELOAD": Faults.SHIM, "FAULT_LOG": str(f.fileno())}))
        with open(log) as f:
            lines = [line.rstrip("\n").split(" ", 1) for line in f]
        os.unlink(log)
        return [(call, os.path.relpath(path, self.home) if path.startswith("/") else path) for call, path in lines]

    def at(self, changes, call, file):
        return next((i for i, change in enumerate(changes) if change == (call, file)), None) or self.fail(f"no {call} {file}: {changes}")

    def test_new(self):
        self.addCleanup(self.msb, "rm", "-f", "-q", "a")
        done = self.changes("run", "-n", "a", "--label", "k=v", "--mkdir", "/x", "busybox", "--", "true")
        named = self.at(done, "renameat", "config.json")
        # Before it is said that there is one, all of it is there: its disk, its row and its claim...
        for file in ("sandboxes/a/upper.ext4", "sandboxes/a/patch.img", "msb.db-wal"):
            self.assertLess(self.at(done, "fdatasync", file), named)
        rows = [i for i in range(named) if done[i][0].startswith("pwrite") and done[i][1] == "msb.db-wal"]
        self.assertLess(rows[-1], max(i for i in range(named) if done[i] == ("fdatasync", "msb.db-wal")))
        # ... and after that it stays said.
        self.assertLess(self.at(done, "fsync", "sandboxes/a/config.json.tmp"), named)
        self.assertGreater(self.at(done, "fsync", "sandboxes/a"), named)
        self.assertGreater(self.at(done, "fsync", "sandboxes"), named)

    def test_modified(self):
        self.ok(self.msb("run", "-n", "a", "busybox", "--", "true"))
        done = self.changes("modify", "-q", "--label", "k=v", "a")
        named, unmarked = self.at(done, "renameat", "config.json"), self.at(done, "unlinkat", "changing")
        self.assertLess(self.at(done, "fsync", "sandboxes/a/config.json.tmp"), named)
        # The mark goes when there is nothing left that a power cut could tear.
        self.assertTrue(named < self.at(done, "fsync", "sandboxes/a") < unmarked, done)
        rows = [i for i in range(unmarked) if done[i][0].startswith("pwrite") and done[i][1] == "msb.db-wal"]
        self.assertTrue(named < rows[-1] < self.at(done, "fdatasync", "msb.db-wal") < unmarked, done)
