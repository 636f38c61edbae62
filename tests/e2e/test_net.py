# SPDX-License-Identifier: Apache-2.0
"""The network as a command in a sandbox sees it, against servers on this host. There may be no internet."""
import contextlib
import hashlib
import http.server
import json
import os
import re
import socket
import threading

from harness import PATIENCE, Case, until

GATEWAY = "172.16.0.1"

# Tries what its arguments say, one "HOST PORT PROTO" each, and says what became of it.
TRY = r"""
import errno, socket, sys, time
for a in sys.argv[1:]:
    host, port, proto = a.split()
    before = time.monotonic()
    s = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET,
                      socket.SOCK_STREAM if proto == "tcp" else socket.SOCK_DGRAM)
    s.settimeout(120)
    try:
        s.connect((host, int(port)))
        if proto == "udp":
            s.send(b"x")
        said = s.recv(100).decode() or "end"
    except OSError as e:
        said = errno.errorcode.get(e.errno, repr(e))
    print(said if time.monotonic() - before < 30 else "late " + said)
"""


class Quiet(http.server.BaseHTTPRequestHandler):
    body = os.urandom(3_000_000)

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def do_POST(self):
        n = int(self.headers["Content-Length"])
        data = self.rfile.read(n)
        self.send_response(200)
        self.send_header("Content-Length", str(n))
        self.end_headers()
        self.wfile.write(data[::-1])

    def log_message(self, *_):
        pass


def free_port(kind=socket.SOCK_STREAM):
    with socket.socket(socket.AF_INET, kind) as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Net(Case):
    def serve(self, say=b"hello", address="127.0.0.1"):
        """A TCP server that says one thing."""
        server = socket.create_server((address, 0))
        self.addCleanup(server.close)

        def run():
            while True:
                try:
                    s, _ = server.accept()
                except OSError:
                    return
                with s:
                    s.sendall(say)
        threading.Thread(target=run, daemon=True).start()
        return server.getsockname()[1]

    def attempts(self, options, *tries):
        done = self.ok(self.msb("run", *options, "python", "--", "python3", "-c", TRY, *tries))
        return done.text.split("\n")[:-1]

    def test_configured(self):
        out = self.sh("cat /etc/resolv.conf /etc/hosts; ip addr show eth0; ip route; cat /sys/class/net/eth0/address /proc/net/arp")
        for part in (f"nameserver {GATEWAY}", f"{GATEWAY}\thost.microsandbox.internal", "inet 172.16.0.2/30", f"default via {GATEWAY}",
                     "02:6d:73:00:00:02"):
            self.assertIn(part, out)
        self.assertNotIn("tentative", out.split("inet6 fe80")[0])
        # Nobody has asked who the gateway is, nor will anybody have to.
        self.assertRegex(out, rf"(?m)^{GATEWAY} +0x1 +0x6 +02:6d:73:00:00:01 ")

    def test_fetch_from_the_host(self):
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        # The image's Python has no HTTP of its own.
        code = f"""
import hashlib, socket
def ask(request):
    s = socket.create_connection(("host.microsandbox.internal", {server.server_port}), timeout=100)
    s.sendall(request)
    answer = b""
    while True:
        b = s.recv(1 << 16)
        if not b:
            return answer.partition(b"\\r\\n\\r\\n")[2]
        answer += b
print(hashlib.sha256(ask(b"GET / HTTP/1.0\\r\\n\\r\\n")).hexdigest())
body = b"0123456789" * 200000
print(ask(b"POST / HTTP/1.0\\r\\nContent-Length: 2000000\\r\\n\\r\\n" + body) == body[::-1])
"""
        done = self.ok(self.msb("run", "--net", "host", "python", "--", "python3", "-c", code))
        self.assertEqual(done.text.split(), [hashlib.sha256(Quiet.body).hexdigest(), "True"])

    def test_policy(self):
        """What each profile denies is denied at once, whatever it is called."""
        port = self.serve()
        refused = "ECONNREFUSED"
        loopbacks = ["127.0.0.1", "0.0.0.0"]
        # The guest's own loopback answers for these; nothing of the host's does.
        own = [f"{a} {port} tcp" for a in loopbacks]
        denied = [f"{GATEWAY} {port} tcp", "10.255.0.1 80 tcp", "192.168.255.1 80 tcp", "169.254.169.254 80 tcp",
                  "100.64.0.1 80 tcp", "198.18.0.1 80 tcp", "240.0.0.1 80 tcp"]
        self.assertEqual(self.attempts((), *own, *denied), [refused] * (len(own) + len(denied)))
        self.assertEqual(self.attempts(("--net", "all"), denied[0], denied[3]), [refused, refused])
        self.assertEqual(self.attempts(("--net", "host"), denied[0], "1.1.1.1 80 tcp"), ["hello", refused])
        self.assertEqual(self.attempts(("--no-net",), denied[0], "1.1.1.1 80 tcp", "1.1.1.1 80 udp"), [refused, refused, "EHOSTUNREACH"])

    def test_the_hosts_own_addresses_are_the_host(self):
        """A server on an address of the host's is no more reachable by it than by its loopback."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            try:
                s.connect(("192.0.2.1", 9))
            except OSError:
                self.skipTest("needs a host with a route")
            own = s.getsockname()[0]
        port = self.serve(address="0.0.0.0")
        self.assertEqual(self.attempts(("--net", "public,private"), f"{own} {port} tcp"), ["ECONNREFUSED"])
        self.assertEqual(self.attempts(("--net", "host"), f"{own} {port} tcp"), ["hello"])

    def test_datagrams(self):
        """To a server on this host, to nobody, and an echo: what comes back, inside of all walls."""
        u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        u.bind(("127.0.0.1", 0))
        self.addCleanup(u.close)

        def run():
            while True:
                try:
                    message, sender = u.recvfrom(100)
                except OSError:
                    return
                u.sendto(b"got " + message, sender)
        threading.Thread(target=run, daemon=True).start()
        there = f"{GATEWAY} {u.getsockname()[1]} udp"
        self.assertEqual(self.attempts(("--net", "host"), there, f"{GATEWAY} {free_port(socket.SOCK_DGRAM)} udp", there),
                         ["got x", "ECONNREFUSED", "got x"])

    def test_rules(self):
        first, second = self.serve(b"one"), self.serve(b"two")
        self.assertEqual(self.attempts(("--net", "none", "--net-rule", f"allow@host:tcp:{first}"),
                                       f"{GATEWAY} {first} tcp", f"{GATEWAY} {second} tcp"), ["one", "ECONNREFUSED"])
        self.assertEqual(self.attempts(("--net", "host", "--net-rule", f"deny@{GATEWAY}/32:tcp:{first}"),
                                       f"{GATEWAY} {first} tcp", f"{GATEWAY} {second} tcp"), ["ECONNREFUSED", "two"])
        for words in (("--net", "everything"), ("--net-rule", "allow@nobody"), ("-p", "80"), ("-p", "1.2.3:80:80")):
            self.refused(self.msb("run", *words, "busybox", "--", "true"), 125)

    def test_defaults_and_port_lists(self):
        first, second = self.serve(b"one"), self.serve(b"two")
        both = f"{GATEWAY} {first} tcp", f"{GATEWAY} {second} tcp"
        self.assertEqual(self.attempts(("--net-default", "deny", "--net-rule", f"allow@host:tcp:1,{first}-{first},{second}"), *both),
                         ["one", "two"])
        # What is allowed by default is neither the host nor what clouds tell their machines.
        self.assertEqual(self.attempts(("--net-default-egress", "allow"), *both, "169.254.169.254 80 tcp"), ["ECONNREFUSED"] * 3)
        self.refused(self.msb("run", "--net-default", "deny", "--net", "public", "busybox", "--", "true"), 125, "exclude each other")
        self.refused(self.msb("run", "--net-rule", "allow@host:443", "busybox", "--", "true"), 125, "allow@host:tcp:443")

    def test_network_in_a_file(self):
        port = self.serve(b"one")
        for text, said in ((f"network:\n  policy: public\n  allow: ['host:tcp:{port}']\n", "one"),
                           (f"network:\n  profiles: host\n  deny: ['host:tcp:{port}']\n", "ECONNREFUSED"), ("network: open\n", "ECONNREFUSED")):
            with open(self.path("c.yaml"), "w") as f:
                f.write(text)
            self.assertEqual(self.attempts(("--conf", self.path("c.yaml")), f"{GATEWAY} {port} tcp"), [said], text)
        with open(self.path("n.yaml"), "w") as f:
            f.write(f"allow: ['host:tcp:{port}']\n")
        self.assertEqual(self.attempts(("--net-conf", self.path("n.yaml")), f"{GATEWAY} {port} tcp"), ["one"])
        self.assertEqual(self.attempts(("--net-conf", self.path("n.yaml"), "--net-rule", "deny@host"), f"{GATEWAY} {port} tcp"), ["ECONNREFUSED"])

    def test_limits(self):
        """Connections at a time and in a time; a rate that is kept, and with which all arrives."""
        port = self.serve(b"one")
        code = f"""
import socket
held = []
for _ in range(8):
    try:
        held.append(socket.create_connection(("{GATEWAY}", {port})))
    except OSError as e:
        print(e.errno, end=" ")
print(len(held))
"""
        for limit in ("--max-connections=5", "--max-connection-rate=5/1h"):
            out = self.ok(self.msb("run", "--net", "host", limit, "python", "--", "python3", "-c", code)).text
            self.assertEqual(out, "111 111 111 5\n", limit)
        sink = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(sink.close)
        got = []

        def take():
            while True:
                try:
                    s, _ = sink.accept()
                except OSError:
                    return
                with s:
                    n = 0
                    while b := s.recv(1 << 16):
                        n += len(b)
                    s.sendall(b"y" * 300_000)
                    got.append(n)
        threading.Thread(target=take, daemon=True).start()
        code = f"""
import socket, time
s = socket.create_connection(("{GATEWAY}", {sink.getsockname()[1]}))
at = time.monotonic()
s.sendall(b"x" * 300_000)
s.shutdown(1)
up = s.recv(1)
mid = time.monotonic()
n = 1
while b := s.recv(1 << 16):
    n += len(b)
print(n, mid - at, time.monotonic() - mid)
"""
        for options, slow in ((("--net-egress-bandwidth=100K/1s",), 0), (("--net-ingress-bandwidth=100K/1s",), 1)):
            n, *times = self.ok(self.msb("run", "--net", "host", *options, "python", "--", "python3", "-c", code)).text.split()
            self.assertEqual((int(n), got[-1]), (300_000, 300_000))
            # The first 100 K were there at once; a frame, of 64 K at most, may be in debt.
            self.assertGreater(float(times[slow]), (300_000 - 102_400 - 65_600) / 102_400, times)

    def test_published_range(self):
        base = 21000 + os.getpid() % 20000
        child = self.running("box", "-p", f"{base}-{base + 3}:9000-9003", "-p", "0:9000-9001/udp", "--net", "none")
        shown = json.loads(self.ok(self.msb("inspect", "--format", "json", "box")).text)["machine"]["ports"]
        self.assertEqual(shown[:4], [f"127.0.0.1:{base + i}->{9000 + i}/tcp" for i in range(4)])
        self.assertRegex(" ".join(shown[4:]), r"^127\.0\.0\.1:\d+->9000/udp 127\.0\.0\.1:\d+->9001/udp$")
        child.stdin.close()
        self.assertEqual(child.wait(PATIENCE), 0)

    def test_published(self):
        tcp, udp = free_port(), free_port(socket.SOCK_DGRAM)
        child = self.start("run", "-p", f"{tcp}:8080", "-p", f"127.0.0.1:{udp}:8081/udp", "python", "--", "python3", "-c", """
import socket, threading
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
u.bind(("", 8081))
def echo():
    while True:
        b, a = u.recvfrom(70000)
        u.sendto(b[::-1], a)
threading.Thread(target=echo, daemon=True).start()
l = socket.create_server(("", 8080))
print("ready", flush=True)
while True:
    s, _ = l.accept()
    n = len(s.recv(100))
    s.sendall(b"x" * 2000000 + b"%d" % n)
    s.close()
""")
        self.assertEqual(child.stdout.readline(), b"ready\n")
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", tcp), timeout=100) as s:
                s.sendall(b"hello")
                self.assertEqual(b"".join(iter(lambda: s.recv(1 << 16), b"")), b"x" * 2000000 + b"5")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as u:
            u.settimeout(100)
            for message in (b"hello", bytes(40000) + b"end"):
                u.sendto(message, ("127.0.0.1", udp))
                self.assertEqual(u.recv(70000), message[::-1])
        # The port is taken for as long as the sandbox lives, and no longer.
        self.refused(self.msb("run", "-p", f"{tcp}:80", "busybox", "--", "true"), 125, "cannot publish port", "another program")
        child.kill()
        child.wait(PATIENCE)

        def is_free():
            with socket.socket() as s:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                return s.connect_ex(("127.0.0.1", tcp)) != 0
        until(is_free, "the port is still taken")

    def test_any_free_port_is_told(self):
        script = ("import socket\nl = socket.create_server(('', 80))\n"
                  "while True:\n s, _ = l.accept()\n s.sendall(b'here')\n s.close()")
        self.ok(self.msb("run", "-d", "-n", "any-port", "-p", "0:80", "-p", "0:81/udp", "python", "--", "python3", "-c", script))
        self.addCleanup(self.msb, "rm", "-f", "any-port")
        row, = json.loads(self.msb("ps", "any-port", "--format", "json").out)
        tcp, udp = row["ports"]
        self.assertRegex(udp, r"^127\.0\.0\.1:[1-9]\d*->81/udp$")
        port = int(re.fullmatch(r"127\.0\.0\.1:(\d+)->80/tcp", tcp)[1])

        def answer():
            with contextlib.suppress(ConnectionResetError), socket.create_connection(("127.0.0.1", port), timeout=100) as s:
                return s.recv(100) == b"here"
        until(answer, "nobody answers at the port")
        lines = self.msb("ps", "any-port").text.splitlines()
        self.assertEqual(len(lines), 2, lines)  # however many lines the command has
        self.assertIn(f"{tcp}, {udp}", lines[1])
        self.assertIn(f"Ports         {tcp}\n", self.msb("inspect", "any-port").text)
        self.ok(self.msb("stop", "any-port"))
        self.assertEqual(json.loads(self.msb("ps", "any-port", "--format", "json").out)[0]["ports"], [])
