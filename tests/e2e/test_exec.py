# SPDX-License-Identifier: Apache-2.0
"""`msb exec` and `shell`: commands in a sandbox that is there. A boot takes a second or two, so that
one machine serves many questions."""
import json
import os
import re
import signal
import subprocess
import threading

from harness import PATIENCE, Case, Terminal, deadline, machines_of, until


class Exec(Case):
    def ex(self, *words, options=(), **how):
        return self.msb("exec", *options, "box", "--", *words, **how)

    def said(self, *words, **how):
        return self.ok(self.ex(*words, **how)).text

    def test_what_a_command_gets(self):
        self.own_home()
        self.running("box", "-e", "OF_BOX=1", "-e", "BOTH=box", "-w", "/tmp", "-u", "user")
        # Streams, apart and whole.
        done = self.ok(self.ex("sh", "-c", "echo out; echo err >&2"))
        self.assertEqual((done.out, done.err), (b"out\n", b"err\n"))
        data = os.urandom(3_000_000)
        self.assertEqual(self.ok(self.ex("cat", input=data)).out, data)
        # The sandbox's defaults, and our own.
        self.assertEqual(self.said("sh", "-c", "id -un; pwd; echo $OF_BOX $BOTH $FROM_IMAGE"), "user\n/tmp\n1 box yes\n")
        self.assertEqual(self.said("sh", "-c", "id -un; pwd; echo $OF_BOX $BOTH", options=[
            "-u", "root", "-w", "/etc", "-e", "BOTH=exec"]), "root\n/etc\n1 exec\n")
        self.assertEqual(self.said("sh", "-c", "ulimit -n", options=["--rlimit", "nofile=77:99"]), "77\n")
        # It is one machine: what one leaves the next finds.
        self.said("sh", "-c", "echo kept >/tmp/left")
        self.assertEqual(self.ok(self.msb("exec", "box", "cat", "/tmp/left")).text, "kept\n")
        # Codes.
        for code in (1, 42, 255):
            self.assertEqual(self.ex("sh", "-c", f"exit {code}").code, code)
        self.assertEqual(self.ex("sh", "-c", "kill -9 $$").code, 137)
        self.refused(self.ex("no-such-command"), 127, "no-such-command")
        self.refused(self.ex("/etc/noexec"), 126, "/etc/noexec")
        self.refused(self.ex("true", options=["-u", "nobody-here"]), 125, "user")
        self.refused(self.ex("true", options=["-w", "/not/there"]), 125, "directory", "'/not/there': No such")
        self.refused(self.ex("/etc"), 126, "cannot execute \"/etc\": Permission denied (it is a directory)")
        self.refused(self.ex("true", options=["--rlimit", "nofile=99999999999"]), 125, "not permitted (nofile)")
        # Bytes that the protocol would change on the way are not sent.
        for words, options in (((b"echo", b"caf\xe9"), ()), (("true",), (b"-e", b"X=caf\xe9")), (("true",), ("-d", b"-e", b"X=\xff"))):
            self.refused(self.ex(*words, options=options), 125, "not valid UTF-8")
        # As many arguments, and as long ones, as a kernel takes.
        self.assertEqual(self.said("sh", "-c", "echo $#", "-", *["x" * 20] * 60000), "60000\n")
        self.assertEqual(self.said("sh", "-c", "echo ${#1}", "-", "x" * 131000), "131000\n")
        self.assertEqual(self.said("printf", "%s|", "", "a\nb", " ", "=", options=["-e", "E==\n="]), "|a\nb| |=|")
        self.refused(self.ex("true", *["x"] * 70000), 125, "70000 arguments", "standard input")
        self.assertEqual(self.ex("sleep", "1000", options=["--timeout", "1s"]).code, 124)
        # No command, no terminal: the image's, whose shell ends with its input.
        self.assertEqual(self.ok(self.msb("exec", "box", input=b"echo from $PWD\n")).text, "from /tmp\n")
        # Shells.
        self.assertEqual(self.ok(self.msb("shell", "box", "--", "echo $0 $1 $# $FROM_IMAGE", "a", "b")).text,
                         "/bin/sh a 2 yes\n")
        self.assertEqual(self.ok(self.msb("shell", "box", input=b"echo $((6*7))\n")).text, "42\n")
        self.refused(self.msb("exec", "-t", "--no-tty", "box", "--", "true"), 125, "exclude")
        self.refused(self.msb("exec"), 125, "which sandbox")
        # Streams that are not what they should be.
        folder = os.open("/", os.O_RDONLY)
        self.addCleanup(os.close, folder)
        done = self.msb("exec", "box", "--", "cat", stdin=folder, input=None)
        self.assertIn("cannot read standard input: Is a directory", done.messages)
        with open("/dev/full", "w") as full:
            self.refused(self.msb("exec", "box", "--", "echo", "hi", stdout=full), 125, "No space left")
        for words, code in ((("exec", "box", "--", "echo", "hi"), 125), (("ls",), 1)):
            self.refused(self.msb(*words, preexec_fn=lambda: os.close(1), stdout=None), code, "Bad file descriptor")
        self.refused(self.msb("exec", "nobody", "--", "true"), 125, "no sandbox", "nobody")

    def test_output_and_input_come_as_they_are_written(self):
        self.own_home()
        self.running()
        child = self.start("exec", "box", "--", "sh", "-c", "echo first; read x; echo $x; read y; exit 7")
        self.assertEqual(child.stdout.readline(), b"first\n")
        child.stdin.write(b"second\n")
        child.stdin.flush()
        self.assertEqual(child.stdout.readline(), b"second\n")
        child.stdin.close()
        self.assertEqual(child.wait(PATIENCE), 7)
        # Signals reach the command, and what its client leaves behind is killed.
        child = self.start("exec", "box", "--", "sh", "-c", "trap 'echo got; exit 3' INT; echo ready; while :; do sleep 0.1; done")
        self.assertEqual(child.stdout.readline(), b"ready\n")
        child.send_signal(signal.SIGINT)
        self.assertEqual((child.stdout.readline(), child.wait(PATIENCE)), (b"got\n", 3))
        child = self.start("exec", "box", "--", "sh", "-c", "echo ready; exec sleep 4321")
        self.assertEqual(child.stdout.readline(), b"ready\n")
        child.kill()
        until(lambda: "4321" not in self.said("ps", "-o", "args"), "the command outlives its client")

    def test_on_a_terminal(self):
        self.own_home()
        self.running()
        t = Terminal(self, "exec", "box", "--", "sh", "-c", "stty size; read x; echo =$x=; read y", rows=30, columns=99)
        t.expect(b"30 99")
        t.write(b"typed\r")
        t.expect(b"=typed=")
        t.write(b"\x03")
        self.assertEqual(t.wait(), 130)
        self.assertEqual(t.stty(), t.modes)
        t = Terminal(self, "shell", "box")
        t.expect(b"# ")
        t.write(b"echo $((40+2))\r")
        t.expect(b"\n42")
        t.write(b"exit 9\r")
        self.assertEqual(t.wait(), 9)

    def test_a_stopped_sandbox_runs_for_as_long_as_that(self):
        self.own_home()
        self.running().stdin.close()
        until(lambda: not machines_of(self.home), "the sandbox goes on")
        self.assertEqual(self.said("sh", "-c", "echo once >/work/f; cat /work/f"), "once\n")
        self.assertFalse(machines_of(self.home))
        # Two at once: one starts it, the other joins.
        one = self.start("exec", "box", "--", "sh", "-c", "cat /work/f; read x")
        self.assertEqual(one.stdout.readline(), b"once\n")
        self.assertEqual(self.said("cat", "/work/f"), "once\n")
        two = self.start("exec", "box", "--", "sh", "-c", "echo two; sleep 1000")
        self.assertEqual(two.stdout.readline(), b"two\n")
        self.assertEqual(self.msb("stop", "box").code, 0)
        for child in (one, two):
            child.stdin.close()
            self.assertEqual(child.wait(PATIENCE), 125)
            self.assertIn(b"while the command ran", child.stderr.read())

    def test_in_a_paused_sandbox(self):
        self.own_home()
        owner = self.running()
        self.ok(self.msb("exec", "-d", "--session", "s", "box", "--", "sleep", "1000"))
        before = self.start("exec", "box", "--", "sh", "-c", "echo in; read x; echo $x")
        self.assertEqual(before.stdout.readline(), b"in\n")
        self.ok(self.msb("pause", "-q", "box"))
        # Nothing waits for a guest that does not run, and everybody is told what to do.
        for words, code in ((("exec", "box", "--", "true"), 125), (("shell", "box", "--", "true"), 125),
                            (("exec", "-d", "box", "--", "true"), 125), (("run", "-n", "box", "busybox", "--", "true"), 125),
                            (("cp", "box:/etc/motd", self.path("x")), 1), (("cp", "-", "box:/tmp"), 1)):
            self.refused(self.msb(*words), code, "box", "it is paused", "msb resume box")
        done = self.msb("ssh", "box", "--", "true")
        self.assertNotEqual(done.code, 0)
        self.assertIn("it is paused", done.messages)
        self.refused(self.msb("modify", "-c", "1", "--max-duration", "1h", "-m", "600M", "--max-memory", "600M", "box"), 1, "restart")
        self.assertEqual(list(s["session"] for s in json.loads(self.ok(self.msb("attach", "--format", "json", "box")).out)), ["s"])
        # Who was in goes on when it does.
        self.ok(self.msb("resume", "-q", "box"))
        before.stdin.write(b"again\n")
        before.stdin.close()
        self.assertEqual((before.stdout.read(), before.wait(PATIENCE)), (b"again\n", 0))
        self.assertEqual(self.said("echo", "hi"), "hi\n")
        owner.stdin.close()

    def stopped(self):
        self.own_home()
        self.ok(self.msb("create", "--name", "box", "busybox"))
        self.ok(self.msb("stop", "box"))

    def status(self):
        return json.loads(self.ok(self.msb("inspect", "--format", "json", "box")).out)["status"]

    def test_the_last_one_out(self):
        self.stopped()

        def enter(what):
            child = self.start("exec", "box", "--", "sh", "-c", f"echo {what}; read x; exit 5")
            self.assertEqual(child.stdout.readline(), what.encode() + b"\n")
            return child
        # Who started it goes, by itself or killed: the others go on, and the last one ends it.
        for kill in (False, True):
            first, second, third = enter("first"), enter("second"), enter("third")
            if kill:
                first.kill()
            else:
                first.stdin.close()
                self.assertEqual(first.wait(PATIENCE), 5)
            second.stdin.close()
            self.assertEqual(second.wait(PATIENCE), 5)
            self.assertEqual(self.status(), "running")
            third.stdin.close()
            self.assertEqual(third.wait(PATIENCE), 5)
            until(lambda: self.status() == "stopped", "it goes on")
        self.assertRegex(self.ok(self.msb("inspect", "box")).text, r"End +left\n")
        # A session is somebody, too.
        self.ok(self.msb("exec", "-d", "--session", "s", "box", "--", "sh", "-c", "until [ -e /tmp/go ]; do sleep 0.1; done"))
        self.ok(self.msb("exec", "box", "true"))
        self.assertEqual(self.status(), "running")
        self.ok(self.msb("exec", "box", "touch", "/tmp/go"))
        until(lambda: self.status() == "stopped", "it goes on")
        # `start` makes it stay.
        first = enter("first")
        self.ok(self.msb("start", "box"))
        first.stdin.close()
        self.assertEqual(first.wait(PATIENCE), 5)
        self.ok(self.msb("exec", "box", "true"))
        self.assertEqual(self.status(), "running")

    def test_many_want_a_stopped_one(self):
        self.stopped()
        # Each finds it running, starting, stopping or stopped, and gets its command run, once.
        waiting = [self.start("exec", "box", "--", "sh", "-c", "echo x >>/work/f") for _ in range(6)]
        for i in range(24):
            child = waiting.pop(0)
            out, err = child.communicate(timeout=PATIENCE)
            self.assertEqual(child.returncode, 0, err)
            if i < 18:
                waiting.append(self.start("exec", "box", "--", "sh", "-c", "echo x >>/work/f"))
        self.assertEqual(self.said("wc", "-l", "/work/f").split()[0], "24")
        # One after the other, each at the moment in which the one before it lets go.
        for _ in range(5):
            self.ok(self.ex("true"))
        until(lambda: not machines_of(self.home), "it goes on")

    def test_a_reader_that_stops_delays_nobody(self):
        self.own_home()
        self.running()
        stuck = self.start("exec", "box", "--", "yes", "x" * 1000)
        self.assertTrue(stuck.stdout.read(4096))
        for _ in range(5):
            self.assertEqual(len(self.ok(self.ex("head", "-c", "2000000", "/dev/zero")).out), 2_000_000)
        self.assertIsNone(stuck.poll())

    def wave(self, n):
        children = [self.start("exec", "box", "--", "echo", "hi", stdin=subprocess.DEVNULL) for _ in range(n)]
        for child in children:
            out, err = child.communicate(timeout=PATIENCE)
            self.assertEqual((child.returncode, out), (0, b"hi\n"), err)
            self.finish(child)

    @deadline(1800)
    def test_many_leak_nothing(self):
        self.own_home()
        self.ok(self.msb("create", "--name", "box", "busybox"))
        vm, = self.machine_pids("msb-vm")
        keeper, = (pid for pid, line in machines_of(self.home).items() if " keep " in line)

        def memory(pid):
            return int(re.search(r"RssAnon:\s+(\d+)", open(f"/proc/{pid}/status").read())[1])

        def counts():
            """Descriptors of msb-vm, the keeper and the agent, and the guest's processes but its kernel's."""
            guest = self.said("sh", "-c", "ls /proc/1/fd | wc -l; grep -l . /proc/[0-9]*/cmdline 2>/dev/null | wc -l").split()
            return [len(os.listdir(f"/proc/{pid}/fd")) for pid in (vm, keeper)] + [int(n) for n in guest]

        def agent_memory():
            return int(self.said("grep", "RssAnon", "/proc/1/status").split()[1])

        def rounds():
            self.wave(20)
            self.ok(self.msb("exec", "-d", "box", "--", "true"))
        self.wave(100)
        for _ in range(3):
            rounds()
        before = counts()
        memories = [memory(vm), memory(keeper), agent_memory()]
        # A thousand: most of them in four rows, then a hundred at once.
        lanes = [threading.Thread(target=lambda: [self.ok(self.ex("true")) for _ in range(225)]) for _ in range(4)]
        for lane in lanes:
            lane.start()
        for lane in lanes:
            lane.join()
        self.wave(100)
        for _ in range(3):
            rounds()
        # The clients before the one that asks may be there still.
        until(lambda: all(now <= then for now, then in zip(counts(), before)), lambda: f"{before} became {counts()}")
        after = [memory(vm), memory(keeper), agent_memory()]
        for what, was, now in zip(("msb-vm", "keeper", "agent"), memories, after):
            self.assertLess(now, was + 1024, f"KiB of {what}")

    @deadline(1800)
    def test_as_many_clients_as_there_may_be(self):
        """The relay has 128 places; one whose client does not read is nobody else's trouble."""
        self.own_home()
        self.ok(self.msb("create", "--name", "box", "busybox"))
        stuck = self.start("exec", "box", "--", "yes", "x" * 1000)
        self.assertTrue(stuck.stdout.read(4096))
        echoes = [self.start("exec", "box", "--", "cat") for _ in range(127)]

        def say(child, text):
            child.stdin.write(text)
            child.stdin.flush()
        for i, child in enumerate(echoes):
            say(child, b"%d\n" % i)
        self.assertEqual([c.stdout.readline() for c in echoes], [b"%d\n" % i for i in range(127)])
        # There is no place for another, who waits until there is.
        late = self.start("exec", "box", "--", "echo", "late")
        for _ in range(3):
            for i, child in enumerate(echoes):
                say(child, b"again %d\n" % i)
            self.assertEqual([c.stdout.readline() for c in echoes], [b"again %d\n" % i for i in range(127)])
        self.assertIsNone(late.poll())
        self.assertIsNone(stuck.poll())
        self.assertEqual(echoes.pop().communicate(timeout=PATIENCE)[0], b"")
        self.assertEqual(late.communicate(timeout=PATIENCE)[0], b"late\n")
        for child in echoes:
            child.stdin.close()
        self.assertEqual([c.wait(PATIENCE) for c in echoes], [0] * 126)
