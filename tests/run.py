#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Run tests, one line each, and end with "N passed, N failed, N skipped".

    tests/run.py unit BUILD_DIR...   the cmocka programs of a build directory, each test counted
    tests/run.py fuzz BUILD_DIR      every fuzz target: its seeds, then --seconds of new inputs
    tests/run.py e2e [VARIABLE=VALUE...] [NAME...]
                                     end-to-end tests against $MSB on the engine $MSB_ENGINE
    tests/run.py cmd NAME COMMAND... one command; exit code 77 means skipped
    tests/run.py run NAME COMMAND... a command that does what this one does: its tests count here

Several of these may follow each other, separated by "--". Each test runs in its own process group
under a deadline. Output of a test goes to --logs; of a failed one the end is shown.
"""
import argparse
import concurrent.futures
import functools
import glob
import json
import os
import re
import select
import signal
import subprocess
import sys
import threading
import time
import traceback
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
E2E = os.path.join(ROOT, "tests", "e2e")
sys.path.insert(0, E2E)
SKIP_CODE = 77
SANITIZERS = {
    "ASAN_OPTIONS": "detect_leaks=1:strict_string_checks=1:abort_on_error=0",
    "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
    "TSAN_OPTIONS": "halt_on_error=1:second_deadlock_stack=1",
}


class Test:
    """One process to run: a program's, or a fork of this one that calls a function.
    `tap`: its output is TAP and holds many tests; `runs`: it is a run like this one."""

    def __init__(self, name, what, env=None, deadline=120, tap=False, alone=False, runs=False):
        self.name, self.what, self.env = name, what, env or {}
        self.deadline, self.tap, self.alone, self.runs = deadline, tap, alone, runs

    def become(self, out):
        """In the new process: does not return."""
        code = 1
        try:
            os.setsid()
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(out.fileno(), 1)
            os.dup2(out.fileno(), 2)
            os.chdir(ROOT)
            os.environ.update(self.env)
            # Whoever started us may ignore these, as nohup does.
            signal.signal(signal.SIGHUP, signal.SIG_DFL)
            signal.signal(signal.SIGQUIT, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            if callable(self.what):
                code = self.what()
            else:
                # Python ignores these, and what it runs would inherit that.
                signal.signal(signal.SIGPIPE, signal.SIG_DFL)
                signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
                os.execvp(self.what[0], self.what)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)


class Result:
    def __init__(self):
        self.passed, self.failed, self.skipped = 0, 0, 0

    def add(self, other):
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped

    def __str__(self):
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"


def unit_tests(build):
    listed = json.loads(subprocess.check_output(["meson", "introspect", "--tests", build]))
    label = os.path.basename(os.path.abspath(build))
    for t in listed:
        env = dict(t["env"], CMOCKA_MESSAGE_OUTPUT="TAP", **SANITIZERS)
        name = f"{label}/{t['suite'][0].split(':')[-1]}/{t['name']}"
        yield Test(name, t["cmd"], env, t["timeout"], tap=True)


def fuzz_tests(build, seconds):
    for program in sorted(glob.glob(os.path.join(build, "tests", "fuzz_*"))):
        if not os.access(program, os.X_OK) or os.path.isdir(program):
            continue
        name = os.path.basename(program)[len("fuzz_"):]
        seeds = glob.glob(os.path.join(ROOT, "tests", "*", "seeds", name))
        corpus = os.path.join(build, "corpus", name)
        found = os.path.join(build, "found", name) + os.sep
        os.makedirs(corpus, exist_ok=True)
        os.makedirs(found, exist_ok=True)
        # A finding ends it with 77 unless told otherwise, which here is a skipped test.
        argv = [program, f"-max_total_time={seconds}", "-timeout=20", "-rss_limit_mb=2048",
                "-print_final_stats=1", "-error_exitcode=1",
                f"-artifact_prefix={found}", corpus] + seeds
        yield Test(f"fuzz/{name}", argv, SANITIZERS, seconds + 120)


def e2e_tests(words):
    import harness

    def walk(suite):
        for t in suite:
            if isinstance(t, unittest.TestSuite):
                yield from walk(t)
            else:
                yield t

    settings = [w for w in words if re.match("[A-Z_]+=", w)]
    names = [w for w in words if w not in settings]
    label = "/".join(["e2e"] + settings)
    loader = unittest.TestLoader()
    for t in walk(loader.discover(E2E, pattern="test_*.py", top_level_dir=E2E)):
        name = t.id()
        # One whose file cannot be read is not left out.
        if names and not any(re.search(n, name) for n in names) and not name.startswith("unittest.loader"):
            continue
        method = getattr(t, t._testMethodName)
        # A fork and not a program of its own: where all is emulated, Python takes seconds to start.
        yield Test(f"{label}/{name}", functools.partial(harness.run_single, [name]),
                   dict(s.split("=", 1) for s in settings), deadline=getattr(method, "deadline", 900),
                   alone=getattr(method, "alone", False))


RESULT = re.compile(r"(ok|FAILED|skipped) +[\d.]+s  (\S+?)(?: \((\d+) tests\))?(?::.*)?$")


class Runner:
    def __init__(self, logs, jobs, runs, after):
        self.logs, self.jobs = logs, jobs
        # A run beside the others has the place of one of them until it ends.
        self.places = threading.Semaphore(max(jobs, runs + 1))
        self.result = Result()
        # What an earlier run has already told.
        self.done = set()
        for line in after:
            told = RESULT.match(line)
            if told:
                word, name, count = told.groups()
                self.done.add(name)
                self.result.passed += int(count or 1) if word == "ok" else 0
                self.result.failed += word == "FAILED"
                self.result.skipped += word == "skipped"
        self.lock = threading.Lock()
        os.makedirs(logs, exist_ok=True)

    def start(self, test):
        with self.places:
            (self.run_of_tests if test.runs else self.watch)(test)

    def watch(self, test):
        log = os.path.join(self.logs, re.sub(r"[^\w.-]+", "_", test.name) + ".log")
        began = time.monotonic()
        with open(log, "wb") as out:
            with self.lock:  # nobody else prints, so that the child has nothing of it in its buffers
                pid = os.fork()
                if not pid:
                    test.become(out)
        ended = os.pidfd_open(pid)
        late = not select.select([ended], [], [], test.deadline)[0]
        os.close(ended)
        # Whatever the test started and left in its group goes with it.
        try:
            os.killpg(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        text = open(log, errors="replace").read()
        self.report(test, code, late, text, time.monotonic() - began, log)

    def run_of_tests(self, test):
        """A command whose lines are like ours: pass them on, and count as its last one says."""
        log = os.path.join(self.logs, test.name + ".log")
        began = time.monotonic()
        last = ""
        with open(log, "wb") as out, subprocess.Popen(
                test.what, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, cwd=ROOT) as child:
            for raw in child.stdout:
                out.write(raw)
                out.flush()
                last = raw.decode(errors="replace").rstrip("\r\n")
                line = re.sub(r"^(ok|FAILED|skipped)( +[\d.]+s  )", rf"\1\2{test.name}/", last)
                line = re.sub(r"^(?=\d+ passed, )", f"         {test.name}: ", line)
                with self.lock:
                    print(line, flush=True)
        counts = re.fullmatch(r"(\d+) passed, (\d+) failed, (\d+) skipped", last)
        r = Result()
        if counts:
            r.passed, r.failed, r.skipped = map(int, counts.groups())
        if counts and bool(child.returncode) == bool(r.failed or not r.passed):
            self.result.add(r)
        else:
            self.report(test, child.returncode or 1, False, last + "\n", time.monotonic() - began, log)

    def report(self, test, code, late, text, seconds, log):
        r, lines = Result(), []
        if test.tap and re.search(r"^1\.\.\d+", text, re.M):
            bad = re.findall(r"^not ok \d+ - (.*)$", text, re.M)
            skipped = re.findall(r"^ok \d+ (?:- )?(\S+)?.*# SKIP(.*)$", text, re.M | re.I)
            r.skipped = len(skipped)
            r.passed = len(re.findall(r"^ok \d+", text, re.M)) - r.skipped
            r.failed = len(bad)
            lines += [f"         {b}" for b in bad]
            lines += [f"         skipped {name}:{why}" for name, why in skipped]
            if (code or late) and not r.failed:
                r.failed = 1
        elif code == SKIP_CODE:
            r.skipped = 1
        else:
            r.passed, r.failed = (0, 1) if code else (1, 0)
        word = "FAILED" if r.failed else "skipped" if r.skipped and not r.passed else "ok"
        count = f" ({r.passed} tests)" if test.tap and r.passed else ""
        reason = ""
        if late:
            reason = f": no end after {test.deadline} s"
        elif code and r.failed:
            reason = f": exit code {code}"
        elif word == "skipped":
            reason = ": " + (text.strip().splitlines() or ["no reason given"])[-1]
        with self.lock:
            self.result.add(r)
            print(f"{word:8} {seconds:7.2f}s  {test.name}{count}{reason}", flush=True)
            for line in lines:
                print(line)
            if r.failed:
                print(f"         ---- end of {os.path.relpath(log, ROOT)}")
                for line in text.splitlines()[-40:]:
                    print("         | " + line)
            sys.stdout.flush()

    def run(self, tests):
        tests = [t for t in tests if t.name not in self.done]
        with concurrent.futures.ThreadPoolExecutor(self.jobs) as pool:
            list(pool.map(self.start, [t for t in tests if not t.alone]))
        for t in tests:
            if t.alone:
                self.start(t)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--logs", default=os.path.join(ROOT, "build", "test-logs"))
    parser.add_argument("--seconds", type=int, default=3, help="per fuzz target")
    parser.add_argument("--after", type=open, default=[], metavar="OUTPUT",
                        help="of a run that broke off: what it tells of counts, and is not run again")
    parser.add_argument("what", nargs=argparse.REMAINDER)
    args = parser.parse_args()
    group, groups = [], []
    for word in args.what + ["--"]:
        if word == "--":
            if group:
                groups.append(group)
            group = []
        else:
            group.append(word)
    if not groups:
        parser.error("nothing to run")
    # What needs no virtual machine first, all of it side by side; runs of their own beside it all.
    plain, machines, runs = [], [], []
    for kind, *rest in groups:
        if kind == "unit":
            plain += [t for build in rest for t in unit_tests(build)]
        elif kind == "fuzz":
            plain += fuzz_tests(rest[0], args.seconds)
        elif kind == "cmd":
            # What these keep between runs may have to be made: an image, what lint found.
            plain.append(Test(rest[0], rest[1:], deadline=3600))
        elif kind == "run":
            runs.append(Test(rest[0], rest[1:], runs=True))
        elif kind == "e2e":
            machines += e2e_tests(rest)
        else:
            parser.error(f"unknown kind {kind}")
    runner = Runner(args.logs, args.jobs, len(runs), args.after)
    beside = [threading.Thread(target=runner.start, args=[t]) for t in runs]
    for thread in beside:
        thread.start()
    runner.run(plain)
    if machines:
        import harness
        try:
            with harness.prepared() as env:
                os.environ.update(env)
                runner.run(machines)
        except harness.NotReady as why:
            print(f"FAILED   {'':8}  e2e: {why}")
            runner.result.failed += 1
    for thread in beside:
        thread.join()
    print(runner.result)
    return 1 if runner.result.failed or not runner.result.passed else 0


sys.exit(main())
