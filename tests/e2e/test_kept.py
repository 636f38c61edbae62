# SPDX-License-Identifier: Apache-2.0
"""Sandboxes that another version of msb wrote down, or a disk damaged: nothing of them is a dead end."""
import json
import os

from harness import Case


class Kept(Case):
    def setUp(self):
        super().setUp()
        self.own_home()
        self.ok(self.msb("run", "-n", "a", "-m", "128M", "busybox", "--", "sh", "-c", "echo kept >/kept"))
        self.file = f"{self.home}/sandboxes/a/config.json"
        with open(self.file) as f:
            self.record = json.load(f)

    def write(self, version=1, **config):
        record = dict(self.record, version=version, config={**self.record["config"], **config})
        with open(self.file, "w") as f:
            json.dump(record, f)

    def config(self):
        with open(self.file) as f:
            return json.load(f)["config"]

    def shown(self):
        return json.loads(self.ok(self.msb("inspect", "a", "--format", "json")).text)

    def status(self):
        return {s["name"]: s["status"] for s in json.loads(self.ok(self.msb("ls", "--format", "json")).text)}

    def repaired(self, *modify):
        self.ok(self.msb("modify", "-q", *modify, "a"))
        self.assertEqual(self.ok(self.msb("exec", "a", "--", "cat", "/kept")).text, "kept\n")

    def test_what_is_refused_now(self):
        """Said before there is a machine, with the way out of it."""
        for key, value, repairs in (("net_rules", ["allow@dns:tcp:80"], (("--net-rule-rm", "allow@dns:tcp:80"), ("--reset", "net_rules"))),
                                    ("net", "none,public", (("--net", "public"), ("--reset", "net"))),
                                    ("dns_servers", ["nobody"], (("--reset", "dns_servers"),))):
            for repair in repairs:
                self.write(**{key: value})
                for words, code in ((("start", "a"), 1), (("exec", "a", "--", "true"), 125), (("restart", "a"), 1),
                                    (("run", "-n", "a", "busybox", "--", "true"), 125)):
                    self.refused(self.msb(*words), code, 'sandbox "a"', key, f"msb modify --reset {key} a")
                self.assertEqual(self.status(), {"a": "stopped"})
                self.assertEqual(self.shown()["config"][key], value)
                # What is all right can be changed meanwhile.
                self.ok(self.msb("modify", "-q", "--label", "k=v", "a"))
                self.repaired(*repair)

    def test_what_is_not_understood(self):
        """Of a newer version: it stays, and no machine goes without it unless it is said so."""
        self.write(teleport={"to": 7}, cpus=1000)
        self.refused(self.msb("start", "a"), 1, "does not know", "--reset")
        self.assertEqual(self.status(), {"a": "stopped"})
        self.assertEqual(self.shown()["config"]["teleport"], {"to": 7})
        self.assertIn('teleport = {"to":7}', self.ok(self.msb("inspect", "a")).text)
        self.ok(self.msb("modify", "-q", "--label", "k=v", "a"))
        self.assertEqual((self.config()["teleport"], self.config()["cpus"], self.config()["labels"]), ({"to": 7}, 1000, ["k=v"]))
        changes = json.loads(self.ok(self.msb("modify", "-c", "1", "--format", "json", "a")).text)["changes"]
        self.assertEqual([(c["field"], c["from"], c["to"]) for c in changes], [("cpus", "cpus=1000", "1")])
        self.refused(self.msb("start", "a"), 1, "teleport", "modify --reset teleport a")
        self.refused(self.msb("modify", "--reset", "telport", "a"), 1, "teleport")
        changes = json.loads(self.ok(self.msb("modify", "--reset", "teleport", "--format", "json", "a")).text)["changes"]
        self.assertEqual([(c["field"], c["from"], c["to"]) for c in changes], [("reset", 'teleport={"to":7}', "")])
        self.assertNotIn("teleport", self.config())
        self.repaired("--label", "k=w")
        # Of one that runs, what is not its machine's to change waits for the next.
        self.ok(self.msb("start", "a"))
        self.write(hostname="other", user="root")
        self.refused(self.msb("modify", "--reset", "user", "a"), 1, "restart")
        self.ok(self.msb("modify", "-q", "--reset", "user", "--next-start", "a"))
        self.assertEqual((self.config().get("user"), self.config()["hostname"]), (None, "other"))
        self.ok(self.msb("stop", "a"))

    def test_what_cannot_be_read(self):
        self.ok(self.msb("start", "a"))
        for text in ("", "{", json.dumps(dict(self.record, version=2))):
            with open(self.file, "w") as f:
                f.write(text)
            self.assertEqual(self.status(), {"a": "running"})
            self.assertTrue(self.shown()["error"])
            self.assertIn("config.json", self.ok(self.msb("inspect", "a")).text)
            self.ok(self.msb("ps"))
            self.refused(self.msb("modify", "--label", "k=v", "a"), 1, 'sandbox "a"', "config.json")
        self.ok(self.msb("stop", "a"))
        self.assertEqual(self.status(), {"a": "stopped"})
        for words, code in ((("start", "a"), 1), (("exec", "a", "--", "true"), 125), (("restart", "a"), 1)):
            self.refused(self.msb(*words), code, "version 2", "newer")
        self.assertTrue(os.path.exists(f"{self.home}/sandboxes/a/upper.ext4"))
        self.ok(self.msb("ls"))
        self.ok(self.msb("rm", "--all"))
        self.assertEqual(self.status(), {})
        self.nothing_left()

    def test_machine_json_is_damaged(self):
        """As after a power cut: it is not synchronised."""
        for text in ("", "\0" * 100, '{"version": 2}'):
            with open(f"{self.home}/sandboxes/a/machine.json", "w") as f:
                f.write(text)
            self.assertIsNone(self.shown()["machine"])
            for words in (("inspect", "a"), ("ls",), ("ps", "-a"), ("wait", "a"), ("modify", "-q", "--label", "k=v", "a"), ("logs", "a")):
                self.ok(self.msb(*words))
        # A log of many lives begins anew.
        log = f"{self.home}/sandboxes/a/logs/vm.log"
        with open(log, "a") as f:
            f.write("a line\n" * 300000)
        self.ok(self.msb("start", "a"))
        self.assertLess(os.path.getsize(log), 1 << 20)
        with open(f"{self.home}/sandboxes/a/machine.json", "w") as f:
            f.write("")
        self.assertEqual(self.ok(self.msb("exec", "a", "--", "cat", "/kept")).text, "kept\n")
        self.ok(self.msb("stop", "a"))
        self.assertEqual(self.status(), {"a": "stopped"})
        self.ok(self.msb("rm", "a"))
        self.nothing_left()
