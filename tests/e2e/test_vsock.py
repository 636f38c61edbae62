# SPDX-License-Identifier: Apache-2.0
"""Unix sockets of the host in a guest's vsock, and a guest's ports as Unix sockets here."""
import os
import socket
import threading

from harness import Case, machines_of, until

# Dials each port named, sends its number and says what came back.
DIAL = r"""
import errno, hashlib, socket, sys
for port in sys.argv[1:]:
    s = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
    s.settimeout(120)
    try:
        s.connect((2, int(port)))
        s.sendall(port.encode())
        s.shutdown(socket.SHUT_WR)
        said = b""
        while b := s.recv(1 << 16):
            said += b
        print(said.decode() if len(said) < 100 else hashlib.sha256(said).hexdigest())
    except OSError as e:
        print(errno.errorcode.get(e.errno, repr(e)))
"""
ECHO = r"""
import socket, threading
l = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
l.bind((socket.VMADDR_CID_ANY, 7000))
l.listen()
print("ready", flush=True)
def echo(s):
    while b := s.recv(1 << 16):
        s.sendall(b)
    s.close()
while True:
    threading.Thread(target=echo, args=(l.accept()[0],), daemon=True).start()
"""


class Vsock(Case):
    def serve(self, path, answer):
        server = socket.socket(socket.AF_UNIX)
        server.bind(path)
        server.listen()
        self.addCleanup(server.close)

        def run():
            while True:
                try:
                    c, _ = server.accept()
                except OSError:
                    return
                with c:
                    said = b""
                    while b := c.recv(1 << 16):
                        said += b
                    c.sendall(answer + said)
        threading.Thread(target=run, daemon=True).start()
        return server

    def test_the_guest_dials(self):
        first, second, nobody = (self.path(n) for n in ("first.sock", "second.sock", "nobody.sock"))
        self.serve(first, b"first ")
        server = self.serve(second, b"second ")
        server.close()
        os.unlink(second)
        child = self.start("run", "--vsock", f"{first}:5000", "--vsock", f"{second}:5001/stream", "--vsock", f"{nobody}:5002",
                           "python", "--", "sh", "-c", "echo ready; read go; exec python3 -c \"$0\" 5000 5001 5002 5003 1024 5000", DIAL)
        self.assertEqual(child.stdout.readline(), b"ready\n")
        # What is there when it is dialled counts, not what was there before.
        self.serve(second, b"third ")
        out, _ = child.communicate(b"go\n", 120)
        self.assertEqual(out.decode().split("\n")[:-1],
                         ["first 5000", "third 5001", "ECONNRESET", "ECONNRESET", "ECONNRESET", "first 5000"])
        self.assertEqual(child.returncode, 0)

    def test_the_guest_is_dialled(self):
        path = self.path("guest.sock")
        # What an earlier one left behind is not in the way.
        stale = socket.socket(socket.AF_UNIX)
        stale.bind(path)
        stale.close()
        child = self.start("run", "--vsock-listen", f"{path}:7000", "--vsock-listen", f"{self.path('other.sock')}:7001", "--net", "none",
                           "python", "--", "python3", "-c", ECHO)
        self.assertEqual(child.stdout.readline(), b"ready\n")
        self.assertEqual(os.stat(path).st_mode & 0o077, 0)
        data = os.urandom(1 << 20)
        for _ in range(2):
            with socket.socket(socket.AF_UNIX) as s:
                s.connect(path)
                threading.Thread(target=lambda: (s.sendall(data), s.shutdown(socket.SHUT_WR)), daemon=True).start()
                self.assertEqual(b"".join(iter(lambda: s.recv(1 << 16), b"")), data)
        # Nobody listens on the other one.
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(self.path("other.sock"))
            self.assertEqual(s.recv(1), b"")
        # Its own socket, in use, is.
        self.refused(self.msb("run", "--vsock-listen", f"{path}:7000", "busybox", "--", "true"), 125, "there is something already")
        child.kill()
        until(lambda: not os.path.exists(path) and not os.path.exists(self.path("other.sock")), "its sockets stay")
        until(lambda: not any(self.scratch in line for line in machines_of(self.scratch).values()), "its processes stay")

    def test_words(self):
        for words, said in ((("--vsock", "/x.sock"), "looks like"), (("--vsock", "/x.sock:0"), "from 1 to"),
                            (("--vsock", "/x.sock:1024"), "agent"), (("--vsock", "/x.sock:9/dgram"), "no datagrams"),
                            (("--vsock", "/" + "x" * 108 + ":9"), "107 bytes"), (("--vsock", "/a:9", "--vsock", "/b:9"), "two sockets"),
                            (("--vsock-listen", "/nowhere/x.sock:9"), "cannot listen")):
            self.refused(self.msb("run", *words, "busybox", "--", "true"), 125, said)
