# SPDX-License-Identifier: Apache-2.0
"""`msb ssh`: the clients of OpenSSH against msb-ssh."""
import hashlib
import os
import shutil
import socket
import subprocess
import unittest

import harness
from harness import MSB, PATIENCE, Case, Terminal, until


@unittest.skipUnless(shutil.which("ssh") and shutil.which("sftp"), "no OpenSSH client; install openssh-client")
class Ssh(Case):
    def setUp(self):
        super().setUp()
        self.own_home()
        self.running()

    def key(self, name="key", authorize=True):
        path = self.path(name)
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
        if authorize:
            self.ok(self.msb("ssh", "authorize", "--file", path + ".pub"))
        return path

    def options(self, key, port=None):
        """For ssh, scp and sftp: over a ProxyCommand, or to a port of this host."""
        words = ["-F", "none", "-i", key, "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-o", "LogLevel=ERROR",
                 "-o", "UserKnownHostsFile=" + self.path("known"), "-o", "StrictHostKeyChecking=accept-new"]
        words += ["-o", f"Port={port}"] if port else ["-o", f"ProxyCommand={MSB} ssh serve box --stdio"]
        return words

    def call(self, *words, input=b"", timeout=PATIENCE):
        done = subprocess.run(words, input=input, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=timeout,
                              env=harness.environment(self.home))
        return harness.Done(done.returncode, done.stdout, done.stderr)

    def serve(self, *options):
        """`msb ssh serve` on a port of the system's choice: (process, port)."""
        child = self.start("ssh", "serve", "box", "--port", "0", *options)
        return child, int(child.stderr.readline().split(b" -p ")[1].split()[0])

    def test_who_they_are(self):
        """Commands and files are of one user: the sandbox's, unless somebody says otherwise."""
        key = self.key()
        self.running("of-user", "-u", "user")
        said = "id -un; echo $HOME; pwd"
        self.assertEqual(self.ok(self.msb("ssh", "of-user", "--", said)).text, "user\n/home/user\n/work\n")
        self.assertEqual(self.ok(self.msb("ssh", "-u", "root", "of-user", "--", said)).text, "root\n/root\n/work\n")

        def options(*serve):
            words = self.options(key)
            words[-1] = f"ProxyCommand={MSB} ssh serve of-user --stdio " + " ".join(serve)
            return words

        def batch(script, *serve, user="user"):
            return self.call("sftp", *options(*serve), "-b", "-", user + "@box", input=script.encode())
        with open(self.path("file"), "w") as f:
            f.write("of user\n")
        # As the one they ask for, in its home, with its rights.
        self.assertIn("/home/user", self.ok(batch("pwd\nput %s mine\nmkdir dir\nput %s dir/too" % ((self.path("file"),) * 2))).text)
        owners = self.ok(self.msb("exec", "-u", "root", "of-user", "--", "stat", "-c", "%U %a %n", "/home/user/mine",
                                  "/home/user/dir", "/home/user/dir/too")).text
        self.assertEqual(owners, "user 644 /home/user/mine\nuser 755 /home/user/dir\nuser 644 /home/user/dir/too\n")
        self.ok(self.msb("exec", "-u", "root", "of-user", "--", "sh", "-c",
                         "echo secret >/root/s; chmod 600 /root/s; chmod 700 /root; mkdir /root/d"))
        for script in ("get /root/s %s" % self.path("s"), "put %s /etc/new" % self.path("file"), "rm /etc/passwd",
                       "mkdir /root/x", "ls /root", "chmod 777 /etc/passwd", "rename /etc/passwd /etc/other",
                       "chown 1000 /bin/busybox", "symlink a /etc/b"):
            done = batch(script)
            self.assertNotEqual(done.code, 0, script)
            self.assertRegex(done.messages.lower(), "permission|not permitted|not found", script)
        self.assertFalse(os.path.exists(self.path("s")))
        # root is root, and may do that.
        self.ok(batch("get /root/s %s\nmkdir /root/x" % self.path("s"), user="root"))
        self.assertEqual(open(self.path("s")).read(), "secret\n")
        # --user is everybody's, whatever they ask for; empty is the sandbox's.
        self.assertIn("/home/user", self.ok(batch("pwd", "--user=user", user="root")).text)
        self.assertIn("/home/user", self.ok(batch("pwd", "--user=''", user="root")).text)
        self.assertIn("/root", self.ok(batch("pwd", "-u", "root")).text)
        self.assertEqual(self.ok(self.call("ssh", *options("--user=user"), "root@box", "id -un")).text, "user\n")
        done = batch("pwd", user="nosuch")
        self.assertNotEqual(done.code, 0)
        self.assertIn("nosuch", done.messages)

    def test_our_own_client(self):
        done = self.msb("ssh", "box", "--", "echo out; echo err >&2; id -un; exit 9")
        self.assertEqual((done.code, done.out, done.err), (9, b"out\nroot\n", b"err\n"))
        data = os.urandom(2_000_000)
        self.assertEqual(self.ok(self.msb("ssh", "connect", "box", "--", "cat", input=data)).out, data)
        self.assertEqual(self.ok(self.msb("ssh", "-u", "user", "box", "--", "id", "-u")).text, "1000\n")
        self.refused(self.msb("ssh", "nobody", "--", "true"), 1, "nobody")
        self.refused(self.msb("ssh"), 2, "which sandbox")

    def test_commands_and_a_terminal(self):
        key = self.key()
        ssh = ["ssh", *self.options(key), "root@box"]
        self.assertEqual(self.ok(self.call(*ssh, "echo $((6*7))")).text, "42\n")
        self.assertEqual(self.call(*ssh, "exit 77").code, 77)
        self.assertEqual(self.call(*ssh, "kill -9 $$").code, 137)
        # Much, both ways, and only as fast as it is read.
        data = os.urandom(5_000_000)
        self.assertEqual(hashlib.sha256(self.ok(self.call(*ssh, "cat", input=data)).out).digest(),
                         hashlib.sha256(data).digest())
        # A user that there is not.
        done = self.call("ssh", *self.options(key), "nosuch@box", "true")
        self.assertNotEqual(done.code, 0)
        self.assertIn("nosuch", done.messages)
        # Several channels at once over one connection.
        master = subprocess.Popen(["ssh", *self.options(key), "-M", "-N", "-S", self.path("mux"), "root@box"],
                                  env=harness.environment(self.home), stderr=subprocess.DEVNULL)
        self.addCleanup(self.finish, master)
        until(lambda: os.path.exists(self.path("mux")), "no connection")
        many = [subprocess.Popen(["ssh", "-S", self.path("mux"), "-o", "ControlMaster=no", "root@box", f"sleep 1; echo {i}"],
                                 stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) for i in range(8)]
        self.assertEqual([child.communicate(timeout=PATIENCE)[0] for child in many], [b"%d\n" % i for i in range(8)])

    def test_a_shell_on_a_terminal(self):
        t = Terminal(self, "ssh", "box", rows=33, columns=77)
        t.expect(b"# ")
        t.write(b"stty size; echo $TERM-is-it\r")
        t.expect(b"33 77")
        t.resize(20, 50)
        t.write(b"sleep 1; stty size\r")
        t.expect(b"20 50")
        t.write(b"exit 5\r")
        self.assertEqual(t.wait(), 5)

    def test_files(self):
        key = self.key()
        data = os.urandom(3_000_001)
        with open(self.path("data"), "wb") as f:
            f.write(data)
        # scp uses the sftp protocol.
        self.ok(self.call("scp", *self.options(key), self.path("data"), "root@box:/root/data"))
        self.ok(self.call("scp", *self.options(key), "root@box:/root/data", self.path("back")))
        self.assertEqual(open(self.path("back"), "rb").read(), data)
        os.makedirs(self.path("tree/a/b"))
        for i in range(150):
            with open(self.path(f"tree/a/{i}"), "w") as f:
                f.write(str(i))
        os.chmod(self.path("tree/a/7"), 0o640)
        self.ok(self.call("scp", "-r", "-p", *self.options(key), self.path("tree"), "root@box:"))
        self.ok(self.call("scp", "-r", "-p", *self.options(key), "root@box:tree", self.path("again")))
        self.assertEqual(subprocess.run(["diff", "-r", self.path("tree"), self.path("again")]).returncode, 0)
        self.assertEqual(os.stat(self.path("again/a/7")).st_mode & 0o777, 0o640)
        script = ("mkdir /root/new\nput %s /root/new/one\nrename /root/new/one /root/new/two\nsymlink two /root/new/l\n"
                  "chmod 600 /root/new/two\nls -l /root/new\nget /root/new/l %s\nrm /root/new/l\nrm /root/new/two\n"
                  "rmdir /root/new\n" % (self.path("tree/a/7"), self.path("seven")))
        done = self.call("sftp", *self.options(key), "-b", "-", "root@box", input=script.encode())
        self.ok(done)
        self.assertIn("-rw-------", done.text)
        self.assertEqual(open(self.path("seven")).read(), "7")
        for words, text in (("ls /no/such", "no"), ("get /no/such", "no"), ("rmdir /root/tree", "")):
            done = self.call("sftp", *self.options(key), "-b", "-", "root@box", input=words.encode())
            self.assertNotEqual(done.code, 0, words)
            self.assertIn(text, done.messages.lower())

    def test_over_tcp_with_forwards(self):
        key = self.key()
        server, port = self.serve()
        opts = self.options(key, port)
        self.assertEqual(self.ok(self.call("ssh", *opts, "root@127.0.0.1", "echo hi")).text, "hi\n")
        # The host key stays: a second connection trusts the first.
        self.assertEqual(self.ok(self.call("ssh", *opts, "-o", "StrictHostKeyChecking=yes", "root@127.0.0.1", "echo hi")).text,
                         "hi\n")
        big = os.urandom(1_500_000)
        self.ok(self.msb("exec", "box", "--", "sh", "-c", "mkdir /root/www && cat >/root/www/file", input=big))
        self.ok(self.msb("exec", "box", "--", "sh", "-c", "httpd -p 127.0.0.1:8000 -h /root/www"))
        local, socks = self.free_port(), self.free_port()
        client = subprocess.Popen(["ssh", *opts, "-N", "-L", f"{local}:127.0.0.1:8000", "-D", str(socks), "root@127.0.0.1"],
                                  stderr=subprocess.DEVNULL)
        self.addCleanup(self.finish, client)
        until(lambda: self.listens(local) and self.listens(socks), "no forward")
        self.assertEqual(self.fetch(local), big)
        with socket.create_connection(("127.0.0.1", socks), PATIENCE) as s:
            s.sendall(b"\5\1\0")
            self.assertEqual(s.recv(2), b"\5\0")
            s.sendall(b"\5\1\0\3\x09localhost" + (8000).to_bytes(2, "big"))
            self.assertEqual(s.recv(2), b"\5\0")
        server.terminate()
        server.wait(PATIENCE)
        until(lambda: client.poll() is not None, "a connection outlives the server")

    def free_port(self):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            return s.getsockname()[1]

    def listens(self, port):
        try:
            socket.create_connection(("127.0.0.1", port), 5).close()
            return True
        except OSError:
            return False

    def fetch(self, port):
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as s:
            s.sendall(b"GET /file HTTP/1.0\r\n\r\n")
            text = b""
            while piece := s.recv(65536):
                text += piece
        return text.split(b"\r\n\r\n", 1)[1]

    def test_who_gets_in(self):
        good, bad = self.key("good"), self.key("bad", authorize=False)
        self.ok(self.call("ssh", *self.options(good), "root@box", "true"))
        done = self.call("ssh", *self.options(bad), "root@box", "true")
        self.assertEqual(done.code, 255)
        self.assertIn("denied", done.messages.lower())
        # No passwords, and nothing without a key.
        for method in ("password", "none", "keyboard-interactive"):
            done = self.call("ssh", *self.options(good), "-o", f"PreferredAuthentications={method}", "root@box", "true")
            self.assertEqual(done.code, 255, method)
        # A line with options would restrict: it lets nobody in.
        pub = open(bad + ".pub").read()
        with open(os.path.join(self.home, "ssh/authorized_keys"), "a") as f:
            f.write('command="true" ' + pub)
        self.assertEqual(self.call("ssh", *self.options(bad), "root@box", "true").code, 255)
        # authorize: ways in, twice the same, and what is no public key.
        # It does not hide that the key is still to be let in, and nor does one that was made a remark.
        with open(os.path.join(self.home, "ssh/authorized_keys"), "a") as f:
            f.write("# " + pub)
        self.assertEqual(self.ok(self.msb("ssh", "authorize", "--key", pub.replace("root@", "other@"))).text, "1 added\n")
        self.assertEqual(self.ok(self.msb("ssh", "authorize", "--key", pub)).text, "0 added\n")
        self.ok(self.call("ssh", *self.options(bad), "root@box", "true"))
        with open(os.path.join(self.home, "ssh/authorized_keys"), "w") as f:
            f.write("")
        self.assertEqual(self.ok(self.msb("ssh", "authorize", "--key", pub)).text, "1 added\n")
        self.assertEqual(self.ok(self.msb("ssh", "authorize", "--stdin", input=pub.encode())).text, "0 added\n")
        self.assertEqual(os.stat(os.path.join(self.home, "ssh/authorized_keys")).st_mode & 0o777, 0o600)
        self.ok(self.call("ssh", *self.options(bad), "root@box", "true"))
        for text in (open(bad).read(), "ssh-ed25519 AAAA me", "ssh-rsa " + pub.split()[1], 'command="x" ' + pub, "\n"):
            self.refused(self.msb("ssh", "authorize", "--stdin", input=text.encode()), 2, "public key")
        self.refused(self.msb("ssh", "authorize"), 2, "which key")
        self.refused(self.msb("ssh", "serve", "nobody"), 1, "nobody")
        self.refused(self.msb("ssh", "serve", "box", "--port", "x"), 2, "port")

    def test_walls(self):
        key = self.key()
        server, port = self.serve()
        client = subprocess.Popen(["ssh", *self.options(key, port), "root@127.0.0.1", "echo up; sleep 1000"],
                                  stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        self.addCleanup(self.finish, client)
        # One that has not said a word is behind them already.
        with socket.create_connection(("127.0.0.1", port), 30) as silent:
            self.assertTrue(silent.recv(4))
            self.assertEqual(client.stdout.readline(), b"up\n")
            pids = [pid for pid in harness.processes_of(self.home) if harness.parent_and_name(pid)[0] == server.pid]
            self.assertEqual(len(pids), 2)
            for pid in pids:
                status = dict(line.split(":\t", 1) for line in open(f"/proc/{pid}/status").read().splitlines() if ":\t" in line)
                if os.path.exists(os.path.join(os.path.dirname(MSB), "tests/libfault.so")):
                    self.assertEqual((status["Seccomp"], status["NoNewPrivs"]), ("2", "1"))
                held = {f.split(":")[0] for f in harness.open_files(pid)}
                self.assertLessEqual(held, {"socket", "pipe", "anon_inode", "/dev/null"}, held)
        until(lambda: sum(harness.parent_and_name(p)[0] == server.pid for p in pids) == 1, "it outlives its client")

    def test_a_client_that_does_nothing_is_sent_away(self):
        key = self.key()
        server, port = self.serve("--inactivity-timeout", "2s")
        child = subprocess.Popen(["ssh", *self.options(key, port), "root@127.0.0.1", "sleep 1000"],
                                 stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
        self.addCleanup(self.finish, child)
        self.assertEqual(child.wait(PATIENCE), 255)
        # Nothing of it is left in the sandbox, which goes on.
        until(lambda: b"sleep 1000" not in self.msb("exec", "box", "--", "ps").out, "the command remains")
