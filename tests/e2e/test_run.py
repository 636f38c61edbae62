# SPDX-License-Identifier: Apache-2.0
"""`msb run`: what a command in a sandbox sees, and what comes back."""
import hashlib
import os
import subprocess
import time

from harness import PATIENCE, Case, deadline, machines_of, tree, until


class Streams(Case):
    def test_hello(self):
        done = self.ok(self.run_in("busybox", "echo", "hello", "world"))
        self.assertEqual(done.out, b"hello world\n")
        self.assertEqual(done.err, b"")

    def test_python(self):
        done = self.ok(self.run_in("python", "python3", "-c", "print(6*7)"))
        self.assertEqual(done.out, b"42\n")
        self.assertEqual(done.err, b"")

    def test_stdout_and_stderr_are_separate(self):
        done = self.ok(self.run_in("busybox", "sh", "-c", "echo out; echo err >&2; echo out2"))
        self.assertEqual(done.out, b"out\nout2\n")
        self.assertEqual(done.err, b"err\n")

    def test_output_comes_as_it_is_written(self):
        child = self.start("run", "busybox", "--", "sh", "-c", "echo first; read x; echo $x; echo e >&2; read y")
        self.assertEqual(child.stdout.readline(), b"first\n")
        child.stdin.write(b"second\n")
        child.stdin.flush()
        self.assertEqual(child.stdout.readline(), b"second\n")
        self.assertEqual(child.stderr.readline(), b"e\n")
        self.assertIsNone(child.poll())
        child.stdin.close()
        self.assertEqual(child.wait(PATIENCE), 1)

    def test_every_byte_value_both_ways(self):
        data = bytes(range(256)) * 300
        done = self.ok(self.run_in("busybox", "cat", input=data))
        self.assertEqual(done.out, data)

    def test_empty_input_is_an_end(self):
        self.assertEqual(self.ok(self.run_in("busybox", "wc", "-c")).text.strip(), "0")

    def test_a_closed_stdin_is_an_end(self):
        child = self.start("run", "busybox", "--", "wc", "-c", stdin=subprocess.DEVNULL)
        out, err = child.communicate(timeout=PATIENCE)
        self.assertEqual((child.returncode, out.strip()), (0, b"0"), err)

    def test_input_that_nobody_reads(self):
        done = self.ok(self.run_in("busybox", "true", input=b"x" * 5_000_000))
        self.assertEqual(done.out, b"")

    def test_a_reader_that_goes_away(self):
        child = self.start("run", "busybox", "--", "yes")
        self.assertEqual(child.stdout.read(4), b"y\ny\n")
        child.stdout.close()
        code = child.wait(PATIENCE)
        self.assertNotEqual(code, 0)

    def test_no_trailing_newline_and_no_output(self):
        self.assertEqual(self.ok(self.run_in("busybox", "printf", "abc")).out, b"abc")
        self.assertEqual(self.ok(self.run_in("busybox", "true")).out, b"")

    def test_the_last_bytes_before_the_end_arrive(self):
        done = self.ok(self.run_in("busybox", "sh", "-c", "head -c 300000 /dev/zero; head -c 200000 /dev/zero >&2"))
        self.assertEqual((len(done.out), len(done.err)), (300000, 200000))

    def test_output_of_a_child_left_behind(self):
        # The command has ended; a background process that holds its output must not hold us.
        began = time.monotonic()
        done = self.run_in("busybox", "sh", "-c", "sleep 1000 & echo started")
        self.ok(done)
        self.assertEqual(done.out, b"started\n")
        self.assertLess(time.monotonic() - began, 100)

    @deadline(1800)
    def test_64_mib_each_way(self):
        block = os.urandom(1 << 20)
        data = block * 64
        digest = hashlib.sha256(data).hexdigest()
        done = self.ok(self.run_in("busybox", "sha256sum", input=data, timeout=800))
        self.assertEqual(done.text.split()[0], digest)
        done = self.ok(self.run_in("busybox", "sh", "-c",
                                   "dd if=/dev/urandom of=/tmp/x bs=1M count=64 2>/dev/null;"
                                   "sha256sum /tmp/x >&2; cat /tmp/x", options=["-m", "1G"], timeout=800))
        self.assertEqual(len(done.out), 64 << 20)
        self.assertEqual(hashlib.sha256(done.out).hexdigest(), done.messages.split()[0])

    @deadline(1800)
    def test_16_mib_through_both_at_once(self):
        data = os.urandom(16 << 20)
        done = self.ok(self.run_in("busybox", "cat", input=data, timeout=800))
        self.assertEqual(hashlib.sha256(done.out).digest(), hashlib.sha256(data).digest())


class ExitCodes(Case):
    def test_of_the_command(self):
        for code in (0, 1, 3, 42, 255):
            self.assertEqual(self.run_in("busybox", "sh", "-c", f"exit {code}").code, code)

    def test_after_a_signal(self):
        for number in (9, 15, 6):
            self.assertEqual(self.run_in("busybox", "sh", "-c", f"kill -{number} $$").code, 128 + number)

    def test_timeout(self):
        before = time.monotonic()
        done = self.run_in("busybox", "sleep", "1000", options=["--timeout", "2s"])
        self.assertEqual(done.code, 124, str(done))
        self.assertLess(time.monotonic() - before, 90)

    def test_timeout_of_something_that_ignores_signals(self):
        done = self.run_in("busybox", "sh", "-c", "trap '' TERM INT HUP; while :; do sleep 1; done",
                           options=["--timeout", "2s"])
        self.assertEqual(done.code, 124, str(done))

    def test_a_timeout_that_does_not_strike(self):
        self.assertEqual(self.run_in("busybox", "sh", "-c", "exit 5", options=["--timeout", "5m"]).code, 5)

    def test_missing_command(self):
        self.refused(self.run_in("busybox", "no-such-command"), 127, "no-such-command")

    def test_command_that_cannot_be_executed(self):
        self.refused(self.run_in("busybox", "/etc/noexec"), 126, "/etc/noexec")
        self.refused(self.run_in("busybox", "/etc"), 126, "/etc")

    def test_a_missing_interpreter(self):
        done = self.run_in("busybox", "sh", "-c",
                           "printf '#!/no/such\\n' >/tmp/x; chmod +x /tmp/x; /tmp/x")
        self.assertIn(done.code, (126, 127), str(done))

    def test_our_own_failure(self):
        self.refused(self.msb("run", "--pull", "never", "no-such-image", "--", "true"), 125, "no-such-image")


class Surroundings(Case):
    def test_environment(self):
        done = self.ok(self.run_in("busybox", "env", options=["-e", "A=1", "-e", "B=two words=x", "-e", "C="]))
        seen = done.text.splitlines()
        for line in ("A=1", "B=two words=x", "C=", "FROM_IMAGE=yes", "PATH=/bin:/usr/bin"):
            self.assertIn(line, seen)

    def test_environment_of_the_caller(self):
        done = self.ok(self.run_in("busybox", "env", options=["-e", "FROM_HOST"], env={"FROM_HOST": "h"}))
        self.assertIn("FROM_HOST=h", done.text.splitlines())

    def test_environment_overrides_the_image(self):
        self.assertEqual(self.sh("echo $FROM_IMAGE", "-e", "FROM_IMAGE=no"), "no\n")

    def test_nothing_of_the_host_leaks(self):
        done = self.ok(self.run_in("busybox", "env", env={"SECRET_OF_HOST": "leak"}))
        self.assertNotIn("leak", done.text)

    def test_user_by_name_with_groups(self):
        self.assertEqual(self.sh("id -u; id -g; id -G; echo $HOME", "-u", "user"),
                         "1000\n1000\n1000 2000 2001\n/home/user\n")

    def test_user_by_number(self):
        self.assertEqual(self.sh("id -u; id -g", "-u", "1234:4321"), "1234\n4321\n")
        self.assertEqual(self.sh("id -u; id -g", "-u", "1000"), "1000\n1000\n")

    def test_user_and_group_by_name(self):
        self.assertEqual(self.sh("id -u; id -g", "-u", "user:extra"), "1000\n2000\n")

    def test_unknown_user(self):
        self.refused(self.run_in("busybox", "true", options=["-u", "nobody-here"]), 125, "nobody-here")

    def test_working_directory(self):
        self.assertEqual(self.sh("pwd"), "/work\n")
        self.assertEqual(self.sh("pwd", "-w", "/tmp"), "/tmp\n")

    def test_missing_working_directory(self):
        done = self.run_in("busybox", "true", options=["-w", "/no/such/dir"])
        self.refused(done, done.code, "/no/such/dir")
        self.assertIn(done.code, (125, 126, 127))

    def test_cmd_of_the_image(self):
        done = self.ok(self.msb("run", "busybox", input=b"echo from-sh $((40+2))\n"))
        self.assertEqual(done.text, "from-sh 42\n")

    def test_entrypoint_option(self):
        done = self.ok(self.run_in("busybox", "a", "b", options=["--entrypoint", "/bin/echo"]))
        self.assertEqual(done.text, "a b\n")

    def test_cpus(self):
        self.assertEqual(self.sh("nproc"), os.environ.get("MSB_CPUS", "1") + "\n")
        self.assertEqual(self.sh("nproc", "-c", "3"), "3\n")

    def test_memory(self):
        for text, mib in (("512M", 512), ("1G", 1024), ("256", 256)):
            total = int(self.sh("sed -n 's/^MemTotal: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo", "-m", text)) / 1024
            self.assertLessEqual(total, mib)
            self.assertGreater(total, mib - 70)

    def test_default_memory(self):
        total = int(self.sh("sed -n 's/^MemTotal: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo")) / 1024
        self.assertTrue(440 < total <= 512, total)

    def test_more_memory_than_four_gigabytes(self):
        total = int(self.sh("sed -n 's/^MemTotal: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo", "-m", "6G")) / 1024
        self.assertTrue(5800 < total <= 6144, total)

    def test_rlimits(self):
        self.assertEqual(self.sh("ulimit -n; ulimit -Hn", "--rlimit", "nofile=512:1024"), "512\n1024\n")
        self.assertEqual(self.sh("ulimit -n; ulimit -Hn", "--rlimit", "nofile=777"), "777\n777\n")

    def test_hostname(self):
        self.assertEqual(self.sh("hostname; cat /proc/sys/kernel/hostname", "--hostname", "box"), "box\nbox\n")
        self.assertIn("box", self.sh("cat /etc/hosts", "--hostname", "box"))

    def test_hostname_follows_the_name(self):
        self.own_home()
        self.assertEqual(self.sh("hostname", "--name", "my-box"), "my-box\n")

    def test_root_disk_size(self):
        def size(*options):
            return int(self.sh("df -k / | tail -n1 | awk '{print $2}'", *options)) / 1048576
        self.assertTrue(7 < size() <= 8.1)
        self.assertTrue(1.7 < size("--root-disk", "2G") <= 2.1)
        self.assertTrue(0.09 < size("--root-disk", "tmpfs:100M") <= 0.11)

    def test_root_disk_can_be_written(self):
        out = self.sh("dd if=/dev/zero of=/big bs=1M count=100 2>/dev/null && stat -c %s /big;"
                      "echo changed >/etc/motd; cat /etc/motd; rm /etc/group; test -e /etc/group || echo gone")
        self.assertEqual(out, "104857600\nchanged\ngone\n")

    def test_root_disk_full(self):
        done = self.run_in("busybox", "sh", "-c", "dd if=/dev/zero of=/big bs=1M count=200; echo after",
                           options=["--root-disk", "tmpfs:50M"])
        self.assertIn("No space left", done.messages)
        self.assertEqual(done.text, "after\n")

    def test_changes_do_not_last(self):
        self.sh("echo 1 >/etc/motd")
        self.assertEqual(self.sh("cat /etc/motd"), "second layer\n")

    def test_the_usual_file_systems(self):
        mounts = self.sh("awk '{print $2, $3}' /proc/mounts").splitlines()
        for want in ("/ overlay", "/proc proc", "/sys sysfs", "/dev/pts devpts", "/dev/shm tmpfs", "/tmp tmpfs",
                     "/sys/fs/cgroup cgroup2"):
            self.assertIn(want, mounts)
        self.sh("test -c /dev/null && test -c /dev/zero && test -c /dev/urandom && test -c /dev/tty &&"
                "test -L /dev/fd && test -L /dev/stdin && echo x | cat /dev/stdin && echo y >/dev/stderr &&"
                "test $(stat -c %a /tmp) = 1777")

    def test_it_is_a_machine_of_its_own(self):
        out = self.sh("cat /proc/1/comm; uname -r")
        self.assertIn(out.splitlines()[0], ("init", "agentd"))
        self.assertNotEqual(out.splitlines()[-1], os.uname().release)

    def test_loopback_is_up(self):
        script = ("import socket\nl=socket.create_server(('127.0.0.1',0))\n"
                  "c=socket.create_connection(l.getsockname())\nl.accept()[0].sendall(b'hi')\nprint(c.recv(9).decode())")
        self.assertEqual(self.ok(self.run_in("python", "python3", "-c", script)).text, "hi\n")

    def test_the_clock_is_right(self):
        guest = float(self.sh("date +%s"))
        self.assertLess(abs(time.time() - guest), 60)

    def test_orphans_are_reaped(self):
        out = self.sh("for i in $(seq 50); do (sleep 0 &) ; done; sleep 3;"
                      "grep -l '^State:.Z' /proc/[0-9]*/status 2>/dev/null | wc -l")
        self.assertEqual(out.strip(), "0")

    def test_a_large_argument_list(self):
        words = ["x" * 1000] * 100
        done = self.ok(self.run_in("busybox", "sh", "-c", 'echo $# ${#1}', "sh", *words))
        self.assertEqual(done.text, "100 1000\n")

    def test_arguments_arrive_as_they_are(self):
        words = ["a b", "", "*", "$HOME", "\\n", "'\"", "-e", "--", "ü", "\x01"]
        done = self.ok(self.run_in("busybox", "printf", "%s\\n", *words))
        self.assertEqual(done.text, "".join(w + "\n" for w in words))


class Together(Case):
    def test_several_at_once(self):
        children = [self.start("run", "busybox", "--", "sh", "-c", f"echo {i}; cat") for i in range(4)]
        outs = [c.communicate(b"in", 240) for c in children]
        for i, (child, (out, err)) in enumerate(zip(children, outs)):
            self.assertEqual((child.returncode, out), (0, f"{i}\nin".encode()), err)

    def test_a_name_that_runs_is_joined(self):
        self.own_home()
        first = self.start("run", "--name", "one", "busybox", "--", "sh", "-c", "echo up; cat")
        self.assertEqual(first.stdout.readline(), b"up\n")
        self.assertEqual(self.run_in("busybox", "sh", "-c", "hostname; exit 3", options=["--name", "one"]).code, 3)
        out, err = first.communicate(b"still there\n", 120)
        self.assertEqual(out, b"still there\n")
        self.assertEqual(first.returncode, 0, err)

    def test_nothing_is_left_behind(self):
        home = self.own_home()
        self.sh("true")
        before, shm = tree(home), set(os.listdir("/dev/shm"))
        tmp = set(os.listdir("/tmp"))
        self.sh("dd if=/dev/zero of=/x bs=1M count=20 2>/dev/null; exit 0")
        self.run_in("busybox", "false")
        self.run_in("busybox", "no-such-command")
        self.run_in("busybox", "sleep", "100", options=["--timeout", "5s"])
        self.nothing_left(home, before)
        self.assertFalse([n for n in set(os.listdir("/dev/shm")) - shm if "msb" in n])
        self.assertFalse([n for n in set(os.listdir("/tmp")) - tmp if n.startswith(("msb-vm", "msb-run"))])
        sockets = [l for l in open("/proc/net/unix") if home in l]
        self.assertEqual(sockets, [])

    def test_while_it_runs_nobody_else_can_open_it(self):
        home = self.own_home()
        child = self.start("run", "busybox", "--", "sh", "-c", "echo up; cat")
        child.stdout.readline()
        mode = os.stat(home).st_mode & 0o077
        self.assertEqual(mode, 0, "the store can be entered by others")
        self.assertTrue(until(lambda: machines_of(home), "processes"))
        child.communicate(b"", 120)

