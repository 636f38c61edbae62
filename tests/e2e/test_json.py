# SPDX-License-Identifier: Apache-2.0
"""docs/json.md says what --format json prints: all of it, and nothing else."""
import json
import os
import re
import signal

from harness import Case, ROOT

TIME = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$")
TYPES = {
    "text": lambda v: isinstance(v, str),
    "number": lambda v: isinstance(v, (int, float)) and not isinstance(v, bool),
    "boolean": lambda v: isinstance(v, bool),
    "time": lambda v: isinstance(v, str) and TIME.match(v),
    "null": lambda v: v is None,
    "object": lambda v: isinstance(v, dict),
    "any": lambda v: True,
}


def documented():
    """{"msb list": {"[].name": (types, optional)}}"""
    found, fields = {}, None
    for line in open(os.path.join(ROOT, "docs", "json.md")):
        if line.startswith("## msb "):
            fields = found[line[len("## "):].strip()] = {}
        row = re.match(r"\| `([^`]+)` \| ([a-z ]+) \|", line)
        if row:
            name = row.group(1)
            fields[name.rstrip("?")] = (row.group(2).split(" or "), name.endswith("?"))
    return found


class Json(Case):
    def check(self, command, documents):
        """These documents against what is said about them."""
        fields, seen = documented()[command], set()

        def name_of(path, key):
            free = f"{path}.*".lstrip(".")
            return free if free in fields else f"{path}.{key}".lstrip(".")

        def walk(value, path):
            types, _ = fields.get(path, (None, None))
            if types:
                seen.add(path)
                self.assertTrue(any(TYPES[t](value) for t in types), f"{command}: {path} is {value!r}, not {types}")
            if types and "object" not in types or types == ["any"]:
                return
            if isinstance(value, list):
                for item in value:
                    walk(item, path + "[]")
            elif isinstance(value, dict):
                for key, item in value.items():
                    walk(item, name_of(path, key))
            else:
                self.assertTrue(types, f"{command}: {path} is not documented")
        for document in documents:
            walk(document, "")
            # Empty lists and objects have no members to be seen.
        return {name for name, (_, optional) in fields.items() if not optional} - seen, set(fields) - seen

    def test_all_of_it(self):
        self.own_home()
        self.ok(self.msb("run", "-d", "-q", "-n", "job", "busybox", "--", "sh", "-c", "printf '\\377\\n'; exit 3"))
        self.ok(self.msb("create", "-q", "-n", "box", "-c", "1", "--max-cpus", "2", "--label", "team=core", "-p", "0:80",
                         "--rlimit", "nofile=99", "-e", "A=b", "--max-duration", "1h", "--idle-timeout", "1h", "-u", "root",
                         "-w", "/tmp", "-H", "host", "--shell", "/bin/sh", "--entrypoint", "/bin/env", "--net-rule",
                         "deny@192.0.2.0/24", "--net", "public", "--security", "default", "--jail", "on",
                         "--log-level", "info", "busybox"))
        self.addCleanup(self.msb, "rm", "-f", "-q", "box", "job")
        self.msb("wait", "job")
        self.ok(self.msb("exec", "box", "--", "echo", "hello"))
        self.ok(self.msb("modify", "--next-start", "-e", "NEXT=1", "box"))
        self.ok(self.msb("exec", "-d", "box", "--", "sleep", "1000"))
        self.ok(self.msb("exec", "-d", "box", "--", "true"))
        words = {
            "msb list": ["ls"], "msb status": ["ps", "-a"], "msb inspect": ["inspect", "box"], "msb metrics": ["metrics", "-a"],
            "msb attach": ["attach", "--list", "box"], "msb modify": ["modify", "box", "--label", "a=b"],
            "msb image list": ["image", "ls"], "msb image inspect": ["image", "inspect", "busybox"],
            "msb image verify": ["image", "verify"], "msb image prune": ["image", "prune", "--yes"],
            "msb registry list": ["registry", "ls"], "msb config": ["config", "-m", "1G"], "msb doctor": ["doctor"],
            "msb self version": ["self", "version"],
        }
        missing = {}
        for command, argv in words.items():
            done = self.msb(*argv, "--format", "json")
            # A host may lack things, which doctor says with its exit code.
            if command != "msb doctor":
                self.ok(done)
            missing[command] = self.check(command, [json.loads(done.text)])[0]
        lines = {
            "msb events": self.ok(self.msb("events", "--no-follow")).text,
            "msb logs": "".join(self.ok(self.msb("logs", "--json", "--source", "all", n)).text for n in ("box", "job")),
        }
        follower = self.start("metrics", "--follow", "--format", "json", "box")
        self.check("msb metrics", [[json.loads(follower.stdout.readline())]])
        follower.send_signal(signal.SIGTERM)
        for command, text in lines.items():
            missing[command] = self.check(command, [json.loads(line) for line in text.splitlines()])[0]
        # Nothing was found wrong, removed, or logged in.
        allowed = {"msb image verify": "faults", "msb image prune": "removed", "msb registry list": "[]"}
        for command, fields in missing.items():
            left = {f for f in fields if not f.startswith(allowed.get(command, "\0"))}
            self.assertEqual(left, set(), f"{command}: documented, and not there")

    def test_every_command_that_takes_it(self):
        """Whatever has --format json is documented, and nothing else is."""
        path, takes = [], set()
        for line in self.ok(self.msb("--tree")).text.splitlines()[1:]:
            depth, text = (len(line) - len(line.lstrip())) // 4, line.strip()
            if not text.startswith("--"):
                path = path[:depth - 1] + [text.split()[0].split("|")[0]]
            elif re.match(r"--format .*json|--json$", text):
                takes.add("msb " + " ".join(path))
        takes.add("msb events")
        # The same command by two names; and an archive's format.
        takes -= {"msb image pull"}
        self.assertEqual(takes, set(documented()))
