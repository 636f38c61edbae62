# SPDX-License-Identifier: Apache-2.0
"""The network stack with Linux's TCP as the guest: a TAP device in a network namespace, no machine."""
import hashlib
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import unittest

from harness import PATIENCE as DEADLINE
from harness import until

BUILD = os.path.dirname(os.path.abspath(os.environ.get("MSB", "build/msb")))
TAPNET = os.path.join(BUILD, "tests/tapnet")
GATEWAY = "172.16.0.1"
GATEWAY6 = "fd42:6d73:62::1"

# What the guest's side of a test starts with.
GUEST = """
import hashlib, socket, sys, threading, time, errno
def connect(host, port):
    return socket.create_connection((host, port), timeout=100)
def drain(s):
    h = hashlib.sha256()
    while True:
        b = s.recv(1 << 20)
        if not b:
            return h.hexdigest()
        h.update(b)
"""

# Of both families, at port 4000.
ECHO = """
import select, socket
sockets = []
for family, to in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
    s = socket.socket(family, socket.SOCK_DGRAM)
    if family == socket.AF_INET6:
        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    s.bind((to, 4000))
    sockets.append(s)
print("ready", flush=True)
while True:
    for s in select.select(sockets, [], [])[0]:
        m, peer = s.recvfrom(1 << 16)
        s.sendto(m, peer)
"""


def missing():
    if os.geteuid() or not os.path.exists("/dev/net/tun") or not shutil.which("ip"):
        return "needs root, /dev/net/tun and iproute2"
    if not os.path.exists(TAPNET):
        return f"needs {TAPNET}"
    return None


def ip(*words):
    subprocess.run(["ip", *words], check=True, timeout=DEADLINE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


class Server:
    """A TCP server on the host's loopback; `serve` gets each connection in a thread of its own."""

    def __init__(self, serve, family=socket.AF_INET):
        self.socket = socket.socket(family)
        self.socket.bind(("127.0.0.1" if family == socket.AF_INET else "::1", 0))
        self.socket.listen(512)
        self.port = self.socket.getsockname()[1]
        threading.Thread(target=self.run, args=(serve,), daemon=True).start()

    def run(self, serve):
        while True:
            try:
                s, _ = self.socket.accept()
            except OSError:
                return
            s.settimeout(100)
            threading.Thread(target=serve, args=(s,), daemon=True).start()


@unittest.skipIf(missing(), missing())
class Tap(unittest.TestCase):
    number = 0
    env = {}

    def space(self):
        Tap.number += 1
        name = f"msbtap{os.getpid()}-{Tap.number}"
        ip("netns", "add", name)
        self.addCleanup(ip, "netns", "del", name)
        ip("-n", name, "link", "set", "lo", "up")
        return name

    def net(self, *ports, mtu=1500, profiles="all,host", loss=0, host=None, addresses=True):
        """A guest; the stack runs in the namespace `host`, or here."""
        self.ns = self.space()
        self.stack = subprocess.Popen([*(["ip", "netns", "exec", host] if host else []),
                                       TAPNET, f"/var/run/netns/{self.ns}", "eth0", str(mtu), profiles, *ports],
                                      stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                      env={**os.environ, "TAPNET_LOSS": str(loss), **self.env})
        self.addCleanup(self.stack.wait, DEADLINE)
        self.addCleanup(self.stack.stdout.close)
        self.addCleanup(self.stack.kill)
        self.addCleanup(self.stack.stdin.close)
        self.assertEqual(self.stack.stdout.readline(), "ready\n")
        n = ("-n", self.ns)
        ip(*n, "link", "set", "eth0", "address", "02:6d:73:00:00:02", "mtu", str(mtu), "up")
        if not addresses:
            return
        ip(*n, "addr", "add", "172.16.0.2/30", "dev", "eth0")
        ip(*n, "route", "add", "default", "via", GATEWAY)
        ip(*n, "-6", "addr", "add", "fd42:6d73:62::2/64", "dev", "eth0", "nodad")
        ip(*n, "-6", "route", "add", "default", "via", GATEWAY6)

    def stats(self):
        self.stack.stdin.close()
        words = self.stack.stdout.read().replace(",", "").split()
        self.assertEqual(self.stack.wait(DEADLINE), 0)
        return {k: int(v) for k, v in zip(words[::2], words[1::2])}

    def guest(self, code, stdin=None):
        return subprocess.Popen(["ip", "netns", "exec", self.ns, sys.executable, "-c", GUEST + code],
                                stdin=stdin, stdout=subprocess.PIPE, text=True)

    def inside(self, code):
        p = self.guest(code)
        out, _ = p.communicate(timeout=DEADLINE)
        self.assertEqual(p.returncode, 0)
        return out.strip()

    def bulk(self, size, host=GATEWAY, family=socket.AF_INET):
        """Both ways at once, each end then closing its half."""
        blob = os.urandom(size)
        digest = hashlib.sha256(blob).hexdigest()
        got = []

        def serve(s):
            reader = threading.Thread(target=lambda: got.append(hashlib.sha256(b"".join(iter(lambda: s.recv(1 << 20), b""))).hexdigest()))
            reader.start()
            s.sendall(blob)
            s.shutdown(socket.SHUT_WR)
            reader.join()
            s.close()

        server = Server(serve, family)
        self.addCleanup(server.socket.close)
        out = self.inside(f"""
s = connect("{host}", {server.port})
blob = b"0123456789abcdef" * {size // 16}
def send():
    s.sendall(blob)
    s.shutdown(socket.SHUT_WR)
t = threading.Thread(target=send)
t.start()
print(drain(s))
t.join()
s.close()
""")
        self.assertEqual(out, digest)
        until(lambda: got, "the host's end does not see the end")
        self.assertEqual(got, [hashlib.sha256(b"0123456789abcdef" * (size // 16)).hexdigest()])

    def test_bulk(self):
        for mtu in (1500, 65520):
            with self.subTest(mtu=mtu):
                self.net(mtu=mtu)
                self.bulk(64 << 20)
                self.bulk(16 << 20, GATEWAY6, socket.AF_INET6)
                stats = self.stats()
                self.assertEqual((stats["malformed"], stats["flows"]), (0, 0))

    def test_loss(self):
        # A frame holds up to 64 KiB: it may take some tries until one is lost that is not the guest's to send again.
        for _ in range(12):
            self.net(loss=200)
            self.bulk(8 << 20)
            self.bulk(2 << 20, GATEWAY6, socket.AF_INET6)
            if self.stats()["retransmits"]:
                return
        self.fail("nothing was sent again")

    def test_slow_reader(self):
        """A window that is shut for seconds, on either side, loses nothing."""
        self.net()
        ready = threading.Event()
        got = []

        def serve(s):
            ready.wait(DEADLINE)
            got.append(len(b"".join(iter(lambda: s.recv(65536), b""))))
            s.sendall(b"x" * 5000000)
            s.close()

        server = Server(serve)
        self.addCleanup(server.socket.close)
        threading.Timer(3, ready.set).start()
        self.assertEqual(self.inside(f"""
s = connect("{GATEWAY}", {server.port})
s.sendall(bytes(5000000))
s.shutdown(socket.SHUT_WR)
time.sleep(3)
n = 0
while True:
    b = s.recv(65536)
    if not b:
        break
    n += len(b)
print(n)
"""), "5000000")
        self.assertEqual(got, [5000000])

    def test_many_short(self):
        self.net()
        server = Server(lambda s: (s.sendall(s.recv(100)), s.close()))
        self.addCleanup(server.socket.close)
        self.assertEqual(self.inside(f"""
def one():
    for i in range(250):
        s = connect("{GATEWAY}", {server.port})
        s.sendall(b"hello")
        assert s.recv(100) == b"hello"
        assert s.recv(100) == b""
        s.close()
    done.append(1)
done = []
threads = [threading.Thread(target=one) for _ in range(8)]
[t.start() for t in threads]
[t.join() for t in threads]
print(len(done))
"""), "8")
        stats = self.stats()
        self.assertEqual((stats["opened"], stats["full"], stats["flows"]), (2000, 0, 0))

    def test_no_answer(self):
        """Refused is refused, reset is reset, and what may not be is said at once."""
        self.net(profiles="host")
        reset = Server(lambda s: (s.recv(1), s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0"), s.close()))
        self.addCleanup(reset.socket.close)
        free = socket.socket()
        free.bind(("127.0.0.1", 0))
        self.addCleanup(free.close)
        self.assertEqual(self.inside(f"""
def attempt(f):
    # What is late by itself always is.
    for _ in range(8):
        before = time.monotonic()
        try:
            f()
            said = "nothing"
        except OSError as e:
            said = errno.errorcode.get(e.errno, str(e))
        late = time.monotonic() - before >= 3
        if not late:
            break
    print("late: " + said if late else said)
attempt(lambda: connect("{GATEWAY}", {free.getsockname()[1]}))
attempt(lambda: connect("1.1.1.1", 80))
attempt(lambda: connect("2606:4700::1", 80))
attempt(lambda: connect("169.254.169.254", 80))
def read():
    s = connect("{GATEWAY}", {reset.port})
    s.sendall(b"x")
    s.recv(1)
attempt(read)
def udp():
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.settimeout(60)
    s.connect(("{GATEWAY}", 9))
    s.send(b"x")
    s.recv(1)
attempt(udp)
"""), "ECONNREFUSED\nECONNREFUSED\nECONNREFUSED\nECONNREFUSED\nECONNRESET\nECONNREFUSED")

    def test_half_open(self):
        """A flood of SYNs to nobody costs the guest none of its own connections, and the host few sockets."""
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        host = self.space()
        ip("-n", host, "tuntap", "add", "dev", "out0", "mode", "tun")
        ip("-n", host, "addr", "add", "5.6.7.1/24", "dev", "out0")
        ip("-n", host, "link", "set", "out0", "up")
        ip("-n", host, "route", "add", "9.0.0.0/8", "dev", "out0")
        server = subprocess.Popen(["ip", "netns", "exec", host, sys.executable, "-c", """
import socket
l = socket.create_server(("127.0.0.1", 7777), backlog=512)
print("ready", flush=True)
while True:
    s, _ = l.accept()
    s.sendall(b"x")
    s.close()
"""], stdout=subprocess.PIPE, text=True)
        self.addCleanup(server.wait, DEADLINE)
        self.addCleanup(server.stdout.close)
        self.addCleanup(server.kill)
        self.assertEqual(server.stdout.readline(), "ready\n")
        self.net(host=host)
        p = self.guest(f"""
import struct
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
src = socket.inet_aton("172.16.0.2")
def syn(i):
    dst = bytes((9, i >> 16 & 255, i >> 8 & 255, i & 255))
    tcp = struct.pack("!HHIIBBHHH", 1024 + i % 60000, 80, i, 0, 80, 2, 1000, 0, 0)
    n = sum(struct.unpack("!16H", src + dst + bytes((0, 6, 0, 20)) + tcp))
    n = (n & 0xffff) + (n >> 16)
    n = (n & 0xffff) + (n >> 16)
    raw.sendto(struct.pack("!BBHHHBBH", 69, 0, 40, 0, 0, 64, 6, 0) + src + dst + tcp[:16] + struct.pack("!HH", ~n & 0xffff, 0),
               (socket.inet_ntoa(dst), 0))
def good():
    s = connect("{GATEWAY}", 7777)
    assert s.recv(1) == b"x"
    s.close()
good()
for i in range(20):
    for k in range(1000):
        syn(i * 1000 + k)
    good()
print("flooded", flush=True)
sys.stdin.readline()
good()
print("good", flush=True)
""", stdin=subprocess.PIPE)
        self.addCleanup(p.communicate, timeout=DEADLINE)
        self.assertEqual(p.stdout.readline(), "flooded\n")
        self.assertLess(len(os.listdir(f"/proc/{self.stack.pid}/fd")), 12288 / 2 + 100)
        p.stdin.write("\n")
        p.stdin.flush()
        self.assertEqual(p.stdout.readline(), "good\n")
        self.assertGreater(self.stats()["full"], 10000)

    def test_published(self):
        free = [socket.socket() for _ in range(2)]
        ports = []
        for s in free:
            s.bind(("127.0.0.1", 0))
            ports.append(s.getsockname()[1])
        [s.close() for s in free]
        self.net(f"{ports[0]}:8080", f"127.0.0.1:{ports[1]}:8081/udp", mtu=65520)
        # Nobody listens yet.
        with self.assertRaises(ConnectionResetError), socket.create_connection(("127.0.0.1", ports[0]), timeout=120) as s:
            s.recv(1)
        p = self.guest("""
l = socket.create_server(("172.16.0.2", 8080))
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
u.bind(("172.16.0.2", 8081))
print("ready", flush=True)
for i in range(2):
    b, a = u.recvfrom(70000)
    u.sendto(b[::-1], a)
s, a = l.accept()
print(a[0], drain(s))
s.sendall(b"x" * 3000000)
s.close()
""")
        self.addCleanup(p.communicate, timeout=DEADLINE)
        self.assertEqual(p.stdout.readline(), "ready\n")
        for message in (b"hello", b"a" + bytes(30000)):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as u:
                u.settimeout(120)
                u.sendto(message, ("127.0.0.1", ports[1]))
                self.assertEqual(u.recv(70000), message[::-1])
        with socket.create_connection(("127.0.0.1", ports[0]), timeout=120) as s:
            s.sendall(bytes(3000000))
            s.shutdown(socket.SHUT_WR)
            self.assertEqual(len(b"".join(iter(lambda: s.recv(65536), b""))), 3000000)
        self.assertEqual(p.stdout.readline().split(), [GATEWAY, hashlib.sha256(bytes(3000000)).hexdigest()])

    def echo(self, family=socket.AF_INET):
        """A server of UDP on the host's loopback that says everything back; its port."""
        u = socket.socket(family, socket.SOCK_DGRAM)
        u.bind(("127.0.0.1" if family == socket.AF_INET else "::1", 0))
        self.addCleanup(u.close)

        def serve():
            try:
                while True:
                    m, peer = u.recvfrom(1 << 16)
                    u.sendto(m, peer)
            except OSError:
                pass
        threading.Thread(target=serve, daemon=True).start()
        return u.getsockname()[1]

    def test_fragments(self):
        """Datagrams longer than the MTU, both ways; Linux cuts and joins on its side."""
        self.net()
        self.assertEqual(self.inside(f"""
for family, host, port, most in ((socket.AF_INET, "{GATEWAY}", {self.echo()}, 65507), (socket.AF_INET6, "{GATEWAY6}", {self.echo(socket.AF_INET6)}, 65000)):
    u = socket.socket(family, socket.SOCK_DGRAM)
    u.settimeout(120)
    u.connect((host, port))
    for n in (0, 1472, 1473, 3000, 20001, most):
        m = bytes(i * 7 % 251 for i in range(n))
        u.send(m)
        assert u.recv(1 << 16) == m, n
print("all")
"""), "all")
        self.assertEqual(self.stats()["malformed"], 0)

    def test_path_mtu(self):
        """Long datagrams go whatever the host's path is, and no program hears of it; echoes measure it."""
        host, world = self.space(), self.space()
        ip("-n", host, "link", "add", "out", "type", "veth", "peer", "name", "in", "netns", world)
        for ns, link, n in ((host, "out", 1), (world, "in", 77)):
            ip("-n", ns, "addr", "add", f"5.6.7.{n}/24", "dev", link)
            ip("-n", ns, "-6", "addr", "add", f"2606:1::{n}/64", "dev", link, "nodad")
            ip("-n", ns, "link", "set", link, "mtu", "1400", "up")
        ip("netns", "exec", host, "sh", "-c", "echo 0 2147483647 >/proc/sys/net/ipv4/ping_group_range")
        servers = []
        for ns in (host, world):
            servers.append(subprocess.Popen(["ip", "netns", "exec", ns, sys.executable, "-c", ECHO], stdout=subprocess.PIPE, text=True))
            self.addCleanup(servers[-1].wait, DEADLINE)
            self.addCleanup(servers[-1].stdout.close)
            self.addCleanup(servers[-1].kill)
        for s in servers:
            self.assertEqual(s.stdout.readline(), "ready\n")
        self.net(host=host, mtu=65520)
        self.assertEqual(self.inside(f"""
open("/proc/sys/net/ipv4/ping_group_range", "w").write("0 2147483647")
# To this host's loopback and beyond, by sockets that would hear of errors.
for to in ("{GATEWAY}", "5.6.7.77", "{GATEWAY6}", "2606:1::77"):
    u = socket.socket(socket.AF_INET6 if ":" in to else socket.AF_INET, socket.SOCK_DGRAM)
    u.settimeout(60)
    u.connect((to, 4000))
    for n in (9000, 1401, 9000, 60000, 100):
        m = bytes(i * 7 % 251 for i in range(n))
        u.send(m)
        assert u.recv(1 << 16) == m, (to, n)
IP_MTU, IP_MTU_DISCOVER, DO = 14, 10, 2
IPV6_MTU, IPV6_MTU_DISCOVER = 24, 23
def measure(family, proto, kind, to, level, discover, mtu):
    u = socket.socket(family, socket.SOCK_DGRAM, proto)
    u.setsockopt(level, discover, DO)
    u.connect((to, 9))
    for i in range(1000):
        try:
            u.send(bytes([kind]) + bytes(3000))
        except OSError as e:
            if e.errno == errno.EMSGSIZE:
                u = socket.socket(family, socket.SOCK_DGRAM)
                u.connect((to, 9))
                return u.getsockopt(level, mtu)
        time.sleep(0.1)
print(measure(socket.AF_INET, socket.IPPROTO_ICMP, 8, "5.6.7.77", socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_MTU))
print(measure(socket.AF_INET6, socket.IPPROTO_ICMPV6, 128, "2606:1::77", socket.IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_MTU))
"""), "1400\n1400")

    def test_bad_news(self):
        """What a router on the way says, those hear who ask; and what came meanwhile is not lost."""
        host, router = self.space(), self.space()
        ip("-n", host, "link", "add", "out", "type", "veth", "peer", "name", "in", "netns", router)
        for ns, link, n in ((host, "out", 1), (router, "in", 2)):
            ip("-n", ns, "addr", "add", f"5.6.7.{n}/24", "dev", link)
            ip("-n", ns, "-6", "addr", "add", f"2606:1::{n}/64", "dev", link, "nodad")
            ip("-n", ns, "link", "set", link, "up")
        for family, by, gone, shut in (("-4", "5.6.7.2", "5.6.8.0/24", "5.6.9.0/24"),
                                       ("-6", "2606:1::2", "2606:2::/64", "2606:3::/64")):
            ip("-n", host, family, "route", "add", "default", "via", by)
            ip("-n", router, family, "route", "add", "unreachable", gone)
            ip("-n", router, family, "route", "add", "prohibit", shut)
        for name in ("4/ip_forward", "6/conf/all/forwarding"):
            ip("netns", "exec", router, "sh", "-c", f"echo 1 >/proc/sys/net/ipv{name}")
        ip("netns", "exec", host, "sh", "-c", "echo 0 2147483647 >/proc/sys/net/ipv4/ping_group_range")
        # A link that is narrower than what leads to it.
        ip("-n", router, "tuntap", "add", "dev", "narrow", "mode", "tap")
        ip("-n", router, "link", "set", "narrow", "mtu", "1300", "up")
        ip("-n", router, "addr", "add", "5.6.10.1/24", "dev", "narrow")
        ip("-n", router, "-6", "addr", "add", "2606:4::1/64", "dev", "narrow", "nodad")
        self.net(host=host, mtu=65520)
        self.assertEqual(self.inside("""
open("/proc/sys/net/ipv4/ping_group_range", "w").write("0 2147483647")
DO = 2
def told(to, kind, size=100):
    six = ":" in to
    level = socket.IPPROTO_IPV6 if six else socket.IPPROTO_IP
    proto = 0 if kind == "udp" else socket.IPPROTO_ICMPV6 if six else socket.IPPROTO_ICMP
    s = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_DGRAM, proto)
    s.setsockopt(level, 25 if six else 11, 1)  # IP_RECVERR
    s.setsockopt(level, 23 if six else 10, DO)
    s.settimeout(2)
    s.connect((to, 9))
    # A router says such things only so often.
    for _ in range(50):
        try:
            s.send(bytes([128 if six else 8]) + bytes(7 + size))
            s.recv(100)
        except TimeoutError:
            pass
        except OSError as e:
            return errno.errorcode[e.errno]
print([[told(to, kind) for to in ("5.6.8.1", "5.6.9.1", "2606:2::1", "2606:3::1")] for kind in ("udp", "icmp")])
print([told(to, "udp", 1400) for to in ("5.6.10.7", "2606:4::7")])
"""), f"{[['EHOSTUNREACH'] * 2 + ['ENETUNREACH', 'EACCES']] * 2}\n['EMSGSIZE', 'EMSGSIZE']")

    def test_urgent(self):
        """Urgent bytes arrive as bytes, in their place, whatever is there when they are looked at."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.net(f"{port}:8080")
        p = self.guest("""
l = socket.create_server(("172.16.0.2", 8080))
print("ready", flush=True)
s, a = l.accept()
print(b"".join(iter(lambda: s.recv(100), b"")).decode())
s.sendall(b"three")
s.send(b"!", socket.MSG_OOB)
s.sendall(b"four")
s.close()
""")
        self.addCleanup(p.communicate, timeout=DEADLINE)
        self.assertEqual(p.stdout.readline(), "ready\n")
        # All is there before the stack looks for the first time.
        self.stack.send_signal(signal.SIGSTOP)
        with socket.create_connection(("127.0.0.1", port), timeout=120) as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
            s.sendall(b"one")
            s.send(b"!", socket.MSG_OOB)
            s.sendall(b"two")
            s.shutdown(socket.SHUT_WR)
            self.stack.send_signal(signal.SIGCONT)
            self.assertEqual(b"".join(iter(lambda: s.recv(100), b"")), b"three!four")
        self.assertEqual(p.stdout.readline(), "one!two\n")

    def client(self, *argv):
        """A program that configures the guest, or asks for it."""
        return subprocess.run(["ip", "netns", "exec", self.ns, *argv], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, timeout=DEADLINE)

    def script(self, text):
        path = f"/tmp/{self.ns}.script"
        with open(path, "w") as f:
            f.write("#!/bin/sh\n" + text)
        os.chmod(path, 0o755)
        self.addCleanup(os.unlink, path)
        return path

    @unittest.skipUnless(shutil.which("busybox"), "needs busybox")
    def test_dhcp(self):
        self.net(addresses=False)
        told = self.script('[ "$1" = bound ] && echo told $ip/$mask via $router dns $dns mtu $mtu\nexit 0\n')
        done = self.client("busybox", "udhcpc", "-i", "eth0", "-n", "-q", "-f", "-t", "20", "-O", "mtu", "-s", told)
        self.assertIn(f"told 172.16.0.2/30 via {GATEWAY} dns {GATEWAY} mtu 1500", done.stdout)

    @unittest.skipUnless(shutil.which("dhclient"), "needs dhclient")
    def test_dhclient(self):
        self.net(addresses=False)
        told = self.script('echo "$reason $new_ip_address $new_routers $new_domain_name_servers"'
                           f' >> /tmp/{self.ns}.told\necho "$new_ip6_address $new_dhcp6_name_servers" >> /tmp/{self.ns}.told\n')
        self.addCleanup(os.unlink, f"/tmp/{self.ns}.told")
        for family in ("-4", "-6"):
            leases = f"/tmp/{self.ns}{family}.leases"
            self.addCleanup(lambda path: os.path.exists(path) and os.unlink(path), leases)
            # Its own link-local address has to be there first, and no longer be doubted.
            for _ in range(200):
                if family == "-4" or "scope link" in (now := self.client("ip", "-6", "addr", "show", "dev", "eth0").stdout) \
                        and "tentative" not in now:
                    break
                threading.Event().wait(0.05)
            done = self.client("dhclient", family, "-1", "--no-pid", "-lf", leases, "-sf", told, "eth0")
            self.assertEqual(done.returncode, 0, done.stdout)
            for pid in subprocess.run(["ip", "netns", "pids", self.ns], stdout=subprocess.PIPE, text=True).stdout.split():
                if os.path.basename(os.readlink(f"/proc/{pid}/exe")) == "dhclient":
                    os.kill(int(pid), 9)
        text = open(f"/tmp/{self.ns}.told").read()
        self.assertIn(f"BOUND 172.16.0.2 {GATEWAY} {GATEWAY}", text)
        self.assertIn(f"fd42:6d73:62::2 {GATEWAY6}", text)

    @unittest.skipUnless(shutil.which("rdisc6"), "needs rdisc6")
    def test_router(self):
        """An independent judge of what we say as a router; and Linux makes a route of it."""
        self.net(addresses=False)
        text = ""
        for _ in range(200):
            text = self.client("rdisc6", "-1", "-r", "3", "eth0").stdout
            if "Router lifetime" in text:
                break
            threading.Event().wait(0.05)
        for words in (r"Stateful address conf.\s*:\s*Yes", r"Router lifetime\s*:\s*9000", r"Prefix\s*:\s*fd42:6d73:62::/64",
                      r"Autonomous address conf.:\s*No", r"MTU\s*:\s*1500", rf"Recursive DNS server\s*:\s*{GATEWAY6}"):
            self.assertRegex(text, words)
        self.assertIn("default via fe80::", self.client("ip", "-6", "route").stdout)

    @unittest.skipUnless(shutil.which("tshark"), "needs tshark")
    def test_well_formed(self):
        """An independent judge of every frame to the guest."""
        self.net()
        pcap = f"/tmp/{self.ns}.pcap"
        self.addCleanup(lambda: os.path.exists(pcap) and os.unlink(pcap))
        capture = subprocess.Popen(["ip", "netns", "exec", self.ns, "tshark", "-i", "eth0", "-w", pcap, "-F", "pcap"],
                                   stderr=subprocess.PIPE, text=True)
        self.addCleanup(capture.stderr.close)
        for line in capture.stderr:
            if "Capturing" in line or "started" in line:
                break
        self.bulk(1 << 20)
        self.bulk(1 << 20, GATEWAY6, socket.AF_INET6)
        self.inside(f"""
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.sendto(b"x", ("1.1.1.1", 9))
try:
    connect("{GATEWAY}", 1)
except OSError:
    pass
""")
        capture.terminate()
        capture.wait(DEADLINE)
        bad = subprocess.run(["tshark", "-r", pcap, "-o", "ip.check_checksum:TRUE", "-Y",
                              "_ws.malformed || _ws.short || ip.checksum.status == 0 || tcp.analysis.ack_lost_segment"],
                             stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, timeout=DEADLINE, check=True)
        self.assertEqual(bad.stdout, "")


class OldKernel(Tap):
    """What TCP does without SO_PEEK_OFF."""
    env = {"TAPNET_OLD": "1"}
    # They do not depend on it.
    test_well_formed = test_fragments = test_path_mtu = test_bad_news = test_dhcp = test_dhclient = test_router = None
    test_half_open = None


if __name__ == "__main__":
    unittest.main()
