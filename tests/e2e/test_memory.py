# SPDX-License-Identifier: Apache-2.0
"""Memory between host and guest: what the guest frees goes back; the host's random numbers."""
import io
import os
import random
import re
import struct
import tarfile

from harness import PATIENCE, Case, machines_of, until

MIB = 1 << 20
SIZE = 300 * MIB


def program(code):
    """An executable of one page that exits with @code."""
    text = b"\xbf" + struct.pack("<I", code) + b"\xb8\x3c\0\0\0\x0f\x05"  # mov edi; mov eax, SYS_exit; syscall
    header = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1", 2, 62, 1, 0x400078, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    load = struct.pack("<IIQQQQQQ", 1, 5, 0, 0x400000, 0x400000, 4096, 4096, 4096)
    return (header + load + text).ljust(4096, b"\x90")


class Memory(Case):
    def host_memory(self):
        """What the processes of this store's only machine hold, shared pages counted once."""
        total = 0
        for pid, line in machines_of(self.home).items():
            with open(f"/proc/{pid}/smaps_rollup") as f:
                total += int(re.search(r"^Pss:\s+(\d+) kB", f.read(), re.M).group(1)) << 10
        return total

    def test_memory_that_the_guest_frees_goes_back(self):
        self.own_home()
        child = self.start("run", "-m", "1G", "busybox", "--", "sh", "-c",
                           "mount -o remount,size=400m /dev/shm; echo up; read x;"
                           f"dd if=/dev/zero of=/dev/shm/big bs=1M count={SIZE // MIB} 2>/dev/null; echo full; read x;"
                           "rm /dev/shm/big; echo free; read x; dd if=/dev/zero of=/dev/shm/big bs=1M count=100 2>/dev/null;"
                           "sha1sum /dev/shm/big")

        def expect(word):
            self.assertEqual(child.stdout.readline(), word + b"\n")

        def go():
            child.stdin.write(b"\n")
            child.stdin.flush()

        expect(b"up")
        before = self.host_memory()
        go()
        expect(b"full")
        full = self.host_memory()
        self.assertGreater(full, before + SIZE * 9 // 10)
        go()
        expect(b"free")
        # The guest reports free blocks after two seconds of its time; an eighth may be in small pieces.
        until(lambda: self.host_memory() < before + SIZE // 8,
              lambda: f"{before >> 20} MiB before, {full >> 20} full, {self.host_memory() >> 20} now")
        # And can be had again, as good as new.
        go()
        self.assertIn(b"2c2ceccb5ec5574f791d45b63c940cff20550f9a", child.stdout.readline())
        child.stdin.close()
        self.assertEqual(child.wait(PATIENCE), 0)

    def test_code_is_what_was_read_last(self):
        """A page that comes from a disk holds a program, and then another: an emulator remembers code."""
        codes, orders, archive = list(range(1, 121)), b"", io.BytesIO()
        for seed in range(8):
            random.Random(seed).shuffle(codes)
            orders += " ".join(map(str, codes)).encode() + b"\n"
        with tarfile.open(fileobj=archive, mode="w") as tar:
            for name, content in [("orders", orders)] + [(str(code), program(code)) for code in codes]:
                member = tarfile.TarInfo(name)
                member.size, member.mode = len(content), 0o755
                tar.addfile(member, io.BytesIO(content))
        script = ("mkdir /root/all; cd /root/all; tar x; sync; n=0; while read -r order; do"
                  " echo 3 >/proc/sys/vm/drop_caches;"
                  " for i in $order; do ./$i; ended=$?; [ $ended = $i ] || echo $i ended with $ended; n=$((n+1)); done;"
                  " done <orders; echo $n")
        r = self.ok(self.run_in("busybox", "sh", "-c", script, input=archive.getvalue(), options=["-m", "256M"]))
        self.assertEqual(r.text, "960\n")

    def test_huge_pages(self):
        pool = "/proc/sys/vm/nr_hugepages"
        if os.geteuid() or not os.access(pool, os.W_OK):
            self.skipTest("only root can set huge pages aside")

        def free():
            with open("/proc/meminfo") as f:
                return int(re.search(r"HugePages_Free:\s+(\d+)", f.read())[1])

        def set_aside(n):
            with open(pool, "w") as f:
                f.write(str(n))
        with open(pool) as f:
            before = int(f.read())
        pages = 96
        try:
            set_aside(before + pages)
        except OSError as why:
            self.skipTest(f"cannot set huge pages aside: {why}")
        self.addCleanup(set_aside, before)
        if free() < pages:
            self.skipTest("this host's memory is in too many pieces")
        child = self.start("run", "-m", "192M", "--huge-pages", "on", "busybox", "--", "sh", "-c",
                           "dd if=/dev/zero of=/tmp/x bs=1M count=30 2>/dev/null; sha1sum /tmp/x; read x; true")
        self.assertIn(b"a869e551c0dfeaf152a594f9051b99a65d46f16d", child.stdout.readline())
        self.assertLess(free(), pages - 15)
        child.stdin.close()
        self.assertEqual(child.wait(PATIENCE), 0)
        until(lambda: free() >= pages, "the pages are not given back")
        self.refused(self.run_in("busybox", "true", options=["-m", "2G", "--huge-pages", "on"]), 125,
                     "huge pages", "nr_hugepages")

    def test_random_numbers_of_the_host(self):
        out = self.sh("cat /sys/class/misc/hw_random/rng_current;"
                      "for i in 1 2; do head -c 1000 /dev/hwrng | sha1sum; done; head -c 200000 /dev/hwrng | wc -c")
        source, first, second, size = out.split("\n")[:4]
        self.assertTrue(source.startswith("virtio_rng"), out)
        self.assertNotEqual(first, second)
        self.assertEqual(size.strip(), "200000")
