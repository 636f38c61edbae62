# SPDX-License-Identifier: Apache-2.0
"""What goes wrong before or around a command: one message, the right code, nothing left."""
import json
import os
import shutil
import struct
import subprocess
import unittest

from harness import ENGINE, PATIENCE, Case, tree


def tiny_kernel(code):
    """An ELF file that a machine enters at @code, in 64-bit mode."""
    load, note = 64 + 2 * 56, struct.pack("<III4sI", 4, 4, 18, b"Xen", 0x1000000)
    header = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1", 2, 62, 1, 0x1000000, 64, 0, 0, 64, 56, 2, 0, 0, 0)

    def segment(kind, offset, size, room):
        return struct.pack("<IIQQQQQQ", kind, 5, offset, 0x1000000, 0x1000000, size, room, 4)
    return (header + segment(1, load, len(code), 4096) + segment(4, load + len(code), len(note), len(note)) +
            code + note)


class Panics(Case):
    # All memory is asked for, and it is not to kill for that.
    PANIC = "echo up; echo 2 >/proc/sys/vm/panic_on_oom; tail /dev/zero"

    def test_it_is_said_and_kept(self):
        self.own_home()
        kept = self.home + "/cache/kernel-panic.log"
        done = self.run_in("busybox", "sh", "-c", self.PANIC, options=("-m", "128M"))
        self.refused(done, 125, "kernel panicked", "out of memory", kept)
        with open(kept, errors="replace") as f:
            self.assertIn("Kernel panic", f.read())
        self.nothing_left()
        os.unlink(kept)
        # One that stays has its own, and has crashed.
        self.refused(self.run_in("busybox", "sh", "-c", self.PANIC, options=("-n", "a", "-m", "128M")), 125, "kernel panicked", "logs/kernel.log")
        self.assertFalse(os.path.exists(kept))
        row, = json.loads(self.ok(self.msb("ls", "--format", "json")).text)
        self.assertEqual(row["status"], "crashed")
        self.assertIn("panicked", json.loads(self.ok(self.msb("inspect", "a", "--format", "json")).text)["reason"])
        self.assertEqual(self.ok(self.msb("exec", "a", "--", "echo", "again")).text, "again\n")
        self.ok(self.msb("rm", "-f", "a"))
        self.nothing_left()


class Words(Case):
    def test_usage(self):
        for words in (["run"], ["run", "--no-such-option", "busybox"], ["no-such-verb"], ["run", "-c", "x", "busybox"],
                      ["run", "-m", "lots", "busybox"], ["run", "-c", "0", "busybox"], ["run", "-m", "1M", "busybox"],
                      ["run", "--timeout", "soon", "busybox"], ["run", "--rlimit", "nothing=1", "busybox"],
                      ["run", "--rlimit", "nofile=9:3", "busybox"], ["run", "--root-disk", "big", "busybox"],
                      ["run", "--hostname", "not a name", "busybox"], ["run", "--name", "../x", "busybox"],
                      ["run", "-e", "=x", "busybox"], ["run", "--tty", "--no-tty", "busybox"],
                      ["run", "-c", "100000", "busybox"], ["run", "--engine", "steam", "busybox"]):
            done = self.msb(*words)
            self.assertIn(done.code, (2, 125), f"{words}: {done}")
            self.assertEqual(done.out, b"", f"{words}: {done}")
            self.refused(done, done.code)

    def test_a_hint_for_a_typing_error(self):
        done = self.msb("runn", "busybox")
        self.refused(done, done.code, "run")

    def test_help_and_version(self):
        for words in (["--help"], ["run", "--help"], ["image", "--help"], ["load", "--help"]):
            done = self.ok(self.msb(*words))
            self.assertIn("sage", done.text)
        self.assertRegex(self.ok(self.msb("--version")).text, r"\d+\.\d+")


class Missing(Case):
    def test_unknown_image(self):
        self.refused(self.run_in("no-such-image", "true", options=["--pull", "never"]), 125, "no-such-image")

    def test_invalid_reference(self):
        for name in ("UPPER", "a//b", "x:y:z", "", " ", "a/../b"):
            done = self.run_in(name, "true")
            self.assertEqual(done.code, 125, f"{name!r}: {done}")

    def test_no_qemu(self):
        if ENGINE != "qemu":
            self.skipTest("not about this engine")
        done = self.run_in("busybox", "true", env={"MSB_QEMU": "/no/such/qemu"})
        self.refused(done, 125, "qemu")

    def test_no_kernel(self):
        self.refused(self.run_in("busybox", "true", options=["--kernel", "/no/such/vmlinux"]), 125, "/no/such/vmlinux")

    def test_a_kernel_that_is_not_one(self):
        self.own_home()
        before = tree(self.home)
        for name, data in (("empty", b""), ("text", b"hello\n" * 1000), ("elf", b"\x7fELF" + bytes(8000))):
            path = self.path(name)
            with open(path, "wb") as f:
                f.write(data)
            self.refused(self.run_in("busybox", "true", options=["--kernel", path]), 125, "kernel")
        self.refused(self.run_in("busybox", "true", options=["--kernel", "/bin/ls"]), 125, "kernel")
        self.refused(self.run_in("busybox", "true", options=["--kernel", self.home]), 125)
        self.nothing_left(before=before)

    def test_more_memory_than_there_is(self):
        self.own_home()
        before = tree(self.home)
        # What no host has, what the next megabyte of this one would be, and what no machine could.
        total = int(open("/proc/meminfo").read().split()[1]) // 1024
        swap = sum(int(line.split()[2]) for line in open("/proc/swaps").read().splitlines()[1:]) // 1024
        for size in ("8T", f"{total + swap + 64}M", "17T"):
            self.refused(self.run_in("busybox", "true", options=["-m", size]), 125, "memory")
            self.refused(self.run_in("busybox", "true", options=["-m", size, "--name", "big"]), 125, "memory")
        self.assertEqual(self.ok(self.msb("ls", "-q")).text, "")
        self.nothing_left(before=before)

    def test_more_cpus_than_there_can_be(self):
        self.own_home()
        before = tree(self.home)
        for count in ("65", "256", "4294967297", "-1"):
            self.refused(self.run_in("busybox", "true", options=["-c", count, "--name", "wide"]), 125, "64")
        self.assertEqual(self.ok(self.msb("ls", "-q")).text, "")
        self.nothing_left(before=before)


class Surroundings(Case):
    def test_full_disk(self):
        self.own_home()
        mount = self.path("small")
        os.mkdir(mount)
        # Room for the image and little more; the sandbox then writes more than is left.
        size = int(subprocess.check_output(["du", "-sm", self.home]).split()[0]) + 12
        if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}m", "tmpfs", mount],
                          stderr=subprocess.DEVNULL).returncode:
            self.skipTest("cannot mount a tmpfs here")
        self.addCleanup(subprocess.run, ["umount", "-l", mount])
        subprocess.check_call(["cp", "-a", self.home, mount])
        self.home = mount + "/home"
        done = self.run_in("busybox", "sh", "-c", "dd if=/dev/urandom of=/big bs=1M count=60; sync; echo after")
        # The guest sees an error of its disk or, at the latest, our message; never a hang.
        self.assertTrue(done.code == 125 or "error" in done.messages.lower() or b"after" in done.out, str(done))
        self.nothing_left()
        # Nothing at all left: the start itself fails, in words.
        with open(mount + "/filler", "wb") as f:
            try:
                while True:
                    f.write(bytes(1 << 16))
                    f.flush()
            except OSError:
                pass
        done = self.run_in("busybox", "true")
        if done.code != 0:
            self.refused(done, 125, "space")
        os.unlink(mount + "/filler")
        self.assertEqual(self.sh("echo works"), "works\n")

    def test_store_that_cannot_be_written(self):
        blocked = self.path("file")
        open(blocked, "w").close()
        self.home = blocked
        self.refused(self.run_in("busybox", "true"), 125, blocked)

    def test_a_damaged_database(self):
        self.own_home()
        for name in ("msb.db-wal", "msb.db-shm"):
            if os.path.exists(f"{self.home}/{name}"):
                os.unlink(f"{self.home}/{name}")
        with open(self.home + "/msb.db", "r+b") as f:
            f.write(os.urandom(4096))
        self.refused(self.run_in("busybox", "true"), 125)

    def test_a_store_from_the_future(self):
        self.own_home()
        if not os.path.exists(self.home + "/version"):
            self.skipTest("the store has no version file")
        before = open(self.home + "/version").read()
        with open(self.home + "/version", "w") as f:
            f.write("99999\n")
        self.refused(self.run_in("busybox", "true"), 125)
        with open(self.home + "/version", "w") as f:
            f.write(before)
        self.assertEqual(self.sh("echo works"), "works\n")

    def test_a_missing_layer_file(self):
        self.own_home()
        victim = max((os.path.join(self.home, "layers", n) for n in os.listdir(self.home + "/layers")),
                     key=os.path.getsize)
        os.unlink(victim)
        self.refused(self.run_in("busybox", "true"), 125)
        # Loading again repairs it.
        self.ok(self.msb("load", "-i", os.environ["MSB_TEST_BUSYBOX"]))
        self.assertEqual(self.sh("echo works"), "works\n")

    def test_a_path_longer_than_a_socket_address(self):
        self.home = self.path("/".join(["long" * 10] * 5))
        os.makedirs(self.home)
        self.ok(self.msb("load", "-i", os.environ["MSB_TEST_BUSYBOX"]))
        self.assertEqual(self.sh("echo works"), "works\n")

    def test_closed_standard_streams(self):
        child = subprocess.run(["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh"] + self.argv("run", "busybox", "--", "true"),
                               env=dict(os.environ, MSB_HOME=self.home), timeout=PATIENCE)
        self.assertEqual(child.returncode, 0)

    def test_output_to_a_full_device(self):
        with open("/dev/full", "wb") as full:
            done = self.run_in("busybox", "echo", "x", stdout=full)
        self.assertNotEqual(done.code, 0)

    def test_without_privileges(self):
        if os.geteuid():
            self.skipTest("already without")
        if not shutil.which("setpriv"):
            self.skipTest("no setpriv")
        self.home = self.path("home")
        os.chmod(os.environ["MSB_TEST_TOP"], 0o755)
        os.chmod(self.scratch, 0o777)
        probe = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        from harness import MSB, environment
        env = environment(self.home, HOME=self.scratch)
        os.chmod(os.environ["MSB_TEST_BUSYBOX"], 0o644)
        if subprocess.run(probe + ["test", "-x", MSB]).returncode:
            self.skipTest("another user cannot reach the program")

        def as_nobody(*words):
            done = subprocess.run(probe + self.argv(*words), env=env, stdin=subprocess.DEVNULL,
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=PATIENCE)
            self.assertEqual(done.returncode, 0, done.stderr)
            return done.stdout
        as_nobody("load", "-i", os.environ["MSB_TEST_BUSYBOX"])
        self.assertEqual(as_nobody("run", "busybox", "--", "id", "-u"), b"0\n")


class Ends(Case):
    def test_the_guest_switches_itself_off(self):
        for how in ("halt", "poweroff", "reboot"):
            done = self.run_in("busybox", how, "-f")
            self.refused(done, 125, "the guest switched itself off")

    @unittest.skipUnless(ENGINE == "kvm", "how QEMU's CPUs sleep is not ours to see")
    def test_all_cpus_halt(self):
        self.own_home()
        before = tree(self.home)
        path = self.path("kernel")
        with open(path, "wb") as f:
            f.write(tiny_kernel(b"\xfa\xf4\xeb\xfc"))  # again: cli; hlt; jmp again
        self.refused(self.run_in("busybox", "true", options=["-c", "2", "--kernel", path]), 125,
                     "halted all its CPUs with interrupts off")
        self.nothing_left(before=before)
