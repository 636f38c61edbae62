# SPDX-License-Identifier: Apache-2.0
"""The machine itself: each CPU runs and is interrupted, and memory is where it should be, on both sides of its hole."""
import ast

from harness import Case

# Runs on every CPU in turn; writes a different word into each page of some memory, reads all of it
# again, and tells how much memory that took above 4 GiB.
PROBE = """
import os, re
cpus = []
for cpu in sorted(os.sched_getaffinity(0)):
    os.sched_setaffinity(0, {cpu})
    cpus.append(int(open("/proc/self/stat").read().rsplit(")", 1)[1].split()[36]))
def free_above():
    zones = re.findall(r"pages free +([0-9]+).*?start_pfn: +([0-9]+)", open("/proc/zoneinfo").read(), re.S)
    return sum(int(free) for free, start in zones if int(start) >= 1 << 20) * page
size, page = 32 << 20, 4096
words = [(n * 0x9e3779b97f4a7c15 & (1 << 64) - 1).to_bytes(8, "little") for n in range(size // page)]
before = free_above()
memory = bytearray(size)
for n, word in enumerate(words):
    memory[n * page:n * page + 8] = word
after = free_above()
good = sum(memory[n * page:n * page + 8] == word for n, word in enumerate(words)) * page
total = int(re.search("MemTotal: *([0-9]+)", open("/proc/meminfo").read()).group(1)) << 10
ram = [[int(x, 16) for x in l.split()[0].split("-")] for l in open("/proc/iomem") if "System RAM" in l]
print({"cpus": cpus, "good": good, "size": size, "total": total, "ram": ram, "above": before - after})
"""
GIB = 1 << 30

# Sends the interrupts of all devices to one CPU after the other, then takes that CPU away; tells each
# time how many arrived where while a disk and the random numbers had something to do.
MOVES = """
import os
def interrupts():
    rows = open("/proc/interrupts").read().splitlines()
    cpus = [int(name[3:]) for name in rows[0].split()]
    rows = [l.split() for l in rows if " virtio" in l]
    return {cpu: sum(int(r[1 + i]) for r in rows) for i, cpu in enumerate(cpus)}, [r[0][:-1] for r in rows]
def work(what, target):
    before = interrupts()[0]
    for n in range(30):
        with open("/probe", "w") as f:
            f.write(str(n))
            f.flush()
            os.fsync(f.fileno())
        with open("/dev/hwrng", "rb", 0) as f:
            assert f.read(1)
    after = interrupts()[0]
    moved = {cpu: n - before[cpu] for cpu, n in after.items() if cpu in before}
    print((what, target, moved.pop(target, 0), sum(moved.values())))
def put(path, what):
    with open(path, "w") as f:
        f.write(what)
cpus = sorted(os.sched_getaffinity(0))
for cpu in cpus[1:] + cpus[:2]:
    for line in interrupts()[1]:
        put(f"/proc/irq/{line}/smp_affinity", f"{1 << cpu:x}")
    work("to", cpu)
put("/sys/devices/system/cpu/cpu1/online", "0")
work("off", 1)
put("/sys/devices/system/cpu/cpu1/online", "1")
for line in interrupts()[1]:
    put(f"/proc/irq/{line}/smp_affinity", "2")
work("to", 1)
"""


class Sizes(Case):
    def check(self, cpus, memory, mib):
        done = self.ok(self.run_in("python", "python3", "-c", PROBE, options=["-c", str(cpus), "-m", memory]))
        seen = ast.literal_eval(done.text)
        self.assertEqual(seen["cpus"], list(range(cpus)))
        self.assertEqual(seen["good"], seen["size"], "memory does not keep what was written")
        # The kernel takes its share, 1/64 of it for the table of pages.
        self.assertLessEqual(seen["total"], mib << 20)
        self.assertGreater(seen["total"], (mib << 20) * 62 / 64 - (40 << 20))
        self.assertFalse([e for s, e in seen["ram"] if s < 4 * GIB < e], "RAM where the devices are")
        return seen

    def test_one_cpu_and_128_mib(self):
        self.check(1, "128M", 128)

    def test_two_cpus_and_512_mib(self):
        self.check(2, "512M", 512)

    def test_four_cpus_and_3_gib(self):
        """As much as there is room for below the devices."""
        self.check(4, "3G", 3072)

    def above(self, seen):
        # The kernel gives away the highest memory first, so what the probe got lies behind the hole.
        self.assertGreater(seen["above"], seen["size"] * 0.9, seen)

    def test_two_cpus_and_3_and_a_half_gib(self):
        self.above(self.check(2, "3.5G", 3584))

    def test_four_cpus_and_5_gib(self):
        self.above(self.check(4, "5G", 5120))


class Interrupts(Case):
    def test_they_go_where_they_are_sent(self):
        """Each line to each CPU, and on when that CPU goes."""
        done = self.ok(self.run_in("python", "python3", "-c", MOVES, options=["-c", "3"]))
        seen = [ast.literal_eval(l) for l in done.text.splitlines()]
        self.assertEqual([s[:2] for s in seen], [("to", 1), ("to", 2), ("to", 0), ("to", 1), ("off", 1), ("to", 1)])
        for what, cpu, there, elsewhere in seen:
            if what == "off":
                self.assertGreaterEqual(elsewhere, 30, seen)
                continue
            # A line moves with the next interrupt, which may still come to the old place.
            self.assertGreaterEqual(there, 30, seen)
            self.assertLessEqual(elsewhere, 16, seen)
