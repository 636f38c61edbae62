# SPDX-License-Identifier: Apache-2.0
"""PID 1 handed over to an init of the image, and the restricted profile."""
import os
import time

import harness
from harness import PATIENCE, Case, deadline, until

SYSTEMD = ["mmdebstrap", "--variant=minbase", "--include=systemd,systemd-sysv,dbus", "bookworm"]


class Init(Case):
    def inside(self, script, box="box"):
        return self.ok(self.msb("exec", box, "--", "sh", "-c", script)).text

    def test_any_program_as_init(self):
        self.own_home()
        # The signal that asks for the end is glibc's SIGRTMIN+4, which here writes down that it came.
        script = ("echo $$ $ONE $FROM_IMAGE $0 >>/root/said; trap 'echo end >>/root/said; sync; poweroff -f' 38; "
                  "while :; do sleep 0.1; done")
        child = self.running("box", "--init", "/bin/sh", "--init-arg", "-c", "--init-arg", script,
                             "--init-arg", "zero", "--init-env", "ONE=1")
        until(lambda: self.msb("exec", "box", "--", "cat", "/root/said").out == b"1 1 yes zero\n", "the init's word")
        self.assertEqual(self.inside("cat /proc/1/comm"), "sh\n")
        # Who serves is another process, and goes on reaping its own.
        self.assertEqual(self.inside("for i in $(seq 50); do (true &); done; echo fine"), "fine\n")
        until(lambda: "0" == self.inside("grep -l 'State:.Z' /proc/[0-9]*/status 2>/dev/null | wc -l").strip(),
              "zombies remain")
        began = time.monotonic()
        self.ok(self.msb("stop", "-t", "500", "box"))
        self.assertLess(time.monotonic() - began, PATIENCE, "the init was not heard")
        child.wait(PATIENCE)
        child = self.running()
        # It had been asked, and the next one is started as the first was.
        self.assertEqual(self.inside("cat /root/said").splitlines(), ["1 1 yes zero", "end", "1 1 yes zero"])

    def test_an_init_that_does_not_listen(self):
        self.own_home()
        child = self.running("box", "--init", "/bin/sleep", "--init-arg", "100000")
        self.inside("echo kept >/root/kept")
        self.assertIn("did not stop in 3000 ms", self.msb("stop", "-t", "3", "box").messages)
        child.wait(PATIENCE)
        self.running()
        self.assertEqual(self.inside("cat /root/kept"), "kept\n")

    def test_refusals(self):
        self.refused(self.msb("run", "--init", "auto", "busybox", "--", "true"), 125, "no init", "/sbin/init")
        self.refused(self.msb("run", "--init", "/no/init", "busybox", "--", "true"), 125, "/no/init")
        self.refused(self.msb("run", "--init", "/etc/motd", "busybox", "--", "true"), 125, "/etc/motd")
        self.refused(self.msb("run", "--init", "sbin/init", "busybox", "--", "true"), 125, "absolute")
        self.refused(self.msb("run", "--init-arg", "x", "busybox", "--", "true"), 125, "init")
        self.refused(self.msb("run", "--init", "auto", "--security", "restricted", "busybox", "--", "true"), 125,
                     "exclude")

    @deadline(1800)
    def test_systemd(self):
        archive = harness.debian_image("systemd", SYSTEMD, Cmd=["bash"])
        self.own_home(archive)
        child = self.start("run", "-n", "box", "--init", "auto", "systemd", "--", "sh", "-c", "echo up; cat; exit 0")
        self.addCleanup(lambda: self.msb("rm", "-f", "-q", "box"))
        self.assertEqual(child.stdout.readline(), b"up\n")
        self.assertIn("systemd", self.inside("readlink /proc/1/exe"))
        until(lambda: self.msb("exec", "box", "--", "test", "-S", "/run/dbus/system_bus_socket").code == 0, "no bus")
        state = self.msb("exec", "box", "--", "systemctl", "is-system-running", "--wait", timeout=600)
        failed = self.inside("systemctl --failed --no-legend --plain")
        self.assertEqual(state.text.strip(), "running", failed)
        self.assertEqual(self.inside("systemd-run --wait --pipe -q echo from a unit"), "from a unit\n")
        # The end is systemd's: units stop in order, and what they do is done.
        self.inside("mkdir -p /etc/systemd/system && printf '[Service]\\nType=oneshot\\nRemainAfterExit=yes\\n"
                    "ExecStart=/bin/true\\nExecStop=/bin/sh -c \"echo stopped >/root/stopped\"\\n' "
                    ">/etc/systemd/system/last.service && systemctl daemon-reload && systemctl start last")
        self.ok(self.msb("stop", "-t", "800", "box", timeout=1000))
        child.wait(PATIENCE)
        log = open(os.path.join(self.home, "sandboxes/box/logs/kernel.log"), errors="replace").read()
        self.assertIn("Power off", log)  # ours would be a reset
        child = self.start("run", "-n", "box", "systemd", "--", "cat", "/root/stopped")
        self.assertEqual(child.communicate(timeout=PATIENCE)[0], b"stopped\n")


class Restricted(Case):
    def test_what_is_taken_away(self):
        self.own_home()
        self.running("box", "--security", "restricted")
        refused = {
            "mount": "mount -t tmpfs x /root", "remount": "mount -o remount,rw /proc/sys",
            "devices": "mknod /root/x b 254 0", "namespaces": "unshare -U true || false",
            "mount namespaces": "unshare -m true", "switches": "echo 1 >/proc/sys/kernel/panic",
            "sysrq": "echo h >/proc/sysrq-trigger", "the clock": "date -s 2001-01-01; test $(date +%Y) = 2001",
            "the name": "hostname other", "the log": "dmesg", "addresses": "ip link set lo down",
            "raw disks": "dd if=/dev/vda of=/dev/null count=1 2>/dev/null && mount /dev/vda /root",
            "limits": "ulimit -H -n 99999999",
        }
        script = "".join(f"if ({what}) >/dev/null 2>&1; then echo '{name}'; fi\n" for name, what in refused.items())
        self.assertEqual(self.ok(self.msb("exec", "box", "--", "sh", "-c", script)).text, "")
        status = dict(line.split(":\t") for line in self.ok(self.msb(
            "exec", "box", "--", "cat", "/proc/self/status")).text.splitlines())
        self.assertEqual(status["NoNewPrivs"], "1")
        # chown dac_override fowner fsetid kill setgid setuid setpcap net_bind_service net_raw sys_chroot
        # audit_write setfcap
        kept = sum(1 << n for n in (0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 29, 31))
        for which in ("CapPrm", "CapEff", "CapBnd"):
            self.assertEqual(int(status[which], 16), kept, which)
        for which in ("CapInh", "CapAmb"):
            self.assertEqual(int(status[which], 16), 0, which)
        mounts = self.ok(self.msb("exec", "box", "--", "cat", "/proc/self/mounts")).text
        flags = {line.split()[1]: line.split()[3].split(",") for line in mounts.splitlines()}
        for path in ("/", "/tmp", "/dev/shm", "/proc", "/sys"):
            self.assertIn("nosuid", flags[path], path)
            self.assertIn("nodev", flags[path], path)
        self.assertIn("nosuid", flags["/dev"])
        self.assertIn("ro", flags["/proc/sys"])
        # Set-id programs give nothing, and what commands need works.
        self.ok(self.msb("exec", "box", "--", "sh", "-c", "cp /bin/busybox /root/busybox && chmod 4755 /root/busybox && chmod 755 /root"))
        self.assertEqual(self.ok(self.msb("exec", "-u", "user", "box", "--", "/root/busybox", "id", "-u")).text, "1000\n")
        self.assertEqual(self.ok(self.msb("exec", "box", "--", "sh", "-c",
                                          "chown user /root/busybox && su user -c 'id -u' && chroot / id -u && "
                                          "ping -c1 127.0.0.1 >/dev/null && echo fine")).text, "1000\n0\nfine\n")

    def test_the_default_may(self):
        self.assertEqual(self.sh("mount -t tmpfs x /root && unshare -m true && echo 1 >/proc/sys/kernel/panic && "
                                 "grep -c 'NoNewPrivs:.0' /proc/self/status"), "1\n")
        self.refused(self.msb("run", "--security", "tight", "busybox", "--", "true"), 125, "tight", "restricted")
