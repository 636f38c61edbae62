# SPDX-License-Identifier: Apache-2.0
"""Directories and disk images to use as roots: busybox in all of them."""
import hashlib
import os
import shutil
import subprocess

MIB = 1 << 20


def directory(path):
    busybox = shutil.which("busybox") or "/bin/busybox"
    for name in ("bin", "etc", "home", "root", "tmp", "var"):
        os.makedirs(os.path.join(path, name))
    shutil.copy(busybox, os.path.join(path, "bin/busybox"))
    for applet in subprocess.check_output([busybox, "--list"], text=True).split():
        if applet != "busybox":
            os.symlink("busybox", os.path.join(path, "bin", applet))
    with open(os.path.join(path, "etc/passwd"), "w") as f:
        f.write("root:x:0:0:root:/root:/bin/sh\n")
    with open(os.path.join(path, "etc/group"), "w") as f:
        f.write("root:x:0:\n")
    return path


def run(*argv, **how):
    return subprocess.run(argv, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **how).stdout


def ext4(path, source, size="48M"):
    run("mke2fs", "-q", "-F", "-t", "ext4", "-d", source, path, size)
    return path


def digest(path):
    with open(path, "rb") as f:
        return hashlib.sha256(f.read()).hexdigest()


def file_in(disk, name):
    """A file of an ext4 disk, by debugfs."""
    return subprocess.run(["debugfs", "-R", f"cat {name}", disk], stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, check=True).stdout


def check_ext4(disk):
    done = subprocess.run(["e2fsck", "-fn", disk], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
