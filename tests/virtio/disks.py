#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Disk images of every kind before qemu-img: what we read, and whether it accepts what we write.

    tests/virtio/disks.py DISKTOOL [NAME...]
"""
import hashlib
import itertools
import os
import random
import struct
import subprocess
import sys
import tempfile

TOOL = sys.argv[1]
MIB = 1 << 20


def sh(*args, ok=True, **how):
    done = subprocess.run(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **how)
    if ok and done.returncode:
        raise AssertionError(f"{' '.join(args)}: exit {done.returncode}\n{done.stdout.decode(errors='replace')}"
                             f"{done.stderr.decode(errors='replace')}")
    return done


def img(*args, **how):
    return sh("qemu-img", *args, **how)


def io(path, *commands, options=()):
    words = [w for c in commands for w in ("-c", c)]
    done = sh("qemu-io", "-t", "unsafe", *options, *words, path)
    if b"rror" in done.stdout + done.stderr or b"failed" in done.stdout + done.stderr:
        raise AssertionError(f"qemu-io {commands}: {done.stdout} {done.stderr}")


def ours(*stack):
    return sh(TOOL, "export", *stack).stdout


def theirs(path, *options):
    out = path + ".their-raw"
    img("convert", *options, "-O", "raw", path, out)
    data = open(out, "rb").read()
    os.unlink(out)
    return data


def same(a, b):
    if a != b:
        at = next((i for i in range(min(len(a), len(b))) if a[i] != b[i]), min(len(a), len(b)))
        raise AssertionError(f"{len(a)} and {len(b)} bytes differ first at {at:#x}")


def refused(words, *args):
    done = sh(TOOL, *args, ok=False)
    text = done.stderr.decode(errors="replace")
    if done.returncode != 1 or words not in text:
        raise AssertionError(f"{args}: exit {done.returncode}, no {words!r} in: {text}")


def raw(path, size, seed=1):
    """Something like a file system: text, noise, runs of zeros."""
    r = random.Random(seed)
    with open(path, "wb") as f:
        f.truncate(size)
        for _ in range(size // (128 << 10)):
            f.seek(r.randrange(size // 512 - 64) * 512)
            f.write((b"text %d " % r.randrange(9)) * 900 if r.random() < .5 else r.randbytes(r.randrange(1, 24576)))
        f.truncate(size)
    return path


def scribble(path, size, seed, n=60, options=()):
    r = random.Random(seed)
    commands = []
    for _ in range(n):
        length = r.choice((512, 4096, 65536, 200 * 1024)) * r.randrange(1, 3)
        at = r.randrange((size - length) // 512) * 512
        kind = r.random()
        if kind < .7:
            commands.append(f"write -P {r.randrange(256)} {at} {length}")
        elif kind < .85:
            commands.append(f"write -z {at} {length}")
        else:
            commands.append(f"discard {at} {length}")
    io(path, *commands, options=options)


def check(path):
    done = img("check", path, ok=False)
    if done.returncode:
        raise AssertionError(f"qemu-img check {path}: {done.returncode} {done.stdout.decode()} {done.stderr.decode()}")


def variants():
    """Options of qemu-img create that make a difference in the file."""
    for bits in (512, 4096, 65536, 2 * MIB):
        for compat in ("0.10", "1.1"):
            yield f"cluster_size={bits},compat={compat}"
    for bits in (1, 2, 4, 8, 32, 64):
        yield f"refcount_bits={bits}"
    yield "refcount_bits=64,cluster_size=512"
    yield "refcount_bits=1,cluster_size=2M"
    yield "lazy_refcounts=on"
    for mode in ("metadata", "falloc", "full"):
        yield f"preallocation={mode}"
    yield "compression_type=zstd"


EXTENDED = ("extended_l2=on", "extended_l2=on,cluster_size=16k", "extended_l2=on,cluster_size=2M")


def test_reads(top):
    """Random writes by qemu-io with every option."""
    for i, options in enumerate(itertools.chain(variants(), EXTENDED)):
        path = os.path.join(top, f"r{i}.qcow2")
        size = 9 * MIB + 512 * 3
        img("create", "-q", "-f", "qcow2", "-o", options, path, str(size))
        scribble(path, size, i)
        same(ours("qcow2", path), theirs(path))


def test_compressed(top):
    source = raw(os.path.join(top, "c.raw"), 9 * MIB)
    for i, options in enumerate(("cluster_size=512", "cluster_size=4k", "compat=0.10", "compression_type=zstd",
                                 "compression_type=zstd,cluster_size=2M", "cluster_size=2M",
                                 "extended_l2=on,compression_type=zstd")):
        path = os.path.join(top, f"c{i}.qcow2")
        img("convert", "-c", "-O", "qcow2", "-o", options, source, path)
        same(ours("qcow2", path), open(source, "rb").read())
        # Half of it written over.
        scribble(path, 9 * MIB, i)
        same(ours("qcow2", path), theirs(path))


def change(path, size, seed, *stack, n=250, how="change"):
    copy = path + ".copy"
    with open(copy, "wb") as f:
        f.write(theirs(path))
    sh(TOOL, how, str(seed), str(n), copy, *stack)
    check(path)
    same(theirs(path), open(copy, "rb").read())
    same(ours(*stack), open(copy, "rb").read())


def test_writes(top):
    """What we write, checked and compared by qemu-img; crashed half of the time."""
    for i, options in enumerate(variants()):
        path = os.path.join(top, f"w{i}.qcow2")
        size = 7 * MIB + 512
        img("create", "-q", "-f", "qcow2", "-o", options, path, str(size))
        scribble(path, size, i, n=20)
        change(path, size, i, "qcow2", path)
        change(path, size, i + 100, "qcow2", path)


def test_crash(top):
    """A process that dies after a flush leaves a good image."""
    for i, options in enumerate(("cluster_size=64k", "cluster_size=512", "compat=0.10")):
        path = os.path.join(top, f"k{i}.qcow2")
        size = 7 * MIB
        img("create", "-q", "-f", "qcow2", "-o", options, path, str(size))
        change(path, size, i, "qcow2", path, how="crash")


def test_writes_over_compressed(top):
    source = raw(os.path.join(top, "oc.raw"), 6 * MIB)
    for i, options in enumerate(("cluster_size=512", "cluster_size=64k", "compression_type=zstd", "compat=0.10")):
        path = os.path.join(top, f"oc{i}.qcow2")
        img("convert", "-c", "-O", "qcow2", "-o", options, source, path)
        change(path, 6 * MIB, i, "qcow2", path)


def test_snapshots(top):
    for compat in ("0.10", "1.1"):
        path = os.path.join(top, f"s{compat}.qcow2")
        img("create", "-q", "-f", "qcow2", "-o", f"compat={compat}", path, "6M")
        scribble(path, 6 * MIB, 5)
        img("snapshot", "-c", "first", path)
        before = theirs(path)
        same(ours("qcow2", path), before)
        change(path, 6 * MIB, 3, "qcow2", path)
        img("snapshot", "-c", "second", path)
        change(path, 6 * MIB, 4, "qcow2", path)
        # The first one is as it was.
        img("snapshot", "-a", "first", path)
        same(ours("qcow2", path), before)
        check(path)


def test_backing(top):
    base = raw(os.path.join(top, "base.raw"), 5 * MIB, 3)
    middle, path = os.path.join(top, "middle.qcow2"), os.path.join(top, "top.qcow2")
    img("create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", middle, "7M")
    scribble(middle, 7 * MIB, 8, n=15)
    img("create", "-q", "-f", "qcow2", "-b", middle, "-F", "qcow2", path, "6M")
    scribble(path, 6 * MIB, 9, n=15)
    stack = ("qcow2", path, "qcow2", middle, "raw", base)
    digest = hashlib.sha256(open(base, "rb").read() + open(middle, "rb").read()).digest()
    same(ours(*stack), theirs(path))
    change(path, 6 * MIB, 6, *stack)
    assert digest == hashlib.sha256(open(base, "rb").read() + open(middle, "rb").read()).digest()
    refused("rests on another, which it calls", "export", "qcow2", path)
    refused("does not rest on another", "export", "qcow2", os.path.join(top, "plain"), "raw", base) \
        if img("create", "-q", "-f", "qcow2", os.path.join(top, "plain"), "1M") else None


def test_overlay(top):
    """Our own copy-on-write file: over each format, kept, and a base that changes."""
    base = raw(os.path.join(top, "ob.raw"), 5 * MIB, 4)
    q = os.path.join(top, "ob.qcow2")
    img("convert", "-c", "-O", "qcow2", base, q)
    v = os.path.join(top, "ob.vmdk")
    img("convert", "-O", "vmdk", "-o", "subformat=monolithicFlat", base, v)
    for i, (fmt, below) in enumerate((("raw", base), ("qcow2", q), ("vmdk", v))):
        path = os.path.join(top, f"over{i}")
        open(path, "w").close()
        digest = hashlib.sha256(open(below, "rb").read()).digest()
        copy = path + ".copy"
        open(copy, "wb").write(open(base, "rb").read())
        for seed in (1, 2):
            sh(TOOL, "change", str(seed), "200", copy, "overlay", path, fmt, below)
            check(path)
            same(theirs(path), open(copy, "rb").read())
        assert digest == hashlib.sha256(open(below, "rb").read()).digest()
    os.utime(base)
    refused("has changed since", "change", "1", "1", copy, "overlay", os.path.join(top, "over0"), "raw", base)


def test_growth(top):
    """Enough clusters for blocks and a larger table of reference counts."""
    path = os.path.join(top, "g.qcow2")
    img("create", "-q", "-f", "qcow2", "-o", "cluster_size=512,refcount_bits=64", path, "40M")
    change(path, 40 * MIB, 1, "qcow2", path, n=3000)
    img("create", "-q", "-f", "qcow2", "-o", "cluster_size=512", path, "64M")
    io(path, "write -P 7 0 64M")
    change(path, 64 * MIB, 2, "qcow2", path, n=300)


def test_vmdk(top):
    source = raw(os.path.join(top, "v.raw"), 6 * MIB, 7)
    for form in ("monolithicFlat", "twoGbMaxExtentFlat"):
        path = os.path.join(top, form + ".vmdk")
        img("convert", "-O", "vmdk", "-o", f"subformat={form}", source, path)
        same(ours("vmdk", path), open(source, "rb").read())
        copy = path + ".copy"
        open(copy, "wb").write(open(source, "rb").read())
        sh(TOOL, "change", "5", "300", copy, "vmdk", path)
        same(theirs(path), open(copy, "rb").read())
    for form in ("monolithicSparse", "streamOptimized"):
        path = os.path.join(top, form + ".vmdk")
        img("convert", "-O", "vmdk", "-o", f"subformat={form}", source, path)
        refused("sparse VMDK", "export", "vmdk", path)
    # Two extents, with a hole between them.
    a, b = os.path.join(top, "a.bin"), os.path.join(top, "b.bin")
    open(a, "wb").write(b"a" * 2048)
    open(b, "wb").write(b"b" * 4096)
    text = ('# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\ncreateType="monolithicFlat"\n'
            'RW 4 FLAT "a.bin" 0\nRW 2 ZERO\nRW 6 FLAT "b.bin" 2\nddb.adapterType = "ide"\n')
    path = os.path.join(top, "parts.vmdk")
    open(path, "w").write(text)
    same(ours("vmdk", path), b"a" * 2048 + bytes(1024) + b"b" * 3072)
    for bad, words in ((text.replace('"a.bin"', '"../a.bin"'), "next to it"),
                       (text.replace('"a.bin"', f'"{a}"'), "next to it"),
                       (text.replace("RW 4 FLAT", "RW 5 FLAT"), "not a file of its size"),
                       (text.replace('"a.bin"', '"link.bin"'), "cannot open extent"),
                       (text.replace("parentCID=ffffffff", "parentCID=12345678"), "differences"),
                       (text.replace("FLAT", "SPARSE"), "not supported"),
                       (text.replace('createType="monolithicFlat"\n', ""), "not complete"),
                       (text.replace("RW 2", "RW 99999999999999999999"), "without a size"),
                       (text.replace("# Disk", "# Disc"), "no VMDK descriptor")):
        if not os.path.islink(os.path.join(top, "link.bin")):
            os.symlink("a.bin", os.path.join(top, "link.bin"))
        open(path, "w").write(bad)
        refused(words, "export", "vmdk", path)


def test_refusals(top):
    path = os.path.join(top, "x.qcow2")

    def poke(at, data, options="cluster_size=64k"):
        img("create", "-q", "-f", "qcow2", "-o", options, path, "4M")
        io(path, "write -P 1 0 1M")
        with open(path, "r+b") as f:
            f.seek(at)
            f.write(data)

    def header(bits):
        return struct.pack(">Q", bits)

    poke(0, b"QFX\xfb")
    refused("is no qcow2 image", "export", "qcow2", path)
    poke(4, struct.pack(">I", 4))
    refused("version 4", "export", "qcow2", path)
    poke(72, header(1 << 40))
    refused("do not know", "export", "qcow2", path)
    poke(72, header(2))
    refused("marked corrupt", "export", "qcow2", path)
    poke(72, header(4))
    refused("another file", "export", "qcow2", path)
    poke(72, header(1))
    same(ours("qcow2", path), bytes([1]) * MIB + bytes(3 * MIB))
    copy = os.path.join(top, "x.copy")
    open(copy, "wb").write(bytes(4 * MIB))
    refused("qemu-img check -r", "change", "1", "1", copy, "qcow2", path)
    poke(32, struct.pack(">I", 1))
    refused("encrypted", "export", "qcow2", path)
    poke(20, struct.pack(">I", 8))
    refused("clusters have 2^8", "export", "qcow2", path)
    poke(36, struct.pack(">I", 0))
    refused("L1 table is too small", "export", "qcow2", path)
    poke(36, struct.pack(">I", 1 << 30))
    refused("entries", "export", "qcow2", path)
    poke(40, struct.pack(">Q", 1 << 50))
    refused("L1 table is out of bounds", "export", "qcow2", path)
    poke(24, struct.pack(">Q", 1 << 62))
    refused("too small", "export", "qcow2", path)
    poke(24, struct.pack(">Q", 4 * MIB + 1))
    refused("disk has", "export", "qcow2", path)
    # An L2 table, then a cluster, that lies outside: reading fails where it is, and nowhere else.
    poke(3 * 65536, struct.pack(">Q", 1 << 63 | 1 << 40))
    refused("read", "export", "qcow2", path)
    poke(4 * 65536 + 8, struct.pack(">Q", 1 << 63 | 1 << 40))
    refused("read", "export", "qcow2", path)
    for i, option in enumerate(EXTENDED):
        p = os.path.join(top, f"ext{i}.qcow2")
        img("create", "-q", "-f", "qcow2", "-o", option, p, "4M")
        refused("extended L2", "change", "1", "1", copy, "qcow2", p)
    # A format is what is said, whatever the file looks like.
    img("create", "-q", "-f", "qcow2", path, "4M")
    same(ours("raw", path), open(path, "rb").read()[:os.path.getsize(path) // 512 * 512])


def test_locks(top):
    path, copy = os.path.join(top, "l.raw"), os.path.join(top, "l.copy")
    for p in (path, copy):
        open(p, "wb").write(bytes(MIB))
    # qemu-io as the other user, told to wait on its standard input.
    for write, how in ((True, ()), (False, ("-r",))):
        other = subprocess.Popen(["qemu-io", "-f", "raw", *how, path], stdin=subprocess.PIPE,
                                 stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        other.stdin.write(b"read 0 512\n")
        other.stdin.flush()
        while b"ops" not in other.stdout.readline():
            pass
        refused("in use", "change", "1", "1", copy, "raw", path)
        if write:
            refused("in use", "export", "raw", path)
        else:
            ours("raw", path)
        other.communicate(b"quit\n")
    sh(TOOL, "change", "1", "9", copy, "raw", path)


def main():
    names = sys.argv[2:]
    failed = 0
    for name, test in sorted(globals().items()):
        if not name.startswith("test_") or (names and name[5:] not in names):
            continue
        with tempfile.TemporaryDirectory(prefix="msb-disks-") as top:
            try:
                test(top)
                print("ok    ", name, flush=True)
            except AssertionError as why:
                failed += 1
                print("FAILED", name, why, flush=True)
    return 1 if failed else 0


sys.exit(main())
