# SPDX-License-Identifier: Apache-2.0
"""`msb run` on a terminal, and what signals do."""
import os
import signal
import time

from harness import PATIENCE, Case, Terminal, machines_of, until


class Terminals(Case):
    def test_it_is_a_terminal_by_itself(self):
        t = Terminal(self, "run", "busybox", "--", "sh", "-c", "test -t 0 && test -t 1 && echo yes-it-is; tty")
        t.expect(b"yes-it-is")
        t.expect(b"/dev/pts/")
        self.assertEqual(t.wait(), 0)

    def test_none_when_not_wanted(self):
        t = Terminal(self, "run", "--no-tty", "busybox", "--", "sh", "-c", "test -t 1 || echo no-terminal")
        t.expect(b"no-terminal")
        self.assertEqual(t.wait(), 0)

    def test_none_on_pipes_unless_asked(self):
        self.assertEqual(self.sh("test -t 1 || echo none"), "none\n")
        self.assertEqual(self.sh("test -t 1 && echo yes", "-t").replace("\r", ""), "yes\n")

    def test_a_shell(self):
        t = Terminal(self, "run", "busybox")
        t.expect(b"# ")
        t.write(b"echo $((6*7))-answer\n")
        t.expect(b"42-answer")
        t.write(b"exit 9\n")
        self.assertEqual(t.wait(), 9)

    def test_size_and_resize(self):
        t = Terminal(self, "run", "busybox", "--", "sh", "-c",
                     "stty size; trap 'stty size; exit 0' WINCH; echo ready; while :; do sleep 0.1; done",
                     rows=33, columns=101)
        t.expect(b"33 101")
        t.expect(b"ready")
        t.resize(44, 122)
        t.expect(b"44 122")
        self.assertEqual(t.wait(), 0)

    def test_keys_reach_the_program(self):
        t = Terminal(self, "run", "busybox", "--", "sh", "-c",
                     "trap 'echo got-int; exit 4' INT; echo ready; while :; do sleep 0.1; done")
        t.expect(b"ready")
        t.write(b"\x03")
        t.expect(b"got-int")
        self.assertEqual(t.wait(), 4)

    def test_end_of_file_key(self):
        t = Terminal(self, "run", "busybox", "--", "sh", "-c", "echo ready; cat; echo ended")
        t.expect(b"ready")
        t.write(b"line\n\x04")
        t.expect(b"ended")
        self.assertEqual(t.wait(), 0)

    def check_restored(self, t):
        self.assertEqual(t.stty(), t.modes)

    def test_modes_are_restored(self):
        t = Terminal(self, "run", "busybox", "--", "sh", "-c", "echo ready; read x; exit 3")
        t.expect(b"ready")
        self.assertNotEqual(t.stty(), t.modes, "not in raw mode")
        t.write(b"\n")
        self.assertEqual(t.wait(), 3)
        self.check_restored(t)

    def test_modes_are_restored_after_signals(self):
        for number in (signal.SIGTERM, signal.SIGHUP):
            t = Terminal(self, "run", "busybox", "--", "sh", "-c", "echo ready; sleep 1000")
            t.expect(b"ready")
            t.child.send_signal(number)
            self.assertEqual(t.wait(), 128 + number)
            self.check_restored(t)

    def test_modes_are_restored_when_the_machine_dies(self):
        self.own_home()
        t = Terminal(self, "run", "busybox", "--", "sh", "-c", "echo ready; sleep 1000")
        t.expect(b"ready")
        for pid in self.machine_pids("msb-vm"):
            os.kill(pid, signal.SIGKILL)
        self.assertEqual(t.wait(), 125)
        self.check_restored(t)
        self.nothing_left()

    def test_modes_are_restored_after_the_timeout(self):
        t = Terminal(self, "run", "--timeout", "8s", "busybox", "--", "sh", "-c", "echo ready; sleep 1000")
        t.expect(b"ready")
        self.assertEqual(t.wait(), 124)
        self.check_restored(t)


class Signals(Case):
    def started(self, script):
        child = self.start("run", "busybox", "--", "sh", "-c", script)
        self.assertEqual(child.stdout.readline(), b"ready\n")
        return child

    def test_they_reach_the_command(self):
        for number, name in ((signal.SIGINT, "INT"), (signal.SIGTERM, "TERM"), (signal.SIGHUP, "HUP")):
            child = self.started(f"trap 'echo got {name}; exit 7' {name}; echo ready; while :; do sleep 0.1; done")
            child.send_signal(number)
            out, err = child.communicate(timeout=PATIENCE)
            self.assertEqual((child.returncode, out), (7, f"got {name}\n".encode()), err)

    def test_they_end_a_command_that_does_not_care(self):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # Not by way of a shell, which loses one that comes while it starts a program.
            child = self.start("run", "busybox", "--", "cat")
            child.stdin.write(b"ready\n")
            child.stdin.flush()
            self.assertEqual(child.stdout.readline(), b"ready\n")
            child.send_signal(number)
            self.assertEqual(child.wait(PATIENCE), 128 + number)

    def test_the_second_ends_it(self):
        self.own_home()
        for number in (signal.SIGINT, signal.SIGTERM):
            child = self.started("trap 'echo one' INT TERM HUP; echo ready; while :; do sleep 0.1; done")
            child.send_signal(number)
            self.assertEqual(child.stdout.readline(), b"one\n")
            self.assertIsNone(child.poll())
            child.send_signal(number)
            child.communicate(timeout=PATIENCE)
            self.assertEqual(child.returncode, 128 + number)
            self.nothing_left()

    def test_during_the_start(self):
        self.own_home()
        for delay in (0.0, 0.02, 0.1, 0.3, 0.7):
            child = self.start("run", "busybox", "--", "sleep", "1000")
            time.sleep(delay)
            child.send_signal(signal.SIGTERM)
            out, err = child.communicate(timeout=PATIENCE)
            self.assertIn(child.returncode, (128 + signal.SIGTERM, -signal.SIGTERM), err)
            self.nothing_left()


class Killed(Case):
    """kill -9 of any of the processes, at many moments."""

    def kill_at(self, what, delay):
        child = self.start("run", "busybox", "--", "sh", "-c", "echo up; sleep 1000")
        if delay is None:
            child.stdout.readline()
        else:
            time.sleep(delay)
        if what == "msb":
            child.kill()
        else:
            # The process may not have been born yet, or msb be done with it: then there is none.
            victims = self.machine_pids(what)
            self.assertTrue(victims or delay is not None, f"no {what} while the command runs")
            for pid in victims:
                os.kill(pid, signal.SIGKILL)
            if not victims:
                child.kill()
        out, err = child.communicate(timeout=PATIENCE)
        if what != "msb" and child.returncode != -signal.SIGKILL:
            self.assertEqual(child.returncode, 125, err)
            self.assertTrue(err.strip(), "no message")
        until(lambda: not machines_of(self.home),
              lambda: f"orphans after kill of {what} at {delay}: {machines_of(self.home)}")

    def killed(self, what):
        self.own_home()
        for delay in (0.0, 0.01, 0.03, 0.06, 0.1, 0.2, 0.4, 0.8, 1.2, 1.6, None):
            self.kill_at(what, delay)
        self.assertEqual(self.sh("echo works"), "works\n")
        self.nothing_left()

    def test_msb(self):
        self.killed("msb")

    def test_msb_vm(self):
        self.killed("msb-vm")

    def test_qemu(self):
        if not os.environ.get("MSB_ENGINE", "qemu") == "qemu":
            self.skipTest("the engine has no process of its own")
        self.killed("qemu-system")

    def test_whole_terminal_session(self):
        self.own_home()
        t = Terminal(self, "run", "busybox", "--", "sh", "-c", "echo ready; sleep 1000")
        t.expect(b"ready")
        os.killpg(t.child.pid, signal.SIGKILL)
        t.child.wait(PATIENCE)
        self.nothing_left_of_machines()

    def nothing_left_of_machines(self):
        until(lambda: not machines_of(self.home), lambda: f"orphans: {machines_of(self.home)}")
        self.assertEqual(self.sh("echo works"), "works\n")
        self.nothing_left()
