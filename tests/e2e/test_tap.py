# SPDX-License-Identifier: Apache-2.0
"""The network stack with Linux's TCP as the guest: a TAP device in a network namespace, no machine."""
import hashlib
import os
import shutil
import socket
import subprocess
import sys
import threading
import unittest

BUILD = os.path.dirname(os.path.abspath(os.environ.get("MSB", "build/msb")))
TAPNET = os.path.join(BUILD, "tests/tapnet")
GATEWAY = "172.16.0.1"
GATEWAY6 = "fd42:6d73:62::1"
DEADLINE = 120

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

    def net(self, *ports, mtu=1500, profiles="all,host", loss=0, tshark=False):
        Tap.number += 1
        self.ns = f"msbtap{os.getpid()}-{Tap.number}"
        ip("netns", "add", self.ns)
        self.addCleanup(ip, "netns", "del", self.ns)
        self.stack = subprocess.Popen([TAPNET, f"/var/run/netns/{self.ns}", "eth0", str(mtu), profiles, *ports],
                                      stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                      env={**os.environ, "TAPNET_LOSS": str(loss)})
        self.addCleanup(self.stack.wait, DEADLINE)
        self.addCleanup(self.stack.stdout.close)
        self.addCleanup(self.stack.kill)
        self.addCleanup(self.stack.stdin.close)
        self.assertEqual(self.stack.stdout.readline(), "ready\n")
        n = ("-n", self.ns)
        ip(*n, "link", "set", "lo", "up")
        ip(*n, "link", "set", "eth0", "address", "02:6d:73:00:00:02", "mtu", str(mtu), "up")
        ip(*n, "addr", "add", "172.16.0.2/30", "dev", "eth0")
        ip(*n, "route", "add", "default", "via", GATEWAY)
        ip(*n, "-6", "addr", "add", "fd42:6d73:62::2/64", "dev", "eth0", "nodad")
        ip(*n, "-6", "route", "add", "default", "via", GATEWAY6)

    def stats(self):
        self.stack.stdin.close()
        words = self.stack.stdout.read().replace(",", "").split()
        self.assertEqual(self.stack.wait(DEADLINE), 0)
        return {k: int(v) for k, v in zip(words[::2], words[1::2])}

    def guest(self, code):
        return subprocess.Popen(["ip", "netns", "exec", self.ns, sys.executable, "-c", GUEST + code],
                                stdout=subprocess.PIPE, text=True)

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
        for _ in range(1000):
            if got:
                break
            threading.Event().wait(0.01)
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
            ready.wait(60)
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
    before = time.monotonic()
    try:
        f()
        said = "nothing"
    except OSError as e:
        said = errno.errorcode.get(e.errno, str(e))
    print(said if time.monotonic() - before < 3 else "late: " + said)
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
    s.settimeout(2)
    s.connect(("{GATEWAY}", 9))
    s.send(b"x")
    s.recv(1)
attempt(udp)
"""), "ECONNREFUSED\nECONNREFUSED\nECONNREFUSED\nECONNREFUSED\nECONNRESET\nECONNREFUSED")

    def test_published(self):
        free = [socket.socket() for _ in range(2)]
        ports = []
        for s in free:
            s.bind(("127.0.0.1", 0))
            ports.append(s.getsockname()[1])
        [s.close() for s in free]
        self.net(f"{ports[0]}:8080", f"127.0.0.1:{ports[1]}:8081/udp", mtu=65520)
        # Nobody listens yet.
        with self.assertRaises(ConnectionResetError), socket.create_connection(("127.0.0.1", ports[0]), timeout=60) as s:
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
                u.settimeout(60)
                u.sendto(message, ("127.0.0.1", ports[1]))
                self.assertEqual(u.recv(70000), message[::-1])
        with socket.create_connection(("127.0.0.1", ports[0]), timeout=60) as s:
            s.sendall(bytes(3000000))
            s.shutdown(socket.SHUT_WR)
            self.assertEqual(len(b"".join(iter(lambda: s.recv(65536), b""))), 3000000)
        self.assertEqual(p.stdout.readline().split(), [GATEWAY, hashlib.sha256(bytes(3000000)).hexdigest()])

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


if __name__ == "__main__":
    unittest.main()
