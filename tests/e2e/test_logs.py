# SPDX-License-Identifier: Apache-2.0
"""`msb logs`: what commands printed, exactly."""
import json
import os
import re

from harness import PATIENCE, Case, machines_of, until


class Logs(Case):
    def logs(self, *options):
        return self.ok(self.msb("logs", *options, "box")).out

    def test_what_was_printed(self):
        self.own_home()
        data = os.urandom(100_000) + b"\0end\n"
        self.running("box").stdin.close()
        until(lambda: not machines_of(self.home), "the sandbox goes on")
        self.assertEqual(self.logs(), b"up\n")
        child = self.running("box")
        self.assertEqual(self.ok(self.msb("exec", "box", "--", "cat", input=data)).out, data)
        self.msb("exec", "box", "--", "sh", "-c", "echo wrong >&2; exit 4")
        self.msb("exec", "-t", "box", "--", "echo", "seen")
        self.msb("exec", "box", "--", "nothing-like-it")
        # Byte for byte, in order, across a restart; it is one log.
        self.assertEqual(self.logs(), b"up\nup\n" + data + b"wrong\nseen\r\n")
        self.assertEqual(self.logs("--source", "stderr"), b"wrong\n")
        self.assertEqual(self.logs("--source", "output"), b"seen\r\n")
        self.assertEqual(self.logs("--tail", "2"), b"wrong\nseen\r\n")
        self.assertEqual(self.logs("--tail", "0"), b"")
        self.assertEqual(self.logs("--grep", "^w.*g$"), b"wrong\n")
        self.assertEqual(self.logs("--since", "1h", "--grep", "^up$"), b"up\nup\n")
        self.assertEqual(self.logs("--until", "1h"), b"")
        self.assertEqual(self.logs("--until", "2020-01-31"), b"")
        self.assertEqual(self.logs("--since", "2020-01-31", "--grep", "^w.*g$"), b"wrong\n")
        self.refused(self.msb("logs", "--since", "2020-13-31", "box"), 2, "no time")
        self.assertRegex(self.logs("--timestamps", "--show-id", "--source", "stderr"),
                         rb"^20\d\d-\d\d-\d\dT[\d:.]{15}Z \[\d+\] wrong\n$")
        self.assertIn(b"\033[31mwrong\n\033[0m", self.logs("--color", "always", "--source", "stderr"))
        system = self.logs("--source", "system").decode()
        for event in ("the sandbox has started", "the sandbox has ended: it was asked to", "asked to run cat",
                      "ended with exit code 4", "could not be run"):
            self.assertIn(event, system)
        entries = [json.loads(line) for line in self.logs("--json", "--source", "all").splitlines()]
        self.assertEqual({e["s"] for e in entries}, {"stdout", "stderr", "output", "system"})
        self.assertTrue(any(e.get("e") == "base64" for e in entries))
        self.refused(self.msb("logs", "--grep", "(", "box"), 2, "regular expression")
        self.refused(self.msb("logs", "--source", "x", "box"), 2, "no source")
        self.refused(self.msb("logs", "nobody"), 1, "no sandbox")
        # Who follows sees what comes, and ends with the sandbox.
        follower = self.start("logs", "-f", "--tail", "1", "box")
        self.assertEqual(follower.stdout.readline(), b"seen\r\n")
        self.ok(self.msb("exec", "box", "--", "echo", "later"))
        self.assertEqual(follower.stdout.readline(), b"later\n")
        child.stdin.close()
        self.assertEqual(follower.communicate(timeout=PATIENCE)[0], b"")
        self.assertEqual(follower.returncode, 0)

    def test_rotation(self):
        self.own_home()
        self.running("box", "-m", "256M")
        # Some 60 MB, of which the last thirty are kept; whoever follows may lose some, and is told.
        script = "i=0; while [ $i -lt 60 ]; do head -c 1000000 /dev/zero | tr '\\0' x; echo; i=$((i+1)); done; echo last"
        self.ok(self.msb("exec", "box", "--", "sh", "-c", script))
        logs = os.path.join(self.home, "sandboxes", "box", "logs")

        def settled():
            return self.logs("--tail", "1") == b"last\n"
        until(settled, "the last line")
        sizes = [os.path.getsize(os.path.join(logs, f)) for f in os.listdir(logs) if f.startswith("exec.log")]
        self.assertEqual(len(sizes), 4)
        self.assertLessEqual(max(sizes), 10 << 20)
        lost = re.findall(rb"(\d+) bytes of output are not in the log", self.logs("--source", "system"))
        kept = len(self.logs())
        self.assertGreater(kept + sum(map(int, lost)), 25_000_000)
