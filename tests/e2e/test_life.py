# SPDX-License-Identifier: Apache-2.0
"""Sandboxes that last: their lives, whoever is killed meanwhile, and many commands at once.

MSB_LIFE_SECONDS makes Chaos go on for that long (default: a few seconds).
"""
import json
import os
import random
import shutil
import signal
import subprocess
import threading
import time

from harness import Case, deadline, environment, machines_of, parent_and_name, processes_of, until


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
            env=environment(self.home), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60)
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
        self.ok(self.msb("exec", name, "--", "touch", "/go"))
        self.assertEqual((waiter.wait(60), waiter.stdout.read()), (7, b"7\n"))
        self.assertEqual(self.list(), {})
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

    def test_timeout(self):
        self.ok(self.msb("run", "-d", "-n", "slow", "--timeout", "1s", "busybox", "--", "sleep", "1000"))
        self.assertEqual(self.msb("wait", "slow").code, 124)

    def test_what_cannot_start(self):
        self.refused(self.msb("run", "-d", "busybox", "--", "no-such-command"), 127, "no-such-command")
        self.refused(self.msb("create", "-n", "bad", "--kernel", "/etc/passwd", "busybox"), 1, "kernel")
        done = self.msb("--debug", "create", "-n", "bad", "--kernel", "/etc/passwd", "busybox")
        self.assertIn("vm.log", done.messages)
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

    def test_an_ephemeral_one(self):
        for victim in ("keep", "msb-vm"):
            name = self.ok(self.msb("run", "-d", "busybox", "--", "sleep", "1000")).text.strip()
            waiter = self.start("wait", name)
            time.sleep(0.1)
            self.killed(self.pid(victim, name))
            self.assertEqual(waiter.wait(60), 125, victim)
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


class Together(Life):
    """Many commands want the same name."""

    def all(self, *commands):
        children = [self.start(*c) for c in commands]
        return [(c.wait(240), c.stdout.read(), c.stderr.read()) for c in children]

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
    @deadline(3600)
    def test_at_random(self):
        """Many do anything, and now and then somebody is killed; afterwards everything adds up."""
        seconds = float(os.environ.get("MSB_LIFE_SECONDS", "6"))
        seed = int(os.environ.get("MSB_LIFE_SEED", str(random.randrange(1 << 30))))
        names = ["a", "b", "c", "d"]
        end = time.monotonic() + seconds

        def one(n):
            dice = random.Random(f"{seed} {n}")
            while time.monotonic() < end:
                name = dice.choice(names)
                words = dice.choice([
                    ("create", "-n", name, "busybox"), ("create", "--replace-with-timeout", "1s", "-n", name, "busybox"),
                    ("start", name), ("stop", "-t", "3", name), ("kill", name), ("restart", name), ("rm", "-f", name),
                    ("exec", name, "--", "sh", "-c", "echo x >>/file; sync"), ("run", "-n", name, "busybox", "--", "true"),
                    ("run", "-d", "busybox", "--", "sleep", "1"), ("run", "busybox", "--", "true"), ("ls",), ("ps",),
                    ("inspect", name), ("wait", name)])
                child = subprocess.Popen(self.argv(*words), env=environment(self.home), stdin=subprocess.DEVNULL,
                                         stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                try:
                    child.wait(dice.choice([0.05, 0.5, 30, 30, 30]))
                except subprocess.TimeoutExpired:
                    child.kill()
                child.wait()
                if dice.random() < 0.15:
                    victims = [p for p in processes_of(self.home) if p in machines_of(self.home)]
                    if victims:
                        try:
                            os.kill(dice.choice(victims), signal.SIGKILL)
                        except ProcessLookupError:
                            pass

        threads = [threading.Thread(target=one, args=(n,)) for n in range(6)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        said = f"seed {seed}"
        # Sandboxes that run have a machine each, and there is no machine of anybody else's.
        until(lambda: len(self.machine_pids("msb-vm")) == sum(s == "running" for s in self.list().values()),
              lambda: f"{said}: {self.list()} {machines_of(self.home)}")
        for name, status in self.list().items():
            self.assertIn(status, ("created", "running", "stopped", "crashed", "failed"), said)
            if name in names:
                self.ok(self.msb("inspect", name))
        # Every one that is there can be used, and its disk is sound.
        for name in set(self.list()) & set(names):
            done = self.msb("exec", name, "--", "true")
            self.assertEqual(done.code, 0, f"{said}: {name}: {done}")
        self.ok(self.msb("stop", "--all"))
        for name in set(self.list()) & set(names):
            upper = f"{self.home}/sandboxes/{name}/upper.ext4"
            check = subprocess.run(["e2fsck", "-fn", upper], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            self.assertEqual(check.returncode, 0, f"{said}: {name}: {check.stdout}")
        self.ok(self.msb("rm", "--all"))
        self.nothing_left()


class Homes(Life):
    WORDS = [["ls"], ["ps"], ["inspect", "a"], ["start", "a"], ["stop", "a"], ["kill", "a"], ["restart", "a"],
             ["wait", "a"], ["rm", "a"], ["create", "-n", "b", "busybox"], ["run", "-d", "busybox", "--", "true"]]

    def setUp(self):
        super().setUp()
        self.ok(self.msb("run", "-n", "a", "busybox", "--", "true"))

    def drop(self):
        for name in os.listdir(self.home):
            if name.startswith("msb.db"):
                os.unlink(f"{self.home}/{name}")

    def test_no_database(self):
        """It is made anew, and what sandboxes there are is found again."""
        self.drop()
        self.assertEqual(self.list(), {"a": "stopped"})
        self.refused(self.msb("start", "a"), 1, "image", "load")
        self.ok(self.msb("load", "-i", os.environ["MSB_TEST_BUSYBOX"]))
        self.ok(self.msb("start", "a"))
        self.ok(self.msb("rm", "-f", "a"))
        self.nothing_left()

    def test_database_lost_while_it_runs(self):
        self.ok(self.msb("start", "a"))
        self.drop()
        self.ok(self.msb("load", "-i", os.environ["MSB_TEST_BUSYBOX"]))
        self.assertEqual(self.list(), {"a": "running"})
        self.ok(self.msb("stop", "a"))
        self.assertEqual(self.list(), {"a": "stopped"})

    def test_a_corrupt_one(self):
        self.drop()
        with open(f"{self.home}/msb.db", "wb") as f:
            f.write(os.urandom(65536))
        for words in self.WORDS:
            done = self.msb(*words)
            self.refused(done, 125 if words[0] == "run" else 1, "damaged", "move it away")
        self.assertTrue(os.path.exists(f"{self.home}/sandboxes/a/config.json"))

    def test_a_newer_one(self):
        with open(f"{self.home}/version", "w") as f:
            f.write("microsandbox-store 99\n")
        for words in self.WORDS:
            self.refused(self.msb(*words), 125 if words[0] == "run" else 1, "99", "update")

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
        for words in self.WORDS:
            self.refused(self.msb(*words), 125 if words[0] == "run" else 1, "MSB_HOME")
