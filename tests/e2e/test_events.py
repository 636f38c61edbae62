# SPDX-License-Identifier: Apache-2.0
"""`msb events`: every change of a state, once, in order, to whoever follows."""
import contextlib
import json
import os
import signal

from harness import PATIENCE, Case, until


class Events(Case):
    def setUp(self):
        super().setUp()
        self.own_home()

    def shown(self, *words):
        return [json.loads(line) for line in self.ok(self.msb("events", *words)).text.splitlines()]

    def create(self, name, *options):
        self.ok(self.msb("create", "-q", "-n", name, *options, "busybox"))
        self.addCleanup(self.msb, "rm", "-f", "-q", name)

    def test_a_life_is_followed(self):
        follower = self.start("events", "--since", "1h", "--filter", "label=team=core")
        self.create("other")
        self.create("box", "--label", "team=core")
        self.ok(self.msb("stop", "-q", "box", "other"))
        self.ok(self.msb("rm", "-q", "box"))
        seen = [json.loads(follower.stdout.readline()) for _ in range(6)]
        self.assertEqual([e["new"] for e in seen], ["created", "starting", "running", "stopping", "stopped", "removed"])
        self.assertEqual([e["old"] for e in seen], ["", "created", "starting", "running", "stopping", "stopped"])
        self.assertEqual({e["sandbox"] for e in seen}, {"box"})
        self.assertEqual(seen[-1]["labels"], {"team": "core"})
        self.assertRegex(seen[0]["at"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")
        self.assertEqual(sorted(e["seq"] for e in seen), [e["seq"] for e in seen])
        follower.send_signal(signal.SIGINT)
        self.assertEqual(follower.wait(PATIENCE), -signal.SIGINT)
        # The same from what is kept.
        self.assertEqual(self.shown("--no-follow", "box"), seen)
        self.assertEqual(self.shown("--no-follow", "--filter", "name=box", "--filter", "state=removed"), seen[-1:])
        self.assertEqual(self.shown("--until", "1h"), [])
        self.assertEqual(self.shown("--no-follow", "--since", "@4000000000"), [])

    def test_an_owner_that_was_killed(self):
        self.create("box")
        follower = self.start("events", "--filter", "state=crashed", "--since", "1h")
        for pid in self.machine_pids("msb-vm"):
            os.kill(pid, signal.SIGKILL)
        for pid in self.machine_pids("msb"):
            # It may have heard of its machine's end already.
            with contextlib.suppress(ProcessLookupError):
                if pid != follower.pid:
                    os.kill(pid, signal.SIGKILL)
        event = json.loads(follower.stdout.readline())
        self.assertEqual((event["sandbox"], event["new"]), ("box", "crashed"))

    def test_who_does_not_read(self):
        follower = self.start("events")
        follower.stdout.close()
        until(lambda: follower.poll() is not None, "the end of a follower whose reader has gone")

    def test_refusals(self):
        self.refused(self.msb("events", "--filter", "stat=up"), 2, "no filter", "label=KEY[=VALUE]")
        self.refused(self.msb("events", "--filter", "state=up"), 2, "no state", "crashed", "removed")
        self.refused(self.msb("events", "--since", "soon"), 2, "no time", "10m")
