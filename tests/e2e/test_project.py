#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Projects: sandboxes that a file describes, together."""
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess

from harness import ENGINE, MSB, PATIENCE, ROOT, Case, environment, until

THREE = """# Three that depend on each other.
sandboxes:
  web:
    image: busybox
    depends_on: [api]
    scripts:
      start: |
        echo web is up
        exec sleep 1000
  api:
    image: busybox
    depends_on: [db]
    command: [sh, -c, 'echo api is up; exec sleep 1000']
  db:
    image: busybox
    scripts:
      start: |
        sleep 2
        echo db answers
        touch /answers
        exec sleep 1000
    ready: {exec: [test, -e, /answers], interval: 100ms}
"""


class Projects(Case):
    def setUp(self):
        super().setUp()
        self.own_home()
        with open(os.path.join(self.home, "config.json"), "w") as f:
            json.dump({"sandbox_defaults": {"engine": ENGINE, "memory": "128M"}}, f)
        self.dir = self.path("shop")
        os.mkdir(self.dir)
        # HOME is where installed commands go.
        self.user = self.path("user")
        os.mkdir(self.user)

    def write(self, text):
        with open(os.path.join(self.dir, "Sandboxfile"), "w") as f:
            f.write(text)

    def read(self):
        with open(os.path.join(self.dir, "Sandboxfile")) as f:
            return f.read()

    def do(self, *args, **how):
        how.setdefault("env", {"HOME": self.user})
        return self.msb(*args, cwd=self.dir, **how)

    def status(self):
        return {e["name"]: e for e in
                json.loads(self.ok(self.do("status", "-f", ".", "--format", "json")).out)}

    def states(self):
        return {name: e["status"] for name, e in self.status().items()}

    def events(self):
        """(name in the file, state) in the order in which they came about."""
        with sqlite3.connect(os.path.join(self.home, "msb.db")) as db:
            return [(name.split(".")[-1], state)
                    for name, state in db.execute("SELECT sandbox, new FROM events ORDER BY seq")]


class Life(Projects):
    def test_three_in_order(self):
        self.write(THREE)
        self.assertEqual(self.ok(self.do("up", "-d")).text, "db\napi\nweb\n")
        self.assertEqual(self.states(), {"web": "running", "api": "running", "db": "running"})
        # The next one began when the one before was ready.
        seen = self.events()
        self.assertLess(seen.index(("db", "running")), seen.index(("api", "starting")), seen)
        self.assertLess(seen.index(("api", "running")), seen.index(("web", "starting")), seen)
        self.ok(self.do("exec", "db", "--", "test", "-e", "/answers"))
        # A second time there is nothing to do.
        self.assertEqual(self.ok(self.do("up", "-d")).text, "db\napi\nweb\n")
        # One is killed with everything of it that could tell.
        api = self.status()["api"]
        for pid in self.machine_pids("msb-vm"):
            with open(f"/proc/{pid}/cmdline") as f:
                if api["sandbox"] in f.read():
                    os.kill(pid, signal.SIGKILL)
        until(lambda: self.states()["api"] == "crashed", self.states)
        self.assertEqual(self.states()["web"], "running")
        self.ok(self.do("up", "-d"))
        self.assertEqual(set(self.states().values()), {"running"})
        self.assertEqual(self.ok(self.do("down")).text, "web\napi\ndb\n")
        self.assertEqual(set(self.states().values()), {"stopped"})
        stopped = [name for name, state in self.events() if state == "stopped"][-3:]
        self.assertEqual(stopped, ["web", "api", "db"])

    def test_in_the_foreground(self):
        self.write("""
sandboxes:
  one: {image: busybox, command: [sh, -c, 'echo from one; echo half; printf rest; exit 3']}
  other: {image: busybox, depends_on: [one], command: [sh, -c, 'echo from other >&2; sleep 1']}
""")
        done = self.do("up")
        self.assertEqual(done.code, 3, done)
        lines = done.text.splitlines()
        for line in ("one   | from one", "one   | half", "one   | rest", "other | from other",
                     "one   | ended with 3", "other | ended with 0"):
            self.assertIn(line, lines, done)
        self.assertEqual(self.states(), {"one": "stopped", "other": "stopped"})

    def test_ctrl_c_stops_them(self):
        self.write("sandboxes:\n  a: {image: busybox, command: [sh, -c, 'echo up; sleep 1000']}\n"
                   "  b: {image: busybox}\n")
        child = self.start("up", cwd=self.dir)
        self.assertEqual(child.stdout.readline(), b"a | up\n")
        child.send_signal(signal.SIGINT)
        self.assertEqual(child.wait(PATIENCE), 130)
        self.assertEqual(self.states(), {"a": "stopped", "b": "stopped"})

    def test_not_ready(self):
        text = """
sandboxes:
  db: {image: busybox, ready: {tcp: 4321, timeout: 2s, interval: 200ms}}
  web: {image: busybox, depends_on: [db]}
"""
        self.write(text)
        done = self.do("up", "-d")
        self.refused(done, 1, "db is not ready", "within 2000 ms", "port 4321")
        self.assertEqual(self.states(), {"db": "running", "web": "-"})
        self.ok(self.do("exec", "-d", "db", "--", "httpd", "-f", "-p", "4321"))
        self.write(text.replace("2s", "200s"))
        self.ok(self.do("up", "-d"))
        self.assertEqual(self.states(), {"db": "running", "web": "running"})
        # One that ends is not ready either.
        self.write("sandboxes:\n  x: {image: busybox, command: [sh, -c, 'sleep 1; exit 9'],"
                   " ready: {exec: ['false'], interval: 100ms}}\n")
        self.refused(self.do("up", "-d", "x"), 1, "x is not ready", "ended before")

    def test_what_was_installed_stays(self):
        self.write("sandboxes:\n  db: {image: busybox, patches: [{mkdir: {path: /made}}]}\n")
        self.ok(self.do("up", "-d"))
        self.ok(self.do("exec", "db", "--", "sh", "-c", "echo package >/usr/installed; ls -d /made"))
        self.ok(self.do("down"))
        # Something else about it, and another place for the whole.
        self.write("sandboxes:\n  db: {image: busybox, cpus: 2, patches: [{mkdir: {path: /made}}], "
                   "scripts: {count: nproc}}\n")
        self.assertTrue(self.status()["db"]["changed"])
        moved = self.path("moved")
        os.rename(self.dir, moved)
        self.dir = moved
        self.ok(self.do("up", "-d"))
        self.assertEqual(self.ok(self.do("exec", "db", "--", "cat", "/usr/installed")).out, b"package\n")
        self.assertEqual(self.ok(self.do("run", "--sandbox", "db~count")).out, b"2\n")
        self.assertEqual(len(self.ok(self.msb("ls", "-q")).text.split()), 1)
        self.ok(self.do("down"))
        # A copy is another project, with what was in the first.
        copy = self.path("copy")
        subprocess.check_call(["cp", "-a", "--sparse=always", moved, copy])
        self.dir = copy
        self.assertEqual(self.ok(self.do("run", "--sandbox", "db", "--", "cat", "/usr/installed")).out, b"package\n")
        self.assertEqual(len(self.ok(self.msb("ls", "-q")).text.split()), 2)
        # One that is deleted leaves nothing, and takes nothing along.
        shutil.rmtree(moved)
        self.assertEqual(len(self.ok(self.msb("ls", "-q")).text.split()), 1)
        self.assertEqual(self.ok(self.do("run", "--sandbox", "db", "--", "cat", "/usr/installed")).out, b"package\n")
        # Another image under what was written would be neither.
        self.write("sandboxes:\n  db: {image: 'busybox:latest'}\n")
        self.refused(self.do("up", "-d"), 1, "lies on image busybox", "msb clean db")
        self.ok(self.do("clean", "db"))
        self.assertNotEqual(self.do("run", "--sandbox", "db", "--", "test", "-e", "/usr/installed").code, 0)
        self.refused(self.do("clean"), 1, "--force")
        self.ok(self.do("clean", "--force"))
        self.assertEqual(self.ok(self.msb("ls", "-q")).text, "")
        self.assertEqual(os.listdir(self.dir), ["Sandboxfile"])

    def test_apply(self):
        self.write("sandboxes:\n  a: {image: busybox}\n  b: {image: busybox}\n  c: {image: busybox}\n")
        self.ok(self.do("up", "-d"))
        pid = self.status()["a"]["pid"]
        self.write("sandboxes:\n  a: {image: busybox}\n  b: {image: busybox, env: {X: new}}\n  d: {image: busybox}\n")
        self.assertIn("msb apply", self.do("up", "-d", "b").err.decode())
        self.ok(self.do("apply", "-d"))
        self.assertEqual(self.states(), {"a": "running", "b": "running", "d": "running"})
        self.assertEqual(self.status()["a"]["pid"], pid)
        self.assertEqual(self.ok(self.do("exec", "b", "--", "sh", "-c", "echo $X")).out, b"new\n")
        self.assertEqual(len(self.ok(self.msb("ls", "-q")).text.split()), 3)
        self.ok(self.do("down", "--force", "-q"))

    def test_groups_and_names(self):
        self.write("""
groups: {back: {}}
sandboxes:
  db: {image: busybox, groups: [back]}
  api: {image: busybox, groups: {back: {}}, depends_on: [db]}
  web: {image: busybox, depends_on: [api]}
""")
        self.ok(self.do("up", "-d", "--group", "back"))
        self.assertEqual(self.states(), {"db": "running", "api": "running", "web": "-"})
        self.refused(self.do("up", "-d", "ap"), 1, 'no sandbox "ap"', "did you mean api?")
        self.refused(self.do("up", "-d", "-g", "front"), 1, 'no group "front"')
        # Here, the entries' names do for what works with a sandbox.
        with open(os.path.join(self.dir, "file"), "w") as f:
            f.write("from here\n")
        self.ok(self.do("cp", "file", "db:/root/file"))
        self.ok(self.do("exec", "-d", "db", "--", "sh", "-c", "cat /root/file; exit 7"))
        self.assertEqual(self.do("attach", "db").code, 7)
        self.assertEqual(self.ok(self.do("logs", "--tail", "1", "db")).text, "from here\n")
        for verb in ("ping", "touch", "inspect", "metrics", "pause", "resume"):
            self.ok(self.do(verb, "db"))
            self.refused(self.do(verb, "web"), 1, "not started yet", "msb up web")
            self.refused(self.msb(verb, "db"), 1, "no sandbox")
        self.refused(self.do("rm", "db"), 1, "no sandbox")
        waiter = self.start("wait", self.status()["api"]["sandbox"])
        self.ok(self.do("stop", "api"))
        self.assertEqual(waiter.wait(60), self.do("wait", "api").code)
        self.assertEqual(self.states(), {"db": "running", "api": "stopped", "web": "-"})
        # By their names in the store they are as others.
        name = self.status()["db"]["sandbox"]
        self.ok(self.msb("stop", name))
        self.assertEqual(self.states()["db"], "stopped")

    def test_refused_with_a_place(self):
        self.write("sandboxes:\n  a:\n    image: busybox\n    volumes: ['.:/src']\n")
        path = os.path.join(self.dir, "Sandboxfile")
        self.refused(self.do("up"), 1, f"{path}:4:5: volumes", "not there yet")
        self.write("sandboxes:\n  a: {image: busybox, depends_on: [b]}\n  b: {image: busybox, depends_on: [a]}\n")
        self.refused(self.do("up"), 1, "a -> b -> a")
        os.unlink(path)
        self.refused(self.do("up"), 1, "no Sandboxfile", "msb init")
        self.assertFalse(os.path.exists(os.path.join(self.dir, ".menv")))


class Run(Projects):
    def test_codes_scripts_and_arguments(self):
        self.write("""
sandboxes:
  db: {image: busybox}
  job:
    image: busybox
    depends_on: [db]
    envs: [WHO=me]
    command: [sh, -c, 'echo "$WHO: $0 $*"; exit 5', none]
    scripts: {test: 'echo "test $1"; exit 6'}
""")
        done = self.do("run", "--sandbox", "job")
        self.assertEqual((done.code, done.out), (5, b"me: none \n"), done)
        self.assertEqual(self.states(), {"db": "running", "job": "stopped"})
        done = self.do("run", "-s", "job~test", "--", "one")
        self.assertEqual((done.code, done.out), (6, b"test one\n"), done)
        done = self.do("run", "-s", "job", "-x", "/bin/echo", "--", "two")
        self.assertEqual((done.code, done.out), (0, b"two\n"), done)
        self.refused(self.do("run", "-s", "job~tset"), 125, 'no script "tset"', "did you mean test?")
        self.refused(self.do("run", "-s", "job", "-m", "1G"), 125, "--memory")
        # In one that runs, and its shell.
        self.assertEqual(self.do("run", "-s", "db", "--", "sh", "-c", "exit 7").code, 7)
        self.assertEqual(self.do("shell", "db", "--", "exit 8").code, 8)
        self.assertIn("job", self.ok(self.do("list", "-f", ".")).text)
        self.refused(self.do("exec", "nothing", "--", "true"), 125, "nothing")
        self.ok(self.do("down", "-q"))

    def test_other_names_of_the_program(self):
        self.write("sandboxes:\n  db: {image: busybox, scripts: {hi: echo hi $1}}\n")
        env = environment(self.home, HOME=self.user)
        for program, words, out in (("msr", ["db~hi", "--", "x"], b"hi x\n"),
                                    ("msx", ["--script", "a=echo once $1", "busybox~a", "--", "y"], b"once y\n")):
            link = self.path(program)
            os.symlink(MSB, link)
            done = subprocess.run([link] + words, cwd=self.dir, env=env, capture_output=True, stdin=subprocess.DEVNULL,
                                  timeout=PATIENCE)
            self.assertEqual((done.returncode, done.stdout), (0, out), done)
        self.assertEqual(self.do("exe", "-x", "/bin/sh", "busybox", "--", "-c", "exit 4").code, 4)

    def test_one_file_of_one_sandbox(self):
        path = os.path.join(self.dir, "app.yaml")
        with open(path, "w") as f:
            f.write("image: busybox\nenv: {A: one}\ncmd: [sh, -c, 'echo $A']\n")
        self.assertEqual(self.ok(self.do("run", "-f", path, "-s", "app")).out, b"one\n")
        self.assertEqual(self.ok(self.do("run", "--conf", path)).out, b"one\n")
        self.assertIn("app", self.ok(self.do("list", "-f", path)).text)


class Files(Projects):
    TEXT = """# A project of mine.

meta: {description: kept}   # this too

sandboxes:
  # the first
  a: {image: busybox}   # in braces

  b:   # with a comment
    image:   busybox
    scripts:
      start: |
        # not a comment
        echo b

  # about c
  c:
    image: busybox

# about groups
groups: {g: {}}
"""

    def test_form_is_kept(self):
        self.write(self.TEXT)
        self.ok(self.do("add", "d", "-i", "busybox", "-m", "256M", "--depends-on", "a", "-e", "X=y z"))
        added = """  c:
    image: busybox
  d:
    image: busybox
    env:
      X: "y z"
    memory: 256M
    depends_on:
      - a
"""
        self.assertEqual(self.read(), self.TEXT.replace("  c:\n    image: busybox\n", added))
        self.refused(self.do("add", "d", "-i", "busybox"), 1, "already")
        self.refused(self.do("add", "e", "-i", "busybox", "--depends-on", "x"), 2, 'no sandbox "x"')
        self.refused(self.do("remove", "--file", ".", "a"), 1, 'no sandbox "a"')
        self.ok(self.do("remove", "--file", ".", "d"))
        self.assertEqual(self.read(), self.TEXT)
        self.ok(self.do("remove", "--file", ".", "b"))
        start = self.TEXT.index("  b:   #")
        self.assertEqual(self.read(), self.TEXT[:start] + self.TEXT[self.TEXT.index("\n  # about c"):])
        self.ok(self.do("remove", "--file", ".", "a", "c"))
        self.assertEqual(json.loads(self.ok(self.do("list", "-f", ".", "--format", "json")).out), [])
        self.ok(self.do("add", "z", "y", "-i", "busybox", "--script", "run=echo 1\\necho 2", "-p", "80:81"))
        self.assertEqual([e["name"] for e in json.loads(self.ok(self.do("list", "-f", ".", "--format", "json")).out)],
                         ["z", "y"])
        self.assertIn("# about groups\ngroups: {g: {}}\n", self.read())
        self.write("sandboxes: {a: {image: busybox}}\n")
        self.refused(self.do("add", "b", "-i", "busybox"), 2, "Sandboxfile:1:12", "braces")

    def test_init(self):
        self.ok(self.do("init"))
        self.assertEqual(json.loads(self.ok(self.do("list", "-f", ".", "--format", "json")).out), [])
        with open(os.path.join(self.dir, ".gitignore")) as f:
            self.assertEqual(f.read(), ".menv/\n")
        before = self.read()
        self.ok(self.do("init"))
        self.assertEqual(self.read(), before)
        with open(os.path.join(self.dir, ".gitignore")) as f:
            self.assertEqual(f.read(), ".menv/\n")
        self.ok(self.do("add", "job", "-i", "busybox", "--start", "echo done"))
        self.assertEqual(self.ok(self.do("run", "-s", "job")).out, b"done\n")

    def test_install(self):
        env = {"HOME": self.user}
        self.ok(self.do("install", "--script", "count=echo x >>/n; wc -l </n; exit 3", "busybox~count"))
        self.ok(self.do("install", "busybox", "boxed"))
        bins = os.path.join(self.user, ".local/bin")

        def call(name, *args):
            return subprocess.run([os.path.join(bins, name), *args], stdin=subprocess.DEVNULL, capture_output=True,
                                  timeout=PATIENCE, env=dict(os.environ, **env))
        # What it writes stays, its code comes through, and a later one has not broken it.
        self.assertEqual([(d.returncode, d.stdout) for d in (call("count"), call("count"))], [(3, b"1\n"), (3, b"2\n")])
        self.assertEqual(call("boxed", "sh", "-c", "echo $0 $1", "a b", "c").stdout, b"a b c\n")
        self.refused(self.do("install", "busybox", "ls"), 1, 'command "ls"')
        self.refused(self.do("install", "busybox", "boxed"), 1, "is there already")
        self.write("sandboxes:\n  s: {image: busybox, command: [echo, from the project]}\n")
        self.ok(self.do("install", "--sandbox", "s", "ours"))
        self.assertEqual(call("ours").stdout, b"from the project\n")
        with open(os.path.join(bins, "foreign"), "w") as f:
            f.write("#!/bin/sh\n")
        self.refused(self.do("uninstall", "foreign"), 1, "not made by msb")
        self.ok(self.do("uninstall", "count"))
        self.assertEqual(call("boxed", "echo", "still").stdout, b"still\n")
        self.ok(self.do("uninstall", "boxed"))
        self.ok(self.do("uninstall", "ours"))
        self.assertEqual(os.listdir(bins), ["foreign"])
        self.assertEqual(len(self.ok(self.msb("ls", "-q")).text.split()), 1)

    def test_schema(self):
        schema = json.loads(self.ok(self.msb("schema", "sandboxfile")).out)
        self.assertIn("depends_on", schema["properties"]["sandboxes"]["additionalProperties"]["properties"])
        self.refused(self.msb("schema", "nothing"), 2, "sandboxfile")

    def test_examples_of_the_documentation(self):
        with open(os.path.join(ROOT, "docs", "projects.md")) as f:
            examples = re.findall(r"^```yaml\n(.*?)^```", f.read(), re.M | re.S)
        self.assertGreater(len(examples), 1)
        with open(os.path.join(self.dir, "db.env"), "w") as f:
            f.write("A=1\n")
        for name in ("app", "static"):
            os.mkdir(os.path.join(self.dir, name))
        for example in examples:
            self.write(example)
            self.assertTrue(json.loads(self.ok(self.do("list", "-f", ".", "--format", "json")).out), example)

