# SPDX-License-Identifier: Apache-2.0
"""The walls around a machine that runs, seen from the host, and what is told about them."""
import ctypes
import errno
import json
import os
import platform
import shutil
import stat
import struct
import subprocess
import tempfile

from harness import Case, ENGINE, MSB, PATIENCE, parent_and_name, until

NOBODY = 65534
NAMES = ["privileges", "namespaces", "root", "landlock", "capabilities", "seccomp"]


def status_of(pid, task):
    with open(f"/proc/{pid}/task/{task}/status") as f:
        return dict(line.rstrip("\n").split(":\t", 1) for line in f if ":\t" in line)


def refuse(number, code):
    """A preexec_fn: this system call fails with @code from now on, as on hosts that do not have it."""
    libc = ctypes.CDLL(None, use_errno=True)
    # load nr; is it the one? errno : allow
    code = [(0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, 0x00050000 | code), (0x06, 0, 0, 0x7fff0000)]
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *c) for c in code))
    header = ctypes.create_string_buffer(struct.pack("H6xP", len(code), ctypes.addressof(program)))

    def install():
        libc.prctl(38, 1, 0, 0, 0)
        if libc.prctl(22, 2, header, 0, 0):
            raise OSError(ctypes.get_errno(), "no seccomp")
        assert program
    return install


def children(pid):
    return [int(p) for p in filter(str.isdigit, os.listdir("/proc")) if parent_and_name(p)[0] == pid]


class Walls(Case):
    """msb as the caller, as nobody, and with what a host may forbid in its way."""

    def setUp(self):
        super().setUp()
        self.prefix, self.program = [], MSB

    def become_nobody(self):
        """From here on msb runs without privileges, with a store of that user's."""
        if os.geteuid():
            self.skipTest("already without privileges")
        if not shutil.which("setpriv"):
            self.skipTest("no setpriv")
        os.chmod(os.environ["MSB_TEST_TOP"], 0o755)
        os.chmod(self.scratch, 0o777)
        os.chmod(os.environ["MSB_TEST_BUSYBOX"], 0o644)
        self.prefix = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
        if subprocess.run(self.prefix + ["test", "-x", MSB]).returncode:
            self.program = self.copy_programs()
        self.own_home()

    def copy_programs(self):
        to, build = tempfile.mkdtemp(prefix="msb-programs-"), os.path.dirname(MSB)
        self.addCleanup(shutil.rmtree, to, True)
        os.makedirs(to + "/guest")
        for name in ("msb", "msb-vm", "msb-fetch", "msb-convert", "guest/agentd", "vmlinux"):
            shutil.copy(os.path.join(build, name), os.path.join(to, name))
        subprocess.check_call(["chmod", "-R", "a+rX", to])
        return to + "/msb"

    def argv(self, *args):
        return self.prefix + [self.program] + super().argv(*args)[1:]

    def inspect(self, name):
        return json.loads(self.ok(self.msb("inspect", name, "--format", "json")).text)

    def running(self, *options):
        """A sandbox with a command in it; (what inspect says, its processes)."""
        child = self.start("run", "--name", "box", *options, "busybox", "--", "sh", "-c", "echo up; exec sleep 1000")
        self.assertEqual(child.stdout.readline(), b"up\n")
        told = until(lambda: self.up("box"), "the machine was not written down")
        vm = told["machine"]["pid"]
        return told, [vm] + children(vm)

    def up(self, name):
        told = self.inspect(name)
        return told if told["machine"]["ready_ms"] else None

    def end(self):
        self.ok(self.msb("stop", "box"))
        self.ok(self.msb("rm", "box"))
        self.nothing_left()

    def walls(self, told):
        return {w["name"]: w for w in told["machine"]["jail"]}

    def sanitized(self, told):
        if "sanitizer" in told["machine"]["jail"][0]["detail"]:
            self.skipTest("built with a sanitizer")


class Running(Walls):
    def check(self):
        told, processes = self.running()
        self.sanitized(told)
        self.assertEqual([w["name"] for w in told["machine"]["jail"]], NAMES)
        walls = self.walls(told)
        self.assertEqual(len(processes), 2 if ENGINE == "qemu" else 1)
        self.ways_out = 0
        for pid in processes:
            for task in os.listdir(f"/proc/{pid}/task"):
                self.check_thread(pid, task, walls)
            self.check_process(pid, walls)
        self.assertLessEqual(self.ways_out, 1)
        if os.geteuid() == 0 and self.prefix:
            # Another process of its user's cannot look into it.
            inside = subprocess.run(self.prefix + ["ls", f"/proc/{processes[0]}/fd"], stdout=subprocess.DEVNULL,
                                    stderr=subprocess.DEVNULL)
            self.assertNotEqual(inside.returncode, 0)
        if ENGINE == "qemu" and walls["namespaces"]["held"]:
            self.assertEqual(status_of(processes[1], processes[1])["NSpid"].split("\t"), [str(processes[1]), "1"])
        self.end()

    def check_thread(self, pid, task, walls):
        s = status_of(pid, task)
        self.assertEqual(s["NoNewPrivs"], "1")
        for kind in ("Inh", "Prm", "Eff", "Amb") + (("Bnd",) if "bounding" in walls["capabilities"]["detail"] else ()):
            self.assertEqual(int(s["Cap" + kind], 16), 0, f"Cap{kind} of {s['Name']}")
        if walls["seccomp"]["held"]:
            self.assertEqual(s["Seccomp"], "2", s["Name"])
        for kind in walls["namespaces"]["detail"].split(", ") if walls["namespaces"]["held"] else ():
            name = {"mount": "mnt"}.get(kind, kind)
            if kind != "pid":
                inside, outside = (os.readlink(f"/proc/{p}/ns/{name}") for p in (f"{pid}/task/{task}", "self"))
                # The thread that is the sandbox's way to the network; nobody else is out there.
                if kind == "net" and s["Name"] == "net-0":
                    self.ways_out += 1
                    self.assertEqual(inside, outside)
                else:
                    self.assertNotEqual(inside, outside, f"{kind} of {s['Name']}")

    def check_process(self, pid, walls):
        self.assertTrue(walls["namespaces"]["held"] or walls["landlock"]["held"], walls)
        if os.geteuid() == 0 and self.prefix and walls["namespaces"]["held"]:
            for kind in ("uid", "gid"):
                self.assertEqual(open(f"/proc/{pid}/{kind}_map").read().split(), [str(NOBODY), str(NOBODY), "1"])
        if walls["root"]["held"] and os.geteuid() == 0:
            self.check_root(pid)

    def check_root(self, pid):
        root = f"/proc/{pid}/root"
        self.assertNotEqual(os.stat(root).st_dev, os.stat("/").st_dev)
        allowed = {"initramfs", "usr", "bin", "lib", "lib32", "lib64", "libx32", "nix", "dev", "etc"}
        ways = {self.home.split("/")[1], os.path.realpath(self.program).split("/")[1]}
        self.assertLessEqual(set(os.listdir(root)), allowed | ways)
        for name in ("etc/passwd", "etc/shadow", "proc/self", "sys/kernel", "root/.ssh", "dev/mem", "home",
                     self.home.lstrip("/") + "/msb.db"):
            self.assertFalse(os.path.lexists(f"{root}/{name}"), name)
        devices = os.listdir(root + "/dev") if os.path.isdir(root + "/dev") else []
        self.assertLessEqual(set(devices), {"kvm"} if ENGINE == "kvm" else {"null", "urandom"})
        self.assertTrue(os.statvfs(root).f_flag & os.ST_RDONLY)

    def test_as_the_caller(self):
        self.own_home()
        self.check()

    def test_without_privileges(self):
        self.become_nobody()
        if ENGINE == "kvm" and subprocess.run(self.prefix + ["test", "-w", "/dev/kvm"]).returncode:
            self.skipTest("/dev/kvm is not for this user")
        self.check()

    def test_off(self):
        self.own_home()
        told, processes = self.running("--jail", "off")
        self.assertEqual({w["detail"] for w in told["machine"]["jail"]}, {"switched off"})
        for pid in processes:
            s = status_of(pid, pid)
            self.assertEqual(s["NoNewPrivs"] if pid == processes[0] else "0", "0")
            self.assertEqual(os.readlink(f"/proc/{pid}/ns/mnt"), os.readlink("/proc/self/ns/mnt"))
            self.assertEqual(os.readlink(f"/proc/{pid}/root"), "/")
        self.assertEqual(status_of(processes[0], processes[0])["Seccomp"], status_of("self", os.getpid())["Seccomp"])
        self.end()


class Inspect(Walls):
    def test_a_sandbox(self):
        self.own_home()
        self.refused(self.msb("inspect", "box"), 1, "box")
        self.refused(self.msb("inspect"), 2)
        self.refused(self.msb("inspect", "../x"), 1)
        told, processes = self.running("-c", "2", "-m", "256M", "-e", "A=b c", "--rlimit", "nofile=10:20")
        self.assertEqual((told["name"], told["status"], told["image"]), ("box", "running", "busybox"))
        self.assertRegex(told["image_id"], "^sha256:[0-9a-f]{64}$")
        config = told["config"]
        self.assertEqual((config["cpus"], config["memory"], config["env"]), (2, 256 << 20, ["A=b c"]))
        self.assertEqual(config["rlimits"], [{"resource": "nofile", "soft": 10, "hard": 20}])
        machine = told["machine"]
        self.assertEqual((machine["engine"], machine["pid"]), (ENGINE, processes[0]))
        self.assertIsNone(machine["ended_at"])
        self.assertEqual(parent_and_name(machine["pid"])[1], "msb-vm")
        text = self.ok(self.msb("inspect", "box")).text
        for word in ("box", "running", "busybox", "256 MiB", "A=b c", "nofile=10:20", str(machine["pid"]), "seccomp"):
            self.assertIn(word, text)
        for disk in told["disks"]:
            self.assertGreater(disk["stored_bytes"], 0)
        upper = os.stat(told["directory"] + "/upper.ext4")
        self.assertEqual(told["disks"][1]["size_bytes"], upper.st_size)
        self.assertEqual(stat.S_IMODE(os.stat(told["directory"] + "/machine.json").st_mode), 0o600)
        self.ok(self.msb("stop", "box"))
        after = until(lambda: (lambda t: t if t["machine"]["ended_at"] else None)(self.inspect("box")), "no end")
        self.assertEqual(after["status"], "stopped")
        self.assertIsNone(after["machine"]["pid"])
        # What held for the last machine stays known.
        self.assertEqual(after["machine"]["jail"], machine["jail"])
        self.assertTrue(after["machine"]["end"])
        with open(told["directory"] + "/machine.json", "w") as f:
            f.write("{")
        shown = self.ok(self.msb("inspect", "--format", "json", "box"))
        self.assertIn("machine.json", shown.messages)
        self.assertIsNone(json.loads(shown.text)["machine"])
        self.ok(self.msb("rm", "box"))
        self.nothing_left()

    def test_one_that_is_thrown_away(self):
        self.own_home()
        child = self.start("run", "busybox", "--", "sh", "-c", "echo up; exec sleep 1000")
        self.assertEqual(child.stdout.readline(), b"up\n")
        name = self.ok(self.msb("ls", "-q")).text.strip()
        told = until(lambda: self.up(name), "the machine was not written down")
        self.assertTrue(told["ephemeral"])
        self.assertEqual(len(self.walls(told)), len(NAMES))
        child.terminate()
        child.wait(PATIENCE)
        self.refused(self.msb("inspect", name), 1, name)
        self.nothing_left()


class Degraded(Walls):
    """A host that forbids a step: the sandbox runs within the others, and the step is named."""
    UNSHARE, SECCOMP, LANDLOCK = 272, 317, 444

    def setUp(self):
        super().setUp()
        if platform.machine() != "x86_64":
            self.skipTest("system call numbers of another architecture")

    def check(self, missing, words, **how):
        child = self.start("run", "--name", "box", "busybox", "--", "sh", "-c", "echo up; exec sleep 1000", **how)
        self.assertEqual(child.stdout.readline(), b"up\n")
        told = until(lambda: self.up("box"), "the machine was not written down")
        self.sanitized(told)
        vm = told["machine"]["pid"]
        self.assertEqual({n for n, w in self.walls(told).items() if not w["held"]}, set(missing))
        self.assertIn("no: ", self.ok(self.msb("inspect", "box")).text)
        for pid in [vm] + children(vm):
            s = status_of(pid, pid)
            self.assertEqual((s["NoNewPrivs"], int(s["CapEff"], 16), int(s["CapPrm"], 16)), ("1", 0, 0))
        self.ok(self.msb("stop", "box"))
        done = self.ok(self.msb("run", "--debug", "busybox", "--", "true", **how))
        for name in missing:
            self.assertRegex(done.messages, f"{name}: no: ")
        done = self.ok(self.msb("doctor", "--format", "json", **how))
        notes = {c["name"]: c for c in json.loads(done.text)["checks"] if c["status"] == "note"}
        for name in missing:
            self.assertIn("without it", notes["jail." + name]["detail"])
            self.assertTrue(notes["jail." + name]["hint"])
        for word in words:
            self.assertIn(word, str(notes))
        self.ok(self.msb("rm", "box"))
        self.nothing_left()

    def test_no_namespaces(self):
        self.own_home()
        self.check(["namespaces", "root"], ["container"], preexec_fn=refuse(self.UNSHARE, errno.EPERM))

    def test_no_namespaces_for_nobody(self):
        self.become_nobody()
        self.check(["namespaces", "root"], ["container"], preexec_fn=refuse(self.UNSHARE, errno.EPERM))

    def test_no_landlock(self):
        self.own_home()
        self.check(["landlock"], ["5.13"], preexec_fn=refuse(self.LANDLOCK, errno.ENOSYS))

    def test_no_filters(self):
        self.own_home()
        self.check(["seccomp"], ["CONFIG_SECCOMP"], preexec_fn=refuse(self.SECCOMP, errno.ENOSYS))

    def test_user_namespaces_switched_off(self):
        """In a namespace of its own, where nobody has any privileges and no other may be made."""
        if not shutil.which("setpriv") or not shutil.which("unshare"):
            self.skipTest("no setpriv or unshare")
        script = ('for f in user mnt net ipc uts cgroup pid; do echo 0 > /proc/sys/user/max_${f}_namespaces; done && '
                  'exec setpriv --bounding-set=-all --inh-caps=-all "$@"')
        self.own_home()
        self.prefix = ["unshare", "-r", "sh", "-c", script, "sh"]
        if subprocess.run(self.prefix + ["true"], stderr=subprocess.DEVNULL).returncode:
            self.skipTest("cannot make a user namespace to forbid others in")
        self.check(["namespaces", "root"], ["max_user_namespaces="])


class Doctor(Walls):
    def checks(self, **how):
        done = self.msb("doctor", "--format", "json", **how)
        return done, {c["name"]: c for c in json.loads(done.text)["checks"]}

    def test_the_jail_is_tried(self):
        self.own_home()
        done, checks = self.checks()
        self.ok(done)
        self.assertEqual([n for n in checks if n.startswith("jail.")], ["jail." + n for n in NAMES])
        text = self.ok(self.msb("doctor")).text
        for name in NAMES:
            self.assertIn("jail." + name, text)
        self.nothing_left()

    def test_as_nobody(self):
        self.become_nobody()
        done, checks = self.checks()
        self.ok(done)
        if "sanitizer" not in checks["jail.seccomp"]["detail"] and checks["jail.namespaces"]["status"] == "ok":
            self.assertIn("user", checks["jail.namespaces"]["detail"])
        self.nothing_left()

    def test_qemu(self):
        self.own_home()
        old, other = self.path("old"), self.path("other")
        for path, words in ((old, "QEMU emulator version 4.2.1"), (other, "something else")):
            with open(path, "w") as f:
                f.write(f"#!/bin/sh\necho '{words}'\n")
            os.chmod(path, 0o755)
        for path, word in ((old, "4.2 is too old"), (other, "no QEMU"), ("/no/such/qemu", "MSB_QEMU")):
            done, checks = self.checks(env={"MSB_QEMU": path})
            self.assertIn(word, checks["qemu"]["detail"])
            self.assertTrue(checks["qemu"]["hint"])
            kvm = checks["engine"]["detail"].startswith("kvm")
            self.assertEqual((checks["qemu"]["status"], done.code), ("note", 0) if kvm else ("failed", 1))

    def test_an_engine_that_cannot_be(self):
        """kvm where it is no good: refused at once, in the words of doctor."""
        self.own_home()
        _, checks = self.checks()
        if checks["kvm"]["status"] == "ok":
            self.skipTest("KVM is good here")
        reason = checks["kvm"]["detail"].split(": ", 1)[1].split(":")[0]
        self.refused(self.msb("run", "--engine", "kvm", "busybox", "--", "true"), 125, reason, "→")
        self.nothing_left()

    def test_kvm_that_is_not_for_this_user(self):
        self.become_nobody()
        if not os.path.exists("/dev/kvm") or not subprocess.run(self.prefix + ["test", "-w", "/dev/kvm"]).returncode:
            self.skipTest("/dev/kvm is for everybody, or nobody")
        _, checks = self.checks()
        self.assertIn("no-permission", checks["kvm"]["detail"])
        self.refused(self.msb("run", "--engine", "kvm", "busybox", "--", "true"), 125, "may not use /dev/kvm", "→")
        self.nothing_left()

    def test_something_else_in_the_place_of_kvm(self):
        if os.geteuid() or not shutil.which("unshare") or not os.path.exists("/dev/kvm"):
            self.skipTest("cannot put another file in the place of /dev/kvm")
        self.own_home()
        self.prefix = ["unshare", "-m", "sh", "-c", 'mount --bind /dev/null /dev/kvm && exec "$@"', "sh"]
        if subprocess.run(self.prefix + ["true"], stderr=subprocess.DEVNULL).returncode:
            self.skipTest("cannot mount here")
        self.refused(self.msb("run", "--engine", "kvm", "busybox", "--", "true"), 125, "does not answer")
        _, checks = self.checks()
        self.assertEqual(checks["kvm"]["status"], "note")
        self.assertTrue(checks["engine"]["detail"].startswith("qemu") or checks["engine"]["status"] == "failed")
        self.nothing_left()
