#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Files that say what a sandbox is, and the words that come from the same table."""
import glob
import json
import os
import re
import shlex

from harness import Case, ROOT


class Config(Case):
    def file(self, name, text):
        path = self.path(name)
        with open(path, "w") as f:
            f.write(text)
        return path

    def config_json(self, text):
        """Says it for all sandboxes of a store of this test alone."""
        self.home = self.path("home")
        os.makedirs(self.home, exist_ok=True)
        with open(os.path.join(self.home, "config.json"), "w") as f:
            f.write(text)

    def effective(self, *words, **kw):
        """What `msb config` says: {key: [(value, from), ...]}."""
        got = {}
        for line in json.loads(self.ok(self.msb("config", "--format", "json", *words, **kw)).out):
            got.setdefault(line["key"], []).append((line["value"], line["from"]))
        return got

    def test_a_file_says_it_all(self):
        self.file("motd", "from the file\n")
        path = self.file("box.yaml", """
image: busybox
cmd: [sh, -c, 'echo $A $B; cat /motd; hi; pwd; hostname; ulimit -n']
env: {A: one, B: two}
workdir: /tmp
hostname: filed
memory: 192M
rlimits: [{resource: nofile, soft: 77}]
patches:
  - copy_file: {src: motd, dst: /motd}
scripts:
  hi: echo a script
""")
        done = self.msb("run", "--conf", path, "-e", "B=three", "-H", "mine")
        self.assertEqual(done.out.decode(), "one three\nfrom the file\na script\n/tmp\nmine\n77\n", done)
        # The command line has a command, too.
        done = self.msb("run", "--conf", path, "busybox", "--", "nproc")
        self.assertEqual(done.out, b"1\n", done)

    def test_who_said_it(self):
        self.config_json('{"sandbox_defaults": {"cpus": 2, "memory_mib": 256, "shell": "/bin/ash"}}')
        a = self.file("a.yaml", "cpus: 3\nenv: {A: a, B: a}\nrlimits: [nofile=1, cpu=1]\n")
        b = self.file("b.yaml", "\nenv: {B: b}\nrlimits: [core=0]\n")
        got = self.effective("--conf", a, "--conf", b, "-m", "1G", "--rlimit", "as=5", "-e", "C", env={"C": "host"})
        self.assertEqual(got["cpus"], [("3", a + ":1")])
        self.assertEqual(got["memory"], [("1G", "command line")])
        self.assertEqual(got["shell"], [("/bin/ash", os.path.join(self.home, "config.json") + ":1")])
        self.assertEqual(got["engine"], [("auto", "default")])
        self.assertEqual(got["env"], [("A=a", a + ":2"), ("B=b", b + ":2"), ("C", "command line")])
        self.assertEqual(got["rlimits"], [("core=0", b + ":3"), ("as=5", "command line")])
        self.assertRegex(self.ok(self.msb("config", "-c", "7")).text, r"(?m)^cpus +7 +command line$")

    def test_the_file_for_all_sandboxes(self):
        self.config_json('{"images": {"limits": {"file_bytes": 1048576}}, "sandbox_defaults": {"cpus": 2}}')
        kept = os.path.join(self.home, "config.json")
        got = self.effective()
        self.assertEqual(got["home"], [(self.home, "MSB_HOME")])
        self.assertEqual(got["config file"], [(kept, "home")])
        self.assertEqual(got["images.limits.file_bytes"], [("1048576", kept + ":1")])
        self.assertEqual(got["cpus"], [("2", kept + ":1")])
        other = self.file("other.json", '{\n"sandbox_defaults": {"cpus": 3}}')
        got = self.effective(env={"MSB_CONFIG_PATH": other, "NO_COLOR": "1"})
        self.assertEqual(got["config file"], [(other, "MSB_CONFIG_PATH")])
        self.assertEqual(got["cpus"], [("3", other + ":2")])
        self.assertEqual(got["NO_COLOR"], [("1", "environment")])
        self.assertNotIn("images.limits.file_bytes", got)
        # One that is named must be there, whoever asks for it.
        for words in (["config"], ["run", "busybox"], ["load", "-i", os.environ["MSB_TEST_BUSYBOX"]],
                      ["pull", "localhost:1/x"]):
            done = self.msb(*words, env={"MSB_CONFIG_PATH": self.path("none.json")})
            self.assertNotEqual(done.code, 0, words)
            self.assertIn("none.json", done.messages)
            self.assertIn("MSB_CONFIG_PATH", done.messages)

    def test_refusals_have_a_place(self):
        path = self.file("bad.yaml", "image: busybox\nmemroy: 1G\n")
        for verb in ("run", "config"):
            done = self.msb(verb, "--conf", path)
            self.assertNotEqual(done.code, 0)
            self.assertIn(f"{path}:2:1: there is no key \"memroy\"", done.err.decode())
            self.assertIn("did you mean memory?", done.err.decode())
        done = self.msb("run", "--conf", self.path("none.yaml"), "busybox")
        self.assertEqual(done.code, 125)
        self.assertIn("none.yaml", done.err.decode())

    def test_a_pipe_is_a_file(self):
        """As in --conf <(generate): relative paths are nobody's business there."""
        read, write = os.pipe()
        os.write(write, b"cpus: 5\n")
        os.close(write)
        done = self.msb("config", "--conf", f"/dev/fd/{read}", pass_fds=[read])
        os.close(read)
        self.assertRegex(self.ok(done).text, r"(?m)^cpus +5 ")

    def test_examples_of_the_documentation(self):
        pages = {os.path.join(ROOT, "README.md"), *glob.glob(os.path.join(ROOT, "docs", "*.md"))}
        # Its examples are of projects, and test_project loads them.
        pages.remove(os.path.join(ROOT, "docs", "projects.md"))
        text = "\n".join(open(page).read() for page in pages)
        examples = re.findall(r"^```yaml\n(.*?)^```", text, re.M | re.S)
        self.assertGreater(len(examples), 1)
        for name in ("app.conf", "changes.img"):
            self.file(name, "")
        os.mkdir(self.path("static"))
        for i, example in enumerate(examples):
            self.ok(self.msb("config", "--conf", self.file(f"{i}.yaml", example)))
        for example in re.findall(r"^```json\n(.*?)^```", text, re.M | re.S):
            self.config_json(example)
            self.ok(self.msb("config"))

    def test_commands_of_the_documentation(self):
        page = open(os.path.join(ROOT, "docs", "network.md")).read().replace("\\\n", " ")
        commands = [shlex.split(c, comments=True) for c in re.findall(r"^\$ (msb run .*)$", page, re.M)]
        self.assertGreater(len(commands), 8)
        for words in commands:
            self.ok(self.msb("config", *words[2:]))

    def test_every_option_has_a_key(self):
        """All that `run` takes about a sandbox is in the schema, or is said there in another form."""
        shown = self.ok(self.msb("run", "--help")).text.split("Commands in the sandbox:")[1].split("Global options:")[0]
        options = set(re.findall(r"^ +(?:-\w, )?(--[a-z0-9-]+)", shown, re.M))
        self.assertGreater(len(options), 20)

        def said(schema):
            for value in schema.get("properties", {}).values():
                yield value.get("x-option")
                yield from said(value)
        # Entries of patches and scripts; and what is about the command, not the sandbox.
        others = {"--" + o for o in ("copy", "copy-file", "copy-dir", "mkdir", "rm", "script", "script-path", "name",
                                     "quiet", "replace", "replace-with-timeout", "no-net", "no-dns-rebind-protection", "net-strict",
                                     "dns-query-timeout-ms", "socks4-user-id", "socks5-username",
                                     "socks5-password-env")}
        left = options - set(said(json.loads(self.ok(self.msb("schema")).out))) - others
        self.assertEqual({o for o in left if not o.endswith("conf")}, set(), "cannot be said in a file")
