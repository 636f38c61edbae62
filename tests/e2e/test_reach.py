# SPDX-License-Identifier: Apache-2.0
"""What a guest cannot reach, under whatever name it tries; and what the log of its network says about it."""
import json
import re
import socket
import subprocess
import threading

from harness import Case, until

# The first argument says for how many seconds one waits, each other is "HOST PORT PROTO": what became of it.
TRY = r"""
import errno, socket, struct, sys, threading
patience = float(sys.argv[1])
def echo(host):
    family, _, _, _, to = socket.getaddrinfo(host, None, type=socket.SOCK_RAW)[0]
    six = family == socket.AF_INET6
    s = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_ICMPV6 if six else socket.IPPROTO_ICMP)
    s.settimeout(patience)
    s.connect(to)
    ident = threading.get_native_id() & 0xffff
    m = struct.pack("!BBHHH", 128 if six else 8, 0, 0, ident, 1)
    if not six:
        n = sum(struct.unpack("!4H", m))
        m = m[:2] + struct.pack("!H", ~((n & 0xffff) + (n >> 16)) & 0xffff) + m[4:]
    s.send(m)
    while True:
        b = s.recv(2000)
        b = b if six else b[(b[0] & 15) * 4:]
        if b[0] == (129 if six else 0) and b[4:6] == m[4:6]:
            return "answered"
def attempt(host, port, proto):
    if proto == "icmp":
        return echo(host)
    if proto == "raw6":
        # An address that the resolver would turn into another: as the bytes that it is.
        s = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
        to = (host, port, 0, 0)
    else:
        kind = socket.SOCK_STREAM if proto == "tcp" else socket.SOCK_DGRAM
        family, _, _, _, to = socket.getaddrinfo(host, port, type=kind)[0]
        s = socket.socket(family, kind)
    s.settimeout(patience)
    s.connect(to)
    if proto == "udp":
        s.send(b"x")
    return s.recv(100).decode() or "end"
said = {}
def one(a):
    host, port, proto = a.split()
    try:
        what = attempt(host, int(port), proto)
    except socket.gaierror:
        what = "no address"
    except socket.timeout:
        what = "late"
    except OSError as e:
        what = errno.errorcode.get(e.errno, repr(e))
    said[a] = what
threads = [threading.Thread(target=one, args=(a,)) for a in sys.argv[2:]]
for t in threads:
    t.start()
for t in threads:
    t.join()
for a in sys.argv[2:]:
    print(said[a])
"""

GATEWAY, GATEWAY6 = "172.16.0.1", "fd42:6d73:62::1"
# What means this host, one's own network or link, the cloud's secrets or nobody, in every spelling that there is.
# The guest's own loopback answers to some; a server of the host's must not.
LOOPBACK = ["127.0.0.1", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "017700000001", "0x7f.1", "127.255.255.254", "0.0.0.0", "0",
            "0.0.0.1", "::1", "::", "::ffff:127.0.0.1", "::127.0.0.1", "::ffff:0:127.0.0.1", "64:ff9b::127.0.0.1", "64:ff9b::7f00:1",
            "64:ff9b:1::127.0.0.1", "64:ff9b:1:7f00:0:100:808:808", "2002:7f00:1::", "2002:7f00:1::1", "2a00::5efe:127.0.0.1"]
METADATA = ["169.254.169.254", "2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "169.254.43518", "169.254.170.2", "169.254.170.23",
            "100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254", "fd20:ce::254", "::ffff:169.254.169.254",
            "64:ff9b::169.254.169.254", "64:ff9b::a9fe:a9fe", "64:ff9b:1::169.254.169.254", "2002:a9fe:a9fe::1", "169.254.42.42",
            "169.254.0.23", "169.254.169.252", "fd00:ec2::23", "fd00:c1::a9fe:a9fe", "fd00:a9fe:a9fe::1", "fd00:42::42",
            "fd00:100::100:200", "::169.254.169.254", "::ffff:0:169.254.169.254", "2a00::5efe:169.254.169.254"]
PRIVATE = ["10.0.0.1", "10.1", "0xa000001", "192.168.1.1", "172.16.0.5", "172.31.255.254", "100.64.0.1", "100.127.255.254", "fd12::1",
           "fc00::1", "fec0::1", "::ffff:10.0.0.1", "64:ff9b::10.0.0.1", "64:ff9b::192.168.1.1", "2002:0a00:0001::1", "2002:c0a8:101::1",
           "64:ff9b:1:a00:0:100:808:808", "2a00::5efe:10.0.0.1", "2a00::200:5efe:10.0.0.1"]
NOBODY = ["169.254.1.1", "198.18.0.1", "198.19.255.254", "192.0.0.1", "192.0.2.1", "198.51.100.1", "203.0.113.1", "192.88.99.1",
          "240.0.0.1", "255.255.255.254", "2001:db8::1", "3fff::1", "100::1", "2001::1", "2001:2::1", "5f00::1", "4000::1",
          "64:ff9b::198.18.0.1", "2001:0:4136:e378:8000:63bf:f5ff:fffe", "2001:0:4136:e378:8000:63bf:80ff:fffe", "2001:0:7f00:1::1",
          "::8.8.8.8", "::ffff:0:8.8.8.8", "fe80::5efe:8.8.8.8"]
# Nobody is on the link besides the gateway; the guest's own kernel or our silence may be what says so.
CROWDS = ["224.0.0.1", "224.0.0.251", "239.255.255.250", "255.255.255.255", "172.16.0.3", "172.16.0.0", "ff02::1", "ff02::fb%eth0",
          "ff05::1:3", "ff0e::1", "fe80::1%eth0", "fe80::6d:73ff:fe00:1%eth0", "fe80::a9fe:a9fe%eth0"]
# The guest's own host, by all the names that it has or that somebody might think of.
NAMES = ["localhost", "LOCALHOST.", "a.localhost", "ip6-localhost", "host.microsandbox.internal", "HOST.MicroSandbox.INTERNAL",
         "host.microsandbox.internal.", "172.16.1", "0254.020.0.1", "host", "gateway", "_gateway"]


class Reach(Case):
    def serve(self, port=0):
        """On all addresses of this host, of both families: who gets through is told."""
        sockets = []
        for family, any_address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
            s = socket.socket(family, socket.SOCK_STREAM)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                s.bind((any_address, port))
            except OSError:
                continue
            s.listen()
            port = s.getsockname()[1]
            sockets.append(s)
            self.addCleanup(s.close)

            def run(s=s):
                while True:
                    try:
                        c, _ = s.accept()
                    except OSError:
                        return
                    with c:
                        c.sendall(b"GOT IN")
            threading.Thread(target=run, daemon=True).start()
        return port

    def attempts(self, options, tries, patience=8):
        done = self.ok(self.msb("run", *options, "python", "--", "python3", "-c", TRY, str(patience), *tries))
        said = done.text.split("\n")[:-1]
        self.assertEqual(len(said), len(tries), str(done))
        return dict(zip(tries, said))

    def own_addresses(self):
        found = []
        for line in subprocess.check_output(["ip", "-o", "addr", "show"], text=True).splitlines():
            m = re.search(r"inet6? ([0-9a-f.:]+)/", line)
            if m and not m.group(1).startswith(("127.", "::1", "fe80")):
                found.append(m.group(1))
        return found

    def test_no_spelling_gets_through(self):
        port = self.serve()
        own = self.own_addresses()
        hosts = LOOPBACK + METADATA + PRIVATE + NOBODY + CROWDS + own + [GATEWAY, GATEWAY6]
        tries = [f"{h} {port} {p}" for h in hosts for p in ("tcp", "udp", "icmp")]
        tries += [f"{h} {port} {p}" for h in NAMES for p in ("tcp", "udp")]
        # The gateway's own services are those alone, and not this host's at the same ports.
        tries += [f"{h} {p} {kind}" for h in (GATEWAY, GATEWAY6) for p in (53, 67, 68, 546, 547, 853, 5353) for kind in ("tcp", "udp")]
        tries += [f"{h} {port} raw6" for h in hosts if ":" in h]
        for options in (("--net", "public"), ("--net-default", "allow", "--net-rule", "deny@private,deny@link-local")):
            said = self.attempts(options, tries)
            self.assertFalse({t: s for t, s in said.items() if s in ("GOT IN", "end")}, "reached")
            # The guest answers for its own loopback, the gateway for itself, and nobody for anybody else.
            answered = {t for t, s in said.items() if s == "answered"}
            self.assertIn(f"{GATEWAY} {port} icmp", answered)
            gateways = GATEWAY, GATEWAY6, "fe80::6d:73ff:fe00:1%eth0"
            self.assertFalse({t for t in answered if t.split()[0] not in (*LOOPBACK, *gateways)}, "answered")
            # What the guest's kernel lets out is refused at once; what is allowed is the world's to answer.
            silent = {t for t, s in said.items() if s == "late" and t.split()[0] not in CROWDS}
            # This one comes from the guest's loopback in the same guise: nobody that could be answered.
            silent -= {f"::ffff:127.0.0.1 {port} icmp"}
            # These wait for what they are there for.
            silent -= {f"{h} 53 {p}" for h in (GATEWAY, GATEWAY6) for p in ("tcp", "udp")} | {f"{GATEWAY} 67 udp"}
            if options[1] == "public" and silent:
                # So many at once are much for a slow machine.
                said = self.attempts(options, sorted(silent), 100)
                self.assertFalse({t for t in silent if said[t] == "late"}, "not refused but left to wait")

    def test_sandboxes_do_not_meet(self):
        """One publishes a port; another finds neither it nor the sandbox, but where it may reach the host by name."""
        child = self.start("run", "-p", "0:8080", "-p", "0.0.0.0:0:8080", "-n", "server", "python", "--", "python3", "-c", """
import socket
l = socket.create_server(("", 8080))
print("ready", flush=True)
while True:
    s, _ = l.accept()
    s.sendall(b"GOT IN")
    s.close()
""")
        self.addCleanup(lambda: self.msb("rm", "-f", "-q", "server"))
        self.assertEqual(child.stdout.readline(), b"ready\n")
        shown = json.loads(self.ok(self.msb("inspect", "--format", "json", "server")).text)["machine"]["ports"]
        port, everywhere = (s.split("->")[0].rsplit(":", 1)[1] for s in shown)
        own = self.own_addresses()
        for a in own:
            # From this host it is there, by those addresses of its.
            if ":" not in a:
                with socket.create_connection((a, int(everywhere)), timeout=60) as s:
                    self.assertEqual(s.recv(100), b"GOT IN")
        hosts = ["172.16.0.1", "172.16.0.2", "172.16.0.3", "fd42:6d73:62::2", "127.0.0.1"] + own
        tries = [f"{h} {p} tcp" for h in hosts for p in (port, everywhere, 8080)]
        said = self.attempts(("--net", "public,private"), tries)
        self.assertNotIn("GOT IN", said.values(), said)
        self.assertEqual(self.attempts(("--net", "host"), [f"{GATEWAY} {port} tcp"], 100), {f"{GATEWAY} {port} tcp": "GOT IN"})
        opened = re.compile(r"opened tcp from 127\.0\.0\.1:\d+ to port 8080")
        until(lambda: opened.search(self.ok(self.msb("logs", "--source", "network", "server")).text), "nothing is said of who came in")

    def test_the_log_of_the_network(self):
        port = self.serve()
        self.running("box", "--net", "host", "--net-rule", "deny@denied.test", image="python")
        self.ok(self.msb("exec", "box", "--", "python3", "-c", TRY, "100", f"{GATEWAY} {port} tcp", *["10.0.0.1 80 tcp"] * 20,
                         "10.0.0.1 81 udp", f"{GATEWAY} 1 tcp"))

        def entries():
            text = self.ok(self.msb("logs", "--source", "network", "--json", "box")).text
            return [json.loads(line) for line in text.splitlines()]
        seen = until(lambda: len(entries()) >= 5 and entries(), entries)
        about = [(e["event"], e["proto"], e["peer"], e["port"], e.get("reason")) for e in seen]
        self.assertIn(("denied", "tcp", "10.0.0.1", 80, "policy"), about)
        self.assertIn(("denied", "udp", "10.0.0.1", 81, "policy"), about)
        self.assertEqual(about.count(("denied", "tcp", "10.0.0.1", 80, "policy")), 1)
        self.assertIn(("opened", "tcp", GATEWAY, port, None), about)
        closed = next(e for e in seen if e["event"] == "closed")
        self.assertEqual((closed["bytes_in"], closed["bytes_out"]), (len("GOT IN"), 0))
        self.assertTrue(any(a[0] == "failed" and a[3] == 1 for a in about), about)
        self.refused(self.msb("logs", "--source", "network,stdout", "box"), 2, "alone")
        # Names that are denied, by themselves and in all.
        self.assertEqual(self.ok(self.msb("exec", "box", "--", "python3", "-c", """
import socket
for name in ["denied.test", "x.denied.test", "denied.test", "denied.test"]:
    try:
        print(socket.getaddrinfo(name, 80, socket.AF_INET))
    except OSError as e:
        print("no")
""")).text, "no\n" * 4)
        lookups = until(lambda: [e for e in entries() if e["proto"] == "dns"], entries)
        self.assertEqual(lookups[0]["d"], "denied lookup of denied.test: policy")
        self.assertEqual({k: lookups[0][k] for k in ("event", "name", "reason")},
                         {"event": "denied", "name": "denied.test", "reason": "policy"})
        used = json.loads(self.ok(self.msb("metrics", "--format", "json", "box")).text)
        self.assertGreaterEqual(used["net_lookups_denied"], 3)
        self.assertGreaterEqual(used["net_lookups"], used["net_lookups_denied"])
        # The rest of what was counted is told at the end.
        self.ok(self.msb("stop", "box"))
        told = self.ok(self.msb("logs", "--source", "network", "box")).text
        self.assertIn("denied tcp to 10.0.0.1:80: policy, 19 times more\n", told)
        self.assertRegex(told, r"denied lookup of denied\.test: policy, \d+ times more\n")
        self.assertNotIn("denied", self.ok(self.msb("logs", "--source", "all", "box")).text)
