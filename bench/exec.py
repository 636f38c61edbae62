#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How long a command takes to and fro: `msb exec box -- /bin/true` in a sandbox that runs, beside
`ssh localhost /bin/true`, in turn; and what many commands leave behind.

    bench/exec.py [--runs N] [--many N] [--at-once N]

The engine is $MSB_ENGINE (default qemu, whose CPU is emulated: the guest's share is then most of
it). The SSH server is one of our own on a loopback port.
"""
import argparse
import contextlib
import getpass
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "tests", "e2e"))
import harness

MSB = harness.MSB


def timed(argv, env=None):
    began = time.perf_counter()
    subprocess.run(argv, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began


@contextlib.contextmanager
def ssh_server(top):
    """A server that lets in one key; yields the client's command, or None and why not."""
    sshd = next((p for p in ("/usr/sbin/sshd", "/usr/bin/sshd") if os.access(p, os.X_OK)), None)
    if not sshd:
        print("ssh: no sshd; install openssh-server")
        yield None
        return
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{top}/{name}"], check=True)
    os.rename(f"{top}/user.pub", f"{top}/authorized")
    config = f"{top}/sshd_config"
    with open(config, "w") as f:
        f.write(f"Port {port}\nListenAddress 127.0.0.1\nHostKey {top}/host\nAuthorizedKeysFile {top}/authorized\n"
                f"PidFile none\nUsePAM no\nStrictModes no\nPasswordAuthentication no\nPermitRootLogin yes\n"
                "PrintMotd no\nMaxStartups 200\n")
    if os.geteuid() == 0:
        os.makedirs("/run/sshd", exist_ok=True)
    server = subprocess.Popen([sshd, "-D", "-e", "-f", config], stderr=subprocess.DEVNULL)
    try:
        client = ["ssh", "-F", "none", "-i", f"{top}/user", "-p", str(port), "-o", "StrictHostKeyChecking=no", "-o",
                  f"UserKnownHostsFile={top}/known", "-o", "LogLevel=ERROR", "-o", "BatchMode=yes",
                  f"{getpass.getuser()}@127.0.0.1", "/bin/true"]
        harness.until(lambda: subprocess.run(client, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0, "sshd", 20)
        yield client
    finally:
        server.terminate()
        server.wait()


def state(pid, env):
    """Descriptors and memory of its own (KiB) of msb-vm, and of agentd inside."""
    status = open(f"/proc/{pid}/status").read()
    anon = int(status.split("RssAnon:")[1].split()[0])
    inside = subprocess.check_output([MSB, "exec", "box", "--", "sh", "-c",
                                      "ls /proc/1/fd | wc -l; grep VmRSS /proc/1/status"], env=env, text=True).split()
    return len(os.listdir(f"/proc/{pid}/fd")), anon, int(inside[0]), int(inside[2])


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--runs", type=int, default=100)
    args.add_argument("--many", type=int, default=1000)
    args.add_argument("--at-once", type=int, default=100)
    a = args.parse_args()
    with tempfile.TemporaryDirectory(prefix="msb-bench-") as top, ssh_server(top) as ssh:
        home = os.path.join(top, "home")
        env = harness.environment(home)
        subprocess.run([MSB, "load", "-q", "-i", harness.busybox_image(os.path.join(top, "b.tar"))],
                       env=env, check=True, stdout=subprocess.DEVNULL)
        box = subprocess.Popen([MSB, "run", "--engine", harness.ENGINE, "-n", "box", "busybox", "--", "cat"], env=env,
                               stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        try:
            ours = [MSB, "exec", "box", "--", "/bin/true"]
            harness.until(lambda: subprocess.run(ours, env=env, stderr=subprocess.DEVNULL,
                                                 stdin=subprocess.DEVNULL).returncode == 0, "the sandbox")
            times = {"msb exec": [], "ssh": []}
            for _ in range(a.runs):
                times["msb exec"].append(timed(ours, env))
                if ssh:
                    times["ssh"].append(timed(ssh))
            for name, values in times.items():
                if values:
                    print(f"{name}: p50 {1000 * statistics.median(values):.1f} ms of {len(values)}")
            if ssh:
                print(f"ratio {statistics.median(times['msb exec']) / statistics.median(times['ssh']):.2f}")
            pid = next(p for p, line in harness.machines_of(home).items()
                       if os.path.basename(line.split(" ")[0]) == "msb-vm")
            print("msb-vm descriptors, KiB; agentd descriptors, KiB")
            print("before:", *state(pid, env))
            for _ in range(a.many):
                timed(ours, env)
            print(f"after {a.many} in a row:", *state(pid, env))
            children = [subprocess.Popen(ours, env=env, stdin=subprocess.DEVNULL) for _ in range(a.at_once)]
            if any(c.wait() for c in children):
                sys.exit("a command failed")
            print(f"after {a.at_once} at once:", *state(pid, env))
        finally:
            box.stdin.close()
            box.wait()


if __name__ == "__main__":
    main()
