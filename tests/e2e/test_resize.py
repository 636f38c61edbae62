# SPDX-License-Identifier: Apache-2.0
"""Memory that comes and goes while a sandbox runs."""
import json
import re

from harness import ENGINE, PATIENCE, Case, deadline, machines_of, until

MIB = 1 << 20


class Resize(Case):
    def changes(self, *words, ok=True):
        done = self.msb("modify", "--format", "json", "box", *words)
        if ok:
            self.ok(done)
        return json.loads(done.text)["changes"], done

    def states(self, *words):
        return [(c["field"], c["disposition"], c["state"]) for c in self.changes(*words)[0]]

    def inside(self, script):
        return self.ok(self.msb("exec", "box", "--", "sh", "-c", script)).text

    def total(self):
        """What the guest's kernel says it has, in MiB."""
        return int(self.inside("set -- $(grep MemTotal /proc/meminfo); echo $(($2 >> 10))"))

    def metrics(self):
        return json.loads(self.ok(self.msb("metrics", "--format", "json", "box")).text)

    def host_memory(self):
        total = 0
        for pid in machines_of(self.home):
            with open(f"/proc/{pid}/smaps_rollup") as f:
                total += int(re.search(r"^Pss:\s+(\d+) kB", f.read(), re.M).group(1)) << 10
        return total

    @deadline(1800)
    def test_memory_comes_and_goes(self):
        self.own_home()
        child = self.running("box", "-m", "200M", "--max-memory", "701M", "-c", "2")
        first = self.total()
        self.assertTrue(140 < first < 200, first)
        self.assertEqual(self.states("-m", "600", "--dry-run"), [("memory", "live", "planned")])
        self.assertEqual(self.total(), first)
        self.assertEqual(self.states("-m", "599M"), [("memory", "live", "applied")])
        # Rounded as a start's is; the page structures of what came are part of it.
        until(lambda: self.total() > first + 380, lambda: (first, self.total()))
        self.assertLessEqual(self.total(), first + 400)
        said = self.metrics()
        self.assertEqual((said["memory_limit_bytes"], said["memory_max_bytes"]), (600 * MIB, 702 * MIB))
        # It can be used, and holds what is put there.
        before = self.host_memory()
        self.inside("mkdir /big && mount -t tmpfs -o size=400m t /big && cd /big && dd if=/dev/urandom of=r bs=1M count=8 2>/dev/null;"
                    "for i in 1 2 3 4; do cat r r r r r r r r r r >$i || exit 1; done")
        full = self.host_memory()
        self.assertGreater(full, before + 300 * MIB)
        # The guest cannot give up what it uses. It says how far it got, and stays there.
        changes, done = self.changes("-m", "200M", ok=False)
        self.refused(done, 1, "memory", "gave up", "it has")
        self.assertEqual(changes[0]["state"], "guest-refused")
        stays = self.metrics()["memory_limit_bytes"]
        self.assertTrue(200 * MIB < stays < 600 * MIB, stays)
        self.inside("cd /big && for i in 1 2 3 4; do tail -c 8m $i | cmp - r && head -c 8m $i | cmp - r || exit 1; done")
        # To ask again is to ask again.
        self.assertEqual(self.changes("-m", "200M", ok=False)[0][0]["state"], "guest-refused")
        # When it does not, all of it goes, to the host.
        self.inside("umount /big; echo 3 >/proc/sys/vm/drop_caches")
        self.assertEqual(self.changes("-m", "300M")[0][0]["state"], "applied")
        until(lambda: self.total() < first + 120, self.total)
        until(lambda: self.host_memory() < full - 250 * MIB, lambda: (before >> 20, full >> 20, self.host_memory() >> 20))
        # To the most, and back to what it began with.
        self.assertEqual(self.states("-m", "702M"), [("memory", "live", "applied")])
        until(lambda: self.total() > first + 480, self.total)
        self.assertEqual(self.states("-m", "200M"), [("memory", "live", "applied")])
        until(lambda: self.total() <= first, self.total)
        child.stdin.close()
        self.assertEqual(child.wait(PATIENCE), 0)

    @deadline(1800)
    def test_what_lasts_and_what_is_refused(self):
        self.own_home()
        self.refused(self.run_in("busybox", "true", options=["-m", "1G", "--max-memory", "512M"]), 125, "memory", "--max-memory")
        self.refused(self.run_in("busybox", "true", options=["--max-memory", "1G", "--huge-pages", "on"]), 125, "huge pages")
        self.refused(self.run_in("busybox", "true", options=["--max-memory", "15T"]), 125, "15.0 TiB", "--max-memory")
        # Where the engine has no root of ours in which its memory could have a name.
        self.ok(self.run_in("busybox", "true", options=["--max-memory", "5G", "--jail", "off"]))
        self.ok(self.msb("create", "--engine", ENGINE, "-n", "box", "-m", "256M", "--max-memory", "512M", "busybox"))
        shown = json.loads(self.ok(self.msb("status", "--format", "json")).text)[0]
        self.assertEqual((shown["memory_mib"], shown["max_memory_mib"]), (256, 512))
        # A paused one is not asked; it can be had as soon as it goes on.
        self.ok(self.msb("pause", "-q", "box"))
        changes, done = self.changes("-m", "384M", ok=False)
        self.refused(done, 1, "paused")
        self.assertEqual(changes[0]["state"], "failed")
        self.ok(self.msb("resume", "-q", "box"))
        self.changes("-m", "256M")
        self.assertEqual(self.states("-m", "384M"), [("memory", "live", "applied")])
        # Beyond what the machine was made for, and below what it began with, takes a restart.
        self.refused(self.msb("modify", "-m", "1G", "box"), 1, "--max-memory")
        self.assertEqual(self.states("-m", "1G", "--max-memory", "2G", "--dry-run"),
                         [("memory", "requires restart", "planned"), ("max_memory", "requires restart", "planned")])
        self.refused(self.msb("modify", "-m", "128M", "box"), 1, "memory", "restart")
        self.assertRegex(self.ok(self.msb("inspect", "box")).text, r"Memory +384 MiB, at most 512 MiB\n")
        # The next machine begins with what this one had come to, and can be given the rest.
        self.ok(self.msb("restart", "-q", "box"))
        self.assertTrue(320 < self.total() < 384, self.total())
        self.assertEqual(self.metrics()["memory_limit_bytes"], 384 * MIB)
        self.assertEqual(self.states("-m", "512M"), [("memory", "live", "applied")])
        until(lambda: self.total() > 430, self.total)
        # Paused with memory that came later, it has it when it goes on.
        self.ok(self.msb("pause", "-q", "box"))
        self.ok(self.msb("resume", "-q", "box"))
        self.assertGreater(self.total(), 430)
        # A guest that does nothing about it is not waited for for long, and not again later.
        self.inside("cd /sys/bus/virtio/drivers/virtio_mem && for d in virtio*; do echo $d >unbind; done")
        changes, done = self.changes("-m", "384M", ok=False)
        self.refused(done, 1, "gave up 0 B of 128 MiB", "it has 512 MiB")
        self.assertEqual(changes[0]["state"], "guest-refused")
        self.ok(self.msb("rm", "-f", "box"))
        self.nothing_left()
