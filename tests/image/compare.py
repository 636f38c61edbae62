#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compare two directory trees with all metadata: compare.py EXPECTED ACTUAL [--ignore-times PATH,...]

Types, modes, owners, sizes, time stamps to the nanosecond, device numbers, link targets, hard-link
groups, extended attributes, contents. Prints each difference; exit code 1 if there is any.
"""
import os
import stat
import sys


def walk(root):
    """Yield every path below root, root itself as '.'."""
    yield "."
    for base, dirs, files in os.walk(root):
        for name in dirs + files:
            yield os.path.relpath(os.path.join(base, name), root)


def xattrs(path):
    return {n: os.getxattr(path, n, follow_symlinks=False)
            for n in os.listxattr(path, follow_symlinks=False)}


def same_bytes(a, b):
    with open(a, "rb") as x, open(b, "rb") as y:
        while True:
            p, q = x.read(1 << 20), y.read(1 << 20)
            if p != q:
                return False
            if not p:
                return True


def main():
    want_root, have_root = sys.argv[1:3]
    no_times = set()
    if len(sys.argv) > 4 and sys.argv[3] == "--ignore-times":
        no_times = set(sys.argv[4].split(","))
    bad = 0

    def complain(path, what):
        nonlocal bad
        bad += 1
        if bad < 50:
            print(f"{path}: {what}")

    want, have = set(walk(want_root)), set(walk(have_root))
    for path in sorted(want - have):
        complain(path, "missing")
    for path in sorted(have - want):
        complain(path, "should not be there")
    links = {}
    for path in sorted(want & have):
        a, b = os.path.join(want_root, path), os.path.join(have_root, path)
        x, y = os.lstat(a), os.lstat(b)
        fields = ["st_mode", "st_uid", "st_gid"]
        if path not in no_times:
            fields.append("st_mtime_ns")
        if not stat.S_ISDIR(x.st_mode):
            fields += ["st_size", "st_nlink"]
        if stat.S_ISCHR(x.st_mode) or stat.S_ISBLK(x.st_mode):
            fields.append("st_rdev")
        for field in fields:
            if getattr(x, field) != getattr(y, field):
                complain(path, f"{field} {getattr(x, field)} expected, {getattr(y, field)} found")
        if stat.S_ISLNK(x.st_mode) and os.readlink(a) != os.readlink(b):
            complain(path, "other link target")
        if xattrs(a) != xattrs(b):
            complain(path, f"attributes {xattrs(a)} expected, {xattrs(b)} found")
        if stat.S_ISREG(x.st_mode) and stat.S_ISREG(y.st_mode) and not same_bytes(a, b):
            complain(path, "other contents")
        if not stat.S_ISDIR(x.st_mode) and x.st_nlink > 1:
            if links.setdefault((x.st_dev, x.st_ino), y.st_ino) != y.st_ino:
                complain(path, "not the same inode as its other name")
    print(f"{len(want)} paths, {bad} differences")
    return 1 if bad else 0


sys.exit(main())
