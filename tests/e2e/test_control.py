# SPDX-License-Identifier: Apache-2.0
"""What can be asked of a machine that runs, and when it ends by itself."""
import json
import socket
import struct
import time

from harness import ENGINE, PATIENCE, Case, Terminal, deadline, until


class Control(Case):
    def ask_raw(self, name, data):
        """Bytes to control.sock; what comes back until it is closed or nothing comes."""
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(2)
            s.connect(f"{self.home}/sandboxes/{name}/control.sock")
            s.sendall(data)
            try:
                return s.recv(65536)
            except TimeoutError:
                return None

    def machine(self, name="box"):
        return json.loads(self.ok(self.msb("inspect", "--format", "json", name)).text)["machine"]

    def test_pause_and_ping(self):
        self.own_home()
        self.running()
        self.assertRegex(self.ok(self.msb("ping", "--touch", "box")).text, r"^box: \d+\.\d+ ms\n$")
        self.assertEqual(self.ok(self.msb("pause", "box")).text, "box\n")
        self.ok(self.msb("pause", "-q", "box"))
        self.refused(self.msb("ping", "box"), 1, "box", "paused", "resume")
        # So is a command; one that runs goes on once the machine does (test_exec).
        self.refused(self.msb("exec", "box", "--", "echo", "after"), 125, "box", "paused", "resume")
        self.ok(self.msb("resume", "box"))
        self.assertEqual(self.ok(self.msb("exec", "box", "--", "echo", "after")).text, "after\n")
        # Time has not stood still.
        said = float(self.ok(self.msb("exec", "box", "--", "date", "+%s")).text)
        self.assertLess(abs(said - time.time()), 30)
        # Names that are none of a running sandbox, among one that is.
        done = self.msb("ping", "box", "nobody")
        self.refused(done, 1, "no sandbox", "nobody")
        self.assertIn("box: ", done.text)
        # Whoever speaks another language is hung up on, and disturbs nobody.
        for junk in (b"\0\0\0\2\xff\xff", b"\x7f\0\0\0", b"{\"op\": \"stop\"}\n", struct.pack(">I", 0)):
            self.assertIn(self.ask_raw("box", junk), (b"", None))
        # A paused sandbox can be stopped, in order.
        self.ok(self.msb("pause", "box"))
        self.ok(self.msb("stop", "box"))
        self.assertEqual(self.machine()["end"], "stopped")
        self.refused(self.msb("pause", "box"), 1, "not running", "start")

    def test_asked_while_it_starts(self):
        self.own_home()
        child = self.start("create", "--engine", ENGINE, "-n", "box", "busybox")
        while child.poll() is None:
            self.msb("metrics", "-a", "--format", "json", "box")
            self.msb("modify", "-q", "--idle-timeout", "300s", "box")
            self.msb("touch", "box")
        self.assertEqual(child.returncode, 0, child.stderr.read())
        self.ok(self.msb("rm", "-f", "box"))
        self.nothing_left()

    def test_what_runs_has_the_time_to_end(self):
        self.own_home()
        self.ok(self.msb("create", "-n", "box", "busybox"))
        slow = "trap 'sleep 3; echo done >/root/done; exit' TERM; echo ready; while :; do sleep 1; done"

        def stopped_with(timeout):
            self.ok(self.msb("exec", "-d", "--session", "slow", "box", "--", "sh", "-c", slow))
            until(lambda: "ready" in self.msb("logs", "--tail", "1", "box").text, "it does not start")
            # Who sits in front of a terminal is no reason to wait.
            shell = Terminal(self, "exec", "-t", "box", "--", "sh")
            shell.expect(b"# ")
            self.ok(self.msb("stop", "-t", timeout, "box"))
            shell.wait()
            self.ok(self.msb("start", "box"))
            return self.msb("exec", "box", "--", "cat", "/root/done").text

        self.assertEqual(stopped_with("2"), "")
        self.assertEqual(stopped_with("500"), "done\n")

    def test_drain(self):
        self.own_home()
        child = self.running()
        busy = self.start("exec", "box", "--", "sh", "-c", "echo in; read x; echo $x; exit 3")
        self.assertEqual(busy.stdout.readline(), b"in\n")
        drain = self.start("drain", "box")
        until(lambda: b"draining" in self.start("exec", "box", "--", "true").communicate()[1], "a refusal")
        self.refused(self.msb("pause", "box"), 1, "draining")
        # What runs has all the time it needs.
        busy.stdin.write(b"done\n")
        busy.stdin.flush()
        self.assertEqual(busy.communicate(timeout=PATIENCE)[0], b"done\n")
        self.assertEqual(busy.returncode, 3)
        self.assertIsNone(drain.poll())
        child.stdin.close()
        self.assertEqual(drain.wait(PATIENCE), 0)
        self.assertEqual(self.machine()["end"], "drained")

    def test_drain_has_its_time(self):
        self.own_home()
        child = self.running()
        self.ok(self.msb("drain", "-q", "-t", "1", "box"))
        self.assertEqual(child.wait(PATIENCE), 125)
        self.assertEqual(self.machine()["end"], "drain-timeout")

    def test_limits(self):
        self.own_home()
        done = self.run_in("busybox", "sleep", "1000", options=["--max-duration", "1s"])
        self.refused(done, 125, "maximal duration")
        self.nothing_left()
        # A command that runs is activity; nothing but an open connection is not.
        self.ok(self.run_in("busybox", "sleep", "4", options=["--idle-timeout", "3s"]))
        child = self.running("box", "--idle-timeout", "3s", "--max-duration", "1000s")
        time.sleep(4)
        self.ok(self.msb("ping", "box"))
        self.assertIsNone(child.poll())
        self.refused(self.run_in("busybox", "true", options=["--max-duration", "0"]), 125, "duration")

    def test_metrics(self):
        self.own_home()
        child = self.running("box", "-m", "256M", "-c", "1", "--max-cpus", "2")
        before = json.loads(self.ok(self.msb("metrics", "--format", "json", "box")).text)
        self.assertEqual((before["name"], before["state"], before["cpus"]), ("box", "running", 1))
        self.assertEqual(before["memory_limit_bytes"], 256 << 20)
        self.assertLess(0, before["memory_bytes"])
        self.assertLess(before["memory_bytes"], 256 << 20)
        self.ok(self.msb("exec", "box", "--", "sh", "-c", "dd if=/dev/zero of=/x bs=1M count=8 && sync; "
                         "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done"))
        after = json.loads(self.ok(self.msb("metrics", "--format", "json", "box")).text)
        self.assertGreaterEqual(after["disk_write_bytes"] - before["disk_write_bytes"], 8 << 20)
        self.assertGreater(after["disk_write_ops"], before["disk_write_ops"])
        self.assertGreater(after["vcpu_time_ns"], before["vcpu_time_ns"])
        self.assertGreaterEqual(after["upper_used_bytes"] - before["upper_used_bytes"], 8 << 20)
        self.assertGreaterEqual(after["upper_host_allocated_bytes"], 8 << 20)
        # What its network carried, and what its policy kept from it.
        self.assertEqual(after["net_flows_denied"], 0)
        self.msb("exec", "box", "--", "nc", "-w", "2", "10.255.255.1", "80")
        net = json.loads(self.ok(self.msb("metrics", "--format", "json", "box")).text)
        self.assertEqual(net["net_flows_denied"], 1)
        for key in ("net_tx_bytes", "net_tx_packets", "net_rx_bytes", "net_rx_packets"):
            self.assertGreater(net[key], after[key], key)
        # While it is paused it needs nothing of a CPU, and is no less there.
        self.ok(self.msb("pause", "-q", "box"))
        held = json.loads(self.ok(self.msb("metrics", "--format", "json", "box")).text)
        self.assertEqual((held["state"], held["cpu_percent"]), ("paused", 0))
        self.assertGreaterEqual(held["vcpu_time_ns"], net["vcpu_time_ns"])
        self.ok(self.msb("resume", "-q", "box"))
        total = json.loads(self.ok(self.msb("metrics", "--total", "--format", "json")).text)
        self.assertEqual((total["sandboxes"], total["cpus"], total["memory_limit_bytes"]), (1, 1, 256 << 20))
        self.assertGreaterEqual(total["net_tx_bytes"], net["net_tx_bytes"])
        self.assertRegex(self.ok(self.msb("metrics", "-t")).text, r"(?s)^NAME.*\nTOTAL +1 ")
        self.refused(self.msb("metrics", "-t", "box"), 2, "total")
        totals = self.start("metrics", "-t", "--follow", "--interval", "100ms", "--format", "json")
        for _ in range(2):
            self.assertEqual(json.loads(totals.stdout.readline())["sandboxes"], 1)
        totals.kill()
        # A CPU that is not on yet is none.
        self.assertEqual(self.ok(self.msb("exec", "box", "--", "nproc")).text, "1\n")
        # A stream ends with its sandbox.
        stream = self.start("metrics", "--follow", "--interval", "100ms", "--format", "json", "box")
        self.assertEqual(json.loads(stream.stdout.readline())["state"], "running")
        self.assertEqual([m["name"] for m in json.loads(self.ok(self.msb("metrics", "--format", "json")).text)], ["box"])
        self.assertRegex(self.ok(self.msb("metrics")).text, r"(?s)^NAME.*\nbox +running ")
        child.stdin.close()
        lines = stream.communicate(timeout=PATIENCE)[0].splitlines()
        self.assertEqual(json.loads(lines[-1])["state"], "exited")
        self.assertEqual(stream.returncode, 0)
        self.refused(self.msb("metrics", "box"), 1, "not running")
        self.assertEqual(json.loads(self.ok(self.msb("metrics", "--format", "json")).text), [])
        self.assertEqual(json.loads(self.ok(self.msb("metrics", "-a", "--format", "json")).text)[0]["state"], "exited")
        self.refused(self.msb("metrics", "--interval", "1ms"), 2, "interval")

    def modify(self, *words):
        return json.loads(self.ok(self.msb("modify", "--format", "json", "box", *words)).text)["changes"]

    def inside(self, script):
        return self.ok(self.msb("exec", "box", "--", "sh", "-c", script)).text

    def pending(self):
        shown = json.loads(self.ok(self.msb("inspect", "--format", "json", "box")).text)
        found = {c["field"]: (c["from"], c["to"]) for c in shown["pending_changes"]}
        self.assertEqual(found, {k: (shown["active_config"].get(k), shown["config"].get(k)) for k in found})
        return found

    @deadline(1800)
    def test_modify(self):
        self.own_home()
        self.running("box", "-c", "2", "--max-cpus", "3", "-e", "A=1", "-e", "B=2", "--label", "old=1")
        self.assertEqual(self.inside("nproc"), "2\n")
        for n in (3, 1, 2):
            self.assertEqual([(c["to"], c["disposition"], c["state"]) for c in self.modify("-c", str(n))],
                             [(str(n), "live", "applied")])
            self.assertEqual(self.inside("nproc"), f"{n}\n")
        self.assertEqual(json.loads(self.ok(self.msb("metrics", "--format", "json", "box")).text)["cpus"], 2)
        self.assertEqual(self.modify("-c", "2"), [])
        self.assertEqual(self.modify("-c", "3", "--dry-run")[0]["state"], "planned")
        self.assertEqual(self.inside("nproc"), "2\n")
        # What commands get; what runs already keeps what it has.
        self.modify("-e", "C=3", "-e", "B=two", "--env-rm", "A", "-w", "/tmp", "--label", "new=2", "--label-rm", "old")
        self.assertEqual(self.inside('pwd; echo "$A" $B $C $FROM_IMAGE'), "/tmp\n two 3 yes\n")
        # What a machine cannot do is the next one's, if that is wanted, and nothing by halves otherwise.
        self.refused(self.msb("modify", "-m", "1G", "-e", "D=4", "box"), 1, "memory", "restart", "--next-start")
        self.assertEqual(self.inside("echo $D"), "\n")
        self.assertEqual([(c["field"], c["disposition"], c["state"]) for c in self.modify("-m", "256M", "--next-start")],
                         [("memory", "next start", "accepted")])
        self.refused(self.msb("modify", "-c", "9", "box"), 1, "cpus", "--max-cpus")
        self.refused(self.msb("modify", "box"), 2, "what")
        self.refused(self.msb("modify", "-c", "2", "nobody"), 1, "nobody")
        config = json.loads(self.ok(self.msb("inspect", "--format", "json", "box")).text)["config"]
        self.assertEqual((config["cpus"], config["memory"], config["env"]), (2, 256 << 20, ["B=two", "C=3"]))
        # What it has meanwhile is to be seen, and is told apart until it has what was asked for.
        self.assertEqual(self.pending(), {"memory": (512 << 20, 256 << 20)})
        self.modify("--next-start", "-c", "3", "-e", "E=5", "--idle-timeout", "1h")
        self.assertEqual(self.pending(), {"memory": (512 << 20, 256 << 20), "cpus": (2, 3), "idle_timeout_ms": (None, 3600000),
                                          "env": (["B=two", "C=3"], ["B=two", "C=3", "E=5"])})
        self.assertIn("Next start", self.ok(self.msb("inspect", "box")).text)
        self.assertEqual([c["field"] for c in self.modify("-c", "3", "-e", "E=5", "--idle-timeout", "1h")], ["cpus", "idle_timeout"])
        self.assertEqual(set(self.pending()), {"memory", "env"})
        self.modify("-e", "E=5")
        self.assertEqual(self.inside("echo $E"), "5\n")
        self.modify("--next-start", "-m", "512M")
        self.assertEqual(self.pending(), {})
        # A limit can come later.
        self.modify("--idle-timeout", "300ms")
        self.modify("--max-duration", "1s")
        until(lambda: self.machine()["end"] == "max-duration", "the end")
        self.assertEqual(self.modify("--max-duration", "none")[0]["disposition"], "next start")
        self.assertIsNone(json.loads(self.ok(self.msb("inspect", "--format", "json", "box")).text)["active_config"])

    def states(self):
        return {s["name"]: s["status"] for s in json.loads(self.ok(self.msb("ls", "--format", "json")).text)}

    @deadline(1800)
    def test_those_that_run_by_themselves(self):
        self.own_home()
        for name in ("one", "two"):
            self.ok(self.msb("create", "--engine", ENGINE, "-n", name, "-m", "128M", "--label", "of=" + name, "busybox"))
        self.assertEqual(self.ok(self.msb("pause", "--label", "of=one")).text, "one\n")
        self.assertEqual(self.states(), {"one": "paused", "two": "running"})
        self.ok(self.msb("pause", "-q", "--all"))
        self.assertEqual(self.states(), {"one": "paused", "two": "paused"})
        self.assertEqual(sorted(self.ok(self.msb("resume", "-a")).text.split()), ["one", "two"])
        self.refused(self.msb("pause"), 2, "which sandbox")
        # A restart gives it what it could not have before.
        change = json.loads(self.ok(self.msb("modify", "-m", "192M", "--restart", "--format", "json", "one")).text)["changes"]
        self.assertEqual([(c["field"], c["disposition"], c["state"]) for c in change],
                         [("memory", "requires restart", "applied")])
        self.assertEqual(self.states(), {"one": "running", "two": "running"})
        kib = int(self.ok(self.msb("exec", "one", "--", "sh", "-c", "set -- $(grep MemTotal /proc/meminfo); echo $2")).text)
        self.assertTrue(140 << 10 < kib < 192 << 10, kib)
        # It ends by itself, in order, and says why.
        self.ok(self.msb("modify", "-q", "--idle-timeout", "200ms", "one"))
        until(lambda: self.states()["one"] == "stopped", self.states)
        self.assertEqual(self.machine("one")["end"], "idle")
        # One that is paused is drained all the same.
        self.ok(self.msb("pause", "-q", "two"))
        self.assertEqual(self.ok(self.msb("drain", "two")).text, "two\n")
        self.assertEqual(self.states()["two"], "stopped")
        self.ok(self.msb("rm", "one", "two"))
        self.nothing_left()
