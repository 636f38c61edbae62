# SPDX-License-Identifier: Apache-2.0
"""A disk that fills up under sandboxes: what cannot be done is said, what runs goes on, and nothing half-made stays."""
import contextlib
import json
import os
import subprocess

from harness import PATIENCE, Case, deadline, machines_of, tree, until


class Full(Case):
    def setUp(self):
        super().setUp()
        self.mount = self.path("disk")
        os.mkdir(self.mount)
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400m", "tmpfs", self.mount], stderr=subprocess.DEVNULL).returncode:
            self.skipTest("cannot mount a tmpfs here")
        self.addCleanup(subprocess.run, ["umount", "-l", self.mount])
        self.home = self.mount + "/home"
        self.ok(self.msb("load", "-i", os.environ["MSB_TEST_BUSYBOX"]))
        # What is made once is not what this is about.
        self.ok(self.msb("run", "-n", "first", "busybox", "--", "true"))
        self.ok(self.msb("rm", "first"))
        self.before = tree(self.home)
        self.addCleanup(self.msb, "rm", "-f", "-q", "--all")

    def fill(self, leave=0):
        """All but @leave bytes."""
        with open(self.mount + "/filler", "ab", 0) as f:
            for size in (1 << 20, 1 << 12):
                with contextlib.suppress(OSError):
                    while os.statvfs(self.mount).f_bavail * 4096 > leave + size and f.write(bytes(size)):
                        pass
            with contextlib.suppress(OSError):
                while os.statvfs(self.mount).f_bavail * 4096 > leave and f.write(bytes(4096)):
                    pass

    def empty(self):
        os.unlink(self.mount + "/filler")

    def states(self):
        return {s["name"]: s["status"] for s in json.loads(self.ok(self.msb("ls", "--format", "json")).text)}

    @deadline(1800)
    def test_no_room_to_begin(self):
        for words in (["create", "-n", "box", "busybox"], ["run", "-n", "box", "busybox", "--", "true"], ["run", "-d", "-n", "box", "busybox"],
                      ["run", "busybox", "--", "true"]):
            for leave in (0, 8192, 65536, 1 << 20, 16 << 20):
                with self.subTest(words=words, leave=leave):
                    self.fill(leave)
                    done = self.msb(*words)
                    if done.code:
                        self.refused(done, 1 if words[0] == "create" else 125, "no space")
                        self.assertEqual([s for s in self.states().values() if s not in ("created", "failed", "crashed", "stopped")], [])
                    self.empty()
                    # With room again all is as one would think, whatever stage it was.
                    if self.states():
                        self.ok(self.msb("rm", "-f", "box"))
                    self.assertEqual(self.states(), {})
                    self.nothing_left(before=self.before)

    @deadline(1800)
    def test_it_fills_up_while_one_runs(self):
        self.ok(self.msb("create", "-n", "box", "busybox"))
        self.ok(self.msb("exec", "box", "--", "sh", "-c", "echo kept >/root/kept; sync"))
        self.fill()
        # Commands run; what they write to the disk is refused in the guest, or waits in its memory.
        self.assertEqual(self.ok(self.msb("exec", "box", "--", "cat", "/root/kept")).text, "kept\n")
        self.msb("exec", "box", "--", "sh", "-c", "dd if=/dev/urandom of=/root/big bs=1M count=30; sync", timeout=PATIENCE)
        self.assertEqual(self.ok(self.msb("exec", "box", "--", "echo", "still here")).text, "still here\n")
        for words in (["ls"], ["ps"], ["metrics", "box"], ["ping", "box"], ["inspect", "box"], ["logs", "box"]):
            self.ok(self.msb(*words))
        # Changes are refused as a whole or done.
        done = self.msb("modify", "box", "--label", "colour=blue")
        row, = json.loads(self.ok(self.msb("ls", "--format", "json")).text)
        config = json.loads(self.ok(self.msb("inspect", "box", "--format", "json")).text)["config"]
        self.assertEqual(row["labels"], {} if done.code else {"colour": "blue"}, str(done))
        self.assertEqual(config.get("labels", []), [] if done.code else ["colour=blue"], str(done))
        if done.code:
            self.refused(done, 1, "no space")
        with open(self.path("file"), "wb") as f:
            f.write(b"x" * 1000)
        done = self.msb("cp", "box:/root/kept", self.mount + "/kept")
        if done.code:
            self.refused(done, 1, "no space")
        self.assertFalse(os.path.exists(self.mount + "/kept") and os.path.getsize(self.mount + "/kept") == 0 and done.code == 0)
        # What has to end does.
        done = self.msb("stop", "box")
        self.empty()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.mount + "/kept")
        until(lambda: not machines_of(self.home), lambda: (str(done), machines_of(self.home)))
        self.assertIn(self.states()["box"], ("stopped", "crashed"))
        # And begins again, with what was written while there was room.
        self.assertEqual(self.ok(self.msb("exec", "box", "--", "cat", "/root/kept")).text, "kept\n")
        self.fill()
        self.msb("rm", "-f", "box")
        self.empty()
        if self.states():
            self.ok(self.msb("rm", "-f", "box"))
        self.nothing_left(before=self.before)
