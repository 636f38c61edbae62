# SPDX-License-Identifier: Apache-2.0
"""Name servers over TLS: unbound as a server that is not ours, and one that does as a test says."""
import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
import unittest

from harness import Case, in_time, until
import test_dns
from test_dns import ZONE
from test_tap import BUILD, DEADLINE

DOT = os.path.join(BUILD, "msb-dot")

# Counts, on the host's loopback, what goes to port 53, and connections to port 853; says so when its standard input ends.
SNIFF = r"""
import socket, struct, sys, threading
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
s.bind(("lo", 0))
s.settimeout(0.2)
print("ready", flush=True)
ended = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
plain = connections = 0
while True:
    try:
        b, where = s.recvfrom(65536)
    except socket.timeout:
        if ended.is_set():
            break
        continue
    if where[2] != socket.PACKET_OUTGOING or b[12:14] != b"\x08\x00":
        continue
    ip = b[14:]
    proto, up = ip[9], ip[(ip[0] & 15) * 4:]
    port = struct.unpack(">H", up[2:4])[0]
    plain += proto in (6, 17) and port == 53
    connections += proto == 6 and port == 853 and up[13] & 0x12 == 2
print(plain, connections, flush=True)
"""

# address port certificate key what: 9.9.8.7 for every name, and lines of what it saw.
SERVER = r"""
import socket, ssl, struct, sys, threading
address, port, cert, key, what = sys.argv[1:]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(cert, key)
if what == "old":
    context.maximum_version = ssl.TLSVersion.TLSv1_2
def read(s, n):
    b = b""
    while len(b) < n:
        more = s.recv(n - len(b))
        if not more:
            raise EOFError
        b += more
    return b
def question(s):
    q = read(s, struct.unpack(">H", read(s, 2))[0])
    print("asked", len(q), flush=True)
    return q
def answer(q):
    end = q.index(b"\0", 12) + 5
    if what == "big":
        texts = b"".join(b"\xc0\x0c\0\x10\0\1\0\0\0\x3c" + struct.pack(">HB", 251, 250) + b"%03d" % i + b"x" * 247 for i in range(200))
        m = q[:2] + b"\x81\x80\0\1\0\xc8\0\0\0\0" + q[12:end] + texts
    else:
        m = q[:2] + b"\x81\x80\0\1\0\1\0\0\0\0" + q[12:end] + b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\x09\x09\x08\x07"
    return struct.pack(">H", len(m)) + m
def serve(s):
    try:
        s = context.wrap_socket(s, server_side=True)
        print("connection", s.version(), flush=True)
        if what == "once":
            # One answer each connection; whatever else was asked on it is not answered.
            s.sendall(answer(question(s)))
            s.unwrap()
        elif what == "mute":
            while True:
                question(s)
        elif what == "backwards":
            questions = [question(s) for _ in range(20)]
            for b in b"".join(answer(q) for q in reversed(questions)):
                s.sendall(bytes([b]))
        while True:
            s.sendall(answer(question(s)))
    except (EOFError, OSError) as e:
        print("end", type(e).__name__, flush=True)
l = socket.create_server((address, int(port)))
print("ready", flush=True)
while True:
    threading.Thread(target=serve, args=(l.accept()[0],), daemon=True).start()
"""

# Asks for all of its arguments at once, over UDP: how many answers came, of which code, and how late the last of them was.
ASK = r"""
import collections, socket, struct, sys, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(120)
s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
s.connect(("172.16.0.1", 53))
names = sys.argv[1:]
# So many as a flow may have open.
began, codes, late, open_ = time.monotonic(), collections.Counter(), 0, 0
for i, name in enumerate(names + [None] * len(names)):
    if name:
        s.send(struct.pack(">6H", i, 0x100, 1, 0, 0, 0) + b"".join(bytes([len(l)]) + l.encode() for l in name.split(".")) + b"\0\0\1\0\1")
        open_ += 1
    if open_ == 60 or (not name and open_):
        a = s.recv(4096)
        codes[a[3] & 15] += 1
        open_ -= 1
print(dict(codes), round(time.monotonic() - began, 2))
"""


def missing():
    if not os.access(DOT, os.X_OK):
        return f"needs {DOT}"
    if not shutil.which("openssl"):
        return "needs openssl"
    return test_dns.missing()


def run(*words):
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=DEADLINE)


class Authority:
    """A certificate authority, and server certificates of it."""

    def __init__(self, top):
        self.top = top
        self.pem = self.path("ca.pem")
        run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj",
            "/CN=test authority", "-keyout", self.path("ca.key"), "-out", self.pem)

    def path(self, name):
        return os.path.join(self.top, name)

    def certificate(self, name, alternatives, expired=False, by_itself=False):
        """Paths of a certificate and its key."""
        key, request, ext, out = (self.path(f"{name}.{kind}") for kind in ("key", "csr", "ext", "pem"))
        with open(ext, "w") as f:
            f.write("subjectAltName=" + alternatives)
        run("openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=a server", "-keyout", key,
            "-out", request)
        signer = ["-signkey", key] if by_itself else ["-CA", self.pem, "-CAkey", self.path("ca.key"), "-CAcreateserial"]
        run("openssl", "x509", "-req", "-in", request, *signer, "-days", "-1" if expired else "2", "-extfile", ext, "-out", out)
        return out, key


class DotWorld(test_dns.World):
    """Beside what the world has: servers over TLS at addresses of the host's loopback, and a sniffer there."""

    def __init__(self, case, zone=ZONE):
        super().__init__(case, zone)
        self.authority = Authority(self.top)
        self.log = os.path.join(self.top, "log")

    def secure(self, address, alternatives, zone=ZONE, extra="", **how):
        cert, key = self.authority.certificate(address, alternatives, **how)
        self.serve(f"{address}@853", zone, f'tls-port: 853\n    tls-service-key: "{key}"\n    tls-service-pem: "{cert}"\n    {extra}')

    def scripted(self, address, what):
        """A server of ours; the lines that it says are in self.said[address]."""
        cert, key = self.authority.certificate(address, f"IP:{address}")
        path = os.path.join(self.top, f"said-{address}")
        with open(path, "wb") as out:
            child = subprocess.Popen(["ip", "netns", "exec", self.host, sys.executable, "-c", SERVER, address, "853", cert, key, what],
                                     stdout=out, stdin=subprocess.DEVNULL)
        self.case.addCleanup(child.wait, DEADLINE)
        self.case.addCleanup(child.kill)
        until(lambda: "ready" in open(path).read(), "the server does not start")
        return child, lambda: open(path).read().splitlines()[1:]

    def guest(self, servers, directory="/nowhere"):
        env = {"TAPNET_DOT": DOT, "SSL_CERT_FILE": self.authority.pem, "SSL_CERT_DIR": directory}
        with open(self.log, "ab") as log:
            return super().guest(servers=servers, env=env, log=log)

    def sniff(self):
        child = subprocess.Popen(["ip", "netns", "exec", self.host, sys.executable, "-c", SNIFF], stdin=subprocess.PIPE,
                                 stdout=subprocess.PIPE, text=True)
        self.case.addCleanup(child.wait, DEADLINE)
        self.case.addCleanup(child.stdout.close)
        self.case.addCleanup(child.kill)
        self.case.assertEqual(child.stdout.readline(), "ready\n")
        return child

    def sniffed(self, child):
        """(packets to port 53, connections to port 853)"""
        child.stdin.close()
        return tuple(int(n) for n in child.stdout.readline().split())

    def logged(self, *words):
        """A line of the log has all of these."""
        lines = until(lambda: [line for line in open(self.log) if all(w in line for w in words)],
                      lambda: f"no line with {words} in: {open(self.log).read()}")
        return lines

    def dots(self):
        """The processes of msb-dot below the stack, the one that the stack has started first."""
        found = []
        for pid in sorted(int(p) for p in os.listdir("/proc") if p.isdigit()):
            try:
                with open(f"/proc/{pid}/cmdline", "rb") as f, open(f"/proc/{pid}/stat") as g:
                    if f.read() == b"msb-dot\0" and int(g.read().rpartition(")")[2].split()[1]) in [self.stack.pid, *found]:
                        found.append(pid)
            except OSError:
                pass
        return found


@unittest.skipIf(missing(), missing())
class Dot(unittest.TestCase):
    dig = test_dns.Names.dig

    def ask(self, ns, *names):
        """The seconds that questions take which are asked at once; each is answered."""
        p = subprocess.run(["ip", "netns", "exec", ns, sys.executable, "-c", ASK, *names], stdout=subprocess.PIPE, text=True,
                           timeout=DEADLINE)
        self.assertEqual(p.returncode, 0)
        codes, _, seconds = p.stdout.strip().rpartition(" ")
        self.assertEqual(codes, str({0: len(names)}))
        return float(seconds)

    def failed(self, ns, *names):
        """The seconds that it takes to say of each that there is no answer."""
        before = time.monotonic()
        for name in names:
            self.assertEqual(self.dig(ns, name)[0], "SERVFAIL")
        return time.monotonic() - before

    def test_lookups(self):
        """All that is looked up over UDP is as well over TLS, on one connection, and nothing goes another way."""
        names = [f"n{i}.many.test" for i in range(200)]
        world = DotWorld(self, ZONE + [f"{n}. 60 IN A 9.9.5.{i + 1}" for i, n in enumerate(names)])
        world.secure("127.0.0.2", "DNS:dns.test,IP:127.0.0.2", ZONE + [f"{n}. 60 IN A 9.9.5.{i + 1}" for i, n in enumerate(names)])
        sniffer = world.sniff()
        ns = world.guest("tls://127.0.0.2#dns.test")
        self.assertEqual(self.dig(ns, "www.example.test"), ("NOERROR", ["9.9.1.1"]))
        self.assertEqual(self.dig(ns, "mail.test", "MX"), ("NOERROR", ["10 www.example.test."]))
        self.assertEqual(self.dig(ns, "www.example.test", "AAAA"), ("NOERROR", ["2600:99::1"]))
        self.assertEqual(self.dig(ns, "nothing.test"), ("NXDOMAIN", []))
        every = sorted(f"9.9.3.{i}" for i in range(1, 101))
        for words in ((), ("+noedns",), ("+tcp",)):
            self.assertEqual(self.dig(ns, "long.test", *words), ("NOERROR", every))
        self.assertEqual(self.dig(ns, "inner.test"), ("REFUSED", []))
        self.assertLess(self.ask(ns, *names), 10)
        self.assertEqual(world.sniffed(sniffer), (0, 1))
        # By its address alone, and with the dot that no certificate has.
        for server in ("tls://127.0.0.2", "tls://127.0.0.2:853#dns.test."):
            self.assertEqual(self.dig(world.guest(server), "www.example.test"), ("NOERROR", ["9.9.1.1"]))
        self.assertEqual([line for line in open(world.log) if "warn" in line or "error" in line], [])

    def test_who_is_somebody_else(self):
        """No answer without the right certificate: at once, with a line in the log that says why, and never in clear."""
        world = DotWorld(self)
        world.secure("127.0.0.2", "DNS:dns.test")
        world.secure("127.0.0.3", "IP:127.0.0.3", expired=True)
        world.secure("127.0.0.4", "IP:127.0.0.4", by_itself=True)
        sniffer = world.sniff()
        for server, why in (("tls://127.0.0.2#other.test", "ostname mismatch"), ("tls://127.0.0.2", "IP address mismatch"),
                            ("tls://127.0.0.3", "certificate has expired"), ("tls://127.0.0.4", "self-signed certificate"),
                            ("tls://127.0.0.5", "Connection refused")):
            said = server.partition("#")[0].replace("tls://", "")

            def refused():
                seconds = self.failed(world.guest(server), "www.example.test", "www.example.test")
                # Once a guest.
                refused.guests += 1
                self.assertEqual(len(world.logged(said, why)), refused.guests)
                return seconds
            refused.guests = 0
            in_time(2.4, refused)
        self.assertEqual(world.sniffed(sniffer)[0], 0)
        # One that is good is asked instead; a server of the old kind where TLS is expected is no good.
        ns = world.guest("tls://127.0.0.1:53")
        self.assertEqual(self.dig(ns, "www.example.test")[0], "SERVFAIL")
        world.logged("127.0.0.1:53", "no TLS")
        world.secure("127.0.0.6", "IP:127.0.0.6")
        ns = world.guest("tls://127.0.0.3 tls://127.0.0.6")
        self.assertEqual(self.dig(ns, "www.example.test"), ("NOERROR", ["9.9.1.1"]))
        # An authority that nobody knows here.
        ca = world.authority.pem
        other = os.path.join(world.top, "other")
        os.mkdir(other)
        world.authority = Authority(other)
        ns = world.guest("tls://127.0.0.6")
        self.assertEqual(self.dig(ns, "www.example.test")[0], "SERVFAIL")
        world.logged("127.0.0.6", "unable to get local issuer certificate")
        # A directory as c_rehash makes it.
        hashed = os.path.join(world.top, "certs")
        os.mkdir(hashed)
        name = subprocess.run(["openssl", "x509", "-hash", "-noout", "-in", ca], stdout=subprocess.PIPE, text=True, check=True).stdout
        shutil.copy(ca, os.path.join(hashed, name.strip() + ".0"))
        ns = world.guest("tls://127.0.0.6", directory="/nowhere:" + hashed)
        self.assertEqual(self.dig(ns, "www.example.test"), ("NOERROR", ["9.9.1.1"]))

    def test_connections_end(self):
        """Servers that close them when it suits them cost no answer."""
        world = DotWorld(self)
        world.secure("127.0.0.2", "IP:127.0.0.2", extra="tcp-idle-timeout: 200")
        ns = world.guest("tls://127.0.0.2")
        for i in range(3):
            self.assertEqual(self.dig(ns, f"n{i}.test")[0], "NXDOMAIN")
            until(lambda: len(world.dots()) == 1, "a connection that is idle stays")
        # One answer, and then the end; what was asked meanwhile is asked again, each once.
        _, said = world.scripted("127.0.0.3", "once")
        ns = world.guest("tls://127.0.0.3")
        for i in range(5):
            self.assertEqual(self.dig(ns, f"n{i}.test"), ("NOERROR", ["9.9.8.7"]))
        self.assertEqual(len([line for line in said() if line.startswith("connection")]), 5)
        names = (f"x{i}.test" for i in itertools.count())
        in_time(2.4, lambda: self.ask(ns, next(names), next(names)))

    def test_answers(self):
        """In any order, in any pieces, as long as they can be; questions do not tell by their length."""
        world = DotWorld(self)
        _, said = world.scripted("127.0.0.2", "backwards")
        ns = world.guest("tls://127.0.0.2")
        names = [("n" + "x" * (3 * i) + ".test") for i in range(20)]
        self.ask(ns, *names)
        for name in names[::7]:
            self.assertEqual(self.dig(ns, name), ("NOERROR", ["9.9.8.7"]))
        self.assertEqual([line for line in said() if line.startswith("connection")], ["connection TLSv1.3"])
        self.assertEqual({line for line in said() if line.startswith("asked")}, {"asked 128"})
        world.scripted("127.0.0.3", "big")
        ns = world.guest("tls://127.0.0.3")
        status, texts = self.dig(ns, "many.test", "TXT")
        self.assertEqual((status, len(texts)), ("NOERROR", 200))
        _, said = world.scripted("127.0.0.4", "old")
        self.assertEqual(self.dig(world.guest("tls://127.0.0.4"), "www.test"), ("NOERROR", ["9.9.8.7"]))
        self.assertIn("connection TLSv1.2", said())

    def test_servers_die(self):
        """Silent, stopped, killed: the next one answers."""
        world = DotWorld(self)
        world.scripted("127.0.0.2", "mute")
        second, _ = world.scripted("127.0.0.3", "good")
        in_time(2.4, lambda: self.ask(world.guest("tls://127.0.0.2 tls://127.0.0.3"), "a.test", "b.test"))
        world.logged("127.0.0.2", "no answer in time")
        third, _ = world.scripted("127.0.0.4", "good")

        def stopped():
            ns = world.guest("tls://127.0.0.3 tls://127.0.0.4")
            self.assertEqual(self.dig(ns, "a.test")[0], "NOERROR")
            second.send_signal(signal.SIGSTOP)
            before = time.monotonic()
            self.assertEqual(self.dig(ns, "b.test")[0], "NOERROR")
            seconds = time.monotonic() - before
            second.send_signal(signal.SIGCONT)
            return seconds
        in_time(2.4, stopped)
        second.kill()
        second.wait()

        def killed():
            nonlocal third, ns
            ns = world.guest("tls://127.0.0.3 tls://127.0.0.4")
            self.assertEqual(self.dig(ns, "a.test")[0], "NOERROR")
            third.kill()
            third.wait()
            seconds = self.failed(ns, "c.test")
            # It is there again.
            third, _ = world.scripted("127.0.0.4", "good")
            return seconds
        ns = None
        in_time(2.4, killed)
        # And that is noticed.
        until(lambda: self.dig(ns, "d.test")[0] == "NOERROR", "the server is not asked again")

    def test_the_program(self):
        """Behind walls; without it there is an answer and a line; with the stack it goes."""
        world = DotWorld(self)
        world.secure("127.0.0.2", "IP:127.0.0.2")
        ns = world.guest("tls://127.0.0.2")
        self.assertEqual(self.dig(ns, "www.example.test")[0], "NOERROR")
        pids = world.dots()
        self.assertEqual(len(pids), 2)
        for pid in pids:
            status = dict(line.split(":\t", 1) for line in open(f"/proc/{pid}/status").read().splitlines() if ":\t" in line)
            # Sanitizers bear no filter.
            if os.path.exists(os.path.join(BUILD, "tests/libfault.so")):
                self.assertEqual((status["Seccomp"], status["NoNewPrivs"]), ("2", "1"))
            with open(f"/proc/{pid}/environ") as f:
                env = {v.partition("=")[0] for v in f.read().split("\0") if v}
            if os.path.exists(os.path.join(BUILD, "tests/libfault.so")):
                self.assertEqual(env, {"SSL_CERT_FILE", "SSL_CERT_DIR"})
        # What one connection's process holds is that connection.
        links = [os.readlink(f"/proc/{pids[1]}/fd/{fd}") for fd in os.listdir(f"/proc/{pids[1]}/fd")]
        self.assertEqual(sorted(link.partition(":")[0] for link in links), ["/dev/null"] * 3 + ["socket"] * 2)
        os.kill(pids[1], signal.SIGKILL)
        self.assertEqual(self.dig(ns, "bad.test")[0], "NOERROR")

        def without_it():
            ns = world.guest("tls://127.0.0.2")
            self.assertEqual(self.dig(ns, "bad.test")[0], "NOERROR")
            for pid in world.dots()[:1]:
                os.kill(pid, signal.SIGKILL)
            until(lambda: not world.dots(), "connections outlive who made them")
            return self.failed(ns, "example.test")
        in_time(2.4, without_it)
        world.logged("msb-dot has ended")
        ns = world.guest("tls://127.0.0.2")
        self.assertEqual(self.dig(ns, "www.example.test")[0], "NOERROR")
        pids = world.dots()
        world.stack.kill()
        until(lambda: not [p for p in pids if os.path.exists(f"/proc/{p}") and open(f"/proc/{p}/cmdline").read()], "msb-dot stays")
        done = subprocess.run([DOT], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=DEADLINE)
        self.assertEqual((done.returncode, done.stdout), (1, b""))
        self.assertIn(b"not a command", done.stderr)


LOOKUP = """
import socket, sys
for name in sys.argv[1:]:
    try:
        print(socket.getaddrinfo(name, 80, socket.AF_INET, socket.SOCK_STREAM)[0][4][0])
    except OSError as e:
        print(type(e).__name__)
"""


@unittest.skipIf(missing(), missing())
class Guest(Case):
    """In a machine, by the words of a person."""

    def setUp(self):
        super().setUp()
        self.world = DotWorld(self)
        self.world.secure("127.0.0.2", "DNS:dns.test")
        self.hosts = self.path("hosts")
        with open(self.hosts, "w") as f:
            f.write("127.0.0.1 localhost\n127.0.0.9 dns.test\n127.0.0.2 dns.test\n127.0.0.2 elsewhere.test\n")

    def argv(self, *args):
        # What this host's own resolver knows is a file here, in a mount namespace of its own.
        return ["ip", "netns", "exec", self.world.host, "sh", "-c", 'mount --bind "$0" /etc/hosts && exec "$@"', self.hosts,
                *super().argv(*args)]

    def look(self, *words, env=()):
        done = self.ok(self.msb("run", *words, "python", "--", "python3", "-c", LOOKUP, "www.example.test", "nothing.test", timeout=DEADLINE,
                                env={"SSL_CERT_FILE": self.world.authority.pem, "SSL_CERT_DIR": "/nowhere", **dict(env)}))
        return done.text.splitlines()

    def test_words(self):
        found = ["9.9.1.1", "gaierror"]
        sniffer = self.world.sniff()
        self.assertEqual(self.look("--dns-nameserver", "tls://127.0.0.2#dns.test"), found)
        conf = self.path("conf.yaml")
        with open(conf, "w") as f:
            f.write("network:\n  dns:\n    nameservers: ['tls://127.0.0.2#dns.test']\n")
        self.assertEqual(self.look("--conf", conf, "--net", "public"), found)
        # The rules are about the guest's own connections: this one is nobody's but the host's.
        self.assertEqual(self.look("--conf", conf, "--net-rule", "deny@127.0.0.0/8,deny@any:tcp:853"), found)
        self.assertEqual(self.world.sniffed(sniffer), (0, 3))
        # Whoever else it is, of a sandbox that is kept, the log says it.
        self.ok(self.msb("create", "-n", "dotbox", "--dns-nameserver", "tls://127.0.0.2#other.test", "python", timeout=DEADLINE,
                         env={"SSL_CERT_FILE": self.world.authority.pem}))
        self.addCleanup(self.msb, "rm", "-f", "dotbox")
        self.assertEqual(self.ok(self.msb("exec", "dotbox", "--", "python3", "-c", LOOKUP, "www.example.test")).text, "gaierror\n")
        line = "failed name server tls://127.0.0.2:853#other.test: its certificate is refused: hostname mismatch\n"
        until(lambda: line in self.ok(self.msb("logs", "--source", "network", "dotbox")).text, "nothing is said of the server")
        with open(os.path.join(self.home, "sandboxes/dotbox/logs/vm.log")) as f:
            self.assertIn("dns: tls://127.0.0.2:853#other.test: its certificate is refused: hostname mismatch", f.read())

    def test_by_name(self):
        """A server that is said by its name: at whichever of its addresses it is, and nobody else there."""
        sniffer = self.world.sniff()
        self.assertEqual(self.look("--dns-nameserver", "tls://dns.test"), ["9.9.1.1", "gaierror"])
        self.assertEqual(self.look("--dns-nameserver", "tls://elsewhere.test:853#dns.test"), ["9.9.1.1", "gaierror"])
        self.assertEqual(self.look("--dns-nameserver", "tls://elsewhere.test"), ["gaierror", "gaierror"])
        self.assertEqual(self.world.sniffed(sniffer)[0], 0)

    def test_refusals(self):
        """What cannot work is said before anything runs."""
        server = "--dns-nameserver", "tls://127.0.0.2#dns.test"
        self.refused(self.msb("run", *server, "busybox", "--", "true", env={"SSL_CERT_FILE": "/nowhere", "SSL_CERT_DIR": "/nowhere"}), 125,
                     "no certificate of an authority", "SSL_CERT_FILE")
        top = self.path("lib")
        os.makedirs(top)
        for name in ("msb-vm", "msb-convert", "guest", "vmlinux"):
            os.symlink(os.path.realpath(os.path.join(BUILD, name)), os.path.join(top, name))
        self.refused(self.msb("run", *server, "busybox", "--", "true", env={"MSB_LIBDIR": top}), 125, "msb-dot", "MSB_LIBDIR")
        # The name is looked up by this host, and by nobody if it knows none.
        self.refused(self.msb("run", "--dns-nameserver", "tls://nobody.invalid:8853", "busybox", "--", "true"), 125,
                     "finds no address of the name server nobody.invalid", "tls://IP:8853#nobody.invalid")
        for bad in ("tls://dns", "tls://127.0.0", "dns.test", "tls://127.0.0.2#", "tls://127.0.0.2#.", "127.0.0.2#dns.test", "tls://127.0.0.2:0", "tls://"):
            self.refused(self.msb("run", "--dns-nameserver", bad, "busybox", "--", "true"), 125, "tls://9.9.9.9#dns.quad9.net")

    @unittest.skipIf(not shutil.which("microsocks"), "needs microsocks")
    def test_proxy(self):
        """With a proxy the connections for it go through that, as all others do."""
        cert, key = self.world.authority.certificate("far", "DNS:far.test")
        # Of the guest's world, which the host's namespace has no other way into.
        self.world.start(self.world.world, [sys.executable, "-c", SERVER, "10.77.0.2", "853", cert, key, "good"], "ready")
        ip = ("ip", "netns", "exec", self.world.world)
        proxy = subprocess.Popen([*ip, "microsocks", "-i", "10.77.0.2", "-p", "1080"], stderr=subprocess.PIPE, text=True)
        self.addCleanup(proxy.stderr.close)
        self.addCleanup(proxy.wait, DEADLINE)
        self.addCleanup(proxy.kill)
        # microsocks tells of each connection.
        self.assertEqual(self.look("--proxy", "socks5://10.77.0.2:1080", "--dns-nameserver", "tls://10.77.0.2#far.test"), ["9.9.8.7"] * 2)
        proxy.kill()
        self.assertIn("10.77.0.2:853", proxy.stderr.read())


if __name__ == "__main__":
    unittest.main()
