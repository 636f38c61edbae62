# SPDX-License-Identifier: Apache-2.0
"""What a person at a terminal sees: widths, colours, progress, and a terminal as it was, however it ends."""
import os
import re
import signal

from harness import Case, Terminal, until


class Screen(Case):
    def seen(self, *args, columns=80, env=None):
        """All that @args show on a terminal, and the exit code."""
        t = Terminal(self, *args, columns=columns, env=env)
        code = t.wait()
        t.drain()
        return t.seen.decode(), code

    def test_tables_fit(self):
        self.own_home()
        name = "a-sandbox-with-a-name-that-is-much-longer-than-narrow-terminals-are-wide"
        self.ok(self.msb("create", "-q", "-n", name, "--engine", "qemu", "busybox"))
        self.addCleanup(self.msb, "rm", "-f", "-q", name)
        for columns in (50, 80):
            for words in (["ls"], ["ps"], ["image", "ls"], ["config"]):
                text, code = self.seen(*words, columns=columns, env={"NO_COLOR": "1"})
                self.assertEqual(code, 0)
                lines = text.replace("\r\n", "\n").splitlines()
                self.assertGreater(len(lines), 1)
                self.assertLessEqual(max(map(len, lines)), columns, (words, text))
        self.assertIn("…", self.seen("ls", columns=50)[0])
        # A program gets all of it, and so does a wide terminal.
        self.assertIn(name, self.ok(self.msb("ls")).text)
        self.assertIn(name, self.seen("ls", columns=200)[0])
        for line in self.seen("run", "--help", columns=70)[0].split("Options:")[1].splitlines():
            if not re.match(r" +(-\w, )?--", line):
                self.assertLessEqual(len(line.rstrip()), 70, line)

    def test_colours(self):
        for words in (["ls"], ["--help"], ["nothing"]):
            self.assertIn("\033[", self.seen(*words)[0], words)
            for env in ({"NO_COLOR": "1"}, {"TERM": "dumb"}, {"TERM": ""}):
                self.assertNotIn("\033[", self.seen(*words, env=env)[0], words)
            done = self.msb(*words)
            self.assertNotIn(b"\033", done.out + done.err, words)

    def test_progress(self):
        self.own_home()
        # A start takes longer than half a second with an emulated CPU; drain waits for what runs.
        self.assertIn("starting box …", self.seen("create", "-n", "box", "--engine", "qemu", "busybox")[0])
        self.addCleanup(self.msb, "rm", "-f", "-q", "box")
        child = self.start("exec", "box", "--", "sh", "-c", "echo up; read x")
        self.assertEqual(child.stdout.readline(), b"up\n")
        t = Terminal(self, "drain", "box")
        t.expect("waiting for what runs in box …".encode())
        t.expect(b" 2 s")
        child.stdin.write(b"\n")
        child.stdin.close()
        self.assertEqual(t.wait(), 0)
        t.drain()
        # The line is gone before anything else is said.
        self.assertRegex(t.seen, rb"\r\033\[Kbox\r\n$")
        # Neither for programs, nor for who wants quiet.
        self.assertEqual(self.ok(self.msb("start", "box")).err, b"")
        self.ok(self.msb("stop", "-q", "box"))
        self.assertNotIn("…", self.seen("run", "-q", "--engine", "qemu", "busybox", "--", "true")[0])


class Restored(Case):
    """The terminal's modes after every kind of end."""

    def ready(self, *args):
        t = Terminal(self, *args)
        t.expect(b"ready")
        return t

    def check(self, t, code):
        self.assertEqual(t.wait(), code)
        self.assertEqual(t.stty(), t.modes)

    def test_commands_of_a_sandbox(self):
        self.own_home()
        self.ok(self.msb("create", "-q", "-n", "box", "--engine", "qemu", "busybox"))
        self.addCleanup(self.msb, "rm", "-f", "-q", "box")
        command = ["box", "--", "sh", "-c", "echo ready; sleep 1000"]
        for number in (signal.SIGTERM, signal.SIGHUP):
            t = self.ready("exec", *command)
            self.assertNotEqual(t.stty(), t.modes, "not in raw mode")
            t.child.send_signal(number)
            self.check(t, 128 + number)
        self.check(self.ready("exec", "--timeout", "3s", *command), 124)
        # Stopped by another command, attached to a session, and the other side killed.
        t = self.ready("exec", "--session", "last", *command)
        a = Terminal(self, "attach", "box", "last")
        a.expect(b"ready")
        self.ok(self.msb("kill", "-q", "box"))
        for one in (t, a):
            self.assertNotEqual(one.wait(), 0)
            self.assertEqual(one.stty(), one.modes)

    def test_the_keeper_is_killed(self):
        self.own_home()
        self.ok(self.msb("create", "-q", "-n", "box", "--engine", "qemu", "busybox"))
        self.addCleanup(self.msb, "rm", "-f", "-q", "box")
        t = self.ready("exec", "box", "--", "sh", "-c", "echo ready; sleep 1000")
        for pid in self.machine_pids("msb"):
            if pid != t.child.pid:
                os.kill(pid, signal.SIGKILL)
        self.assertNotEqual(t.wait(), 0)
        self.assertEqual(t.stty(), t.modes)

    def test_ctrl_c_twice(self):
        # A terminal of ours that the command has not: its keys are signals here.
        self.own_home()
        t = self.ready("run", "--no-tty", "busybox", "--", "sh", "-c",
                       "trap 'echo once' INT; echo ready; while :; do sleep 0.1; done")
        t.write(b"\x03")
        t.expect(b"once")
        t.write(b"\x03")
        self.check(t, 130)
        self.nothing_left()

    def test_ctrl_c_while_it_starts(self):
        self.own_home()
        t = Terminal(self, "run", "--engine", "qemu", "busybox", "--", "sleep", "1000")
        t.expect(b"starting ")
        t.write(b"\x03")
        self.assertIn(t.wait(), (130, -signal.SIGINT))
        self.assertEqual(t.stty(), t.modes)
        until(lambda: not self.machine_pids("msb-vm"), "the end of the machine")
        self.nothing_left()
