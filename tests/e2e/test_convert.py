# SPDX-License-Identifier: Apache-2.0
"""msb-convert: what it has left while it works, and what msb believes of one that has been taken over."""
import contextlib
import os
import subprocess
import sys
import tarfile

import oci
from harness import MSB, PATIENCE, Case, open_files, parent_and_name, until
from test_store import contents

# Speaks as msb-convert does, in place of one that a layer has taken over.
LIAR = """#!{python}
import mmap, os, signal, socket, struct, sys, zlib
if sys.argv[1] != {part!r}:
    os.execv({real!r}, ["msb-convert", *sys.argv[1:]])
SLOT, COUNT = 128 << 10, 8

def slots(fd):
    shared = mmap.mmap(fd, SLOT * COUNT, prot=mmap.PROT_READ)
    s = socket.socket(fileno=fd + 1)
    number = 0
    while True:
        head = s.recv(4, socket.MSG_WAITALL)
        if len(head) < 4:
            return
        at = number % COUNT * SLOT
        yield shared[at:at + struct.unpack("=I", head)[0]]
        s.send(b"x")
        number += 1

def give(fd, data):
    shared = mmap.mmap(fd, SLOT * COUNT)
    s = socket.socket(fileno=fd + 1)
    for number, at in enumerate(range(0, len(data), SLOT)):
        if number >= COUNT:
            s.recv(1)
        piece = data[at:at + SLOT]
        shared[number % COUNT * SLOT:number % COUNT * SLOT + len(piece)] = piece
        s.send(struct.pack("=I", len(piece)))
    s.shutdown(socket.SHUT_WR)

def report(data=bytes(4096)):
    os.write(3, data)

{body}
"""


class Convert(Case):
    def setUp(self):
        super().setUp()
        self.home = self.path("home")
        self.layer = oci.layer([oci.entry("f", b"the truth\n" * 5000), oci.entry("g", os.urandom(300000))])
        self.archive = oci.layout(self.path("one.tar"), [self.layer], "one")

    def lib(self, part, body):
        """MSB_LIBDIR with such an msb-convert."""
        top = self.path("lib")
        os.makedirs(top, exist_ok=True)
        with open(top + "/msb-convert", "w") as f:
            f.write(LIAR.format(python=sys.executable, part=part, body=body,
                                real=os.path.join(os.path.dirname(MSB), "msb-convert")))
        os.chmod(top + "/msb-convert", 0o755)
        return {"MSB_LIBDIR": top}

    def refuse(self, part, body, *words):
        env = self.lib(part, body)
        self.refused(self.msb("load", "-i", self.archive, env=env), 1, *words)
        self.assertEqual({n for n in contents(self.home) if n.startswith(("tmp/", "layers/", "images/"))}, set())
        # Nothing of it stays.
        self.ok(self.msb("load", "-i", self.archive))
        self.assertIn("sound", self.ok(self.msb("image", "verify")).text)
        self.ok(self.msb("rmi", "one"))

    def test_an_honest_one(self):
        """The stand-in works, so that what follows fails for its lies alone."""
        body = "give(6, zlib.decompress(b''.join(slots(4)), 31)); report()"
        self.ok(self.msb("load", "-i", self.archive, env=self.lib("unpack", body)))
        self.assertIn("sound", self.ok(self.msb("image", "verify")).text)

    def test_another_stream(self):
        self.refuse("unpack", "give(6, zlib.decompress(b''.join(slots(4)), 31).replace(b'the truth', b'a fiction')); report()",
                    "its contents have the digest sha256:", "the configuration says")

    def test_changed_after_it_was_passed(self):
        """What is hashed is what is converted, however fast somebody writes to the shared memory."""
        body = """
import threading
data = zlib.decompress(b''.join(slots(4)), 31)
shared = mmap.mmap(6, SLOT * COUNT)
lie = data[:SLOT].replace(b'the truth', b'a fiction')
stop = False
def flip():
    while not stop:
        shared[:len(lie)] = lie
        shared[:len(lie)] = data[:SLOT]
thread = threading.Thread(target=flip)
thread.start()
give(6, data)
stop = True
thread.join()
report()
"""
        env = self.lib("unpack", body)
        done = self.msb("load", "-i", self.archive, env=env)
        if done.code:
            self.refused(done, 1, "its contents have the digest")
        else:
            self.assertIn("sound", self.ok(self.msb("image", "verify")).text)
            saved = self.path("saved.tar")
            self.ok(self.msb("save", "-o", saved, "one"))
            with tarfile.open(saved) as tar:
                layers = [tar.extractfile(m).read() for m in tar if m.size == len(self.layer)]
            self.assertEqual(layers, [self.layer])

    def test_less_and_more(self):
        for change in ("[:-1024]", " + bytes(1)", "[:0]"):
            self.refuse("unpack", f"give(6, zlib.decompress(b''.join(slots(4)), 31){change}); report()", "digest")

    def test_it_ends(self):
        for part in ("unpack", "layer"):
            self.refuse(part, "sys.exit(3)", "exit code 3")
            self.refuse(part, "os.kill(os.getpid(), signal.SIGSEGV)", "signal 11")
            # With half of a report, and with one that makes no sense.
            self.refuse(part, "list(slots(4)); report(b'x' * 100)", "without a report")
            self.refuse(part, "list(slots(4)); report(b'\\xff' * 4096)", "without a report")

    def test_it_claims_to_have_written(self):
        self.refuse("layer", "list(slots(4)); report()", "went wrong")

    def test_its_message_is_only_text(self):
        body = "report(struct.pack('=i', 4096) + b'\\x1b[31mred' + b'A' * 4092)"
        self.msb("load", "-i", self.archive, env=self.lib("layer", body))
        done = self.msb("load", "-i", self.archive, env=self.lib("layer", body))
        self.refused(done, 1, "red")
        self.assertNotIn(b"\x1b", done.err)

    def test_missing(self):
        top = self.path("empty")
        os.makedirs(top)
        self.refused(self.msb("load", "-i", self.archive, env={"MSB_LIBDIR": top}), 1, "msb-convert", "MSB_LIBDIR")

    def test_no_command(self):
        program = os.path.join(os.path.dirname(MSB), "msb-convert")
        for words in ([], ["--help"], ["unpack"], ["layer"], ["unpack", "x"]):
            done = subprocess.run([program] + words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE, timeout=PATIENCE, text=True)
            self.assertEqual((done.returncode, done.stdout), (2, ""))
            self.assertIn("not a command", done.stderr)

    def test_what_is_left_to_it(self):
        """While its input is slow to come it is filtered, and holds its four files and nothing else."""
        real = os.path.join(os.path.dirname(MSB), "msb-convert")
        env = self.lib("unpack", f"signal.raise_signal(signal.SIGSTOP); os.execv({real!r}, ['msb-convert', 'unpack'])")
        child = self.start("load", "-q", "-i", self.archive, env=env)

        def find():
            for pid in filter(str.isdigit, os.listdir("/proc")):
                with contextlib.suppress(OSError):
                    if (parent_and_name(pid)[0] == child.pid and
                            open(f"/proc/{pid}/cmdline").read() == "msb-convert\0layer\0"):
                        return pid

        def status():
            lines = open(f"/proc/{pid}/status").read().splitlines()
            return dict(line.split(":\t", 1) for line in lines if ":\t" in line)
        pid = until(find, "no msb-convert")
        # Sanitizers bear no filter; nor do they bear the shim.
        if os.path.exists(os.path.join(os.path.dirname(MSB), "tests/libfault.so")):
            until(lambda: status()["Seccomp"] == "2", "it is not confined")
            self.assertEqual(status()["NoNewPrivs"], "1")
            if os.geteuid() == 0:
                self.assertNotIn(b"MSB_HOME", open(f"/proc/{pid}/environ", "rb").read())
        if os.geteuid() == 0:
            def held():
                return sorted(f.split(":")[0].replace(self.home + "/tmp/", "own ").split(" ")[0] for f in open_files(pid))
            # Its start opens more; under a sanitizer there is no telling when that is over.
            until(lambda: held().count("own") == 4 and set(held()) <= {"own", "socket", "pipe", "/dev/null"},
                  lambda: f"it holds {held()}")
        child.kill()
        child.communicate()
        until(lambda: not os.path.exists(f"/proc/{pid}"), "it outlives msb")
