#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Images against independent judges: oracle.py IMGTOOL

A Debian image with Python, the end-to-end tests' own, and hand-made nasty layers, packed as OCI layouts and docker archives in every compression, are loaded;
fsck.erofs and a kernel loop mount (as root) must accept the disk, and it must equal what umoci
unpacks. The tar reader must see what Python's sees. Hostile inputs must be refused with a message and leave nothing behind.
Exit code 77 when a tool is missing; the loop mount is skipped, and said so, where not allowed.
"""
import base64
import gzip
import hashlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time

TOOL = os.path.abspath(sys.argv[1])
HERE = os.path.dirname(os.path.abspath(__file__))
ARCH = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
failures = 0


def check(ok, what):
    global failures
    print(("ok   " if ok else "FAIL ") + what, flush=True)
    failures += not ok


def run(*args, **kw):
    return subprocess.run(args, capture_output=True, text=True, timeout=300, **kw)


def sha(b):
    return hashlib.sha256(b).hexdigest()


class Layer:
    """One tar stream in the making."""

    def __init__(self, format=tarfile.PAX_FORMAT):
        self.buf = io.BytesIO()
        self.tar = tarfile.open(fileobj=self.buf, mode="w", format=format)

    def add(self, name, type=tarfile.REGTYPE, data=b"", mode=0o644, mtime=1600000000.123456789,
            xattrs=None, **kw):
        t = tarfile.TarInfo(name)
        t.type, t.mode, t.size = type, mode, len(data)
        whole = int(mtime)
        t.mtime = whole
        t.pax_headers = {"mtime": f"{mtime:.9f}"} if self.tar.format == tarfile.PAX_FORMAT else {}
        for key, value in (xattrs or {}).items():
            t.pax_headers["SCHILY.xattr." + key] = value.decode("utf-8", "surrogateescape")
        for key, value in kw.items():
            setattr(t, key, value)
        self.tar.addfile(t, io.BytesIO(data))
        return self

    def dir(self, name, mode=0o755, **kw):
        return self.add(name, tarfile.DIRTYPE, mode=mode, **kw)

    def link(self, name, to, **kw):
        return self.add(name, tarfile.SYMTYPE, mode=0o777, linkname=to, **kw)

    def hard(self, name, to, **kw):
        return self.add(name, tarfile.LNKTYPE, linkname=to, **kw)

    def sparse(self, name, size, pieces):
        """GNU sparse format 1.0, which is all that umoci understands."""
        text = "".join(f"{n}\n" for n in [len(pieces)] + [v for o, d in pieces for v in (o, len(d))])
        data = text.encode() + bytes(-len(text) % 512) + b"".join(d for _, d in pieces)
        t = tarfile.TarInfo("GNUSparseFile.0/" + name)
        t.size, t.mtime = len(data), 1600000000
        t.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0",
                         "GNU.sparse.name": name, "GNU.sparse.realsize": str(size)}
        self.tar.addfile(t, io.BytesIO(data))
        return self

    def done(self):
        self.tar.close()
        return self.buf.getvalue()


def zstd(data):
    return subprocess.run(["zstd", "-q", "-c"], input=data, capture_output=True, check=True).stdout


PACK = {
    "gzip": (lambda d: gzip.compress(d, 1, mtime=0), "application/vnd.oci.image.layer.v1.tar+gzip"),
    "zstd": (zstd, "application/vnd.oci.image.layer.v1.tar+zstd"),
    "plain": (lambda d: d, "application/vnd.oci.image.layer.v1.tar"),
}


def config_of(layers, **over):
    c = {"architecture": ARCH, "os": "linux", "config": {"Cmd": ["sh"], "Env": ["A=b"]},
         "rootfs": {"type": "layers", "diff_ids": ["sha256:" + sha(l) for l in layers]}}
    c.update(over)
    return json.dumps(c).encode()


def oci_files(layers, pack="gzip", config=None, tag="nasty", tweak=None):
    """An OCI layout as {name: bytes}."""
    files = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}
    fn, media = PACK[pack]

    def blob(data):
        files["blobs/sha256/" + sha(data)] = data
        return {"digest": "sha256:" + sha(data), "size": len(data)}

    cfg = config or config_of(layers)
    manifest = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "config": {"mediaType": "application/vnd.oci.image.config.v1+json", **blob(cfg)},
                "layers": [{"mediaType": media, **blob(fn(l))} for l in layers]}
    if tweak:
        tweak(manifest, files)
    m = blob(json.dumps(manifest).encode())
    files["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [
        {"mediaType": manifest["mediaType"], **m,
         "annotations": {"org.opencontainers.image.ref.name": tag}}]}).encode()
    return files


def docker_files(layers, tag="nasty:latest"):
    """The old style of `docker save`: a directory per layer, a repeated layer as a link."""
    cfg = config_of(layers)
    files, names = {sha(cfg) + ".json": cfg}, []
    for i, l in enumerate(layers):
        names.append(f"{i:064x}/layer.tar")
        files[names[-1]] = l
    files["manifest.json"] = json.dumps([
        {"Config": sha(cfg) + ".json", "RepoTags": [tag], "Layers": names}]).encode()
    return files


def write_dir(files, path):
    for name, data in files.items():
        full = os.path.join(path, name)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, "wb") as f:
            f.write(data)
    return path


def tar_of(files):
    l = Layer(tarfile.USTAR_FORMAT)
    for name, data in files.items():
        l.add(name, data=data, mtime=0)
    return l.done()


def sparse_gnu(name, size, pieces):
    """A file in the old GNU sparse format, header by hand."""
    t = tarfile.TarInfo(name)
    stored = b"".join(d for _, d in pieces)
    t.size, t.mtime, t.mode = len(stored), 1600000000, 0o644
    h = bytearray(t.tobuf(tarfile.GNU_FORMAT))
    h[156:157] = b"S"
    rest = list(pieces)

    def entries(n):
        out = b""
        for _ in range(n):
            out += b"%011o\0%011o\0" % (rest[0][0], len(rest.pop(0)[1])) if rest else bytes(24)
        return out

    h[386:482] = entries(4)
    h[482] = 1 if rest else 0
    h[483:495] = b"%011o\0" % size
    h[148:156] = b" " * 8
    h[148:156] = b"%06o\0 " % sum(h)
    out = bytes(h)
    while rest:
        block = entries(21)
        out += block + (b"\1" if rest else b"\0") + bytes(7)
    return out + stored + bytes(-len(stored) % 512)


def sparse_files():
    rnd = random.Random(2)
    return [("sparse", 10 << 20, [(i * 300000, rnd.randbytes(5000)) for i in range(30)]),
            ("holes-only", 3 << 20, []), ("sparse-tail", 100000, [(99990, b"0123456789")]),
            ("sparse-start", 50000, [(0, b"start")])]


def sparse_forms(work):
    """Old GNU, new GNU and plain form of the same files: the same blocks come out, with holes."""
    gnu = b"".join(sparse_gnu(*f) for f in sparse_files()) + bytes(1024)
    pax, plain = Layer(), Layer()
    for name, size, pieces in sparse_files():
        pax.sparse(name, size, pieces)
        whole = bytearray(size)
        for at, data in pieces:
            whole[at:at + len(data)] = data
        plain.add(name, data=bytes(whole))
    seen, space = set(), []
    for i, layer in enumerate((gnu, pax.done(), plain.done())):
        home = os.path.join(work, f"sparse-{i}")
        r = run(TOOL, home, "load", write_dir(oci_files([layer]), home + "-in"))
        check(r.returncode == 0 and run(TOOL, home, "verify", "nasty").returncode == 0,
              f"sparse form {i} {r.stderr}")
        data = [n for n in os.listdir(home + "/layers") if n.endswith(".data")][0]
        seen.add(blobs(home)["layers/" + data])
        space.append(os.stat(f"{home}/layers/{data}").st_blocks * 512)
    check(len(seen) == 1, "sparse files: the same blocks from every format")
    check(max(space) < 1 << 20, f"holes take no space: {space}")


def nasty():
    rnd = random.Random(1)
    a = Layer()
    a.dir("./", 0o755)
    a.dir("etc").add("etc/passwd", data=b"root:x:0:0::/:/bin/sh\n")
    a.dir("usr").dir("usr/lib").link("lib", "usr/lib").link("abs", "/usr")
    a.link("loop1", "loop2").link("loop2", "loop1").link("dangling", "no/where")
    a.add("lib/through-link", data=b"lands in usr/lib")
    a.add("setuid", mode=0o4755, data=b"x" * 4032).add("setgid", mode=0o2755, data=b"y" * 4033)
    a.dir("sticky", 0o1777)
    for n in (0, 1, 31, 32, 4031, 4032, 4033, 4095, 4096, 4097, 8191, 8192, 12288 + 7, 1 << 20):
        a.add(f"size-{n}", data=rnd.randbytes(n))
    a.add("ids", uid=3000000000, gid=4000000000, data=b"big ids")
    a.add("old", mtime=0).add("ancient", mtime=-86400.5).add("future", mtime=5000000000.000000001)
    a.add("null", tarfile.CHRTYPE, devmajor=1, devminor=3, mode=0o666)
    a.add("disk", tarfile.BLKTYPE, devmajor=259, devminor=1048575, mode=0o660)
    a.add("fifo", tarfile.FIFOTYPE, mode=0o600)
    a.add("first", data=b"shared").hard("second", "first").hard("usr/third", "./second")
    a.link("sym", "first").hard("sym2", "sym")
    a.add("n" * 255, data=b"long name").add("/".join(["p" * 200] * 10) + "/leaf", data=b"long path")
    a.link("long-link", "t" * 3000).link("longest-link", "x/" * 2047 + "y")
    a.add("caf\u00e9 \u4e2d\u6587 \U0001f600", data=b"utf8").add(" \n\t\x01\\\"'", data=b"odd")
    a.add("!first", data=b"sorts before dot").add("-dash", data=b"")
    cap = base64.b64decode("AQAAAgAgAAAAAAAAAAAAAAAAAAA=")
    a.add("ping", mode=0o755, data=b"\x7fELF", xattrs={"security.capability": cap})
    a.add("attrs", data=b"z" * 100, xattrs={"user.a": b"1", "trusted.t": b"\x00\xff",
                                           "user." + "k" * 200: b"v" * 2000})
    # umoci and its host put this on ext4, where attributes must fit one block.
    acl = bytes.fromhex("02000000 01000700ffffffff 02000600e8030000 04000500ffffffff"
                        "10000700ffffffff 20000500ffffffff")
    a.add("acl", mode=0o775, data=b"acl", xattrs={"system.posix_acl_access": acl})
    a.dir("acldir", 0o775, xattrs={"system.posix_acl_default": acl})
    a.add("twice", data=b"one").add("twice", data=b"two and last", mode=0o600)
    a.dir("was-dir").add("was-dir/x", data=b"x").dir("to-opaque", 0o700)
    for i in range(300):
        a.add(f"to-opaque/f{i:03}", data=bytes([i % 256]) * i)
    a.dir("to-opaque/deep").add("to-opaque/deep/old", data=b"old")
    a.add("was-file", data=b"f").dir("white").add("white/gone", data=b"g").add("white/stays", data=b"s")
    a.dir("tree").dir("tree/sub").add("tree/sub/f", data=b"f")
    a.dir("many")
    for i in range(2000):
        a.add(f"many/entry-{i}", data=b"%d" % i)
    for name, size, pieces in sparse_files():
        a.sparse(name, size, pieces)

    b = Layer()
    b.add("white/.wh.gone").add(".wh.tree")
    b.dir("to-opaque", 0o711, mtime=1700000000).add("to-opaque/.wh..wh..opq")
    b.dir("to-opaque/deep", 0o750).add("to-opaque/deep/new", data=b"new")
    b.add("was-dir", data=b"now a file").dir("was-file", 0o750).add("was-file/in", data=b"in")
    b.hard("across", "first").link("etc/mtab", "/proc/mounts")
    b.add("lib/second-layer", data=b"via the link of layer one")
    b.dir("usr", 0o711, uid=5, gid=6)
    b.add("late", data=b"q" * 5000)

    c = Layer(tarfile.GNU_FORMAT)
    c.add("gnu/" + "g" * 240 + "/" + "h" * 200, data=b"GNU long name", mtime=12345)
    c.link("gnu/long", "l" * 500, mtime=5).add("gnu/big-ids", uid=1 << 31, gid=70000, mtime=-5)
    c.add(".wh.across").add("across", data=b"removed and made again", mtime=1)
    return [a.done(), b.done(), c.done()]


def layout_tar(files, wrap):
    data = tar_of(files)
    return PACK[wrap][0](data)


def blobs(home):
    out = {}
    for d in ("layers", "images"):
        for name in sorted(os.listdir(os.path.join(home, d))):
            with open(os.path.join(home, d, name), "rb") as f:
                out[d + "/" + name] = sha(f.read())
    return out


def leftovers(home):
    return [n for d in ("layers", "images", "tmp", "locks") for n in os.listdir(os.path.join(home, d))]


def mounted_equal(work, home, ref, layout_ref, what, no_times=""):
    dev = os.path.join(work, "device")
    check(run(TOOL, home, "device", ref, dev).returncode == 0, f"{what}: assembled")
    r = run("fsck.erofs", dev)
    check(r.returncode == 0, f"{what}: fsck.erofs {r.stderr.strip()[-200:]}")
    mnt, bundle = os.path.join(work, "mnt"), os.path.join(work, "bundle")
    os.makedirs(mnt, exist_ok=True)
    if os.geteuid() or run("mount", "-t", "erofs", "-o", "loop,ro", dev, mnt).returncode:
        print(f"skip {what}: no loop mount here")
        return
    try:
        shutil.rmtree(bundle, ignore_errors=True)
        r = run("umoci", "unpack", "--image", layout_ref, bundle)
        check(r.returncode == 0, f"{what}: umoci {r.stderr.strip()[-200:]}")
        args = ["--ignore-times", no_times] if no_times else []
        r = run(sys.executable, os.path.join(HERE, "compare.py"), bundle + "/rootfs", mnt, *args)
        check(r.returncode == 0, f"{what}: equals umoci's: {r.stdout.strip()}")
    finally:
        run("umount", mnt)
        shutil.rmtree(bundle, ignore_errors=True)
        os.unlink(dev)


def refused(work, data, want, what, files=None):
    """Loading must fail with a message that has @want, and leave nothing."""
    home, path = os.path.join(work, "bad-home"), os.path.join(work, "bad")
    shutil.rmtree(home, ignore_errors=True)
    shutil.rmtree(path, ignore_errors=True)
    if files:
        write_dir(files, path)
    else:
        path += ".tar"
        with open(path, "wb") as f:
            f.write(data)
    r = run(TOOL, home, "load", path)
    ok = r.returncode == 1 and want in r.stderr and len(r.stderr) < 1500
    check(ok, f"refused: {what}: {r.stderr.strip()[:160]!r}")
    check(not leftovers(home), f"nothing left after: {what}")


def hostile(work):
    one = lambda l: oci_files([l.done()])
    cases = [
        ("..", "a path with ..", one(Layer().add("../etc/x", data=b"x"))),
        ("..", "an inner ..", one(Layer().add("a/../../x"))),
        ("does not exist", "hard link to nothing", one(Layer().hard("h", "missing"))),
        ("directory", "hard link to a directory", one(Layer().dir("d").hard("h", "d"))),
        ("symbolic links", "entry below looping links",
         one(Layer().link("a", "b").link("b", "a").add("a/x", data=b"x"))),
        ("255", "name of 300 bytes", one(Layer().add("n" * 300))),
        ("longer", "path of 5000 bytes", one(Layer().add("/".join(["d" * 99] * 50)))),
        ("deeper", "path 200 deep", one(Layer().add("/".join(["d"] * 200)))),
        ("whiteout", "whiteout of nothing", one(Layer().add("x/.wh."))),
        ("whiteout", "whiteout of ..", one(Layer().add("x/.wh..."))),
        ("below a whiteout", "file below a whiteout", one(Layer().add(".wh.d/x"))),
        ("attributes", "flood of attributes",
         one(Layer().add("x", xattrs={f"user.{i:04}": b"v" * 500 for i in range(300)}))),
        ("riscv999", "wrong architecture",
         oci_files([Layer().done()], config=config_of([Layer().done()], architecture="riscv999"))),
        ("windows", "wrong system",
         oci_files([Layer().done()], config=config_of([Layer().done()], os="windows"))),
        ("names 2 layers", "too many diff_ids",
         oci_files([Layer().done()], config=config_of([Layer().done()] * 2))),
        ("configuration says", "wrong diff_id",
         oci_files([Layer().add("x").done()], config=config_of([b"other"]))),
    ]

    def media(t):
        def tweak(m, files):
            m["layers"][0]["mediaType"] = t
        return tweak
    layer = [Layer().add("x", data=b"x").done()]
    for t, want in (("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "foreign"),
                    ("application/vnd.oci.image.layer.v1.tar+gzip+encrypted", "encrypted"),
                    ("application/x-unknown", "unknown media type")):
        cases.append((want, t, oci_files(layer, tweak=media(t))))

    def missing(m, files):
        del files["blobs/sha256/" + m["layers"][0]["digest"][7:]]

    def flipped(m, files):
        n = "blobs/sha256/" + m["layers"][0]["digest"][7:]
        d = bytearray(files[n])
        d[len(d) // 2] ^= 1
        files[n] = bytes(d)

    def shorter(m, files):
        m["layers"][0]["size"] -= 1
    big = [Layer().add("x", data=random.Random(5).randbytes(100000)).done()]
    cases += [("missing", "missing layer", oci_files(layer, tweak=missing)),
              ("", "flipped bit in gzip", oci_files(big, tweak=flipped)),
              ("digest", "flipped bit in plain", oci_files(big, "plain", tweak=flipped)),
              ("manifest says", "wrong size", oci_files(layer, tweak=shorter)),
              ("no index.json", "not an image", {"README": b"hello"})]
    sparse = sparse_gnu("bomb", 6 << 30, [((6 << 30) - 4, b"tail")]) + bytes(1024)
    cases.append(("at most", "file of 6 GiB of hole", oci_files([sparse])))
    for want, what, files in cases:
        refused(work, None, want, what, files)
    refused(work, b"", "empty", "empty file")
    refused(work, b"\xfd7zXZ\0" + bytes(100), "xz", "xz archive")
    refused(work, os.urandom(5000), "", "noise")

    # An absolute path is relative to the root, as everywhere else.
    home = os.path.join(work, "abs")
    r = run(TOOL, home, "load", write_dir(one(Layer().add("/etc/abs", data=b"x")), home + "-in"))
    check(r.returncode == 0, "absolute path taken as below the root")


def truncation(work, layers):
    data = tar_of(oci_files(layers))
    rnd = random.Random(3)
    home, path = os.path.join(work, "trunc"), os.path.join(work, "trunc.tar")
    cuts = [0, 1, 511, 512, 513, 1024] + [rnd.randrange(len(data) - 2048) for _ in range(40)]
    bad = []
    for wrap in ("plain", "gzip"):
        whole = PACK[wrap][0](data)
        for cut in cuts:
            cut = cut * len(whole) // len(data)
            shutil.rmtree(home, ignore_errors=True)
            with open(path, "wb") as f:
                f.write(whole[:cut])
            r = run(TOOL, home, "load", path)
            if r.returncode != 1 or not r.stderr.strip() or leftovers(home):
                bad.append((wrap, cut, r.returncode, r.stderr[-300:], leftovers(home)))
    check(not bad, f"cut off at {2 * len(cuts)} places: clean errors, nothing left {bad[:3]}")


def killed(work, layers):
    home, src = os.path.join(work, "killed"), os.path.join(work, "killed-in")
    write_dir(oci_files(layers), src)
    shutil.rmtree(home, ignore_errors=True)
    run(TOOL, home, "ls")
    rnd = random.Random(9)
    hits = 0
    for _ in range(25):
        p = subprocess.Popen([TOOL, home, "load", src], stdout=subprocess.DEVNULL,
                             stderr=subprocess.DEVNULL)
        time.sleep(rnd.random() * 0.15)
        if p.poll() is None:
            hits += 1
        p.send_signal(signal.SIGKILL)
        p.wait()
    r = run(TOOL, home, "load", src)
    check(r.returncode == 0, f"usable after {hits} kills in flight: {r.stderr}")
    check(run(TOOL, home, "verify", "nasty").returncode == 0, "verifies after kills")
    check(not [n for n in os.listdir(home + "/tmp")], "no temporary files after kills")
    p = [subprocess.Popen([TOOL, home + "2", "load", src], stdout=subprocess.DEVNULL)
         for _ in range(4)]
    check(all(x.wait() == 0 for x in p), "four loads at once")
    check(blobs(home) == blobs(home + "2"), "same bytes after kills and races")
    shutil.rmtree(home)


def flips(work, home):
    """Every single flipped bit we try must be found by verify, and load repairs it."""
    bad = []
    rnd = random.Random(11)
    before = {name: open(os.path.join(home, name), "rb").read() for name in blobs(home)}
    for name in before:
        path = os.path.join(home, name)
        size = os.path.getsize(path)
        if not size:
            continue
        for _ in range(3):
            os.chmod(path, 0o600)
            with open(path, "r+b") as f:
                # Alignment gaps of .data carry nothing; aim where a byte is not zero.
                for _ in range(100):
                    at = rnd.randrange(size)
                    f.seek(at)
                    byte = f.read(1)
                    if byte != b"\0":
                        break
                f.seek(at)
                f.write(bytes([byte[0] ^ (1 << rnd.randrange(8))]))
            done = run(TOOL, home, "verify", "nasty")
            # Metadata is made again, a layer set aside: put back what was.
            if done.returncode != 1 and "mended=1" not in done.stdout:
                bad.append((name, at))
            for other, data in before.items():
                other = os.path.join(home, other)
                if os.path.exists(other):
                    os.unlink(other)
                with open(other, "wb") as f:
                    f.write(data)
    check(not bad, f"flipped bits found {bad}")
    check(run(TOOL, home, "verify", "nasty").returncode == 0, "verify accepts the intact image")


def tar_lines(path):
    """What imgtool's verb "tar" should print, by Python's tar reader."""
    kinds = {tarfile.LNKTYPE: 1, tarfile.SYMTYPE: 2, tarfile.CHRTYPE: 3, tarfile.BLKTYPE: 4,
             tarfile.DIRTYPE: 5, tarfile.FIFOTYPE: 6}
    lines = []
    with tarfile.open(path, encoding="utf-8", errors="surrogateescape") as tar:
        for t in tar:
            file, device = t.isreg(), t.type in (tarfile.CHRTYPE, tarfile.BLKTYPE)
            whole, _, part = t.pax_headers.get("mtime", str(int(t.mtime))).partition(".")
            sec, ns = int(whole), int((part + "0" * 9)[:9])
            if whole.startswith("-") and ns:
                sec, ns = sec - 1, 10**9 - ns
            hexed = lambda s: s.encode("utf-8", "surrogateescape").hex()
            xattrs = {k[13:]: v for k, v in t.pax_headers.items() if k.startswith("SCHILY.xattr.")}
            lines.append(" ".join([
                str(kinds.get(t.type, 0)), f"{t.mode & 0o7777:o}", str(t.uid), str(t.gid), str(sec),
                str(ns), str(t.devmajor if device else 0), str(t.devminor if device else 0),
                str(t.size if file else 0), "path:" + hexed(t.name.rstrip("/")),
                "link:" + (hexed(t.linkname) if t.islnk() or t.issym() else "")]
                + sorted(k + "=" + hexed(v) for k, v in xattrs.items())
                + [sha(tar.extractfile(t).read()) if file else "0" * 64]))
    return lines


def same_entries(work, path, what):
    r = run(TOOL, os.path.join(work, "tar-home"), "tar", path)
    have = []
    for line in r.stdout.splitlines():
        words = line.split(" ")
        name = words[9]
        while name.endswith("2f"):
            name = name[:-2]
        device = words[0] in "34"
        have.append(" ".join(words[:6] + (words[6:8] if device else ["0", "0"]) + [words[8], name,
                    words[10] if words[0] in "12" else "link:"] + sorted(words[11:-1]) + words[-1:]))
    want = tar_lines(path)
    odd = [p for p in zip(want, have) if p[0] != p[1]][:2]
    check(r.returncode == 0 and want == have,
          f"{what}: {len(want)} entries as Python reads them {len(have)} {odd} {r.stderr[-200:]}")


def tar_readers(work, layers):
    """The tar reader against Python's, on what Python and GNU tar write in every format."""
    path = os.path.join(work, "judged.tar")
    gnu = b"".join(sparse_gnu(*f) for f in sparse_files()) + bytes(1024)
    for i, data in enumerate(layers + [gnu, layers[0][:-1024]]):
        with open(path, "wb") as f:
            f.write(data)
        same_entries(work, path, f"nasty tar {i}")
    top = os.path.join(work, "to-tar")
    os.makedirs(top + "/d/" + "e" * 60 + "/" + "f" * 60)
    for name, data in (("small", b"x"), ("d/long-" + "n" * 90, b"long"), ("empty", b""),
                       ("caf\u00e9", b"utf8"), ("d/blocks", os.urandom(70000))):
        with open(os.path.join(top, name), "wb") as f:
            f.write(data)
    for name, size, pieces in sparse_files():
        with open(os.path.join(top, name), "wb") as f:
            f.truncate(size)
            for at, data in pieces:
                f.seek(at)
                f.write(data)
    os.symlink("small", top + "/sym")
    os.link(top + "/small", top + "/hard")
    os.mkfifo(top + "/fifo")
    os.utime(top + "/small", ns=(0, 1234567890123456789))
    deep = top + "/d/" + "e" * 60 + "/" + "f" * 60 + "/" + "g" * 120
    with open(deep, "w") as f:
        f.write("deep")
    os.symlink("t" * 150, top + "/far")
    for name, args in (("v7", ["v7"]), ("oldgnu", ["oldgnu", "--sparse"]), ("ustar", ["ustar"]),
                       ("gnu", ["gnu", "--sparse", "--owner=:4000000000"]), ("posix", ["posix"]),
                       ("pax sparse 0.0", ["posix", "--sparse", "--sparse-version=0.0"]),
                       ("pax sparse 0.1", ["posix", "--sparse", "--sparse-version=0.1"]),
                       ("pax sparse 1.0", ["posix", "--sparse", "--sparse-version=1.0"])):
        r = run("tar", "-C", top, "-cf", path, "--warning=none", "--format=" + args[0], *args[1:], ".")
        # Formats without long names leave those out and say so with code 2.
        check(r.returncode == (2 if name in ("v7", "ustar") else 0), f"tar --format {name}")
        same_entries(work, path, f"GNU tar, {name}")


def home_refused(home, want, what):
    """Every verb must say what is wrong with this store, and what to do."""
    for verb in (["load", os.path.join(os.path.dirname(home), "oci-gzip")], ["ls"], ["find", "nasty"],
                 ["rm", "nasty"], ["bootstrap", "bookworm", "x"]):
        r = run(TOOL, home, *verb)
        first = r.stderr.splitlines()[:1] or [""]
        check(r.returncode == 1 and want in first[0] and "hint: " in r.stderr,
              f"{what}: {verb[0]}: {first[0][:150]}")


def bad_homes(work):
    home = os.path.join(work, "worn")
    run(TOOL, home, "ls")
    with open(home + "/version", "w") as f:
        f.write("microsandbox-store 99\n")
    home_refused(home, "version 99", "store of a newer program")
    with open(home + "/version", "w") as f:
        f.write("microsandbox-store 3\n")
    good = open(home + "/msb.db", "rb").read()
    for name, data in (("noise", os.urandom(16384)), ("noise behind its head", good[:100] + os.urandom(16384))):
        with open(home + "/msb.db", "wb") as f:
            f.write(data)
        home_refused(home, "damaged", "database of " + name)

    mnt = os.path.join(work, "small")
    os.makedirs(mnt)
    if os.geteuid() or run("mount", "-t", "tmpfs", "-o", "size=1m", "none", mnt).returncode:
        print("skip read-only and full homes: mounting is for root")
        return
    try:
        home = mnt + "/home"
        run("mount", "-o", "remount,ro", mnt)
        home_refused(home, "Read-only", "no store on a read-only disk")
        run("mount", "-o", "remount,rw", mnt)
        r = run(TOOL, home, "load", os.path.join(work, "oci-gzip"))
        check(r.returncode == 1 and "No space" in r.stderr and "hint: " in r.stderr
              and not leftovers(home), f"disk too small for the image: {r.stderr.strip()}")
        run("mount", "-o", "remount,ro", mnt)
        home_refused(home, "Read-only", "store on a read-only disk")
        run("mount", "-o", "remount,rw", mnt)
        with open(mnt + "/filler", "wb", buffering=0) as f:
            try:
                while f.write(bytes(4096)):
                    pass
            except OSError:
                pass
        home_refused(home, "No space", "store on a full disk")
        os.unlink(mnt + "/filler")
        check(run(TOOL, home, "ls").returncode == 0, "usable again when there is space")
    finally:
        run("umount", mnt)


def package_tool(work):
    """A package tool that fails as mmdebstrap does, and one that is interrupted."""
    tools, home = os.path.join(work, "tools"), os.path.join(work, "tools-home")
    os.makedirs(tools)
    env = dict(os.environ, PATH=tools + ":" + os.environ["PATH"])

    def tool(text):
        with open(tools + "/mmdebstrap", "w") as f:
            f.write("#!/bin/sh\n" + text)
        os.chmod(tools + "/mmdebstrap", 0o755)
        return [TOOL, home, "bootstrap", "bookworm", "x"]

    r = run(*tool("trap '' HUP\necho 'E: no such suite' >&2\nkill -HUP 0\nexit 25\n"), env=env,
            start_new_session=True)
    check(r.returncode == 1 and "no such suite" in r.stderr and not leftovers(home),
          f"the package tool's signals stay with it: {r.returncode} {r.stderr.strip()}")
    mark = os.path.join(tools, "half-made")
    for sig in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        p = subprocess.Popen(tool(f"trap 'rm {mark}; exit 1' TERM\ntouch {mark}\n"
                                  "while :; do sleep 0.05; done\n"), env=env,
                             stderr=subprocess.DEVNULL,
                             preexec_fn=lambda s=sig: signal.signal(s, signal.SIG_DFL))
        while not os.path.exists(mark):
            time.sleep(0.01)
        p.send_signal(sig)
        check(p.wait(60) == -sig and not os.path.exists(mark),
              f"{sig.name} ends the package tool first, then us: {p.returncode}")
    run(TOOL, home, "ls")
    check(not leftovers(home), "nothing left after interruptions")


def removal(work, home):
    os.mkdir(home + "/sandboxes/box")
    check(run(TOOL, home, "use", "box", "nasty").returncode == 0, "image put to use")
    r = run(TOOL, home, "rm", "nasty")
    check(r.returncode == 1 and "box" in r.stderr, f"rm refused while in use: {r.stderr.strip()}")
    run(TOOL, home, "unuse", "box")
    r = run(TOOL, home, "rm", "nasty")
    check(r.returncode == 0 and not blobs(home), f"rm removes all files: {r.stdout.strip()}")
    check(run(TOOL, home, "find", "nasty").returncode == 1, "gone afterwards")


def debian(work):
    """The real image, as an OCI layout with the tag "debian"."""
    sys.path.insert(0, os.path.join(os.path.dirname(HERE), "e2e"))
    import harness
    path = os.path.join(work, "oci-debian")
    with tarfile.open(harness.python_image()) as t:
        t.extractall(path)
    with open(os.path.join(path, "index.json"), "r+") as f:
        index = json.load(f)
        index["manifests"][0]["annotations"] = {"org.opencontainers.image.ref.name": "debian"}
        f.seek(0)
        f.truncate()
        json.dump(index, f)
    return path


def main():
    for tool in ("umoci", "fsck.erofs", "zstd", "mount"):
        if not shutil.which(tool):
            print(f"skip: no {tool}")
            return 77
    work = tempfile.mkdtemp(prefix="msb-oracle-")
    try:
        layers = nasty()
        reference = None
        for pack in PACK:
            home = os.path.join(work, "home-" + pack)
            path = write_dir(oci_files(layers, pack), os.path.join(work, "oci-" + pack))
            r = run(TOOL, home, "load", path)
            check(r.returncode == 0, f"OCI layout, {pack} layers {r.stderr.strip()}")
            reference = reference or blobs(home)
            check(blobs(home) == reference, f"OCI layout, {pack} layers: same bytes")
        for wrap in PACK:
            for kind, files in (("oci", oci_files(layers)), ("docker", docker_files(layers))):
                home = os.path.join(work, "home")
                shutil.rmtree(home, ignore_errors=True)
                path = os.path.join(work, "archive")
                with open(path, "wb") as f:
                    f.write(layout_tar(files, wrap))
                r = run(TOOL, home, "load", path)
                check(r.returncode == 0 and blobs(home) == reference,
                      f"{kind} archive, {wrap}: same bytes {r.stderr.strip()}")
                with open(path, "rb") as f:
                    r = subprocess.run([f"cat | {TOOL} {home}2 load -"], shell=True, stdin=f,
                                       capture_output=True, text=True)
                check(r.returncode == 0 and blobs(home + "2") == reference,
                      f"{kind} archive, {wrap}, through a pipe: same bytes {r.stderr.strip()}")
                shutil.rmtree(home + "2", ignore_errors=True)
        # Parents nobody described get the time of unpacking from umoci and 0 from us.
        implied = ["gnu", "gnu/" + "g" * 240] + ["/".join(["p" * 200] * i) for i in range(1, 11)]
        touched = ["usr/lib", "white", "etc", ".", "many", "usr", "tree"]
        mounted_equal(work, os.path.join(work, "home-gzip"), "nasty",
                      os.path.join(work, "oci-gzip") + ":nasty", "nasty image",
                      ",".join(implied + touched))
        home, path = os.path.join(work, "home-debian"), debian(work)
        r = run(TOOL, home, "load", path)
        check(r.returncode == 0, f"load the Debian image {r.stderr}")
        mounted_equal(work, home, "debian", path + ":debian", "Debian image")
        tar_readers(work, layers)
        bad_homes(work)
        package_tool(work)
        sparse_forms(work)
        hostile(work)
        truncation(work, layers)
        killed(work, layers)
        flips(work, os.path.join(work, "home-zstd"))
        removal(work, os.path.join(work, "home-plain"))
    finally:
        shutil.rmtree(work, ignore_errors=True)
    print(f"{failures} failures")
    return 1 if failures else 0


sys.exit(main())
