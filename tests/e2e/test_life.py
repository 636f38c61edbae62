# SPDX-License-Identifier: Apache-2.0
"""Sandboxes that last: their lives, whoever is killed meanwhile, and many commands at once.

MSB_LIFE_SECONDS makes Chaos go on for that long (default: 60), MSB_LIFE_SEED throws its dice (default: 5), and
MSB_LIFE_SAID shows what the commands say.
"""
import contextlib
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import threading
import time

from harness import ENGINE, PATIENCE, Case, deadline, environment, machines_of, parent_and_name, tree, until


class Life(Case):
    def setUp(self):
        super().setUp()
        self.own_home()

    def list(self):
        return {s["name"]: s["status"] for s in json.loads(self.ok(self.msb("ls", "--format", "json")).text)}

    def inspect(self, name):
        return json.loads(self.ok(self.msb("inspect", name, "--format", "json")).text)

    def pid(self, verb, name):
        """Of the process that works for sandbox @name: its keeper, or msb-vm."""
        for pid, line in machines_of(self.home).items():
            words = line.split()
            if verb == "keep" and words[1:2] == ["keep"] and words[-1] == name:
                return pid
            if verb == "msb-vm" and words[0] == "msb-vm" and words[-1].endswith("/sandboxes/" + name):
                return pid
        return None

    def engine(self, name):
        """Of the engine of sandbox @name; msb-vm itself when that is one."""
        vm = self.pid("msb-vm", name)
        for pid in filter(str.isdigit, os.listdir("/proc")):
            parent, program = parent_and_name(pid)
            if parent == vm and program.startswith("qemu"):
                return int(pid)
        return vm

    def killed(self, pid):
        os.kill(pid, signal.SIGKILL)
        until(lambda: not os.path.exists(f"/proc/{pid}") or
              open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()[0] == "Z", "the end of a killed process")


class Background(Life):
    def test_run_detached(self):
        # A shell waits until nobody holds its pipe any more.
        done = subprocess.run(["sh", "-c", 'x=$("$@"); echo "<$x>"', "sh", *self.argv(
            "run", "-d", "busybox", "--", "sh", "-c", "read x; while [ ! -e /go ]; do sleep 0.1; done; exit 7")],
            env=environment(self.home), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=PATIENCE)
        self.assertRegex(done.stdout.decode(), r"^<msb-[0-9a-f]{8}>\n$", done)
        name = done.stdout.decode()[1:-2]
        self.assertEqual(self.list(), {name: "running"})
        keeper = self.pid("keep", name)
        for fd in (0, 1):
            self.assertEqual(os.readlink(f"/proc/{keeper}/fd/{fd}"), "/dev/null")
        self.assertTrue(os.readlink(f"/proc/{keeper}/fd/2").endswith("/logs/keeper.log"))
        self.assertEqual(os.readlink(f"/proc/{keeper}/cwd"), "/")
        self.assertEqual(os.getsid(keeper), keeper)
        waiter = self.start("wait", name)
        # What ends with it may end before this has heard of its own end.
        self.assertIn(self.msb("exec", name, "--", "touch", "/go").code, (0, 125))
        self.assertEqual((waiter.wait(PATIENCE), waiter.stdout.read()), (7, b"7\n"))
        self.assertEqual(self.list(), {})
        late = self.msb("wait", name)
        self.assertEqual((late.code, late.out), (7, b"7\n"), str(late))
        self.nothing_left()

    def test_a_named_one_is_kept_and_runs_its_command_again(self):
        script = "echo x >>/count; [ $(wc -l </count) = 2 ] && exit 5; sleep 1000"
        self.assertEqual(self.ok(self.msb("run", "-d", "-n", "job", "busybox", "--", "sh", "-c", script)).text, "job\n")
        self.refused(self.msb("run", "-d", "-n", "job", "busybox", "--", "true"), 125, "job", "running")
        until(lambda: self.msb("exec", "job", "--", "test", "-s", "/count").code == 0, "the command's beginning")
        self.ok(self.msb("stop", "job"))
        self.assertEqual(self.inspect("job")["reason"], "asked")
        self.assertEqual(self.msb("wait", "job").code, 0)
        self.ok(self.msb("start", "job"))
        done = self.msb("wait", "job")
        self.assertEqual((done.code, done.out), (5, b"5\n"), str(done))
        now = self.inspect("job")
        self.assertEqual((now["status"], now["exit_code"], now["reason"]), ("stopped", 5, "completed"))
        self.assertEqual(self.msb("wait", "job").code, 5)
        self.ok(self.msb("rm", "job"))
        self.assertEqual(self.msb("wait", "job").code, 5)
        self.refused(self.msb("wait", "jobs"), 1, "no sandbox")

    def test_timeout(self):
        self.ok(self.msb("run", "-d", "-n", "slow", "--timeout", "1s", "busybox", "--", "sleep", "1000"))
        self.assertEqual(self.msb("wait", "slow").code, 124)

    def test_what_sessions_ended_with_is_kept(self):
        def past():
            return {s["session"]: (s["status"], s["exit_code"]) for s in
                    json.loads(self.ok(self.msb("attach", "-l", "--format", "json", "a")).text)}
        self.ok(self.msb("run", "-n", "a", "busybox", "--", "true"))
        self.refused(self.msb("attach", "a"), 125, "not running")
        # Started for it, and over with it.
        self.ok(self.msb("exec", "-d", "--session", "job", "a", "--", "sh", "-c", "echo said; exit 7"))
        until(lambda: self.list() == {"a": "stopped"}, self.list)
        self.assertEqual(self.msb("wait", "a").code, 7)
        now = self.inspect("a")
        self.assertEqual((now["exit_code"], now["reason"]), (7, "left"))
        self.assertEqual(past(), {"job": ("ended", 7)})
        for words in ((), ("job",)):
            done = self.msb("attach", "a", *words)
            self.assertEqual((done.code, done.out), (7, b""), str(done))
            self.assertIn("msb logs a", done.messages)
        self.assertEqual(self.ok(self.msb("logs", "a")).text, "said\n")
        self.refused(self.msb("attach", "a", "other"), 125, "not running")
        # Another life knows nothing of it; who asked for one knows it, and who was cut short is told.
        self.ok(self.msb("start", "a"))
        self.assertEqual(past(), {})
        for name, script in (("asked", "exit 3"), ("ended", "exit 4"), ("cut", "sleep 1000")):
            self.ok(self.msb("exec", "-d", "--session", name, "a", "--", "sh", "-c", script))
        self.assertEqual(self.msb("attach", "a", "asked").code, 3)
        until(lambda: "ended (4)" in self.ok(self.msb("attach", "-l", "a")).text, "the end of a session")
        self.ok(self.msb("stop", "a"))
        self.assertEqual(past(), {"ended": ("ended", 4), "cut": ("ended", 125)})
        self.assertEqual(self.msb("wait", "a").code, 0)
        # The same where a command in the foreground owned it.
        child = self.running("a")
        self.ok(self.msb("exec", "-d", "--session", "late", "a", "--", "sh", "-c", "exit 5"))
        until(lambda: "ended (5)" in self.ok(self.msb("attach", "-l", "a")).text, "the end of a session")
        child.stdin.close()
        self.assertEqual(child.wait(PATIENCE), 0)
        self.assertEqual(past(), {"late": ("ended", 5)})

    def test_what_run_has_started_ends_with_its_command(self):
        run = self.running("a")
        other = self.start("exec", "a", "--", "sh", "-c", "echo in; sleep 1000")
        self.assertEqual(other.stdout.readline(), b"in\n")
        run.stdin.close()
        self.assertEqual(run.wait(PATIENCE), 0)
        self.assertEqual(other.wait(PATIENCE), 125)
        self.assertIn(b'sandbox "a" ended while the command ran', other.stderr.read())
        self.assertEqual(self.list(), {"a": "stopped"})
        # One that ran before goes on, and so does one that somebody started for good.
        self.ok(self.msb("start", "a"))
        self.ok(self.msb("run", "-q", "-n", "a", "busybox", "--", "true"))
        self.assertEqual(self.list(), {"a": "running"})

    def test_what_cannot_start(self):
        self.refused(self.msb("run", "-d", "busybox", "--", "no-such-command"), 127, "no-such-command")
        self.refused(self.msb("create", "-n", "bad", "--kernel", "/etc/passwd", "busybox"), 1, "kernel")
        done = self.msb("--debug", "create", "-n", "bad", "--kernel", "/etc/passwd", "busybox")
        self.assertIn("vm.log", done.messages)
        # It has gone, and its logs with it: nobody is sent there.
        done = self.msb("create", "-n", "bad", "--init", "/nope", "busybox")
        self.refused(done, 1, "no init /nope", "--debug")
        self.assertNotIn(self.home, done.messages)
        self.refused(self.msb("create", "-n", "bad", "no-such-image", "--pull", "never"), 1, "no-such-image")
        self.refused(self.msb("start", "bad"), 1, "no sandbox")
        self.assertEqual(self.list(), {})
        self.nothing_left()


class Lives(Life):
    def test_from_create_to_rm(self):
        self.assertEqual(self.ok(self.msb("create", "-n", "a", "--label", "team=red", "busybox")).text, "")
        self.refused(self.msb("create", "-n", "a", "busybox"), 1, "already")
        name = self.ok(self.msb("create", "--label", "team=blue", "busybox")).text.strip()
        self.assertRegex(name, "^msb-[0-9a-f]{8}$")
        self.assertEqual(self.list(), {"a": "running", name: "running"})
        self.assertEqual(self.ok(self.msb("exec", "a", "--", "sh", "-c", "echo kept >/kept")).text, "")
        # `run` of one that runs: in it, and it goes on.
        done = self.ok(self.msb("run", "-n", "a", "-c", "2", "busybox", "--", "cat", "/kept"))
        self.assertEqual(done.text, "kept\n")
        self.assertIn("ignored", done.messages)
        self.assertEqual(self.ok(self.msb("ls", "-q", "--label", "team=red")).text, "a\n")
        # One that fails does not keep the others from it.
        done = self.msb("stop", "nobody", "a")
        self.assertEqual((done.code, done.text), (1, "a\n"), str(done))
        self.assertEqual(self.list(), {"a": "stopped", name: "running"})
        self.assertEqual(self.ok(self.msb("ps", "-q")).text, name + "\n")
        self.assertEqual(self.ok(self.msb("restart", "--label", "team")).text.split().sort(), ["a", name].sort())
        self.assertEqual(self.ok(self.msb("exec", "a", "--", "cat", "/kept")).text, "kept\n")
        self.assertEqual(self.ok(self.msb("start", "a")).text, "a\n")
        self.refused(self.msb("rm", "a"), 1, "running")
        self.ok(self.msb("kill", "a"))
        now = self.inspect("a")
        self.assertEqual((now["status"], now["reason"]), ("stopped", "killed"))
        self.ok(self.msb("stop", "--all"))
        self.assertEqual(set(self.list().values()), {"stopped"})
        rows = json.loads(self.ok(self.msb("ps", "-a", "--format", "json")).text)
        self.assertEqual({(r["cpus"], r["memory_mib"]) for r in rows}, {(1, 512)})
        self.assertEqual(self.ok(self.msb("ls", "--format", "name,reason", "--label", "team=red")).text.split(),
                         ["NAME", "REASON", "a", "killed"])
        self.refused(self.msb("ls", "--format", "colour"), 2, "colour")
        self.refused(self.msb("stop"), 2, "which")
        self.ok(self.msb("rm", "--all"))
        self.nothing_left()

    def test_replace(self):
        self.ok(self.msb("create", "-n", "a", "busybox"))
        self.ok(self.msb("exec", "a", "--", "touch", "/old"))
        # What cannot be is noticed before the old one goes.
        self.refused(self.msb("create", "--replace", "-n", "a", "--pull", "never", "no-such-image"), 1, "no-such-image")
        self.assertEqual(self.list(), {"a": "running"})
        self.ok(self.msb("create", "--replace", "-n", "a", "busybox"))
        self.assertEqual(self.msb("exec", "a", "--", "test", "-e", "/old").code, 1)
        self.ok(self.msb("run", "--replace-with-timeout", "0", "-n", "a", "busybox", "--", "true"))
        self.assertEqual(self.list(), {"a": "stopped"})


class Killed(Life):
    def test_who_is_killed_while_it_runs(self):
        for victim in ("keep", "msb-vm", "engine"):
            self.ok(self.msb("create", "-n", "a", "busybox") if victim == "keep" else self.msb("start", "a"))
            self.killed(self.engine("a") if victim == "engine" else self.pid(victim, "a"))
            until(lambda: self.list() == {"a": "crashed"}, lambda: f"{victim}: {self.list()}")
            until(lambda: not machines_of(self.home), lambda: f"{victim}: {machines_of(self.home)}")
            self.assertTrue(self.inspect("a")["reason"], victim)
            self.assertEqual([n for n in os.listdir(f"{self.home}/sandboxes/a") if n.endswith(".sock")], [])
        self.assertEqual(self.msb("wait", "a").code, 125)
        self.ok(self.msb("rm", "a"))
        self.nothing_left()

    def test_who_waits_for_one_that_hangs_can_go(self):
        self.ok(self.msb("create", "-n", "a", "busybox"))
        engine = self.engine("a")
        if engine == self.pid("msb-vm", "a"):
            self.skipTest("the engine is msb-vm itself")
        os.kill(engine, signal.SIGSTOP)
        self.addCleanup(os.kill, engine, signal.SIGCONT)
        child = self.start("exec", "a", "--", "true")
        until(lambda: json.loads(self.ok(self.msb("metrics", "--format", "json", "a")).text)["sessions"], "a session asked for")
        # There is no command yet to hand it on to.
        child.terminate()
        self.assertEqual(child.wait(PATIENCE), 128 + signal.SIGTERM)

    def test_an_ephemeral_one(self):
        for victim in ("keep", "msb-vm"):
            name = self.ok(self.msb("run", "-d", "busybox", "--", "sleep", "1000")).text.strip()
            waiter = self.start("wait", name)
            time.sleep(0.1)
            self.killed(self.pid(victim, name))
            self.assertEqual(waiter.wait(PATIENCE), 125, victim)
            self.assertEqual(self.list(), {})
            self.nothing_left()

    def test_the_caller_before_it_is_ready(self):
        for moment in (0.02, 0.1, 0.3):
            child = self.start("create", "-n", "a", "busybox")
            time.sleep(moment)
            child.kill()
            child.wait()
            # All or nothing: it went on before, or is on its way out.
            until(lambda: not machines_of(self.home) or self.list() == {"a": "running"}, "an end, or a start")
            self.ok(self.msb("ls"))
            for name in self.list():
                self.ok(self.msb("rm", "-f", name))
            self.nothing_left()


class Interrupted(Life):
    """Killed between two steps that belong together (base/point.h)."""

    def rows(self):
        with contextlib.closing(sqlite3.connect(f"{self.home}/msb.db")) as db:
            return dict(db.execute("SELECT name, state FROM sandboxes"))

    def dies(self, point, *words):
        done = self.msb(*words, env={"MSB_DIE_AT": point})
        self.assertEqual(done.code, -signal.SIGKILL, f"{point}: {done}")

    def gone(self, point):
        self.assertEqual(self.list(), {}, point)
        self.assertEqual(self.rows(), {}, point)
        self.nothing_left()

    def test_made_and_removed(self):
        for point in ("new:row", "new:claim", "new:record"):
            for words in (("create", "-n", "a", "busybox"), ("run", "-n", "a", "busybox", "--", "true")):
                self.dies(point, *words)
                self.gone(point)
        # The keeper that is killed: who waits for it hears of that, and cleans up.
        for point in ("start:row", "start:machine", "ready:row"):
            done = self.msb("create", "-n", "a", "busybox", env={"MSB_DIE_AT": point})
            self.refused(done, 1, "signal 9")
            self.gone(point)
        self.ok(self.msb("run", "-n", "a", "busybox", "--", "touch", "/old"))
        for point in ("start:row", "start:machine", "ready:row"):
            self.refused(self.msb("start", "a", env={"MSB_DIE_AT": point}), 1, "signal 9")
            until(lambda: self.list() == {"a": "failed"}, lambda: f"{point}: {self.list()}")
            self.assertEqual(self.inspect("a")["reason"], "its owner was killed")
            until(lambda: not machines_of(self.home), lambda: f"{point}: {machines_of(self.home)}")
        self.ok(self.msb("run", "-n", "a", "busybox", "--", "test", "-e", "/old"))
        self.dies("replace:renewed", "create", "--replace", "-n", "a", "busybox")
        self.gone("replace:renewed")
        for point in ("rm:record", "rm:row"):
            self.ok(self.msb("run", "-n", "a", "busybox", "--", "true"))
            self.dies(point, "rm", "a")
            self.gone(point)

    def test_changed(self):
        self.ok(self.msb("create", "-n", "a", "--max-cpus", "2", "busybox"))
        for words, state in ((("pause",), "paused"), (("resume",), "running")):
            self.dies("change:machine", *words, "a")
            self.assertEqual(self.list(), {"a": state})
            self.assertEqual(self.rows(), {"a": state})
        for verb in ("stop", "kill"):
            self.dies("stop:row", verb, "a")
            until(lambda: self.list() == {"a": "running"}, lambda: f"{verb}: {self.list()}")
            self.assertEqual(self.rows(), {"a": "running"})
        self.dies("modify:record", "modify", "--label", "k=v", "a")
        self.assertEqual(self.ok(self.msb("ls", "-q", "--label", "k=v")).text, "a\n")
        # What its machine was not told it is told when that is asked for again.
        self.dies("modify:machine", "modify", "-e", "K=v", "a")
        self.ok(self.msb("modify", "-q", "-e", "K=v", "a"))
        self.assertEqual(self.ok(self.msb("exec", "a", "--", "sh", "-c", "echo $K")).text, "v\n")
        self.dies("modify:machine", "modify", "-c", "2", "a")
        changes = json.loads(self.ok(self.msb("modify", "-c", "2", "--format", "json", "a")).text)["changes"]
        self.assertEqual([(c["field"], c["from"], c["to"], c["state"]) for c in changes], [("cpus", "1", "2", "applied")])
        self.assertEqual(self.ok(self.msb("exec", "a", "--", "nproc")).text, "2\n")
        self.dies("modify:machine", "modify", "--max-duration", "1000s", "a")
        changes = json.loads(self.ok(self.msb("modify", "--max-duration", "1000s", "--format", "json", "a")).text)["changes"]
        self.assertEqual([(c["from"], c["to"]) for c in changes], [("none", "1000s")])
        busy = self.start("exec", "a", "--", "cat")
        busy.stdin.write(b"x\n")
        busy.stdin.flush()
        self.assertEqual(busy.stdout.readline(), b"x\n")
        self.dies("change:machine", "drain", "a")
        self.assertEqual(self.list(), {"a": "draining"})
        self.assertEqual(self.rows(), {"a": "draining"})
        busy.stdin.close()
        until(lambda: self.list() == {"a": "stopped"}, self.list)
        # One that does not run.
        self.dies("modify:record", "modify", "--label", "other=v", "a")
        self.assertEqual(self.ok(self.msb("ls", "-q", "--label", "other")).text, "a\n")
        self.assertFalse(os.path.exists(f"{self.home}/sandboxes/a/changing"))

    def halted(self, point, *words):
        child = self.start(*words, env={"MSB_HALT_AT": point})
        until(lambda: child.poll() is not None or self.state(child.pid) == "T", f"{words} at {point}")
        self.assertIsNone(child.poll(), f"{words} never came to {point}")
        return child

    def state(self, pid):
        return open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()[0]

    def test_two_at_once(self):
        """One is held up between two steps, and another one comes."""
        self.ok(self.msb("run", "-n", "a", "busybox", "--", "touch", "/old"))
        # What is being changed is not taken for what it was, nor taken away under it; what was taken away is not brought back.
        for words, labels in ((("run", "-d", "-n", "a", "busybox", "--", "sleep", "1000"), ["k=run"]), (("rm", "a"), None),
                              (("create", "--replace", "-n", "a", "--label", "n=1", "busybox"), ["n=1"])):
            child = self.halted("modify:read", "modify", "--label", "k=" + words[0], "a")
            other = self.start(*words)
            until(lambda: other.poll() is not None or self.waits(other.pid), f"{words}, to wait or to end")
            child.send_signal(signal.SIGCONT)
            code, err = child.wait(PATIENCE), child.stderr.read()
            self.assertEqual((code, err), (0, b""), words)
            self.assertEqual(other.wait(PATIENCE), 0, other.stderr.read())
            if labels is None:
                self.gone(words)
                self.ok(self.msb("run", "-n", "a", "busybox", "--", "true"))
                continue
            self.assertEqual(self.inspect("a")["config"]["labels"], labels)
            self.assertEqual(self.ok(self.msb("ls", "-q", "--label", labels[0])).text, "a\n")
            self.ok(self.msb("stop", "a"))
        self.assertEqual(self.ok(self.msb("ls", "-q", "--label", "k")).text, "")

    def waits(self, pid):
        """For a file's lock?"""
        return any(line.split()[1] == "->" and str(pid) in line.split() for line in open("/proc/locks"))

    def test_ended(self):
        self.ok(self.msb("create", "-n", "a", "busybox", env={"MSB_DIE_AT": "end:row"}))
        self.msb("stop", "a")
        self.assertEqual(self.list(), {"a": "stopped"})
        self.assertEqual([n for n in os.listdir(f"{self.home}/sandboxes/a") if n.endswith(".sock")], [])
        self.assertEqual(self.inspect("a")["machine"]["end"], "asked")
        self.ok(self.msb("start", "a", env={"MSB_DIE_AT": "end:machine"}))
        self.msb("stop", "a")
        self.assertEqual(self.list(), {"a": "stopped"})
        self.assertEqual(self.inspect("a")["reason"], "asked")
        words = ("run", "-d", "-n", "job", "busybox", "--", "sh", "-c", "sleep 1; exit 7")
        self.ok(self.msb(*words, env={"MSB_DIE_AT": "end:row"}))
        until(lambda: self.list()["job"] == "stopped", self.list)
        self.assertEqual(self.msb("wait", "job").code, 7)
        self.ok(self.msb("rm", "--all"))
        self.nothing_left()


class Together(Life):
    """Many commands want the same name."""

    def all(self, *commands):
        children = [self.start(*c) for c in commands]
        return [(c.wait(PATIENCE), c.stdout.read(), c.stderr.read()) for c in children]

    def test_one_name(self):
        results = self.all(*[("create", "-n", "a", "-q", "busybox")] * 24)
        self.assertEqual(sorted(r[0] for r in results), [0] + [1] * 23, results)
        for code, _, text in results:
            self.assertTrue(code == 0 or b"already" in text, text)
        self.assertEqual(self.list(), {"a": "running"})
        results = self.all(*[("stop", "a")] * 12)
        self.assertEqual({r[0] for r in results}, {0}, results)
        results = self.all(*[("start", "a")] * 12)
        self.assertEqual({r[0] for r in results}, {0}, results)
        self.assertEqual(self.list(), {"a": "running"})
        results = self.all(*[("rm", "-f", "a")] * 12)
        self.assertIn(0, {r[0] for r in results}, results)
        self.assertEqual(self.list(), {})
        self.nothing_left()

    def test_all_sorts(self):
        verbs = [("create", "-n", "a", "busybox"), ("stop", "a"), ("start", "a"), ("kill", "a"), ("rm", "-f", "a"), ("ls",),
                 ("create", "--replace-with-timeout", "1s", "-n", "a", "busybox"), ("inspect", "a"), ("restart", "a")]
        self.all(*verbs * 3)
        known = self.list()
        self.assertLessEqual(set(known), {"a"})
        until(lambda: bool(machines_of(self.home)) == (self.list().get("a") == "running"),
              lambda: f"{self.list()} {machines_of(self.home)}")
        self.msb("rm", "-f", "a")
        self.assertEqual(self.list(), {})
        self.nothing_left()


class Chaos(Life):
    """Many do anything, and now and then somebody is killed; afterwards everything adds up."""
    NAMES = ["a", "b", "c", "d"]

    def verbs(self, dice):
        a, b = dice.choice(self.NAMES), dice.choice(self.NAMES)
        small = ("-m", "128M")
        return dice.choice([
            ("create", *small, "-n", a, "busybox"), ("create", *small, "--replace-with-timeout", "1s", "-n", a, "busybox"),
            ("create", *small, "--label", "k=" + b, "--max-cpus", "2", "-n", a, "busybox"), ("start", a), ("start", a, b),
            ("stop", "-t", "3", a), ("kill", a), ("restart", "-t", "3", a), ("rm", "-f", a), ("rm", a, b),
            ("exec", a, "--", "sh", "-c", "echo x >>/file; sync"), ("exec", "-d", a, "--", "sleep", "1"),
            ("run", *small, "-n", a, "busybox", "--", "true"), ("run", *small, "-d", "busybox", "--", "sleep", "1"),
            ("run", *small, "-d", "-n", a, "busybox", "--", "sleep", "2"), ("run", *small, "busybox", "--", "true"),
            ("pause", a), ("pause", a), ("resume", a), ("resume", a, b), ("drain", "-t", "1", a), ("ping", a), ("touch", a),
            ("modify", "--label", "k=" + b, a), ("modify", "-c", dice.choice("12"), a), ("modify", "-e", "K=" + b, a),
            ("modify", "--idle-timeout", "300s", a), ("modify", "-m", "160M", "--restart", a),
            ("cp", self.tree, a + ":/tree"), ("cp", a + ":/bin/busybox", self.path("copied-" + a)),
            ("cp", a + ":/bin", b + ":/copy"), ("logs", a), ("metrics", a), ("inspect", a), ("wait", a), ("ls",), ("ps",)])

    def one(self, n, seed, end):
        dice = random.Random(f"{seed} {n}")
        while time.monotonic() < end:
            words = self.verbs(dice)
            child = subprocess.Popen(self.argv(*words), env=environment(self.home), stdin=subprocess.DEVNULL,
                                     stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            try:
                said = child.communicate(timeout=dice.choice([0.05, 0.2, 0.5, 2, 20, 20, 20, 20]))[1]
            except subprocess.TimeoutExpired:
                child.kill()
                said = child.communicate()[1]
            if said and os.environ.get("MSB_LIFE_SAID"):
                print(" ".join(words), child.returncode, said.decode(errors="replace").strip(), flush=True)
            for noise in (b"AddressSanitizer", b"runtime error", b"damaged"):
                if noise in said:
                    self.bad.append((words, said))
            if dice.random() < 0.2:
                victims = sorted(p for p in machines_of(self.home) if parent_and_name(p)[1])
                if victims:
                    try:
                        os.kill(dice.choice(victims), signal.SIGKILL)
                    except ProcessLookupError:
                        pass

    def adds_up(self, said):
        """The database, the directories, the sockets and the processes tell the same."""
        listed = None
        while listed != self.list():
            listed = self.settled(said)
            # What still ended by itself while that was looked at is looked at again.
            try:
                self.same(listed, said)
            except (AssertionError, OSError):
                if listed == self.list():
                    raise

    def happened(self, name):
        return self.msb("events", "--no-follow", name).text[-6000:]

    def settled(self, said):
        def machines():
            listed = self.list()
            return listed if len(self.machine_pids("msb-vm")) == len(self.alive(listed)) and set(listed) <= set(self.NAMES) and \
                set(listed.values()) <= {"running", "paused", "draining", "stopped", "crashed", "failed"} else None
        until(lambda: machines() is not None, lambda: f"{said}: {self.list()} {machines_of(self.home)}")
        return self.list()

    @staticmethod
    def alive(listed):
        return {n for n, s in listed.items() if s in ("running", "paused", "draining")}

    def same(self, listed, said):
        alive = self.alive(listed)
        with contextlib.closing(sqlite3.connect(f"{self.home}/msb.db")) as db:
            self.assertEqual(db.execute("PRAGMA integrity_check").fetchall(), [("ok",)], said)
            self.assertEqual(dict(db.execute("SELECT name, state FROM sandboxes")), listed, said)
            self.assertEqual({n for n, in db.execute("SELECT sandbox FROM image_refs")}, set(listed), said)
            labels = {}
            for name, key, value in db.execute("SELECT sandbox, key, value FROM labels"):
                labels.setdefault(name, set()).add(f"{key}={value}")
        for folder in ("sandboxes", "tmp", "run"):
            known = set(listed) if folder == "sandboxes" else set()
            self.assertEqual(set(os.listdir(f"{self.home}/{folder}")) - known, set(), said)
        for name, state in listed.items():
            folder = f"{self.home}/sandboxes/{name}"
            with open(f"{folder}/config.json") as f:
                record = json.load(f)
            self.assertEqual(record["name"], name, said)
            if labels.get(name, set()) != set(record["config"].get("labels", ())):
                self.fail(f"{said}: {name}: {labels.get(name)}, {record} {os.listdir(folder)}\n{self.happened(name)}")
            sockets = [n for n in os.listdir(folder) if n.endswith(".sock")]
            self.assertEqual(bool(sockets), name in alive, f"{said}: {name} is {state}: {sockets}")
            self.assertFalse([n for n in os.listdir(folder) if n.startswith(".")], f"{said}: {name}")
            self.assertEqual(self.inspect(name)["status"], state, said)
            paused = json.loads(self.ok(self.msb("metrics", "--format", "json", name)).text)["state"] if name in alive else ""
            self.assertEqual(paused == "paused", state == "paused", f"{said}: {name}: {paused} {state}")

    @deadline(5400)
    def test_at_random(self):
        seconds = float(os.environ.get("MSB_LIFE_SECONDS", "60"))
        seed = int(os.environ.get("MSB_LIFE_SEED", "5"))
        said = f"MSB_LIFE_SECONDS={seconds:g} MSB_LIFE_SEED={seed}"
        self.bad = []
        self.tree = self.path("tree")
        os.makedirs(self.tree)
        for i in range(50):
            with open(f"{self.tree}/{i}", "wb") as f:
                f.write(os.urandom(5000))
        end = time.monotonic() + seconds
        threads = [threading.Thread(target=self.one, args=(n, seed, end)) for n in range(6)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        self.assertEqual(self.bad, [], said)
        self.adds_up(said)
        # Every one that is there can be used, and its disk is sound.
        mine = sorted(set(self.list()) & set(self.NAMES))
        self.msb("resume", "--all")
        for name in mine:
            done = self.msb("exec", name, "--", "true")
            # One that was paused may have had a command of its own, and has ended with that, or is about to say so.
            if done.code == 125:
                self.settled(said)
            if done.code == 125 and self.inspect(name)["reason"] == "completed":
                done = self.msb("exec", name, "--", "true")
            self.assertEqual(done.code, 0, f"{said}: {name}: {done}\n{self.happened(name)}")
        self.ok(self.msb("stop", "--all"))
        for name in mine:
            upper = f"{self.home}/sandboxes/{name}/upper.ext4"
            check = subprocess.run(["e2fsck", "-fn", upper], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            self.assertEqual(check.returncode, 0, f"{said}: {name}: {check.stdout}")
        self.ok(self.msb("rm", "--all"))
        with contextlib.closing(sqlite3.connect(f"{self.home}/msb.db")) as db:
            for table in ("sandboxes", "labels", "image_refs"):
                self.assertEqual(db.execute(f"SELECT * FROM {table}").fetchall(), [], f"{said}: {table}")
        self.nothing_left()


class Homes(Life):
    """Every command, with a store that is not as it should be: clear words, and nothing is destroyed."""
    TAR = "the archive of busybox"
    KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKuI0pXrwyRh4xgrRnCjqtJnYOlpfXXtIvk3f1Xyq8uB me"
    # Nothing of that name is there.
    PROJECT = "sandboxes:\n  web:\n    image: ./none\nbuilds:\n  b:\n    image: ./none\n    steps: {one: 'true'}\n"
    # What to say, and how that ends where the database was lost (None: as before). Some need no store
    # at all (True).
    WORDS = {
        "run": ("run --pull never busybox -- true", 125), "create": ("create --pull never -n b busybox", 1), "start": ("start a", 1),
        "stop": ("stop a", 0), "kill": ("kill a", 0), "restart": ("restart a", 1), "remove": ("rm a", 0),
        "wait": ("wait a", 0), "list": ("ls", 0), "status": ("ps", 0), "inspect": ("inspect a", 0),
        "exec": ("exec a -- true", 125), "shell": ("shell a -- true", 125), "attach": ("attach a", 125),
        "copy": ("cp a:/etc/passwd -", 1), "ssh": ("ssh a -- true", None), "ssh connect": ("ssh connect a", None),
        "ssh serve": ("ssh serve a", None), "ssh authorize": (["ssh", "authorize", "--key", KEY], 0), "logs": ("logs a", 0),
        "pause": ("pause a", 1), "resume": ("resume a", 1), "drain": ("drain a", 1), "ping": ("ping a", 1),
        "touch": ("touch a", 1), "metrics": ("metrics", 0), "modify": ("modify --label k=v a", 0), "events": ("events", None),
        "image list": ("image ls", 0), "image inspect": ("image inspect busybox", 1), "image remove": ("rmi busybox", 1),
        "image prune": ("image prune --yes", 0), "image verify": ("image verify", 0), "image load": (["image", "load", "-i", TAR], 0),
        "image save": ("image save -o /dev/null busybox", 1), "image pull": ("image pull localhost:1/x", None),
        "image bootstrap": ("image bootstrap bookworm", None), "pull": ("pull localhost:1/x", None),
        "load": (["load", "-i", TAR], 0), "save": ("save -o /dev/null busybox", 1),
        "registry login": ("registry login localhost:1 -u x --password-stdin", None),
        "registry logout": ("registry logout localhost:1", None), "registry list": ("registry ls", 0),
        "config": ("config", True), "schema": ("schema", True), "completion": ("completion bash", True),
        "doctor": ("doctor", None), "self version": ("self version", True),
        # Of the project here; what `one` is was installed before.
        "up": ("up -d", 1), "down": ("down", 0), "apply": ("apply -d", 1), "clean": ("clean --force", 0), "build": ("build b", 1),
        "install": ("install busybox two", 0), "uninstall": ("uninstall one", 0), "exe": ("exe --pull never busybox -- true", 125),
        "init": ("init -f new", True), "add": ("add db --image busybox", True), "self upgrade": ("self upgrade", True),
        # One that was installed is needed: test_self.py.
        "self uninstall": ("", False)}

    def setUp(self):
        super().setUp()
        self.dir, self.user = self.path("project"), self.path("user")
        for path in (self.dir, self.user):
            os.mkdir(path)
        with open(self.dir + "/Sandboxfile", "w") as f:
            f.write(self.PROJECT)
        self.ok(self.msb("run", "-n", "a", "busybox", "--", "true"))
        self.ok(self.here("install", "busybox", "one"))

    def here(self, *words, **how):
        """In a project, and with a HOME of this test's."""
        return self.msb(*words, cwd=self.dir, env={"HOME": self.user}, **how)

    def words(self):
        """(command, words, code) of all there are."""
        group, found = "", []
        for line in self.ok(self.msb("--tree")).text.splitlines():
            depth, words = len(line) - len(line.lstrip()), line.split()
            if not words or words[0].startswith("-") or depth not in (4, 8):
                continue
            name = words[0].split("|")[0]
            group = name if depth == 4 else group
            if words[1:] != ["COMMAND"]:
                found.append(f"{group} {name}" if depth == 8 else name)
        self.assertGreater(len(found), 40)
        for name in found:
            self.assertIn(name, self.WORDS, "a new command: say what it does without a store")
            words, code = self.WORDS[name]
            words = words.split() if isinstance(words, str) else words
            if code is not False:
                yield name, [os.environ["MSB_TEST_BUSYBOX"] if w == self.TAR else w for w in words], code

    def drop(self):
        for name in os.listdir(self.home):
            if name.startswith("msb.db"):
                os.unlink(f"{self.home}/{name}")

    def all_refused(self, *what):
        before, others = tree(self.home), tree(self.user)
        for name, words, code in self.words():
            done = self.here(*words, input=b"x\n")
            if code is True:
                self.ok(done)
            elif name == "doctor":
                self.assertEqual(done.code, 1, str(done))
                self.assertIn(what[0], done.text)
            else:
                self.refused(done, 125 if name in ("run", "exe", "exec", "shell", "attach") else 1, *what)
        self.assertEqual(tree(self.home), before)
        self.assertEqual(tree(self.user), others)
        self.assertFalse(os.path.exists(self.dir + "/.menv"))

    def test_no_database(self):
        """It is made anew, and what sandboxes there are is found again."""
        kept, names = self.path("kept"), []
        # With the holes in its disk.
        subprocess.run(["cp", "-a", f"{self.home}/sandboxes/a", kept], check=True)
        for name, words, code in self.words():
            if code is None:
                continue
            self.drop()
            if not os.path.exists(f"{self.home}/sandboxes/a"):
                subprocess.run(["cp", "-a", kept, f"{self.home}/sandboxes/a"], check=True)
            done = self.here(*words)
            self.assertEqual(done.code, 0 if code is True else code, f"{words}: {done}")
            if done.code:
                self.refused(done, code)
            names.append(name)
            self.assertEqual(self.list(), {} if name == "remove" else {"a": "stopped"}, words)
        self.assertGreater(len(names), 30)
        self.drop()
        self.refused(self.msb("start", "a"), 1, "image", "load")
        self.ok(self.msb("load", "-i", os.environ["MSB_TEST_BUSYBOX"]))
        self.ok(self.msb("start", "a"))
        self.ok(self.msb("rm", "-f", "a"))
        self.nothing_left()

    def test_database_lost_while_they_run(self):
        """The next command knows all of them again, and how they live, by asking them."""
        self.ok(self.msb("start", "a"))
        self.ok(self.msb("create", "-n", "held", "--label", "k=v", "-m", "128M", "busybox"))
        self.ok(self.msb("pause", "-q", "held"))
        self.msb("run", "-n", "seven", "busybox", "--", "sh", "-c", "exit 7")
        thrown = self.ok(self.msb("run", "-d", "-m", "128M", "busybox", "--", "sleep", "1000")).text.strip()
        self.drop()
        expected = {"a": "running", "held": "paused", "seven": "stopped", thrown: "running"}
        self.assertEqual(self.list(), expected)
        with contextlib.closing(sqlite3.connect(f"{self.home}/msb.db")) as db:
            self.assertEqual(dict(db.execute("SELECT name, state FROM sandboxes")), expected)
            self.assertEqual(db.execute("SELECT min(started_at) > 0 FROM sandboxes").fetchone(), (1,))
        self.assertEqual(self.msb("wait", "seven").code, 7)
        self.assertEqual(self.ok(self.msb("resume", "--label", "k=v")).text, "held\n")
        self.ok(self.msb("load", "-i", os.environ["MSB_TEST_BUSYBOX"]))
        self.ok(self.msb("stop", "a"))
        self.assertEqual(self.list()["a"], "stopped")
        self.assertEqual(self.inspect("a")["reason"], "asked")
        self.ok(self.msb("kill", thrown))
        self.assertNotIn(thrown, self.list())
        self.ok(self.msb("rm", "-f", "--all"))
        self.nothing_left()

    def test_a_corrupt_one(self):
        self.drop()
        with open(f"{self.home}/msb.db", "wb") as f:
            f.write(os.urandom(65536))
        self.all_refused("damaged", "move it away")

    def test_uninstalled_after_all(self):
        """What was refused half-way can be done when the store is good again."""
        with open(self.home + "/config.json", "w") as f:
            json.dump({"sandbox_defaults": {"engine": ENGINE}}, f)
        self.ok(self.here("run", "-f", self.home + "/installs", "-s", "one", "--", "true"))
        self.assertEqual(len(self.list()), 2)
        os.rename(self.home + "/msb.db", self.home + "/aside")
        with open(f"{self.home}/msb.db", "wb") as f:
            f.write(os.urandom(65536))
        self.refused(self.here("uninstall", "one"), 1, "damaged")
        os.rename(self.home + "/aside", self.home + "/msb.db")
        self.assertEqual(len(self.list()), 2)
        self.ok(self.here("uninstall", "one"))
        self.assertEqual(self.list(), {"a": "stopped"})
        self.assertFalse(any("one" in os.path.basename(p) for p in tree(self.user) | tree(self.home + "/installs")))

    def test_a_torn_one(self):
        """Of which only the beginning is good."""
        with contextlib.closing(sqlite3.connect(f"{self.home}/msb.db")) as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        with open(f"{self.home}/msb.db", "r+b") as f:
            size = f.seek(0, os.SEEK_END)
            f.seek(4096)
            f.write(os.urandom(size - 4096))
        for _, words, code in self.words():
            if code is None:
                continue
            done = self.here(*words, input=b"x\n")
            self.assertIn(done.code, (0, 1, 2, 125), f"{words}: {done}")
        self.assertTrue(os.path.exists(f"{self.home}/sandboxes/a/config.json"))
        self.refused(self.msb("ls"), 1, "damaged", "move it away")

    def test_a_newer_one(self):
        with contextlib.closing(sqlite3.connect(f"{self.home}/msb.db")) as db:
            db.execute("PRAGMA user_version = 99")
        self.all_refused("99", "update")

    def test_a_newer_store(self):
        with open(f"{self.home}/version", "w") as f:
            f.write("microsandbox-store 99\n")
        self.all_refused("99", "update")

    def test_read_only(self):
        if os.getuid() == 0:
            mount = self.path("ro")
            os.mkdir(mount)
            if shutil.which("mount") is None or subprocess.run(["mount", "--bind", self.home, mount],
                                                               stderr=subprocess.DEVNULL).returncode:
                self.skipTest("cannot mount")
            self.addCleanup(subprocess.run, ["umount", "-l", mount])
            subprocess.run(["mount", "-o", "remount,ro,bind", mount], check=True)
            self.home = mount
        else:
            os.chmod(self.home, 0o500)
            self.addCleanup(os.chmod, self.home, 0o700)
        self.all_refused("MSB_HOME")
