#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What the end-to-end tests share.

Environment: MSB is the program under test (default build/msb), MSB_ENGINE the engine (default
qemu), MSB_CPUS how many CPUs a sandbox gets where a test does not say (default: the product's),
MSB_CACHE where slow inputs are kept between runs. A run has one store with the images
`busybox` and `python` loaded (MSB_TEST_HOME); a test that changes a store makes one of its own.

    tests/e2e/harness.py TEST...    run single tests, by module.Class.test; 77 when all skipped
"""
import contextlib
import fcntl
import hashlib
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

import oci

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
MSB = os.path.abspath(os.environ.get("MSB", os.path.join(ROOT, "build", "msb")))
ENGINE = os.environ.get("MSB_ENGINE", "qemu")
CACHE = os.path.join(os.environ.get("MSB_CACHE") or
                     os.path.join(os.environ.get("XDG_CACHE_HOME") or
                                  os.path.expanduser("~/.cache"), "msb"), "test-images")
# A boot takes a second or two; a machine that does other things as well may need far longer. Nobody
# waits for this long unless something hangs.
PATIENCE = 300
MMDEBSTRAP = ["mmdebstrap", "--variant=minbase", "--include=python3-minimal", "bookworm"]


class NotReady(Exception):
    """The tests cannot be run at all."""


def deadline(seconds):
    """Of a test, when the usual 900 seconds do not do."""
    def mark(f):
        f.deadline = seconds
        return f
    return mark


def alone(f):
    """A test that no other may run beside."""
    f.alone = True
    return f


# ---- images ----

def busybox_image(path):
    """busybox with all its applets, two users, and a command that tells what it was given."""
    busybox = shutil.which("busybox") or "/bin/busybox"
    if not os.path.exists(busybox):
        raise NotReady("no busybox; install busybox-static")
    applets = subprocess.check_output([busybox, "--list"], text=True).split()
    entries = [oci.entry(d) for d in ("bin", "dev", "etc", "proc", "root", "sys", "usr", "var", "work")]
    entries += [oci.entry("tmp", mode=0o1777), oci.entry("home"), oci.entry("home/user", uid=1000, gid=1000)]
    entries.append(oci.entry("bin/busybox", open(busybox, "rb").read(), mode=0o755))
    entries += [oci.entry("bin/" + a, kind="link", target="busybox") for a in applets if a != "busybox"]
    entries.append(oci.entry("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"
                             "user:x:1000:1000:User:/home/user:/bin/sh\n"))
    entries.append(oci.entry("etc/group", "root:x:0:\nuser:x:1000:\nextra:x:2000:user\nmore:x:2001:user\n"))
    entries.append(oci.entry("etc/noexec", "just text\n", mode=0o644))
    first = oci.layer(entries)
    second = oci.layer([oci.entry("etc/motd", "second layer\n")])
    return oci.layout(path, [first, second], "busybox:latest", Cmd=["sh"],
                      Env=["PATH=/bin:/usr/bin", "FROM_IMAGE=yes"], WorkingDir="/work")


def debian_image(name, how, **config):
    """An image of Debian made from packages; kept between runs because it takes minutes."""
    recipe = repr(how).encode() + open(oci.__file__, "rb").read()
    key = hashlib.sha256(recipe).hexdigest()[:16]
    kept = os.path.join(CACHE, f"{name}-{key}.tar")
    os.makedirs(CACHE, exist_ok=True)
    with open(os.path.join(CACHE, "lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.path.exists(kept):
            print(f"e2e: making the Debian image {name} (once)", flush=True)
            with tempfile.TemporaryDirectory(dir=CACHE) as work:
                tar = os.path.join(work, "root.tar")
                patient = ["--aptopt=Acquire::Retries \"5\""]
                made = subprocess.run(how[:1] + patient + how[1:] + [tar], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
                if made.returncode:
                    raise NotReady("mmdebstrap failed: " + made.stdout[-2000:])
                new = oci.layout(os.path.join(work, "image.tar"), [open(tar, "rb").read()], f"{name}:latest",
                                 Env=["PATH=/usr/local/bin:/usr/bin:/bin"], **config)
                os.rename(new, kept)
    return kept


def python_image():
    return debian_image("python", MMDEBSTRAP, Cmd=["python3"])


@contextlib.contextmanager
def prepared():
    """A store with the test images; yields the environment for the tests of this run. All that is made
    here may come from another run's MSB_TEST_TOP: MSB_TEST_READY names a copy."""
    if not os.access(MSB, os.X_OK):
        raise NotReady(f"{MSB} is not there; run make")
    with tempfile.TemporaryDirectory(prefix="msb-e2e-") as top:
        home, busybox = os.path.join(top, "home"), os.path.join(top, "busybox.tar")
        ready = os.environ.get("MSB_TEST_READY")
        if ready:
            shutil.copytree(ready, top, dirs_exist_ok=True)
        else:
            busybox_image(busybox)
        env = {"MSB_TEST_TOP": top, "MSB_TEST_HOME": home, "MSB_TEST_BUSYBOX": busybox,
               "MSB_TEST_PYTHON": python_image()}
        for archive in () if ready else (busybox, env["MSB_TEST_PYTHON"]):
            made = subprocess.run([MSB, "load", "-i", archive], env=environment(home), text=True,
                                  stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            if made.returncode:
                raise NotReady(f"msb load -i {archive} failed:\n{made.stdout}")
        try:
            yield env
        finally:
            stop_leftovers(top)


def stop_leftovers(top):
    """End what still runs for this run's stores, so that a failed test disturbs no other run."""
    for pid in processes_of(top):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


# ---- the world outside ----

def environment(home, **more):
    env = {k: v for k, v in os.environ.items()
           if not k.startswith("MSB_") or k in ("MSB_QEMU", "MSB_LIBDIR", "MSB_CACHE")}
    env.update(MSB_HOME=home, **more)
    return env


def processes_of(path):
    """Processes that have to do with @path: by argument, environment or open file. {pid: command line}"""
    found = {}
    needle = path.encode()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if int(pid) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            text = open(f"/proc/{pid}/cmdline", "rb").read()
            # Whoever serves a box (tests/box) holds all that anyone in there has seen of this host.
            if parent_and_name(pid)[1] == "virtiofsd":
                continue
            if (needle in text or needle in open(f"/proc/{pid}/environ", "rb").read() or
                    any(path in link for link in open_files(pid))):
                found[int(pid)] = text.replace(b"\0", b" ").decode(errors="replace")
    return found


def open_files(pid):
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            yield os.readlink(f"/proc/{pid}/fd/{fd}")


def parent_and_name(pid):
    with contextlib.suppress(OSError):
        name, rest = open(f"/proc/{pid}/stat").read().split("(", 1)[1].rsplit(")", 1)
        return int(rest.split()[1]), name
    return 0, ""


def orphans():
    """QEMUs of ours whose msb-vm has gone, whichever store they were for."""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            line = open(f"/proc/{pid}/cmdline", "rb").read()
            if b"id=qmp,fd=" in line and not parent_and_name(parent_and_name(pid)[0])[1].startswith("msb-vm"):
                found[int(pid)] = line.replace(b"\0", b" ").decode(errors="replace")
    return found


def machines_of(home):
    """The msb, msb-vm and QEMU processes that work for the store @home, and QEMUs of nobody."""
    names = ("msb", "msb-vm", "qemu-system")
    found = processes_of(home)
    # QEMU itself knows nothing of the store.
    for pid in filter(str.isdigit, os.listdir("/proc")):
        parent, name = parent_and_name(pid)
        if parent in found and name.startswith("qemu"):
            found[int(pid)] = "qemu-system of " + str(parent)
    found.update(orphans())
    return {pid: line for pid, line in found.items()
            if os.path.basename(line.split(" ")[0]).startswith(names)}


def tree(home):
    """Every path of a store that must not differ between before and after."""
    paths = set()
    for folder, folders, files in os.walk(home):
        for name in folders + files:
            path = os.path.relpath(os.path.join(folder, name), home)
            # SQLite's companions, locks and what can be made again come and go.
            if not path.startswith(("cache/", "msb.db-", "locks/", "run.lock")):
                paths.add(path)
    return paths


def until(condition, what, seconds=PATIENCE):
    """Wait for @condition, which returns its truth; fail with @what when it never comes."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s: {what() if callable(what) else what}")
        time.sleep(0.02)


def in_time(limit, attempt, tries=8):
    """@attempt tells how many seconds something took: less than @limit, on one of some tries. What is late
    by itself always is; what others on this machine delayed is not late again and again."""
    took = []
    while not took or took[-1] >= limit:
        if len(took) == tries:
            raise AssertionError(f"never in less than {limit} s: {took}")
        took.append(attempt())


class Done:
    """A finished command."""

    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err

    @property
    def text(self):
        return self.out.decode(errors="replace")

    @property
    def messages(self):
        return self.err.decode(errors="replace")

    def __str__(self):
        return f"exit code {self.code}\n--- stdout\n{self.text[-3000:]}\n--- stderr\n{self.messages[-3000:]}"


class Case(unittest.TestCase):
    """A test with a store: the shared one, or `self.home = self.own_home()`."""
    maxDiff = 4000

    def setUp(self):
        self.home = os.environ["MSB_TEST_HOME"]
        self.scratch = tempfile.mkdtemp(prefix="t-", dir=os.environ["MSB_TEST_TOP"])
        self.addCleanup(shutil.rmtree, self.scratch, True)

    def path(self, name):
        return os.path.join(self.scratch, name)

    def own_home(self, *archives):
        """A store of this test alone, with these archives loaded (busybox if none is named)."""
        self.home = self.path("home")
        for archive in archives or [os.environ["MSB_TEST_BUSYBOX"]]:
            self.ok(self.msb("load", "-i", archive))
        self.addCleanup(stop_leftovers, self.home)
        return self.home

    def argv(self, *args):
        args = list(args)
        ours = args[:args.index("--")] if "--" in args else args
        # What a project's sandbox is says its file.
        making = args and args[0] in ("run", "create") and "-s" not in ours and "--sandbox" not in ours
        if making and "--engine" not in ours:
            args[1:1] = ["--engine", ENGINE]
        if making and "MSB_CPUS" in os.environ and "-c" not in ours:
            args[1:1] = ["-c", os.environ["MSB_CPUS"]]
        return [MSB] + args

    def start(self, *args, env=None, **how):
        """msb with these arguments, its three streams pipes unless told otherwise."""
        how = dict(dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE), **how)
        child = subprocess.Popen(self.argv(*args), env=environment(self.home, **(env or {})), **how)
        self.addCleanup(self.finish, child)
        return child

    def finish(self, child):
        if child.poll() is None:
            child.kill()
            child.wait()
        for stream in (child.stdin, child.stdout, child.stderr):
            if stream:
                with contextlib.suppress(OSError):
                    stream.close()

    def msb(self, *args, input=b"", env=None, timeout=PATIENCE * 2, **how):
        child = self.start(*args, env=env, **how)
        out, err = child.communicate(input, timeout)
        return Done(child.returncode, out or b"", err)

    def run_in(self, image, *command, options=(), **how):
        return self.msb("run", *options, image, "--", *command, **how)

    def running(self, name="box", *options, image="busybox"):
        """A sandbox that runs until the end of the test, or until the input of what is returned ends."""
        child = self.start("run", "-n", name, *options, image, "--", "sh", "-c", "echo up; cat; exit 0")
        self.addCleanup(lambda: self.msb("rm", "-f", "-q", name))
        self.addCleanup(self.finish, child)
        self.assertEqual(child.stdout.readline(), b"up\n", child.poll())
        return child

    def sh(self, script, *options, image="busybox", **how):
        """A shell script in a new sandbox; fails unless it succeeds; returns its output."""
        return self.ok(self.run_in(image, "sh", "-c", script, options=options, **how)).text

    def ok(self, done):
        self.assertEqual(done.code, 0, str(done))
        return done

    def refused(self, done, code, *words):
        """The exit code, and one clear message on stderr holding each of these words."""
        self.assertEqual(done.code, code, str(done))
        text = done.messages
        for word in words:
            self.assertIn(word.lower(), text.lower(), str(done))
        self.assertTrue(text.strip(), "no message")
        for noise in ("AddressSanitizer", "runtime error", "Assertion", "core dumped"):
            self.assertNotIn(noise, text)
        lines = text.strip().splitlines()
        self.assertLessEqual(len(lines), 4, "more than a message and a hint:\n" + text)

    def nothing_left(self, home=None, before=None):
        """No process of the store's remains, no sandbox directory, socket or disk."""
        home = home or self.home
        until(lambda: not machines_of(home), lambda: f"these remain: {machines_of(home)}")
        if before is not None:
            left = tree(home) - before
            self.assertFalse(left, f"left behind: {sorted(left)}")
        for folder in ("sandboxes", "tmp", "run"):
            path = os.path.join(home, folder)
            if os.path.isdir(path):
                self.assertEqual(os.listdir(path), [], f"{folder}/ is not empty")

    def machine_pids(self, what, home=None):
        return [pid for pid, line in machines_of(home or self.home).items()
                if os.path.basename(line.split(" ")[0]).startswith(what)]


class Terminal:
    """msb on a pseudo-terminal."""

    def __init__(self, case, *args, rows=24, columns=80, env=None):
        self.master, self.slave = pty.openpty()
        self.resize(rows, columns)
        self.modes = self.stty()
        self.seen = b""
        # A session of its own whose controlling terminal this is, as under a shell.
        env = dict({"TERM": "xterm"}, **(env or {}))
        self.child = case.start(*args, stdin=self.slave, stdout=self.slave, stderr=self.slave, env=env,
                                preexec_fn=self.take_terminal)
        case.addCleanup(self.close)

    def take_terminal(self):
        import termios
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    def close(self):
        for fd in (self.master, self.slave):
            with contextlib.suppress(OSError):
                os.close(fd)

    def stty(self):
        import termios
        return termios.tcgetattr(self.slave)

    def resize(self, rows, columns):
        import struct
        import termios
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def write(self, data):
        os.write(self.master, data)

    def expect(self, text, seconds=PATIENCE):
        """Read until @text has been seen; what came after it stays for the next call."""
        end = time.monotonic() + seconds
        while text not in self.seen:
            left = end - time.monotonic()
            if left <= 0 or not select.select([self.master], [], [], left)[0]:
                raise AssertionError(f"{text!r} did not come; seen: {self.seen[-2000:]!r}")
            self.seen += os.read(self.master, 65536)
        before, self.seen = self.seen.split(text, 1)
        return before

    def drain(self):
        """What is there to be read."""
        while select.select([self.master], [], [], 0)[0]:
            self.seen += os.read(self.master, 65536)

    def wait(self, seconds=PATIENCE):
        """The exit code; output goes on being read so that nobody blocks on it, and as long as there is some, one waits."""
        end = time.monotonic() + seconds
        while self.child.poll() is None:
            if time.monotonic() > end:
                raise AssertionError(f"msb does not end; seen: {self.seen[-2000:]!r}")
            if select.select([self.master], [], [], 0.02)[0]:
                self.seen += os.read(self.master, 65536)
                end = time.monotonic() + seconds
        return self.child.returncode


def run_single(names):
    """Run tests by name; in a prepared run use its store, else make one for these."""
    with contextlib.ExitStack() as stack:
        if "MSB_TEST_HOME" not in os.environ:
            os.environ.update(stack.enter_context(prepared()))
        suite = unittest.defaultTestLoader.loadTestsFromNames(names)
        result = unittest.TextTestRunner(verbosity=2, stream=sys.stdout).run(suite)
    if not result.wasSuccessful():
        return 1
    if result.skipped and len(result.skipped) == result.testsRun:
        print(result.skipped[0][1])
        return 77
    return 0


if __name__ == "__main__":
    sys.modules["harness"] = sys.modules["__main__"]
    sys.path.insert(0, HERE)
    sys.exit(run_single(sys.argv[1:]))
