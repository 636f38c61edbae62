# SPDX-License-Identifier: Apache-2.0
"""Programs that people run, over the network of a sandbox, against servers on this host."""
import contextlib
import functools
import hashlib
import http.server
import json
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import urllib.request
import zipfile

import harness
from harness import Case, deadline, until

CLIENTS = ["mmdebstrap", "--variant=minbase", "--include=curl,git,nodejs,python3-pip,docker-registry", "bookworm"]
HOST = "host.microsandbox.internal"
NODE = """
const http = require("http");
http.createServer((q, a) => { let n = 0; q.on("data", b => n += b.length); q.on("end", () => a.end("node " + q.method + " " + n)); })
    .listen(8000, () => console.log("up"));
"""


class Files(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass


def clients_image():
    return harness.debian_image("clients", CLIENTS, Cmd=["bash"])


def run(*argv, **how):
    return subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          **how).stdout


class Clients(Case):
    def site(self):
        """A directory that is served: a large file, an index of Python packages, one of Debian packages, a repository."""
        top = self.path("site")
        os.makedirs(top + "/simple/greeting")
        with open(top + "/large", "wb") as f:
            f.write(os.urandom(20 << 20))
        with zipfile.ZipFile(top + "/simple/greeting/greeting-1.0-py3-none-any.whl", "w") as z:
            z.writestr("greeting.py", "def hello():\n    print('hello from pip')\n")
            z.writestr("greeting-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: greeting\nVersion: 1.0\n")
            z.writestr("greeting-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            z.writestr("greeting-1.0.dist-info/RECORD", "greeting.py,,\ngreeting-1.0.dist-info/METADATA,,\n"
                       "greeting-1.0.dist-info/WHEEL,,\ngreeting-1.0.dist-info/RECORD,,\n")
        with open(top + "/simple/greeting/index.html", "w") as f:
            f.write('<a href="greeting-1.0-py3-none-any.whl">greeting-1.0-py3-none-any.whl</a>')

        tree = self.path("deb")
        os.makedirs(tree + "/DEBIAN")
        os.makedirs(tree + "/usr/bin")
        control = "Package: greeter\nVersion: 1.0\nArchitecture: all\nMaintainer: nobody <nobody@localhost>\nDescription: greets\n"
        with open(tree + "/DEBIAN/control", "w") as f:
            f.write(control)
        with open(tree + "/usr/bin/greeter", "w") as f:
            f.write("#!/bin/sh\necho hello from apt\n")
        os.chmod(tree + "/usr/bin/greeter", 0o755)
        run("dpkg-deb", "--root-owner-group", "-b", tree, top + "/greeter.deb")
        package = open(top + "/greeter.deb", "rb").read()
        with open(top + "/Packages", "w") as f:
            f.write(f"{control}Filename: ./greeter.deb\nSize: {len(package)}\nSHA256: {hashlib.sha256(package).hexdigest()}\n")

        work = self.path("work")
        git = functools.partial(run, "git", "-C", work, "-c", "user.name=t", "-c", "user.email=t@localhost")
        os.mkdir(work)
        git("init", "-q", "-b", "main")
        for i in range(20):
            with open(f"{work}/file{i}", "wb") as f:
                f.write(os.urandom(50000))
            git("add", ".")
            git("commit", "-q", "-m", f"commit {i}")
        run("git", "clone", "-q", "--bare", work, top + "/repository.git")
        run("git", "-C", top + "/repository.git", "update-server-info")
        return top

    def daemon(self, *argv):
        child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.addCleanup(child.wait)
        self.addCleanup(child.kill)

    @deadline(1800)
    def test_clients_and_servers(self):
        for program in ("git", "dpkg-deb", "skopeo"):
            self.assertTrue(shutil.which(program), program)
        self.own_home(clients_image())
        top = self.site()
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Files, directory=top))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        site = f"http://{HOST}:{server.server_port}"
        with socket.create_server(("127.0.0.1", 0)) as s:
            git_port = s.getsockname()[1]
        self.daemon("git", "daemon", "--listen=127.0.0.1", f"--port={git_port}", "--export-all", f"--base-path={top}", top)

        self.ok(self.msb("run", "-d", "-n", "box", "-m", "1G", "--net", "host", "-p", "0:8000", "-p", "0:8001", "-p", "0:5000",
                         "clients", "--", "sleep", "infinity"))
        self.addCleanup(self.msb, "rm", "-f", "-q", "box")
        row, = json.loads(self.ok(self.msb("ps", "box", "--format", "json")).out)
        port = {int(p.split("->")[1].split("/")[0]): int(p.split("->")[0].split(":")[1]) for p in row["ports"]}

        def inside(script):
            return self.ok(self.msb("exec", "box", "--", "sh", "-ec", script, timeout=900)).text

        def answer(number, path="/", **how):
            request = urllib.request.Request(f"http://127.0.0.1:{port[number]}{path}", **how)
            with urllib.request.urlopen(request, timeout=100) as a:
                return a.read()

        def answers(number):
            # Before the guest listens it refuses, as any host would.
            with contextlib.suppress(OSError):
                return answer(number)
            return None

        with self.subTest("curl"):
            digest = hashlib.sha256(open(top + "/large", "rb").read()).hexdigest()
            self.assertEqual(inside(f"curl -sSf {site}/large | sha256sum").split()[0], digest)
            # What is not there is refused at once, and by what it is.
            self.assertEqual(inside(f"curl -sS -m 60 http://{HOST}:9/ || echo $?").split()[-1], "7")
        with self.subTest("pip"):
            inside(f"pip install -q --break-system-packages --root-user-action=ignore --trusted-host {HOST} --index-url {site}/simple greeting")
            self.assertEqual(inside("python3 -c 'import greeting; greeting.hello()'"), "hello from pip\n")
        with self.subTest("apt"):
            inside(f"rm -f /etc/apt/sources.list /etc/apt/sources.list.d/*; echo 'deb [trusted=yes] {site}/ ./' >/etc/apt/sources.list; "
                   "apt-get -q update; apt-get -qq -y install greeter")
            self.assertEqual(inside("greeter"), "hello from apt\n")
        with self.subTest("git"):
            head = run("git", "-C", self.path("work"), "rev-parse", "HEAD").strip()
            for name, url in (("http", f"{site}/repository.git"), ("git", f"git://{HOST}:{git_port}/repository.git")):
                inside(f"git clone -q {url} /root/{name}; git -C /root/{name} fsck --full --strict 2>/dev/null")
                self.assertEqual(inside(f"git -C /root/{name} rev-parse HEAD").strip(), head, name)
        with self.subTest("node"):
            self.ok(self.msb("exec", "-d", "box", "--", "node", "-e", NODE))
            self.assertEqual(until(lambda: answers(8000), "node does not answer"), b"node GET 0")
            self.assertEqual(answer(8000, data=bytes(3 << 20), method="POST"), b"node POST %d" % (3 << 20))
        with self.subTest("python"):
            self.ok(self.msb("exec", "-d", "-w", "/usr/bin", "box", "--", "python3", "-m", "http.server", "8001"))
            until(lambda: answers(8001), "python does not answer")
            self.assertEqual(hashlib.sha256(answer(8001, "/git")).hexdigest(), inside("sha256sum /usr/bin/git").split()[0])
        with self.subTest("registry"):
            # Debian's configuration, but for its password.
            inside("sed '/^auth:/,/path:/d' /etc/docker/registry/config.yml >/root/registry.yml")
            self.ok(self.msb("exec", "-d", "box", "--", "docker-registry", "serve", "/root/registry.yml"))
            until(lambda: answers(5000) is not None, "the registry does not answer")
            name = f"docker://127.0.0.1:{port[5000]}/test/busybox:1"
            image = "oci-archive:" + os.environ["MSB_TEST_BUSYBOX"]
            with tempfile.TemporaryDirectory(dir=self.scratch) as t:
                copy = functools.partial(run, "skopeo", "copy", "-q", "--tmpdir", t)
                copy(image, "--dest-tls-verify=false", name)
                copy("--src-tls-verify=false", name, f"dir:{t}/back")
            pushed = json.loads(run("skopeo", "inspect", "--raw", image))
            self.assertEqual(json.loads(run("skopeo", "inspect", "--tls-verify=false", "--raw", name))["layers"], pushed["layers"])
        self.ok(self.msb("stop", "box"))
