#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measure this build on this machine and print the tables of docs/benchmarks.md.

    bench/bench.py [--runs N] [--only NAME,...] [-o FILE]

What is compared is run in turn, A B A B..., and judged by the ratio of medians; seconds alone say
more about the machine than about the program. A part whose other side is missing is skipped and
says why.
"""
import argparse
import datetime
import glob
import hashlib
import json
import os
import platform
import re
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "tests", "e2e"))
import harness
import oci

MSB = harness.MSB
BUILD = os.path.dirname(MSB)
VMLINUX = os.path.join(BUILD, "vmlinux")
QEMU = os.environ.get("MSB_QEMU", "qemu-system-x86_64")
PEER = "@superradcompany/microsandbox-linux-x64-gnu@0.6.18"
COMMAND = ["python3", "-c", "print(6*7)"]


class Skip(Exception):
    pass


class Bench:
    def __init__(self, runs, work):
        self.runs, self.work = runs, work
        self.home = os.path.join(work, "home")
        self.env = harness.environment(self.home)
        self.lines = []

    def say(self, text=""):
        print(text, flush=True)
        self.lines.append(text)

    def row(self, *cells):
        self.say("| " + " | ".join(str(c) for c in cells) + " |")

    def head(self, *cells):
        self.row(*cells)
        self.row(*["---"] * len(cells))

    def msb(self, *args, **how):
        return subprocess.run([MSB] + list(args), env=self.env, check=True,
                              **dict(dict(stdin=subprocess.DEVNULL, stdout=subprocess.PIPE), **how))

    def prepare(self):
        self.image = harness.python_image()
        self.msb("load", "-i", self.image, stderr=subprocess.DEVNULL)

    def rootfs(self):
        """The same files on ext4, for the plain recipe."""
        disk = os.path.join(self.work, "plain.ext4")
        if not os.path.exists(disk):
            with tempfile.TemporaryDirectory(dir=self.work) as top:
                layout = os.path.join(top, "layout")
                os.mkdir(layout)
                subprocess.run(["tar", "-xf", self.image, "-C", layout], check=True)
                root = os.path.join(top, "root")
                os.mkdir(root)
                index = json.load(open(layout + "/index.json"))

                def blob(digest):
                    return os.path.join(layout, "blobs", digest.replace(":", "/"))
                manifest = json.load(open(blob(index["manifests"][0]["digest"])))
                for layer in manifest["layers"]:
                    subprocess.run(["tar", "-xf", blob(layer["digest"]), "-C", root], check=True)
                with open(root + "/plain-init", "w") as f:
                    # When the shell ends the kernel panics and, with -no-reboot, so ends the machine.
                    f.write("#!/bin/sh\nmount -t proc proc /proc\nmount -t sysfs sys /sys\n"
                            "mount -t tmpfs tmp /tmp\nexport PATH=/usr/local/bin:/usr/bin:/bin\n"
                            + " ".join(f"'{w}'" for w in COMMAND) + "\n")
                os.chmod(root + "/plain-init", 0o755)
                with open(disk + ".tmp", "wb") as f:
                    f.truncate(1 << 30)
                subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-d", root, disk + ".tmp"], check=True)
                os.rename(disk + ".tmp", disk)
        return disk

    def plain(self, extra=()):
        disk = self.rootfs()
        argv = [QEMU, "-M", "microvm,acpi=off", "-accel", "tcg", "-cpu", "max", "-m", "512", "-nodefaults",
                "-no-reboot", "-display", "none", "-serial", "stdio", "-kernel", VMLINUX,
                "-append", "console=ttyS0 quiet no_timer_check panic=-1 reboot=t root=/dev/vda ro init=/plain-init",
                "-global", "virtio-mmio.force-legacy=false",
                "-drive", f"if=none,id=d,file={disk},format=raw,snapshot=on",
                "-device", "virtio-blk-device,drive=d"] + list(extra)
        return subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              timeout=120).stdout

    def in_turn(self, sides, runs=None):
        """Times of alternating runs; the first round warms caches and does not count."""
        times = {name: [] for name in sides}
        for turn in range((runs or self.runs) + 1):
            for name, run in sides.items():
                began = time.monotonic()
                run()
                if turn:
                    times[name].append(time.monotonic() - began)
        return times

    def compare(self, times, ours, theirs):
        self.head("", "median s", "min", "max", "n")
        for name, t in times.items():
            self.row(name, f"{statistics.median(t):.3f}", f"{min(t):.3f}", f"{max(t):.3f}", len(t))
        ratio = statistics.median(times[ours]) / statistics.median(times[theirs])
        self.say()
        self.say(f"Ratio of medians: {ratio:.2f}")

    # ---- the parts ----

    def start(self):
        """msb run IMG -- python3 -c 'print(6*7)' against the plain QEMU recipe"""
        def ours():
            out = self.msb("run", "--engine", "qemu", "python", "--", *COMMAND).stdout
            assert out == b"42\n", out

        def theirs():
            out = self.plain()
            assert b"42" in out, out
        self.compare(self.in_turn({"msb run": ours, "plain recipe": theirs}), "msb run", "plain recipe")

    def instructions(self):
        """Guest instructions from the first one to the agent's ready, all CPUs together"""
        self.head("CPUs", "M instructions (limit 40, and 3 more for each further CPU)", "kernel, ms of the guest's clock",
                  "agent, ms")
        for cpus in (1, 2, 4):
            count, ready = self.count_boot(cpus)
            self.row(cpus, f"{count / 1e6:.1f}", f"{ready['boot_time_ns'] / 1e6:.1f}", f"{ready['init_time_ns'] / 1e6:.1f}")

    def count_boot(self, cpus, image="python"):
        """Instructions of one boot, and the times of the agent's core.ready."""
        # With -icount runs are much the same each time; it needs the emulator's single thread, which
        # the engine does not ask for. What it counts itself is too much with several CPUs (count.c).
        wrapper, plugin = os.path.join(self.work, "qemu-icount"), os.path.join(self.work, "count.so")
        counts = os.path.join(self.work, "counts")
        subprocess.run(["cc", "-O2", "-fPIC", "-shared", "-o", plugin, os.path.join(ROOT, "bench", "count.c")], check=True)
        with open(wrapper, "w") as f:
            f.write("#!/bin/bash\nargs=()\nfor a in \"$@\"; do args+=(\"${a/thread=multi/thread=single}\"); done\n"
                    f"exec {QEMU} \"${{args[@]}}\"\n")
        os.chmod(wrapper, 0o755)
        path = os.path.join(self.home, "sandboxes", "counted", "agent.sock")
        child = subprocess.Popen([MSB, "run", "--engine", "qemu", "--jail", "off", "-c", str(cpus), "--name", "counted",
                                  image, "--", "true"],
                                 env=dict(self.env, MSB_QEMU=wrapper, MSB_QEMU_ARGS="-icount shift=0,sleep=off "
                                          f"-plugin {plugin},out={counts}"), stdin=subprocess.DEVNULL)
        try:
            def reach(end, address):
                return end.connect_ex(address) == 0

            with socket.socket(socket.AF_UNIX) as link:
                harness.until(lambda: reach(link, path), "msb-vm does not listen")
                # Two ids of the client's range, then the agent's core.ready as one frame.
                ready = link.recv(4096)
                with open(counts, "rb") as f:
                    count = sum(struct.unpack("64Q", f.read()))
                while len(ready) < 12 + int.from_bytes(ready[8:12], "big"):
                    ready += link.recv(4096)
        finally:
            child.wait()
        self.msb("rm", "counted")
        times = {}
        for key in ("boot_time_ns", "init_time_ns", "ready_time_ns"):
            after = ready[ready.index(key.encode()) + len(key):]
            width = {0x18: 1, 0x19: 2, 0x1a: 4, 0x1b: 8}.get(after[0], 0)
            times[key] = int.from_bytes(after[1:1 + width], "big") if width else after[0]
        return count, times

    def kvm(self):
        """From msb-vm's start to the guest's first instruction, 512 MiB, in us; works where KVM only emulates"""
        if not os.access("/dev/kvm", os.R_OK | os.W_OK):
            raise Skip("/dev/kvm cannot be used")
        subprocess.run(["ninja", "-C", BUILD, "tests/start_bench"], check=True, stdout=subprocess.DEVNULL)
        scratch = os.path.join(self.work, "kvm")
        os.mkdir(scratch)
        self.head("part", "median", "min", "max")
        for jail in ("on", "off"):
            out = subprocess.run([os.path.join(BUILD, "tests", "start_bench"), str(self.runs * 5), os.path.join(BUILD, "msb-vm"),
                                  VMLINUX, os.path.join(BUILD, "guest", "agentd"), scratch, "512", "1", jail],
                                 check=True, stdout=subprocess.PIPE, text=True).stdout
            for name, *values in re.findall(r"^(.*?) +median +(\d+) +min +(\d+) +max +(\d+)", out, re.M):
                if jail == "on" or name.startswith("="):
                    self.row(name + (", without jail" if jail == "off" else ""), *values)

    def streams(self):
        """1 GiB through stdout and through stdin, with a hash, beside QEMU's virtio-serial"""
        size = int(os.environ.get("BENCH_STREAM_MIB", "1024")) << 20
        block = os.urandom(1 << 20)
        expected = hashlib.sha256()
        for _ in range(size >> 20):
            expected.update(block)
        expected = expected.hexdigest()
        program = ("import sys\nb=sys.stdin.buffer.read(1<<20)\n"
                   f"for _ in range({size >> 20}): sys.stdout.buffer.write(b)\n")
        self.head("", "MiB", "seconds", "MB/s", "hash")

        def report(name, began, good):
            seconds = time.monotonic() - began
            self.row(name, size >> 20, f"{seconds:.1f}", f"{size / seconds / 1e6:.1f}", "equal" if good else "DIFFERS")

        # Out: the guest sends the same random block again and again.
        child = subprocess.Popen([MSB, "run", "-m", "1G", "python", "--", "python3", "-c", program], env=self.env,
                                 stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        child.stdin.write(block)
        child.stdin.flush()
        digest, first, got = hashlib.sha256(), None, 0
        while True:
            data = child.stdout.read1(1 << 20)
            if not data:
                break
            first = first or time.monotonic()
            got += len(data)
            digest.update(data)
        child.stdin.close()
        child.wait()
        report("stdout", first or time.monotonic(), digest.hexdigest() == expected)

        # In: the guest counts and answers with what it got; a hash in an emulated CPU would be the
        # thing measured, so the content is verified by a second, untimed and shorter run.
        reader = "import os\nn=0\nos.write(1,b'.')\nwhile 1:\n b=os.read(0,1<<20)\n if not b: break\n n+=len(b)\nprint(n)"
        child = subprocess.Popen([MSB, "run", "-m", "1G", "python", "--", "python3", "-c", reader], env=self.env,
                                 stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        child.stdout.read(1)
        began = time.monotonic()
        for _ in range(size >> 20):
            child.stdin.write(block)
        child.stdin.close()
        answer = child.stdout.read().strip()
        child.wait()
        report("stdin (counted)", began, answer == str(size).encode())
        hasher = ("import sys,hashlib\nh=hashlib.sha256()\nwhile 1:\n b=sys.stdin.buffer.read(1<<20)\n if not b: break\n"
                  " h.update(b)\nprint(h.hexdigest())")
        began = time.monotonic()
        child = subprocess.Popen([MSB, "run", "-m", "1G", "python", "--", "python3", "-c", hasher], env=self.env,
                                 stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(size >> 20):
            child.stdin.write(block)
        child.stdin.close()
        answer = child.stdout.read().strip()
        child.wait()
        report("stdin (hashed by the guest)", began, answer == expected.encode())
        self.serial(size, report)

    def serial(self, size, report):
        """The same out of QEMU's own virtio-serial port."""
        disk = self.rootfs()
        path = os.path.join(self.work, "serial.sock")
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen(1)
        init = ("#!/usr/bin/python3\nimport os,time\n"
                "while not (p:=[n for n in os.listdir('/dev') if n.startswith('vport')]): time.sleep(.1)\n"
                "f=os.open('/dev/'+p[0],os.O_RDWR)\nb=os.urandom(1<<20)\n"
                f"for _ in range({size >> 20}):\n v=memoryview(b)\n while v: v=v[os.write(f,v):]\n"
                "time.sleep(1000)\n")
        script = os.path.join(self.work, "serial.py")
        with open(script, "w") as f:
            f.write(init)
        os.chmod(script, 0o755)
        copy = os.path.join(self.work, "serial.ext4")
        shutil.copyfile(disk, copy)
        subprocess.run(["debugfs", "-w", "-R", f"write {script} serial.py", copy], check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        child = subprocess.Popen(
            [QEMU, "-M", "microvm,acpi=off", "-accel", "tcg", "-cpu", "max", "-m", "1024", "-nodefaults", "-no-reboot",
             "-display", "none", "-serial", "stdio", "-kernel", VMLINUX, "-global", "virtio-mmio.force-legacy=false", "-append",
             "console=ttyS0 quiet no_timer_check panic=-1 reboot=t root=/dev/vda rw init=/serial.py",
             "-drive", f"if=none,id=d,file={copy},format=raw", "-device", "virtio-blk-device,drive=d",
             "-device", "virtio-serial-device", "-chardev", f"socket,id=c,path={path}",
             "-device", "virtserialport,chardev=c"], stdin=subprocess.DEVNULL)
        try:
            listener.settimeout(60)
            link = listener.accept()[0]
            link.settimeout(120)
            got, first = 0, None
            while got < size:
                data = link.recv(1 << 20)
                if not data:
                    break
                first = first or time.monotonic()
                got += len(data)
            if not got:
                raise Skip("no byte came out of virtio-serial")
            report("QEMU virtio-serial, out", first, got == size)
        except OSError as why:
            self.row("QEMU virtio-serial, out", "-", "-", "-", f"skipped: {why}")
        finally:
            child.kill()
            child.wait()
            listener.close()

    def memory(self):
        """Memory private to msb-vm while a sandbox idles (guest memory is shared and not in it)"""
        child = subprocess.Popen([MSB, "run", "python", "--", "sh", "-c", "echo up; read x"], env=self.env,
                                 stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            child.stdout.readline()
            self.head("process", "private MiB", "PSS MiB")
            for pid, line in sorted(harness.machines_of(self.home).items()):
                sums = dict(re.findall(r"^(\w+):\s+(\d+) kB", open(f"/proc/{pid}/smaps_rollup").read(), re.M))
                private = int(sums["Private_Clean"]) + int(sums["Private_Dirty"])
                self.row(os.path.basename(line.split()[0]), f"{private / 1024:.1f}", f"{int(sums['Pss']) / 1024:.1f}")
        finally:
            child.stdin.close()
            child.wait()

    def version(self):
        """msb --version"""
        times = []
        for _ in range(60):
            began = time.monotonic()
            subprocess.run([MSB, "--version"], stdout=subprocess.DEVNULL)
            times.append((time.monotonic() - began) * 1e3)
        self.head("", "median ms", "min", "n")
        self.row("msb --version, started from Python", f"{statistics.median(times):.2f}", f"{min(times):.2f}", len(times))

    def sizes(self):
        """Sizes of the programs, stripped as installed"""
        self.head("program", "KiB")
        for name in ("msb", "msb-vm", "msb-fetch", "msb-convert", "guest/agentd", "vmlinux"):
            path = os.path.join(self.work, "stripped")
            shutil.copyfile(os.path.join(BUILD, name), path)
            if name.startswith("msb"):
                subprocess.run(["strip", path], check=True)
            self.row(name, f"{os.path.getsize(path) / 1024:.0f}")

    def load(self):
        """msb load of the Debian and Python image against the peer's, natively"""
        peer = self.peer()
        peaks = {}

        def loader(name, program, variables):
            def run():
                home = os.path.join(self.work, "load-" + name.split()[0])
                shutil.rmtree(home, ignore_errors=True)
                os.makedirs(home)
                env = dict(harness.environment(home), HOME=home, TMPDIR=home, **variables)
                # A process of its own measures the peak of its child.
                done = subprocess.run([sys.executable, "-c", "import subprocess,sys,resource\n"
                                       "r=subprocess.run(sys.argv[1:],stdin=subprocess.DEVNULL,stdout=subprocess.DEVNULL).returncode\n"
                                       "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\nsys.exit(r)",
                                       program, "load", "-i", self.image], env=env, stdout=subprocess.PIPE)
                if done.returncode:
                    raise Skip(f"{name} failed with {done.returncode}")
                peaks.setdefault(name, []).append(int(done.stdout) / 1024)
            return run
        sides = {"msb load": loader("msb load", MSB, {})}
        if peer:
            sides["peer's msb load"] = loader("peer's msb load", peer, {})
        times = self.in_turn(sides)
        self.head("", "median s", "min", "max", "n", "peak MiB")
        for name, t in times.items():
            self.row(name, f"{statistics.median(t):.3f}", f"{min(t):.3f}", f"{max(t):.3f}", len(t),
                     f"{statistics.median(peaks[name]):.0f}")
        self.say()
        if peer:
            ratio = statistics.median(times["msb load"]) / statistics.median(times["peer's msb load"])
            self.say(f"Ratio of medians: {ratio:.2f}")
        else:
            self.say("The peer was skipped: " + self.no_peer)

    def space(self, home):
        """Space on disk of a store's blobs."""
        return sum(os.lstat(os.path.join(home, folder, name)).st_blocks * 512
                   for folder in ("layers", "images") for name in os.listdir(os.path.join(home, folder)))

    def store(self):
        """Space on disk against the sum of unpacked file bytes"""
        shown = json.loads(self.msb("image", "inspect", "python", "--format", "json").stdout)
        files = shown["size_bytes"]
        self.head("", "bytes", "of the files' bytes")
        self.row("regular files", files, "1.000")
        kinds = {}
        for folder in ("layers", "images"):
            for name in os.listdir(os.path.join(self.home, folder)):
                path = os.path.join(self.home, folder, name)
                kind = name.split(".")[1]
                kinds[kind] = kinds.get(kind, 0) + os.lstat(path).st_blocks * 512
        for kind, size in sorted(kinds.items(), key=lambda k: -k[1]):
            self.row("." + kind, size, f"{size / files:.4f}")
        database = sum(os.lstat(os.path.join(self.home, name)).st_blocks * 512
                       for name in os.listdir(self.home) if name.startswith("msb.db"))
        whole = sum(kinds.values()) + database
        self.row("database", database, f"{database / files:.4f}")
        self.row("in all", whole, f"{whole / files:.4f}")
        # A second image that shares that layer and adds one of a single file.
        before = self.space(self.home)
        archive = os.path.join(self.work, "shares.tar")
        with tempfile.TemporaryDirectory(dir=self.work) as top:
            subprocess.run(["tar", "-xf", self.image, "-C", top], check=True)
            index = json.load(open(top + "/index.json"))

            def blob(digest):
                return os.path.join(top, "blobs", digest.replace(":", "/"))
            manifest = json.load(open(blob(index["manifests"][0]["digest"])))
            base = subprocess.run(["gzip", "-dc", blob(manifest["layers"][0]["digest"])], stdout=subprocess.PIPE, check=True).stdout
        oci.layout(archive, [base, oci.layer([oci.entry("own", os.urandom(1000000))])], "shares:latest")
        self.msb("load", "-i", archive)
        own = json.loads(self.msb("image", "inspect", "shares", "--format", "json").stdout)
        self.say()
        self.say(f"A second image with the same layer and one of 1,000,000 bytes: {self.space(self.home) - before} bytes, of which "
                 f"{own['layers'][-1]['stored_bytes']} are its own layer and the rest its metadata.")
        self.msb("image", "rm", "shares")

    def layers(self):
        """An image of 100 layers against one of 1 layer with the same files"""
        files = harness.busybox_image(os.path.join(self.work, "busybox.tar"))
        with tempfile.TemporaryDirectory(dir=self.work) as top:
            subprocess.run(["tar", "-xf", files, "-C", top], check=True)
            index = json.load(open(top + "/index.json"))

            def blob(digest):
                return os.path.join(top, "blobs", digest.replace(":", "/"))
            manifest = json.load(open(blob(index["manifests"][0]["digest"])))
            base = subprocess.run(["gzip", "-dcf", blob(manifest["layers"][0]["digest"])], stdout=subprocess.PIPE, check=True).stdout
        more = [[oci.entry(f"d{n}"), oci.entry(f"d{n}/f", os.urandom(5000))] for n in range(99)]
        for name, layers in (("many", [base] + [oci.layer(e) for e in more]), ("one", [base, oci.layer(sum(more, []))])):
            path = os.path.join(self.work, name + ".tar")
            oci.layout(path, layers, name)
            self.msb("load", "-i", path)
        counts = {name: self.count_boot(1, name)[0] for name in ("one", "many")}
        self.say(f"Guest instructions to ready: {counts['one'] / 1e6:.2f} M and {counts['many'] / 1e6:.2f} M, "
                 f"ratio {counts['many'] / counts['one']:.3f}")
        self.say()

        def runner(name):
            return lambda: self.msb("run", name, "--", "/bin/busybox", "cat", *[f"/d{n}/f" for n in range(0, 99, 10)])
        self.compare(self.in_turn({"100 layers": runner("many"), "2 layers": runner("one")}), "100 layers", "2 layers")

    def pull(self):
        """msb pull from a registry on this machine against skopeo copy to a directory, which converts nothing"""
        missing = [p for p in ("docker-registry", "skopeo") if not shutil.which(p)]
        if missing:
            raise Skip(f"not installed: {missing}")
        top = os.path.join(self.work, "registry")
        os.makedirs(top)
        with open(top + "/config.yml", "w") as f:
            json.dump({"version": 0.1, "log": {"level": "info"}, "http": {"addr": "127.0.0.1:0"},
                       "storage": {"filesystem": {"rootdirectory": top + "/data"}}}, f)
        with open(top + "/log", "wb") as log:
            child = subprocess.Popen(["docker-registry", "serve", top + "/config.yml"], stdout=log, stderr=log)
        try:
            found = harness.until(lambda: re.search(r"listening on (127.0.0.1:\d+)", open(top + "/log").read()),
                                  "docker-registry does not listen")
            ref = found.group(1) + "/python:latest"
            skopeo = ["skopeo", "--insecure-policy", "copy", "-q"]
            subprocess.run(skopeo + ["--dest-tls-verify=false", "oci-archive:" + self.image, "docker://" + ref], check=True)

            def ours():
                home = os.path.join(self.work, "pulled")
                shutil.rmtree(home, ignore_errors=True)
                subprocess.run([MSB, "pull", "-q", ref], env=harness.environment(home), check=True,
                               stdout=subprocess.DEVNULL)

            def theirs():
                copy = os.path.join(self.work, "copied")
                shutil.rmtree(copy, ignore_errors=True)
                subprocess.run(skopeo + ["--src-tls-verify=false", "docker://" + ref, "dir:" + copy], check=True)
            self.compare(self.in_turn({"msb pull": ours, "skopeo copy": theirs}), "msb pull", "skopeo copy")
        finally:
            child.kill()
            child.wait()

    def peer(self):
        """The peer's published program from npm, kept in the cache."""
        cache = os.path.join(os.path.dirname(harness.CACHE), "peer")
        found = glob.glob(cache + "/package/**/msb", recursive=True)
        if not found:
            npm = shutil.which("npm")
            if not npm:
                self.no_peer = "there is no npm"
                return None
            os.makedirs(cache, exist_ok=True)
            done = subprocess.run([npm, "pack", "--silent", PEER], cwd=cache, stdin=subprocess.DEVNULL,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            packs = glob.glob(cache + "/*.tgz")
            if done.returncode or not packs:
                self.no_peer = "npm pack failed: " + done.stdout.strip()[-200:]
                return None
            subprocess.run(["tar", "-xzf", packs[0], "-C", cache], check=True)
            found = glob.glob(cache + "/package/**/msb", recursive=True)
            if not found:
                self.no_peer = "the package holds no msb"
                return None
        if not os.access(found[0], os.X_OK):
            os.chmod(found[0], 0o755)
        return found[0]


    def box(self):
        """The kvm engine in the nested machine of tests/box"""
        results = os.path.join(self.work, "box")
        cache = os.path.dirname(harness.CACHE)
        self.peer()
        subprocess.run(["ninja", "-C", BUILD, "tests/boot_demo"], check=True, stdout=subprocess.DEVNULL)
        done = subprocess.run(
            [os.path.join(ROOT, "tests/box/box"), "-m", "8000", "-t", "3600", "-r", results, "-e", "MSB=" + MSB,
             "--", "sh", "-c", "mkdir -p /mnt/scratch/cache && cp -r \"$1/test-images\" /mnt/scratch/cache/ && "
             "ln -s \"$1/peer\" /mnt/scratch/cache/peer && MSB_CACHE=/mnt/scratch/cache "
             "exec bench/kvm.py --runs 5 -o /mnt/results/kvm.md", "box", cache], cwd=ROOT)
        if done.returncode == 125:
            raise Skip("there is no box here, see above")
        assert done.returncode == 0, f"bench/kvm.py in the box: exit code {done.returncode}"
        self.lines += open(os.path.join(results, "kvm.md")).read().splitlines()


    def net(self):
        """The network stack beside passt and slirp4netns, over TAP"""
        if os.geteuid():
            raise Skip("needs root for network namespaces")
        results = os.path.join(self.work, "net.md")
        subprocess.run([os.path.join(ROOT, "bench", "net.py"), "--runs", str(self.runs), "-o", results], check=True)
        self.lines += open(results).read().splitlines()


PARTS = ["start", "instructions", "kvm", "streams", "memory", "version", "sizes", "load", "pull", "store", "layers", "net",
         "box"]


def machine():
    cpu = re.search(r"model name\s*: (.*)", open("/proc/cpuinfo").read())
    memory = int(re.search(r"MemTotal:\s+(\d+)", open("/proc/meminfo").read()).group(1)) / 1048576
    qemu = subprocess.run([QEMU, "--version"], stdout=subprocess.PIPE, text=True).stdout.splitlines()[0]
    return (f"{datetime.date.today()}, {os.cpu_count()} CPUs ({cpu.group(1) if cpu else '?'}), {memory:.0f} GiB, "
            f"Linux {platform.release()}, {qemu}")


def main(kind=Bench, parts=PARTS, text=__doc__):
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--only", default=",".join(parts), help="of: " + ", ".join(parts))
    parser.add_argument("-o", "--output", help="also write what is printed to this file")
    args = parser.parse_args()
    failed = 0
    with tempfile.TemporaryDirectory(prefix="msb-bench-") as work:
        b = kind(args.runs, work)
        b.say(f"Machine: {machine()}")
        b.prepare()
        for name in args.only.split(","):
            part = getattr(b, name)
            b.say()
            b.say("### " + part.__doc__)
            b.say()
            try:
                part()
            except Skip as why:
                b.say(f"Skipped: {why}")
            except (AssertionError, subprocess.SubprocessError, OSError) as why:
                failed += 1
                b.say(f"FAILED: {why!r}")
    if args.output:
        with open(args.output, "w") as f:
            f.write("\n".join(b.lines) + "\n")
    return failed


if __name__ == "__main__":
    sys.exit(main())
