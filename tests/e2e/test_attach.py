# SPDX-License-Identifier: Apache-2.0
"""Sessions that outlive their client: `exec -d`, the keys that leave, `attach`."""
import json
import os
import signal

from harness import PATIENCE, Case, Terminal, machines_of, tree, until


class Attach(Case):
    def sessions(self):
        return {s["session"]: s for s in json.loads(
            self.ok(self.msb("attach", "--list", "--format", "json", "box")).out)}

    def test_in_the_background(self):
        self.own_home()
        self.running()
        name = self.ok(self.msb("exec", "-d", "box", "--", "sh", "-c",
                                "echo out; echo err >&2; until [ -e /tmp/go ]; do sleep 0.1; done; echo late; exit 7")).text.strip()
        self.assertEqual(name, "1")
        named = self.ok(self.msb("exec", "-d", "--session", "work.er", "box", "--", "cat")).text.strip()
        self.assertEqual(named, "work.er")
        # Its input is at its end: it ends, and its code is kept until it is asked for.
        until(lambda: self.sessions()["work.er"]["status"] == "ended", "cat does not end")
        listed = self.sessions()
        self.assertEqual((listed["1"]["status"], listed["1"]["clients"], listed["1"]["tty"]), ("running", 0, False))
        self.assertTrue(listed["1"]["command"].startswith("sh -c echo out"), listed)
        self.assertEqual(listed["work.er"]["exit_code"], 0)
        self.assertEqual(len(json.loads(self.ok(self.msb("attach", "--format", "json", "box")).out)), 2)
        self.assertRegex(self.ok(self.msb("attach", "--list", "box")).text, r"(?m)^SESSION .*\n1 +sh -c .*running +0 ")
        self.assertEqual(self.msb("attach", "box", "work.er").code, 0)
        self.assertEqual(self.ok(self.msb("attach", "-l", "-q", "box")).text, "1\n")
        # Two at once see what was printed and what comes, apart, and get the code.
        one, two = (self.start("attach", "box", *words) for words in ((), ("1",)))
        self.assertEqual([c.stdout.readline() for c in (one, two)], [b"out\n"] * 2)
        self.assertEqual(one.stderr.readline(), b"err\n")
        self.ok(self.msb("exec", "box", "touch", "/tmp/go"))
        for child in (one, two):
            self.assertEqual(child.communicate(timeout=PATIENCE)[0], b"late\n")
            self.assertEqual(child.returncode, 7)
        self.assertEqual(self.sessions(), {})
        # Refusals.
        self.refused(self.msb("attach", "box"), 125, "no sessions")
        self.refused(self.msb("attach", "box", "9"), 125, "no session \"9\"", "msb attach -l box")
        # A command of several lines, or of very many words, is one row of the list.
        self.ok(self.msb("exec", "-d", "--session", "odd", "box", "--", "sh", "-c", "sleep 1000\necho \x1b[31m", "x" * 100000))
        rows = self.ok(self.msb("attach", "-l", "box")).text.splitlines()
        self.assertRegex(rows[1], r"^odd +sh -c sleep 1000 echo  \[31m x+… ")
        self.assertEqual((len(rows), max(map(len, rows)) < 400), (2, True))
        self.refused(self.msb("exec", "-d", "--session", "odd", "box", "--", "true"), 125, "already", "another name")
        self.refused(self.msb("attach", "nobody"), 125, "no sandbox")
        self.refused(self.msb("exec", "-d", "box", "--", "not-there"), 127, "not-there")
        self.refused(self.msb("exec", "-d", "--session", "no/good", "box", "--", "true"), 125, "no/good")
        self.refused(self.msb("exec", "--detach-keys", "ctrl-", "box", "--", "true"), 125, "keys")
        # Signals go to the command of who attaches, and killing who attaches harms nobody.
        self.ok(self.msb("exec", "-d", "--session", "s", "box", "--", "sh", "-c",
                         "trap 'echo got; exit 3' TERM; echo ready; while :; do sleep 0.1; done"))
        child = self.start("attach", "box", "s")
        self.assertEqual(child.stdout.readline(), b"ready\n")
        child.kill()
        child.wait()
        child = self.start("attach", "box", "s")
        self.assertEqual(child.stdout.readline(), b"ready\n")
        child.send_signal(signal.SIGHUP)
        self.assertEqual(child.wait(PATIENCE), 129)
        child = self.start("attach", "box", "s")
        self.assertEqual(child.stdout.readline(), b"ready\n")
        child.send_signal(signal.SIGTERM)
        self.assertEqual((child.communicate(timeout=PATIENCE)[0], child.returncode), (b"got\n", 3))

    def test_a_deadline(self):
        self.own_home()
        self.running()
        self.ok(self.msb("exec", "-d", "--timeout", "2s", "--session", "late", "box", "--", "sh", "-c",
                         "trap '' TERM HUP; echo begun; sleep 1000 & wait"))
        self.ok(self.msb("exec", "-d", "--timeout", "1h", "--session", "intime", "box", "--", "sh", "-c", "exit 3"))
        # Nobody is there when its time is over.
        until(lambda: all(s["status"] == "ended" for s in self.sessions().values()), self.sessions)
        self.assertEqual({n: s["exit_code"] for n, s in self.sessions().items()}, {"late": 124, "intime": 3})
        self.assertIn("ended (124)", self.ok(self.msb("attach", "-l", "box")).text)
        done = self.msb("attach", "box", "late")
        self.assertEqual((done.code, done.out), (124, b"begun\n"))
        # Who looks on learns it in the same way, and one that left by the keys has changed nothing.
        self.assertEqual(self.msb("exec", "--session", "x", "--timeout", "1s", "box", "--", "sleep", "1000").code, 124)
        for seconds in (3, 15, 75):
            t = Terminal(self, "exec", "--session", f"left{seconds}", "--timeout", f"{seconds}s", "box", "--", "sh", "-c", "echo here; sleep 1000")
            t.expect(b"here")
            t.write(b"\x1d")
            # It was over before one had left, on a machine that is slow.
            if t.wait() != 124:
                break
        self.assertEqual(t.wait(), 0)
        self.assertEqual(self.msb("attach", "box", f"left{seconds}").code, 124)
        # The same of a sandbox's own command.
        self.ok(self.msb("run", "-d", "-n", "timed", "--timeout", "1s", "busybox", "--", "sleep", "1000"))
        self.assertEqual(self.msb("wait", "timed").code, 124)
        self.assertIn("took too long", self.ok(self.msb("inspect", "timed")).text)

    def test_what_is_kept(self):
        self.own_home()
        with open(os.path.join(self.home, "config.json"), "w") as f:
            f.write('{"sandbox_defaults": {"session_history": "1M"}}')
        self.running()
        script = "i=0; while [ $i -lt $1 ]; do echo line $i; i=$((i+1)); done; echo last"
        many = "awk 'BEGIN { for (i = 0; i < 200000; i++) printf \"line %010d\\n\", i }'"
        self.ok(self.msb("exec", "-d", "--session", "much", "box", "--", "sh", "-c", many + "; echo last"))
        self.ok(self.msb("exec", "-d", "--session", "little", "box", "--", "sh", "-c", script, "sh", "3"))
        until(lambda: all(s["status"] == "ended" for s in self.sessions().values()), "they go on")
        s = self.sessions()
        self.assertEqual((s["little"]["printed_bytes"], s["little"]["dropped_bytes"]), (26, 0))
        self.assertEqual(s["much"]["printed_bytes"], 200000 * 16 + 5)
        self.assertEqual(s["much"]["dropped_bytes"], 200000 * 16 + 5 - (1 << 20))
        self.assertRegex(self.ok(self.msb("attach", "-l", "box")).text, r"(?m)^much .* 2\.\d MiB ")
        done = self.ok(self.msb("attach", "box", "much"))
        self.assertTrue(done.out.startswith(b"line 0000") and done.out.endswith(b"line 0000199999\nlast\n"))
        self.assertGreater(len(done.out), (1 << 20) - 16)
        self.assertIn(f"first {200000 * 16 + 5 - len(done.out)} bytes", done.messages)
        self.assertEqual(self.ok(self.msb("attach", "box", "little")).err, b"")
        self.refused(self.msb("run", "--session-history", "1K", "busybox", "--", "true"), 125, "too small")
        self.refused(self.msb("run", "--session-history", "1G", "busybox", "--", "true"), 125, "too large")

    def test_the_keys(self):
        self.own_home()
        owner = self.running()
        t = Terminal(self, "shell", "box", rows=30, columns=90)
        t.expect(b"# ")
        t.write(b"echo $((6*7))\r")
        t.expect(b"\n42")
        t.write(b"read x; echo later\r")
        t.expect(b"later\r\n")
        t.write(b"half\x1d ignored")
        t.expect(b"left session 1")
        self.assertEqual(t.wait(), 0)
        self.assertEqual(t.stty(), t.modes)
        self.assertEqual(self.sessions()["1"]["status"], "running")
        # Back on a terminal of another size, which the shell gets to know; what was printed is shown.
        t = Terminal(self, "attach", "--detach-keys", "ctrl-p,ctrl-q", "box", rows=40, columns=100)
        t.expect(b"\n42")
        t.write(b" typed\r")
        t.expect(b"later")
        t.write(b"stty size\r")
        t.expect(b"40 100")
        t.resize(41, 101)
        t.child.send_signal(signal.SIGWINCH)
        t.write(b"stty size\r")
        t.expect(b"41 101")
        # Beginnings of the keys reach who reads.
        t.write(b"echo rea''dy; head -n 1 | od -c\r")
        t.expect(b"ready\r\n")
        t.write(b"\x10x\r")
        t.expect(b"020   x")
        t.write(b"\x10\x11")
        t.expect(b"left session 1")
        self.assertEqual(t.wait(), 0)
        self.assertEqual(t.stty(), t.modes)
        # A client that goes without a word hangs up; one that only attached does not.
        t = Terminal(self, "attach", "-q", "--no-replay", "box", "1")
        t.write(b"echo still $((1+1))\r")
        t.expect(b"still 2")
        t.child.kill()
        t = Terminal(self, "attach", "box", "1")
        t.write(b"exit 6\r")
        self.assertEqual(t.wait(), 6)
        t = Terminal(self, "shell", "--session", "hup", "box")
        t.expect(b"# ")
        t.child.kill()
        until(lambda: self.sessions()["hup"]["status"] == "ended", "the shell goes on")
        # The sandbox ends under one.
        t = Terminal(self, "shell", "box")
        t.expect(b"# ")
        owner.stdin.close()
        self.assertEqual(t.wait(), 125)
        t.expect(b"ended")
        self.assertEqual(t.stty(), t.modes)

    def test_leaving_what_has_no_terminal(self):
        self.own_home()
        self.running()
        self.ok(self.msb("exec", "-d", "box", "--", "sh", "-c", "trap 'echo int; exit 5' INT; echo on; while :; do sleep 0.1; done"))
        t = Terminal(self, "attach", "box")
        t.expect(b"on\r\n")
        t.write(b"no input\x1d")
        t.expect(b"left session 1")
        self.assertEqual(t.wait(), 0)
        self.assertEqual(t.stty(), t.modes)
        t = Terminal(self, "attach", "box")
        t.expect(b"on\r\n")
        t.write(b"\x03")
        t.expect(b"int\r\n")
        self.assertEqual(t.wait(), 5)
        self.assertEqual(t.stty(), t.modes)


class Run(Case):
    """`msb run` on a terminal: what the keys leave is a session, and goes on."""

    def shell(self, *words):
        t = Terminal(self, *words)
        t.expect(b"# ")
        return t

    def state(self, name="box"):
        rows = json.loads(self.ok(self.msb("ls", "--format", "json")).out)
        return {r["name"]: r["status"] for r in rows}.get(name)

    def test_a_sandbox_with_a_name(self):
        self.own_home()
        t = self.shell("run", "-n", "box", "busybox")
        t.write(b"echo $((6*7)) >/work/kept; echo is $TERM $(stty size)\r")
        t.expect(b"is xterm 24 80")
        t.write(b"\x1d")
        t.expect(b"left session main; `msb attach box main` comes back to it")
        self.assertEqual(t.wait(), 0)
        self.assertEqual(t.stty(), t.modes)
        self.assertEqual(self.state(), "running")
        # Others come and go; who comes back sees what there was, and gets the code.
        self.assertEqual(self.ok(self.msb("exec", "box", "cat", "/work/kept")).text, "42\n")
        t = Terminal(self, "attach", "box")
        t.expect(b"24 80")
        t.write(b"exit 6\r")
        self.assertEqual(t.wait(), 6)
        until(lambda: self.state() == "stopped", "the sandbox goes on")
        self.assertRegex(self.ok(self.msb("inspect", "box")).text, r"Exit code +6\n")
        # Once more, with other keys, now in the sandbox that is there; it has stopped when that is back.
        t = self.shell("run", "-n", "box", "--detach-keys", "ctrl-p,ctrl-q", "busybox")
        t.write(b"cat /work/kept; exit 7\r")
        t.expect(b"42")
        self.assertEqual(t.wait(), 7)
        self.assertEqual(self.state(), "stopped")
        self.assertFalse(machines_of(self.home))
        # Who runs something in it joins, can leave, and ends nothing.
        self.ok(self.msb("start", "box"))
        t = self.shell("run", "-n", "box", "busybox")
        t.write(b"\x1d")
        t.expect(b"left session 1")
        self.assertEqual(t.wait(), 0)
        self.assertEqual(self.state(), "running")
        # What cannot be run, and what is stopped.
        self.ok(self.msb("stop", "box"))
        t = Terminal(self, "run", "-n", "box", "busybox", "--", "not-there")
        t.expect(b"not-there")
        self.assertEqual(t.wait(), 127)
        self.assertEqual(self.state(), "stopped")
        t = self.shell("run", "-n", "box", "busybox")
        self.ok(self.msb("stop", "box"))
        t.expect(b"stopped while the command ran")
        self.assertEqual(t.wait(), 125)

    def test_a_sandbox_without_one(self):
        self.own_home()
        before = tree(self.home)
        t = self.shell("run", "busybox")
        t.write(b"\x1d")
        t.expect(b"left session main; `msb attach ")
        name = t.expect(b" main`").decode()
        self.assertEqual(t.wait(), 0)
        self.assertEqual(self.state(name), "running")
        t = Terminal(self, "attach", name)
        t.write(b"exit 3\r")
        self.assertEqual(t.wait(), 3)
        self.nothing_left(before=before)
        # Not left by the keys it is gone when its command is, also with a client that is killed.
        t = self.shell("run", "busybox")
        t.write(b"exit 4\r")
        self.assertEqual(t.wait(), 4)
        self.assertEqual(os.listdir(os.path.join(self.home, "sandboxes")), [])
        t = self.shell("run", "busybox")
        t.child.kill()
        self.nothing_left(before=before)
        # And the second of two signals ends a command that does not care.
        t = Terminal(self, "run", "busybox", "--", "sh", "-c", "trap 'echo o''ne' TERM; echo ready; while :; do sleep 0.1; done")
        t.expect(b"ready")
        t.child.send_signal(signal.SIGTERM)
        t.expect(b"one")
        t.child.send_signal(signal.SIGTERM)
        self.assertEqual(t.wait(), 143)
        self.nothing_left(before=before)

    def test_every_byte_arrives(self):
        self.own_home()
        t = Terminal(self, "run", "-q", "busybox", "--", "sh", "-c", "seq 200000; exit 5")
        self.assertEqual(t.wait(), 5)
        while b"\n200000\r" not in t.seen:
            t.seen += os.read(t.master, 65536)
        self.assertEqual(t.seen.split(), [str(i).encode() for i in range(1, 200001)])
