# SPDX-License-Identifier: Apache-2.0
"""Names: the gateway's name service in front of a real server, and the rules that names stand in.

A world of its own: three network namespaces, of which one has the name server and the stack (or the
sandbox), one is the guest, and one is everybody else, at all of 9.9.0.0/16.
"""
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import unittest

from harness import Case, in_time
from test_tap import DEADLINE, GATEWAY, GATEWAY6, GUEST, TAPNET, ip, missing as missing_tap

UNBOUND = shutil.which("unbound") or "/usr/sbin/unbound"

ZONE = [
    "www.example.test. 60 IN A 9.9.1.1", "www.example.test. 60 IN AAAA 2600:99::1", "example.test. 60 IN A 9.9.1.2",
    "other.example.test. 60 IN A 9.9.1.1", "alias.example.test. 60 IN CNAME www.example.test.",
    "bad.test. 60 IN A 9.9.2.1", "inner.test. 60 IN A 10.77.0.9", "mixed.test. 60 IN A 10.77.0.9", "mixed.test. 60 IN A 9.9.1.3",
    "mail.test. 60 IN MX 10 www.example.test.", "metadata.test. 60 IN A 169.254.169.254",
    *(f"long.test. 60 IN A 9.9.3.{i}" for i in range(1, 101)),
]

# Everybody: what is said at ports 80, 81 and 443 is who was called; at 82 it is only said to who speaks first, and how much
# he said until his end.
WORLD = r"""
import socket, sys, threading
def late(s):
    n = 0
    try:
        while True:
            b = s.recv(65536)
            if not b:
                break
            n += len(b)
    except ConnectionResetError:
        return
    s.sendall(b"%s %d" % (s.getsockname()[0].encode(), n))
    s.close()
def serve(port):
    l = socket.create_server(("0.0.0.0", port), backlog=1000)
    while True:
        s, _ = l.accept()
        if port == 82:
            threading.Thread(target=late, args=(s,), daemon=True).start()
            continue
        s.sendall(s.getsockname()[0].encode())
        s.close()
for port in (80, 81, 82, 443):
    threading.Thread(target=serve, args=(port,), daemon=True).start()
print("ready", flush=True)
sys.stdin.read()
"""


def missing():
    if not os.access(UNBOUND, os.X_OK) or not shutil.which("dig"):
        return "needs unbound and dig"
    return missing_tap()


class World:
    """Of the class that is first: `case` cleans up."""

    def __init__(self, case, zone=ZONE):
        self.case = case
        name = f"msbdns{os.getpid()}-{id(self) & 0xffff:x}"
        self.host, self.world = name + "h", name + "w"
        for ns in (self.host, self.world):
            ip("netns", "add", ns)
            case.addCleanup(ip, "netns", "del", ns)
            ip("-n", ns, "link", "set", "lo", "up")
        ip("-n", self.host, "link", "add", "out", "type", "veth", "peer", "name", "in", "netns", self.world)
        for ns, link, own in ((self.host, "out", "10.77.0.1/24"), (self.world, "in", "10.77.0.2/24")):
            ip("-n", ns, "addr", "add", own, "dev", link)
            ip("-n", ns, "link", "set", link, "up")
        ip("-n", self.host, "route", "add", "9.9.0.0/16", "via", "10.77.0.2")
        ip("-n", self.world, "route", "add", "local", "9.9.0.0/16", "dev", "lo")
        ip("-n", self.world, "addr", "add", "10.77.0.9/24", "dev", "in")
        self.top = tempfile.mkdtemp(prefix="msb-dns-")
        case.addCleanup(shutil.rmtree, self.top)
        self.start(self.world, [sys.executable, "-c", WORLD], "ready")
        self.servers = {}
        self.serve("127.0.0.1", zone)

    def start(self, ns, words, says, stream="stdout"):
        child = subprocess.Popen(["ip", "netns", "exec", ns, *words], stdin=subprocess.PIPE, text=True,
                                 **{stream: subprocess.PIPE})
        self.case.addCleanup(getattr(child, stream).close)
        self.case.addCleanup(child.wait, DEADLINE)
        self.case.addCleanup(child.kill)
        self.case.addCleanup(child.stdin.close)
        for line in getattr(child, stream):
            if says in line:
                threading.Thread(target=self.drain, args=(getattr(child, stream),), daemon=True).start()
                return child
        self.case.fail(f"{words[0]} did not start")

    @staticmethod
    def drain(stream):
        try:
            for _ in stream:
                pass
        except ValueError:
            pass

    def serve(self, address, zone, extra=""):
        """A real name server at an address in the host's namespace."""
        path = os.path.join(self.top, f"unbound-{address}.conf")
        with open(path, "w") as f:
            f.write(f"""
server:
    interface: {address}
    do-daemonize: no
    username: ""
    chroot: ""
    directory: "{self.top}"
    pidfile: ""
    use-syslog: no
    verbosity: 1
    access-control: 0.0.0.0/0 allow
    do-ip6: no
    module-config: "iterator"
    minimal-responses: yes
    local-zone: "test." static
    {extra}
""")
            f.writelines(f"    local-data: \"{z}\"\n" for z in zone)
            f.write("remote-control:\n    control-enable: no\n")
        self.servers[address] = self.start(self.host, [UNBOUND, "-d", "-c", path], "start of service", "stderr")

    def guest(self, rules="", profiles="public", servers="127.0.0.1", names="", env=(), log=None):
        """A network stack with Linux as its guest; a new namespace each time."""
        ns = f"{self.host[:-1]}g{len(os.listdir(self.top))}{time.monotonic_ns() % 10000}"
        ip("netns", "add", ns)
        self.case.addCleanup(ip, "netns", "del", ns)
        env = {**os.environ, **dict(env), "TAPNET_RULES": rules, "TAPNET_DNS": servers, "TAPNET_NAMES": names}
        if not rules:
            del env["TAPNET_RULES"]
        if not names:
            del env["TAPNET_NAMES"]
        stack = subprocess.Popen(["ip", "netns", "exec", self.host, TAPNET, f"/var/run/netns/{ns}", "eth0", "1500", profiles],
                                 stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=env)
        self.stack = stack
        self.case.addCleanup(stack.wait, DEADLINE)
        self.case.addCleanup(stack.stdout.close)
        self.case.addCleanup(stack.kill)
        self.case.addCleanup(stack.stdin.close)
        self.case.assertEqual(stack.stdout.readline(), "ready\n")
        n = ("-n", ns)
        ip(*n, "link", "set", "lo", "up")
        ip(*n, "link", "set", "eth0", "address", "02:6d:73:00:00:02", "mtu", "1500", "up")
        ip(*n, "addr", "add", "172.16.0.2/30", "dev", "eth0")
        ip(*n, "route", "add", "default", "via", GATEWAY)
        ip(*n, "-6", "addr", "add", "fd42:6d73:62::2/64", "dev", "eth0", "nodad")
        ip(*n, "-6", "route", "add", "default", "via", GATEWAY6)
        return ns


@unittest.skipIf(missing(), missing())
class Names(unittest.TestCase):
    def dig(self, ns, *words, server=GATEWAY):
        """(status, answers) of a lookup, by a resolver that is not ours."""
        p = subprocess.run(["ip", "netns", "exec", ns, "dig", "+tries=1", "+time=10", f"@{server}", *words],
                           stdout=subprocess.PIPE, text=True, timeout=DEADLINE)
        status = p.stdout.partition("status: ")[2].partition(",")[0]
        answers = p.stdout.partition("ANSWER SECTION:\n")[2].partition("\n\n")[0].splitlines()
        self.assertNotIn("Warning", p.stdout)
        self.assertNotIn("malformed", p.stdout.lower())
        return status, sorted(a.split(None, 4)[4] for a in answers)

    def inside(self, ns, code):
        p = subprocess.run(["ip", "netns", "exec", ns, sys.executable, "-c", GUEST + code], stdout=subprocess.PIPE, text=True,
                           timeout=DEADLINE * 2)
        self.assertEqual(p.returncode, 0)
        return p.stdout.strip()

    def tries(self, ns, *where):
        """What becomes of connections, and none of it late whenever it is tried."""
        return self.inside(ns, f"""
for host, port in {list(where)!r}:
    for _ in range(8):
        before = time.monotonic()
        try:
            with connect(host, port) as s:
                said = s.recv(100).decode()
        except OSError as e:
            said = errno.errorcode.get(e.errno, str(e))
        late = time.monotonic() - before >= 3
        if not late:
            break
    print("late: " + said if late else said)
""").split("\n")

    def test_lookups(self):
        world = World(self)
        ns = world.guest()
        self.assertEqual(self.dig(ns, "www.example.test"), ("NOERROR", ["9.9.1.1"]))
        # Whoever is asked, in whatever way: it is the gateway that answers.
        for server, words in (("8.8.8.8", ()), ("8.8.8.8", ("+tcp",)), (GATEWAY6, ()), ("10.1.2.3", ("+tcp",)), ("2606:4700::1", ()),
                              (GATEWAY, ("+noedns",)), (GATEWAY, ("+dnssec", "+cd"))):
            self.assertEqual(self.dig(ns, "wWw.example.test", *words, server=server), ("NOERROR", ["9.9.1.1"]))
        # The server leaves it to who asks to follow the alias.
        self.assertEqual(self.dig(ns, "alias.example.test"), ("NOERROR", ["www.example.test."]))
        self.assertEqual(self.dig(ns, "mail.test", "MX"), ("NOERROR", ["10 www.example.test."]))
        self.assertEqual(self.dig(ns, "www.example.test", "AAAA"), ("NOERROR", ["2600:99::1"]))
        self.assertEqual(self.dig(ns, "nothing.test"), ("NXDOMAIN", []))
        self.assertEqual(self.dig(ns, "host.microsandbox.internal"), ("NOERROR", [GATEWAY]))
        # A hundred addresses: more than fits a datagram, so dig asks again over TCP.
        every = sorted(f"9.9.3.{i}" for i in range(1, 101))
        for words in ((), ("+noedns",), ("+tcp",), ("+bufsize=512",)):
            self.assertEqual(self.dig(ns, "long.test", *words), ("NOERROR", every))
        self.assertEqual(len(self.dig(ns, "long.test", "+noedns", "+ignore")[1]) < 40, True)
        # Of those that a rebinding attack would use, nothing is told.
        for name in ("inner.test", "metadata.test"):
            self.assertEqual(self.dig(ns, name), ("REFUSED", []))
        self.assertEqual(self.dig(ns, "mixed.test"), ("NOERROR", ["9.9.1.3"]))

    def test_a_name_opens_itself_and_nothing_else(self):
        world = World(self)
        ns = world.guest("allow@www.example.test:tcp:80,allow@*.bad.test", "none")
        # Before anybody asked, and of addresses nobody was told.
        self.assertEqual(self.tries(ns, ("9.9.1.1", 80), ("9.9.1.2", 80)), ["ECONNREFUSED"] * 2)
        self.assertEqual(self.dig(ns, "www.example.test"), ("NOERROR", ["9.9.1.1"]))
        self.assertEqual(self.tries(ns, ("9.9.1.1", 80), ("9.9.1.1", 443), ("9.9.1.2", 80), (GATEWAY, 80)),
                         ["9.9.1.1"] + ["ECONNREFUSED"] * 3)
        # What no rule could allow is not asked for: with and without EDNS, over UDP and TCP.
        for name in ("example.test", "other.example.test", "bad.test", "exfiltrated-data.evil.test"):
            self.assertEqual(self.dig(ns, name), ("REFUSED", []))
            self.assertEqual(self.dig(ns, name, "+noedns"), ("NXDOMAIN", []))
            self.assertEqual(self.dig(ns, name, "+tcp", server="9.9.9.9"), ("REFUSED", []))
        # Other ways to ask are shut, unless a rule says the port.
        ns = world.guest("allow@9.9.0.0/16", "public")
        self.assertEqual(self.tries(ns, ("9.9.1.1", 853), ("9.9.1.1", 80)), ["ECONNREFUSED", "9.9.1.1"])

    def test_denied_names(self):
        world = World(self)
        ns = world.guest("deny@suffix=bad.test,deny@dns=other.example.test", "public")
        self.assertEqual(self.dig(ns, "bad.test")[0], "REFUSED")
        self.assertEqual(self.dig(ns, "other.example.test")[0], "REFUSED")
        self.assertEqual(self.dig(ns, "www.example.test"), ("NOERROR", ["9.9.1.1"]))
        ns = world.guest("deny@domain=bad.test:tcp:80", "public")
        self.assertEqual(self.tries(ns, ("9.9.2.1", 80)), ["9.9.2.1"])
        self.assertEqual(self.dig(ns, "bad.test"), ("NOERROR", ["9.9.2.1"]))
        self.assertEqual(self.tries(ns, ("9.9.2.1", 80), ("9.9.2.1", 81)), ["ECONNREFUSED", "9.9.2.1"])
        ns = world.guest(profiles="public,private", names="rebind-protection=off")
        self.assertEqual(self.dig(ns, "inner.test"), ("NOERROR", ["10.77.0.9"]))
        self.assertEqual(self.dig(ns, "metadata.test")[0], "REFUSED")
        ns = world.guest(profiles="none")
        self.assertEqual(self.dig(ns, "www.example.test")[0], "REFUSED")

    def test_strict(self):
        """With strict, a name that is allowed has to be said by the connection, in TLS or HTTP."""
        world = World(self)
        ns = world.guest("allow@www.example.test,allow@other.example.test,allow@bad.test:tcp:81,allow@9.9.2.0/24:tcp:82", "none",
                         names="strict=on")
        for name in ("www.example.test", "bad.test"):
            self.assertEqual(self.dig(ns, name)[0], "NOERROR")
        self.assertEqual(self.dig(ns, "www.example.test", "HTTPS"), ("NOERROR", []))
        out = self.inside(ns, r"""
import ssl
def hello(name):
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    c = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname=name)
    try:
        c.do_handshake()
    except ssl.SSLWantReadError:
        return outgoing.read()
def attempt(address, port, *pieces):
    try:
        with connect(address, port) as s:
            for p in pieces:
                s.sendall(p)
                time.sleep(0.05)
            try:
                s.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # reset already, as recv() will tell
            print(s.recv(100).decode() or "end")
    except OSError as e:
        print(errno.errorcode.get(e.errno, str(e)))
def get(name):
    return b"GET / HTTP/1.1\r\nHost: %s\r\n\r\n" % name.encode()
w, o = "www.example.test", "other.example.test"
attempt("9.9.1.1", 82, get(w))
attempt("9.9.1.1", 82, get(w)[:20], get(w)[20:] + bytes(3000000))
attempt("9.9.1.1", 82, hello(w))
attempt("9.9.1.1", 82, hello(w)[:9], hello(w)[9:])
attempt("9.9.1.1", 82, get(o))  # allowed, but not what this address was told as
attempt("9.9.1.1", 82, hello(o))
attempt("9.9.1.1", 82, get("evil.test"))
attempt("9.9.1.1", 82, b"\0whatever")
attempt("9.9.1.1", 82)
attempt("9.9.1.1", 82, get(w)[:20])
attempt("9.9.2.1", 81)          # who speaks last cannot say whom he wants
attempt("9.9.2.1", 82, b"any")  # another rule allows it, names or not
""").split("\n")
        self.assertEqual(out[0], "9.9.1.1 42")
        self.assertEqual(out[1], "9.9.1.1 3000042")
        for i in (2, 3):
            self.assertTrue(out[i].startswith("9.9.1.1 ") and int(out[i].split()[1]) > 200, out)
        self.assertEqual(out[4:11], ["ECONNRESET"] * 7)
        self.assertEqual(out[11], "9.9.2.1 3")

    def test_dead_servers(self):
        """One that refuses costs nothing, one that is silent less than a second and only once."""
        world = World(self)

        # Nobody is at 10.77.0.77, and 127.0.0.9 has no server.
        def one_is_left():
            ns = world.guest(servers="10.77.0.77 127.0.0.9 127.0.0.1")
            before = time.monotonic()
            self.assertEqual(self.dig(ns, "www.example.test"), ("NOERROR", ["9.9.1.1"]))
            return time.monotonic() - before
        in_time(2.4, one_is_left)
        ns = world.guest(servers="tcp://127.0.0.9 tcp://127.0.0.1")
        self.assertEqual(self.dig(ns, "long.test")[0], "NOERROR")
        # Nobody at all is said, in the time that was given.
        ns = world.guest(servers="127.0.0.9 127.0.0.8")
        self.assertEqual(self.dig(ns, "www.example.test")[0], "SERVFAIL")

        def nobody():
            ns = world.guest(servers="10.77.0.77", names="timeout-ms=500")
            before = time.monotonic()
            self.assertEqual(self.dig(ns, "www.example.test")[0], "SERVFAIL")
            return time.monotonic() - before
        in_time(5, nobody)

    def test_ten_thousand_rounds(self):
        """Each looks a name up and connects to what it was told: no hang, no failure."""
        zone = [f"n{i % 10}.r{i // 10}.test. 1 IN A 9.9.{100 + i // 250}.{i % 250 + 1}" for i in range(2000)]
        world = World(self, zone)
        ns = world.guest(",".join(f"allow@suffix=r{i}.test:tcp:80" for i in range(200)), "none")
        out = self.inside(ns, r"""
import os, struct, random
ROUNDS, THREADS = 10000, 4
slow, bad = [], []
# How late this process gets a CPU at worst: a round takes some dozen turns of this and others.
worst = 0
def measure():
    global worst
    while True:
        before = time.monotonic()
        time.sleep(0.05)
        worst = max(worst, time.monotonic() - before - 0.05)
threading.Thread(target=measure, daemon=True).start()
def lookup(u, name, n):
    q = struct.pack(">6H", n, 0x100, 1, 0, 0, 0) + b"".join(bytes([len(l)]) + l.encode() for l in name.split(".")) + b"\0\0\1\0\1"
    u.send(q)
    a = u.recv(600)
    assert a[:2] == q[:2] and a[3] & 15 == 0, a
    return socket.inet_ntoa(a[-4:])
def run(k):
    for i in range(k, ROUNDS, THREADS):
        before = time.monotonic()
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as u:
                u.settimeout(120)
                u.connect(("172.16.0.1", 53))
                address = lookup(u, "n%d.r%d.test" % (i % 10, i // 10 % 200), i)
            with connect(address, 80) as s:
                assert s.recv(100).decode() == address
        except Exception as e:
            bad.append((i, repr(e)))
        took = time.monotonic() - before
        if took > 2.4 and took > 12 * worst:
            slow.append((i, took, worst))
threads = [threading.Thread(target=run, args=(k,)) for k in range(THREADS)]
[t.start() for t in threads]
[t.join() for t in threads]
print(len(bad), bad[:3], slow)
""")
        self.assertEqual(out, "0 [] []")


# Looks up and connects to each of its arguments, "NAME COUNT": how often that went wrong, or was late.
CLIENT = r"""
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
	for (int i = 1; i + 1 < argc; i += 2) {
		int bad = 0, late = 0;
		for (int n = atoi(argv[i + 1]); n; n--) {
			struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *ai = NULL;
			double before = now();
			char b[100];
			int r = getaddrinfo(argv[i], "80", &hints, &ai), s = -1;

			if (r == 0)
				s = socket(ai->ai_family, ai->ai_socktype, 0);
			if (r || connect(s, ai->ai_addr, ai->ai_addrlen) || read(s, b, sizeof(b)) <= 0)
				bad++;
			if (ai)
				freeaddrinfo(ai);
			close(s);
			late += now() - before > 2.4;
		}
		printf("%s %d %d\n", argv[i], bad, late);
	}
}
"""


@unittest.skipIf(missing() or not shutil.which("musl-gcc"), missing() or "needs musl-gcc")
class Guest(Case):
    """In a machine, with the resolvers of musl and of glibc."""

    def setUp(self):
        super().setUp()
        self.world = World(self, ZONE + [f"n{i}.rounds.test. 1 IN A 9.9.4.{i + 1}" for i in range(100)])
        self.resolv = self.path("resolv.conf")
        with open(self.resolv, "w") as f:
            f.write("search example.test rounds.test\nnameserver 10.77.0.77\nnameserver 127.0.0.1\n")

    def argv(self, *args):
        # In a mount namespace of its own: /etc may be read-only.
        return ["ip", "netns", "exec", self.world.host, "sh", "-c", 'mount --bind "$0" /etc/resolv.conf && exec "$@"', self.resolv,
                *super().argv(*args)]

    def clients(self):
        """The program with musl, and with the C library of the image."""
        source, both = self.path("client.c"), []
        with open(source, "w") as f:
            f.write(CLIENT)
        for cc, words in (("musl-gcc", ["-static"]), ("gcc", [])):
            out = self.path(f"client-{cc}")
            subprocess.run([cc, "-O1", *words, "-o", out, source], check=True, timeout=DEADLINE)
            both += ["--copy-file", f"{out}:/{cc}"]
        return both

    def test_names(self):
        script = """
grep search /etc/resolv.conf
for cc in musl-gcc gcc; do
    /$cc n7.rounds.test 60 n8 60 www 20 www.example.test 20 bad.test 1 other.example.test 1 nothing.test 1 host.microsandbox.internal 1
done
for cc in musl-gcc gcc; do /$cc $(for i in $(seq 50); do echo n$i.rounds.test 2; done); done
python3 -c 'import socket; print(len(socket.getaddrinfo("long.test", 80, type=socket.SOCK_STREAM)))'
"""
        done = self.ok(self.msb("run", "--net", "none", "--net-rule",
                                "allow@suffix=rounds.test:tcp:80,allow@www.example.test:tcp:80,allow@dns=long.test", *self.clients(),
                                "python", "--", "sh", "-c", script))
        lines = done.text.splitlines()
        self.assertEqual(lines.pop(0), "search example.test rounds.test")
        self.assertEqual(lines.pop(), "100")
        # Denied at once, and so is what is not there.
        expected = [f"{name} 0 0" for name in ("n7.rounds.test", "n8", "www", "www.example.test")]
        expected += [f"{name} 1 0" for name in ("bad.test", "other.example.test", "nothing.test", "host.microsandbox.internal")]
        self.assertEqual(lines[:8], expected)
        self.assertEqual(lines[8:16], expected)
        self.assertEqual(lines[16:], [f"n{i}.rounds.test 0 0" for i in range(1, 51)] * 2)

    def test_both_families(self):
        """A host with IPv6 gives it to its guests: there from the start, and as open and as shut as IPv4."""
        for ns, link, n in ((self.world.host, "out", 1), (self.world.world, "in", 2)):
            ip("-n", ns, "addr", "add", f"fd77::{n}/64", "dev", link, "nodad")
        ip("-n", self.world.host, "-6", "route", "add", "default", "via", "fd77::2")
        ip("-n", self.world.world, "-6", "route", "add", "local", "2600:99::/32", "dev", "lo")
        ip("netns", "exec", self.world.host, "sh", "-c", "echo 0 2147483647 >/proc/sys/net/ipv4/ping_group_range")
        self.world.start(self.world.world, [sys.executable, "-c", """
import socket, sys, threading
l = socket.create_server(("::", 80), family=socket.AF_INET6)
def serve():
    while True:
        s, _ = l.accept()
        s.sendall(b"six")
        s.close()
threading.Thread(target=serve, daemon=True).start()
def echo(family, to):
    u = socket.socket(family, socket.SOCK_DGRAM)
    if family == socket.AF_INET6:
        u.setsockopt(socket.IPPROTO_IPV6, 78, 1)  # IPV6_FREEBIND
    u.bind((to, 4000))
    while True:
        m, peer = u.recvfrom(1 << 16)
        u.sendto(m, peer)
for where in ((socket.AF_INET, "9.9.1.1"), (socket.AF_INET6, "2600:99::1")):
    threading.Thread(target=echo, args=where, daemon=True).start()
print("ready", flush=True)
sys.stdin.read()
"""], "ready")
        done = self.ok(self.msb("run", *self.clients(), "python", "--", "sh", "-c", """
cat /proc/net/if_inet6; exec 2>/dev/null; /gcc www.example.test 1; /musl-gcc www.example.test 1; python3 -c '
import errno, socket
def ping(host, family, proto, request):
    with socket.socket(family, socket.SOCK_DGRAM, proto) as s:
        s.settimeout(120)
        s.connect((host, 0))
        s.send(bytes([request]) + bytes(40))
        return s.recv(100)[0]
def tcp(host):
    try:
        with socket.create_connection((host, 80), timeout=120) as s:
            return s.recv(100).decode()
    except OSError as e:
        return errno.errorcode.get(e.errno, str(e))
def long(host, family):
    # Six times the length of the link to there, which a connected socket need not hear of.
    with socket.socket(family, socket.SOCK_DGRAM) as s:
        s.settimeout(60)
        s.connect((host, 4000))
        for i in range(3):
            s.send(bytes([i]) * 9000)
            assert s.recv(10000) == bytes([i]) * 9000
    return 9000
print(long("9.9.1.1", socket.AF_INET), long("2600:99::1", socket.AF_INET6))
print(ping("9.9.1.1", socket.AF_INET, socket.IPPROTO_ICMP, 8), ping("2600:99::1", socket.AF_INET6, socket.IPPROTO_ICMPV6, 128))
print(tcp("9.9.1.1"), tcp("2600:99::1"), tcp("fd77::2"))
'"""))
        *addresses, glibc, musl, long, pings, said = done.text.splitlines()
        # Global, and with no flag of those that would keep it from use (IFA_F_TENTATIVE is 0x40).
        own, = (a.split() for a in addresses if a.startswith("fd42"))
        self.assertEqual((own[0], own[3], int(own[4], 16) & 0x40), ("fd426d73006200000000000000000002", "00", 0))
        self.assertEqual((glibc, musl), ("www.example.test 0 0",) * 2)
        self.assertEqual((long, pings, said), ("9000 9000", "0 129", "9.9.1.1 six ECONNREFUSED"))

    def test_options(self):
        out = self.ok(self.msb("run", "--add-host", "db.internal:9.9.1.7", "--dns-nameserver", "tcp://127.0.0.1",
                               "--no-dns-rebind-protection", "--net", "public,private", *self.clients(), "python", "--", "sh", "-c",
                               "cat /etc/resolv.conf; /gcc db.internal 1 inner.test 1 www.example.test 1; /musl-gcc db.internal 1")).text
        self.assertEqual(out.splitlines(), [f"nameserver {GATEWAY}", "db.internal 0 0", "inner.test 0 0", "www.example.test 0 0",
                                            "db.internal 0 0"])
        # A name said, and one that is only meant.
        get = r"""exec 2>/dev/null; for n in www.example.test other.example.test; do
python3 -c 'import socket, sys
s = socket.create_connection(("www.example.test", 82))
s.sendall(b"GET / HTTP/1.1\r\nHost: %s\r\n\r\n" % sys.argv[1].encode())
s.shutdown(socket.SHUT_WR)
print(s.recv(100).decode())' $n || echo no; done"""
        done = self.ok(self.msb("run", "--net-strict", "--net", "none", "--net-rule", "allow@*.example.test:tcp:82", "python", "--", "sh",
                                "-c", get))
        self.assertEqual(done.text.splitlines(), ["9.9.1.1 42", "no"])
        for words in (("--dns-nameserver", "dns.example"), ("--add-host", "x"), ("--dns-query-timeout-ms", "1"),
                      ("--net-rule", "allow@nowhere"), ("--dns-rebind-protection", "maybe")):
            self.refused(self.msb("run", *words, "busybox", "--", "true"), 125)


if __name__ == "__main__":
    unittest.main()
