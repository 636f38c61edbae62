# SPDX-License-Identifier: Apache-2.0
"""The network of a sandbox that runs is changed: what it may reach, how much, and from where it is reached."""
import json
import socket
import threading
import time

from harness import Case, until

GATEWAY = "172.16.0.1"

# Serves a port that says what it is, and on standard input tries what it is told: "HOST PORT".
GUEST = r"""
import errno, socket, sys, threading
def serve(port):
    l = socket.create_server(("", port))
    while True:
        s, _ = l.accept()
        s.sendall(b"guest %d" % port)
        s.close()
for port in (8000, 8001):
    threading.Thread(target=serve, args=(port,), daemon=True).start()
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
u.bind(("", 8002))
def echo():
    while True:
        b, a = u.recvfrom(2000)
        u.sendto(b, a)
threading.Thread(target=echo, daemon=True).start()
held = None
print("ready", flush=True)
for line in sys.stdin:
    words = line.split()
    try:
        if words[0] == "hold":
            held = socket.create_connection((words[1], int(words[2])), timeout=120)
            said = held.recv(100).decode()
        elif words[0] == "held":
            said = held.recv(100).decode() or "end"
        else:
            s = socket.create_connection((words[1], int(words[2])), timeout=120)
            said = s.recv(100).decode() or "end"
            s.close()
    except OSError as e:
        said = errno.errorcode.get(e.errno, repr(e))
    print(said, flush=True)
"""


class Govern(Case):
    def setUp(self):
        super().setUp()
        self.name = self._testMethodName
        server = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(server.close)
        self.conns = []

        def run():
            while True:
                try:
                    c, _ = server.accept()
                except OSError:
                    return
                c.sendall(b"host")
                self.conns.append(c)
        threading.Thread(target=run, daemon=True).start()
        self.port = server.getsockname()[1]

    def box(self, *options):
        child = self.start("run", "-n", self.name, *options, "python", "--", "python3", "-c", GUEST)
        self.addCleanup(lambda: self.msb("rm", "-f", "-q", self.name))
        self.addCleanup(self.finish, child)
        self.assertEqual(child.stdout.readline(), b"ready\n")
        return child

    def tell(self, child, *words):
        child.stdin.write(" ".join(map(str, words)).encode() + b"\n")
        child.stdin.flush()
        return child.stdout.readline().decode().strip()

    def modify(self, *words):
        done = self.ok(self.msb("modify", "--format", "json", *words, self.name))
        return {c["field"]: (c["disposition"], c["state"]) for c in json.loads(done.text)["changes"]}

    def ports(self):
        return json.loads(self.ok(self.msb("inspect", "--format", "json", self.name)).text)["machine"]["ports"]

    def test_policy_and_limits(self):
        child = self.box("--net", "none")
        there = ("try", GATEWAY, self.port)
        self.assertEqual(self.tell(child, *there), "ECONNREFUSED")
        self.assertEqual(self.modify("--net-rule", f"allow@host:tcp:{self.port}"), {"net_rules": ("live", "applied")})
        self.assertEqual(self.tell(child, *there), "host")
        # What is open and no longer allowed is cut; what is allowed goes on.
        self.assertEqual(self.tell(child, "hold", GATEWAY, self.port), "host")
        self.assertEqual(self.modify("--net", "host", "--net-rule-rm", f"allow@host:tcp:{self.port}"),
                         {"net": ("live", "applied"), "net_rules": ("live", "applied")})
        until(lambda: len(self.conns) >= 2, "two connections")
        self.conns[-1].sendall(b"still")
        self.assertEqual(self.tell(child, "held"), "still")
        self.modify("--net-rule", "deny@any")
        self.assertEqual(self.tell(child, "held"), "ECONNRESET")
        self.assertEqual(self.tell(child, *there), "ECONNREFUSED")
        until(lambda: "policy, as it is now" in self.ok(self.msb("logs", "--source", "network", self.name)).text, "a line about what was cut")
        self.modify("--net-rule-rm", "deny@any", "--max-connection-rate", "2/1h")
        self.assertEqual([self.tell(child, *there) for _ in range(3)], ["host", "host", "ECONNREFUSED"])
        self.assertRegex(self.ok(self.msb("inspect", self.name)).text, r"(?m)^Net limits +max-connection-rate=2/1h$")
        self.assertEqual(self.modify("--max-connection-rate", "none"), {"net_limits": ("live", "applied")})
        self.assertEqual(self.tell(child, *there), "host")
        self.refused(self.msb("modify", "--net-rule-rm", "deny@any", self.name), 1, "no rule")
        self.assertRegex(self.ok(self.msb("inspect", self.name)).text, r"(?m)^Network +host$")
        self.refused(self.msb("modify", "--net-rule", "deny@nobody", self.name), 2, "domain=nobody")
        self.refused(self.msb("modify", "--net-egress-ops-burst", "5", self.name), 1, "burst")
        # It is what the next machine begins with.
        record = json.loads(self.ok(self.msb("inspect", "--format", "json", self.name)).text)["config"]
        self.assertEqual((record["net"], record.get("net_rules"), record.get("net_limits")), ("host", None, None))

    def test_ports(self):
        child = self.box("-p", "0:8000", "--net", "none")

        def ask(shown):
            with socket.create_connection(("127.0.0.1", int(shown.split("->")[0].rsplit(":", 1)[1])), timeout=120) as s:
                return s.recv(100)
        first = self.ports()[0]
        self.assertEqual(ask(first), b"guest 8000")
        self.assertEqual(self.modify("-p", "0:8001", "-p", "0:8002/udp"), {"ports": ("live", "applied")})
        shown = self.ports()
        self.assertEqual((shown[0], len(shown)), (first, 3))
        self.assertEqual(ask(shown[1]), b"guest 8001")
        self.assertIn(shown[1], self.ok(self.msb("ps")).text)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as u:
            u.settimeout(120)
            u.connect(("127.0.0.1", int(shown[2].split("->")[0].rsplit(":", 1)[1])))
            u.send(b"echo")
            self.assertEqual(u.recv(100), b"echo")
            # With a flow of its own through it.
            self.modify("--port-rm", "0:8002/udp", "--port-rm", "0:8000")
            with self.assertRaises(OSError):
                for _ in range(2000):
                    u.send(b"echo")
                    time.sleep(0.05)
        self.assertEqual(self.ports(), [shown[1]])
        with self.assertRaises(ConnectionRefusedError):
            ask(first)
        self.assertEqual(ask(shown[1]), b"guest 8001")
        # The same port for another one of the guest, at once.
        number = shown[1].split("->")[0].rsplit(":", 1)[1]
        self.modify("--port-rm", "0:8001", "-p", f"{number}:8000")
        self.assertEqual(ask(self.ports()[0]), b"guest 8000")
        self.refused(self.msb("modify", "--port-rm", "1:1", self.name), 1, "does not publish")
        with socket.create_server(("127.0.0.1", 0)) as s:
            self.refused(self.msb("modify", "-q", "-p", f"{s.getsockname()[1]}:8001", self.name), 1, "cannot publish")
        self.assertEqual(len(self.ports()), 1)
        # Nor is it what the next machine would fail by.
        record = json.loads(self.ok(self.msb("inspect", "--format", "json", self.name)).text)
        self.assertEqual(record["config"]["ports"], [f"{number}:8000"])
        self.assertEqual(self.tell(child, "try", "127.0.0.1", 8000), "guest 8000")
