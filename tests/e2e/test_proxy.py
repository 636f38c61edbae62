# SPDX-License-Identifier: Apache-2.0
"""The world through a proxy: real ones, in a network of their own that the host has no other way into."""
import contextlib
import os
import shutil
import subprocess
import sys
import time

from harness import Case, until

WORLD, NAMES = "9.9.9.9", "9.9.9.8"

# Tries what its arguments say, as "tcp HOST PORT", and says what became of it, and how long that took.
TRY = r"""
import errno, socket, sys, time
for a in sys.argv[1:]:
    kind, host, port = a.split()
    began = time.monotonic()
    try:
        where = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)[0]
        s = socket.socket(*where[:3])
        s.settimeout(120)
        s.connect(where[4])
        if kind == "udp":
            s.send(b"x")
            time.sleep(0.5)
            s.send(b"x")
        else:
            s.sendall(b"a" * 3_000_000)
        said = b"".join(iter(lambda: s.recv(65536), b"")).decode()
    except OSError as e:
        said = errno.errorcode.get(e.errno, repr(e))
    print(said if time.monotonic() - began < 30 else "late " + said)
"""
# Says hello first, and at the end how much it got.
SERVER = f"""
import socket, threading
def serve(s):
    s.sendall(b"hello ")
    n = 0
    # Not every proxy knows ends of one direction.
    while n < 3_000_000 and (b := s.recv(65536)):
        n += len(b)
    s.sendall(b"%d" % n)
    s.close()
l = socket.create_server(("{WORLD}", 80))
print("ready", flush=True)
while True:
    threading.Thread(target=serve, args=(l.accept()[0],), daemon=True).start()
"""
HELLO = "hello 3000000"


class Proxy(Case):
    def setUp(self):
        super().setUp()
        for program in ("microsocks", "tinyproxy", "danted", "unbound", "ip"):
            if not shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin:/sbin"):
                self.skipTest(f"no {program}")
        # Tests run beside each other, each with a /30 of its own between the host and its proxy.
        base = os.getpid() % 16384 * 4
        own, self.proxy = (f"10.78.{(base + i) >> 8}.{(base + i) & 255}" for i in (1, 2))
        self.ns, link = f"msbproxy{os.getpid()}", f"px{os.getpid()}"
        if subprocess.run(["ip", "netns", "add", self.ns], stderr=subprocess.DEVNULL).returncode:
            self.skipTest("cannot make a network namespace here")
        self.addCleanup(self.ip, "netns", "del", self.ns)
        self.ip("link", "add", link, "type", "veth", "peer", "name", "in", "netns", self.ns)
        self.ip("addr", "add", own + "/30", "dev", link)
        self.ip("link", "set", link, "up")
        self.ip("-n", self.ns, "addr", "add", self.proxy + "/30", "dev", "in")
        self.ip("-n", self.ns, "link", "set", "in", "up")
        self.ip("-n", self.ns, "link", "set", "lo", "up")
        self.ip("-n", self.ns, "addr", "add", WORLD + "/24", "dev", "lo")
        self.ip("-n", self.ns, "addr", "add", NAMES + "/24", "dev", "lo")
        self.world(sys.executable, "-c", SERVER)
        self.reachable(WORLD, 80)

    @staticmethod
    def ip(*words):
        subprocess.run(["ip", *words], check=True)

    def file(self, name, text):
        with open(self.path(name), "w") as f:
            f.write(text)
        os.chmod(self.path(name), 0o644)
        return self.path(name)

    def world(self, *words):
        child = subprocess.Popen(["ip", "netns", "exec", self.ns, *words], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                 stderr=subprocess.DEVNULL)
        self.addCleanup(child.wait)
        self.addCleanup(child.kill)

    def reachable(self, host, port, ask=b"", answer=b""):
        code = f"import socket; s = socket.create_connection(('{host}', {port}), 5); s.sendall({ask}); assert s.recv({len(answer)}) == {answer}"
        until(lambda: subprocess.run(["ip", "netns", "exec", self.ns, sys.executable, "-c", code], stderr=subprocess.DEVNULL).returncode == 0,
              f"nobody at {host} port {port}")

    def tries(self, options, *what, env=None):
        return self.ok(self.msb("run", *options, "python", "--", "python3", "-c", TRY, *what, env=env)).text.splitlines()

    def test_socks5(self):
        self.world("microsocks", "-i", self.proxy, "-p", "1080")
        self.world("microsocks", "-i", self.proxy, "-p", "1081", "-u", "me", "-P", "secret word")
        zone = self.file("zone", f"""
server:
    interface: {NAMES}
    do-daemonize: no
    username: ""
    chroot: ""
    pidfile: ""
    use-syslog: no
    do-udp: no
    access-control: 0.0.0.0/0 allow
    local-zone: "world.example." static
    local-data: "world.example. A {WORLD}"
""")
        self.world("unbound", "-d", "-p", "-c", zone)
        for host, port in ((self.proxy, 1080), (self.proxy, 1081), (NAMES, 53)):
            self.reachable(host, port)
        proxy = "--proxy", f"socks5://{self.proxy}:1080"
        # Names as well go through it; what is refused there is refused here; what it does not carry is refused at once.
        self.assertEqual(self.tries((*proxy, "--dns-nameserver", NAMES), f"tcp {WORLD} 80", "tcp world.example 80", f"tcp {WORLD} 81"),
                         [HELLO, HELLO, "ECONNREFUSED"])
        self.assertIn(self.tries(proxy, f"udp {WORLD} 80")[0], ("EACCES", "EHOSTUNREACH", "ECONNREFUSED"))
        # Without it there is no way; the policy holds with it, too.
        self.assertNotEqual(self.tries(("--net-rule", f"deny@{WORLD}", *proxy), f"tcp {WORLD} 80")[0], HELLO)
        self.assertEqual(self.tries((*proxy, "--net", "none"), f"tcp {WORLD} 80"), ["ECONNREFUSED"])

        login = "--proxy", f"socks5://{self.proxy}:1081", "--socks5-username", "me", "--socks5-password-env", "PROXY_WORD"
        self.assertEqual(self.tries(login, f"tcp {WORLD} 80", env={"PROXY_WORD": "secret word"}), [HELLO])
        self.assertIn(self.tries(login, f"tcp {WORLD} 80", env={"PROXY_WORD": "other"})[0], ("EACCES", "EHOSTUNREACH", "ECONNREFUSED"))
        self.refused(self.msb("run", *login, "busybox", "--", "true"), 125, "PROXY_WORD")
        # Of a sandbox that is kept, the record has no password.
        self.ok(self.msb("run", "-n", "kept", *login, "busybox", "--", "true", env={"PROXY_WORD": "secret word"}))
        self.addCleanup(self.msb, "rm", "-f", "kept")
        with open(os.path.join(self.home, "sandboxes/kept/config.json")) as f:
            text = f.read()
        self.assertIn("PROXY_WORD", text)
        self.assertNotIn("secret word", text)

    def test_datagrams(self):
        """Through a proxy of SOCKS 5 that relays them, each flow by itself; with the connection to it they end."""
        config = self.file("dante", f"""
internal: {self.proxy} port = 1080
external: {WORLD}
clientmethod: none
socksmethod: none
client pass {{ from: 0.0.0.0/0 to: 0.0.0.0/0 }}
socks pass {{ from: 0.0.0.0/0 to: 0.0.0.0/0 }}
""")
        self.world("danted", "-f", config)
        self.world(sys.executable, "-c", f"""
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("{WORLD}", 90))
while True:
    b, a = s.recvfrom(65536)
    s.sendto(b[::-1], a)
""")
        self.reachable(self.proxy, 1080, b"\5\1\0", b"\5\0")
        child = self.start("run", "--proxy", f"socks5://{self.proxy}:1080", "python", "--", "python3", "-c", """
import errno, socket, sys
socks = []
for i in range(3):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.settimeout(120)
    s.connect(("%s", 90))
    socks.append(s)
for size in (1, 1000, 1400, 9000):
    for i, s in enumerate(socks):
        s.send(bytes([i]) * size + b"end")
    for i, s in enumerate(socks):
        assert s.recv(65536) == b"dne" + bytes([i]) * size
print("through", flush=True)
sys.stdin.readline()
try:
    print(socks[0].recv(100), flush=True)
except OSError as e:
    print(errno.errorcode[e.errno], flush=True)
""" % WORLD)
        self.addCleanup(self.finish, child)
        self.assertEqual(child.stdout.readline(), b"through\n")
        # It is many processes; any may hold a connection.
        for pid in subprocess.check_output(["ip", "netns", "pids", self.ns], text=True).split():
            with contextlib.suppress(OSError):
                if os.path.basename(os.readlink(f"/proc/{pid}/exe")) == "danted":
                    os.kill(int(pid), 9)
        child.stdin.write(b"\n")
        child.stdin.flush()
        self.assertIn(child.stdout.readline(), (b"ECONNREFUSED\n", b"EHOSTUNREACH\n"))

    def test_socks4(self):
        config = self.file("dante", f"""
internal: {self.proxy} port = 1080
external: {WORLD}
clientmethod: none
socksmethod: none
client pass {{ from: 0.0.0.0/0 to: 0.0.0.0/0 }}
socks pass {{ from: 0.0.0.0/0 to: 0.0.0.0/0 }}
""")
        self.world("danted", "-f", config)
        # It listens a while before it serves.
        self.reachable(self.proxy, 1080, b"\4\1\0\x50\x09\x09\x09\x09\0", b"\0\x5a")
        self.assertEqual(self.tries(("--proxy", f"socks4://{self.proxy}:1080", "--socks4-user-id", "me"), f"tcp {WORLD} 80", f"tcp {WORLD} 81"),
                         [HELLO, "ECONNREFUSED"])

    def test_http(self):
        config = "Port 3128\nListen %s\nTimeout 60\nMaxClients 20\nBasicAuth me word\nConnectPort 80\nConnectPort 81\n" % self.proxy
        self.world("tinyproxy", "-d", "-c", self.file("tiny", config))
        self.reachable(self.proxy, 3128)
        options = "--proxy", f"http://{self.proxy}:3128", "--proxy-user", "me", "--proxy-password-env", "WORD"
        self.assertEqual(self.tries(options, f"tcp {WORLD} 80", env={"WORD": "word"}), [HELLO])
        began = time.monotonic()
        self.assertNotEqual(self.tries(options, f"tcp {WORLD} 80", f"tcp {WORLD} 81", env={"WORD": "wrong"})[0], HELLO)
        self.assertLess(time.monotonic() - began, 60)

    def test_words(self):
        for words in (("--proxy", "socks5://somewhere:1080"), ("--proxy", "ftp://127.0.0.1:1"), ("--proxy-user", "me"),
                      ("--proxy", "socks4://127.0.0.1:1", "--proxy-user", "a", "--proxy-password-env", "HOME")):
            self.refused(self.msb("run", *words, "busybox", "--", "true"), 125, "proxy")
        # A proxy that is not there refuses.
        self.assertEqual(self.tries(("--proxy", "http://127.0.0.1:1"), f"tcp {WORLD} 80"), ["ECONNREFUSED"])
