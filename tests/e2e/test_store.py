# SPDX-License-Identifier: Apache-2.0
"""The store: images saved again byte for byte, checked and mended, in use, pruned, and its figures."""
import io
import json
import os
import resource
import shutil
import subprocess
import tarfile

import oci
from harness import PATIENCE, Case, Done, Terminal, deadline, environment, tree
from test_image import run, small, tool


def gnu(*entries):
    """A layer in GNU format, whose long names and numbers are unlike pax."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for info, data in entries:
            tar.addfile(info, io.BytesIO(data) if info.isreg() else None)
    return out.getvalue()


def odd_layers(scratch):
    """Layers whose streams say more than the files that they make, or say it in strange ways."""
    block = os.urandom(4096)
    long = "/".join(["d" * 60] * 5)
    plain = oci.layer([oci.entry("a", "one"), oci.entry("b", block * 3 + b"tail"), oci.entry("zero", bytes(300000))])
    layers = [
        plain,
        gnu(oci.entry(long, None), oci.entry(long + "/f", "x" * 5000), oci.entry("l", kind="link", target="t" * 300)),
        # Equal files, small, with a tail, and larger than any buffer.
        oci.layer([oci.entry(f"same{i}", block * n + tail) for n, tail in ((1, b""), (2, b"t" * 4000), (700, b"e"))
                   for i in (n, n + 1, n + 2)]),
        oci.layer([oci.entry("x", "1", pax={"SCHILY.xattr.user.a": "v", "mtime": "1.25", "comment": "nobody reads this"})]),
        # Replaced within the layer; books of aufs, whiteouts with contents.
        oci.layer([oci.entry("twice", "first" * 2000), oci.entry("twice", "second"), oci.entry(".wh..wh.plnk", None),
                   oci.entry(".wh..wh.plnk/1.2", "kept" * 999), oci.entry(".wh.a", "unexpected")]),
        # Behind the end; without an end; nothing but an end; nothing.
        plain + b"more" * 1000, oci.layer([oci.entry("e", "x" * 512)])[:1024],
        bytes(1024), b"",
    ]
    if shutil.which("tar"):
        with open(scratch + "/holes", "wb") as f:
            f.seek(1 << 20)
            f.write(block)
            f.seek(5 << 20)
            f.write(b"end")
            f.truncate(8 << 20)
        for options in (["--format=gnu"], ["--format=posix", "--sparse-version=0.0"], ["--format=posix", "--sparse-version=0.1"],
                        ["--format=posix", "--sparse-version=1.0"], ["--format=v7"], ["--format=ustar"]):
            done = subprocess.run(["tar", "-S", "-cf", "-", "-C", scratch, *options, "holes"], stdout=subprocess.PIPE)
            layers.append(done.stdout)
    return layers


def archive_of(path):
    with tarfile.open(path) as tar:
        return {m.name: tar.extractfile(m).read() for m in tar if m.isreg()}


class Save(Case):
    def setUp(self):
        super().setUp()
        self.home = self.path("home")

    def load(self, layers, name="odd", **how):
        path = oci.layout(self.path(name.replace("/", "_") + ".tar"), layers, name, **how)
        self.ok(self.msb("load", "-i", path))
        return path

    def test_every_layer_is_what_it_was(self):
        layers = odd_layers(self.scratch)
        self.load(layers)
        self.ok(self.msb("image", "verify"))
        before = json.loads(self.ok(self.msb("image", "inspect", "odd", "--format", "json")).text)
        for kind in ("oci", "docker"):
            out = self.path(kind + ".tar")
            self.ok(self.msb("save", "--format", kind, "-o", out, "odd"))
            files = archive_of(out)
            for number, layer in enumerate(layers):
                self.assertEqual(files["blobs/" + oci.sha256(layer).replace(":", "/")], layer, f"layer {number}, {kind}")
            self.assertEqual("manifest.json" in files, kind == "docker")
            for name, data in files.items():
                if name.startswith("blobs/"):
                    self.assertEqual("blobs/" + oci.sha256(data).replace(":", "/"), name)
            # Saved again it is the same file, and loaded elsewhere it is the same image.
            self.assertEqual(self.ok(self.msb("save", "--format", kind, "odd")).out, open(out, "rb").read())
            there = self.path("there-" + kind)
            here, self.home = self.home, there
            self.ok(self.msb("load", "-i", out))
            after = json.loads(self.ok(self.msb("image", "inspect", "odd", "--format", "json")).text)
            self.home = here
            for key in ("id", "references", "config", "size_bytes"):
                self.assertEqual(before[key], after[key])
            for folder in ("images", "layers"):
                for name in os.listdir(f"{here}/{folder}"):
                    self.assertEqual(open(f"{here}/{folder}/{name}", "rb").read(), open(f"{there}/{folder}/{name}", "rb").read(), name)

    def test_equal_files_share(self):
        block = os.urandom(3 << 20)
        files = [oci.entry("one", block), oci.entry("hole", bytes(2 << 20)), oci.entry("two", block), oci.entry("after", bytes(1 << 20) + b"end" * 5000),
                 oci.entry("three", block + b"and more"), oci.entry("four", block)]
        self.load([oci.layer(files)], "one")
        # "three" is another file, but for it there is one copy of the block.
        self.assertLess(usage(self.home), 2 * len(block) + 200000)
        self.ok(self.msb("image", "verify"))
        self.assertIn(oci.layer(files), self.ok(self.msb("save", "one")).out)

    def test_several_images(self):
        shared = oci.layer([oci.entry("shared", os.urandom(100000))])
        for name in ("one:a", "two:b", "example.org/x/three:c"):
            self.load([shared, oci.layer([oci.entry(name.replace("/", "_"), name)])], name)
        out = self.path("out.tar")
        self.ok(self.msb("image", "save", "-o", out, "one:a", "two:b", "example.org/x/three:c", "one:a"))
        with tarfile.open(out) as tar:
            names = tar.getnames()
        self.assertEqual(len(names), len(set(names)), "a blob is in it twice")
        self.home = self.path("there")
        loaded = self.ok(self.msb("load", "-i", out)).text.split()
        self.assertEqual(sorted(loaded), ["docker.io/library/one:a", "docker.io/library/two:b", "example.org/x/three:c"])
        self.assertEqual(len([n for n in os.listdir(self.home + "/layers") if n.endswith(".index")]), 4)

    @tool("skopeo")
    def test_skopeo_accepts_it(self):
        self.load([small()], "one:latest")
        config = self.ok(self.msb("image", "inspect", "one", "--format", "json")).text
        id = json.loads(config)["id"]
        for kind, source in (("docker", "docker-archive:{}:one:latest"), ("oci", "oci-archive:{}:docker.io/library/one:latest")):
            out = self.path(kind + ".tar")
            self.ok(self.msb("save", "--format", kind, "-o", out, "one"))
            shown = json.loads(run("skopeo", "inspect", source.format(out)))
            self.assertEqual(shown["Layers"], json.loads(config)["config"]["rootfs"]["diff_ids"])
            run("skopeo", "copy", "-q", source.format(out), "dir:" + self.path(kind))
            self.assertEqual(json.load(open(self.path(kind) + "/manifest.json"))["config"]["digest"], id)

    @tool("umoci")
    def test_umoci_unpacks_it(self):
        self.load([oci.layer([oci.entry("d"), oci.entry("d/f", "hello" * 3000), oci.entry("gone", "x")]),
                   oci.layer([oci.entry(".wh.gone", ""), oci.entry("d/l", kind="hard", target="d/f")])], "one:latest")
        self.ok(self.msb("save", "--format", "oci", "-o", self.path("o.tar"), "one"))
        os.mkdir(self.path("layout"))
        run("tar", "-xf", self.path("o.tar"), "-C", self.path("layout"))
        run("umoci", "unpack", "--rootless", "--image", self.path("layout") + ":docker.io/library/one:latest", self.path("bundle"))
        root = self.path("bundle") + "/rootfs"
        self.assertEqual(open(root + "/d/l").read(), "hello" * 3000)
        self.assertFalse(os.path.exists(root + "/gone"))

    def test_where_it_goes(self):
        self.load([oci.layer([oci.entry("f", "x")])], "one")
        expected = self.ok(self.msb("save", "-o", "-", "one")).out
        target = self.path("out")
        # A link stays a link, an old file keeps nothing of itself, a device is written to.
        with open(target, "w") as f:
            f.write("old" * 100000)
        os.symlink("out", self.path("link"))
        self.ok(self.msb("save", "-o", self.path("link"), "one"))
        self.assertTrue(os.path.islink(self.path("link")))
        self.assertEqual(open(target, "rb").read(), expected)
        self.ok(self.msb("save", "-o", "/dev/null", "one"))
        self.assertEqual(sorted(os.listdir(self.scratch)), ["home", "link", "one.tar", "out"])

    def test_refusals(self):
        self.load([oci.layer([oci.entry("f", os.urandom(1000000))])], "one")
        before = tree(self.home)
        out = self.path("out")
        self.refused(self.msb("save", "-o", out, "one", "other"), 1, "other")
        self.refused(self.msb("save", "-o", out), 2)
        self.refused(self.msb("save", "--format", "zip", "-o", out, "one"), 2, "zip")
        self.refused(self.msb("save", "-o", self.path("no/such/dir/out"), "one"), 1, "no/such/dir")
        self.assertFalse(os.path.exists(out))
        with open("/dev/full", "wb") as full:
            self.refused(self.msb("save", "one", stdout=full), 1, "no space")
        # A reader that goes away.
        reader, writer = os.pipe()
        os.close(reader)
        done = self.msb("save", "one", stdout=writer)
        os.close(writer)
        self.refused(done, 1, "archive")
        self.assertEqual(tree(self.home), before)


def contents(home):
    """Every file of a store but locks and the database, with what is in it."""
    found = {}
    for folder in ("layers", "images", "tmp", "."):
        for name in os.listdir(f"{home}/{folder}"):
            path = f"{home}/{folder}/{name}"
            if os.path.isfile(path) and not name.startswith("msb.db") and name != "run.lock":
                found[os.path.normpath(f"{folder}/{name}")] = open(path, "rb").read()
    return found


def flip(path, at=0.5):
    """One bit; @at: where, as a part of the file."""
    os.chmod(path, 0o644)
    with open(path, "r+b") as f:
        f.seek(int(os.path.getsize(path) * at))
        byte = f.read(1)
        f.seek(-1, os.SEEK_CUR)
        f.write(bytes([byte[0] ^ 0x10]))


def usage(home):
    """Space on disk of the blobs."""
    return sum(os.lstat(f"{home}/{folder}/{name}").st_blocks * 512 for folder in ("layers", "images") for name in os.listdir(f"{home}/{folder}"))


class Verify(Case):
    def setUp(self):
        super().setUp()
        self.home = self.path("home")
        self.layer = small(oci.entry("f", "hello\n" * 1000), oci.entry("t", "tail" * 100))
        self.archive = oci.layout(self.path("i.tar"), [self.layer], "one:latest")
        self.ok(self.msb("load", "-i", self.archive))
        self.before = contents(self.home)

    def blob(self, suffix):
        folder = "images" if suffix == "erofs" else "layers"
        return next(f"{self.home}/{folder}/{n}" for n in os.listdir(f"{self.home}/{folder}") if n.endswith("." + suffix))

    def verify(self):
        return self.msb("image", "verify")

    def test_sound(self):
        self.assertIn("sound", self.ok(self.verify()).text)
        self.ok(self.msb("image", "verify", "one"))
        self.refused(self.msb("image", "verify", "other"), 1, "other")
        shown = json.loads(self.ok(self.msb("images", "verify", "--format", "json")).text)
        self.assertEqual((shown["images"], shown["layers"], shown["damaged"], shown["faults"]), (1, 1, 0, []))

    def test_a_flipped_bit_in_any_layer_file(self):
        for suffix in ("data", "tails", "tar", "index"):
            for at in (0, 0.3, 0.7, 0.999):
                flip(self.blob(suffix), at)
                done = self.verify()
                self.assertEqual(done.code, 1, f"{suffix} at {at}: {done}")
                self.assertIn("damaged", done.messages)
                self.assertIn("load", done.messages.split("→")[1])
                # A sandbox starts only if what it reads is sound.
                if suffix == "data":
                    self.refused(self.run_in("one", "true"), 125, "damaged", "load")
                self.refused(self.msb("save", "-o", self.path("out"), "one"), 1, "load")
                self.assertFalse(os.path.exists(self.path("out")))
                # Loading it again mends it, to the same bytes.
                self.ok(self.msb("load", "-i", self.archive))
                self.assertEqual(contents(self.home), self.before)
                self.ok(self.verify())

    def test_a_damaged_layer_is_never_saved(self):
        # Even when nobody has verified it.
        for suffix in ("data", "tails", "tar"):
            flip(self.blob(suffix))
            self.refused(self.msb("save", "-o", self.path("out"), "one"), 1, "damaged")
            self.assertFalse(os.path.exists(self.path("out")))
            self.verify()
            self.ok(self.msb("load", "-i", self.archive))

    def test_metadata(self):
        for at in (0, 0.26, 0.5, 0.99):
            flip(self.blob("erofs"), at)
            self.refused(self.run_in("one", "true"), 125, "damaged", "verify")
            self.assertIn("mended", self.ok(self.verify()).text)
            self.assertEqual(contents(self.home), self.before)
        os.unlink(self.blob("erofs"))
        self.refused(self.run_in("one", "true"), 125, "damaged")
        self.ok(self.verify())
        # Loading again does as well.
        flip(self.blob("erofs"))
        self.ok(self.msb("load", "-i", self.archive))
        self.assertEqual(contents(self.home), self.before)
        self.assertEqual(self.sh("cat /t", image="one"), "tail" * 100)

    def test_lengths(self):
        for suffix in ("data", "tails", "tar", "index"):
            for change in (-1, 1):
                path = self.blob(suffix)
                os.chmod(path, 0o644)
                os.truncate(path, os.path.getsize(path) + change)
                if suffix == "data":
                    self.refused(self.run_in("one", "true"), 125, "damaged")
                # What the sizes tell needs nobody to verify.
                self.ok(self.msb("load", "-i", self.archive))
                self.assertEqual(contents(self.home), self.before)

    def test_database(self):
        import sqlite3
        path = self.home + "/msb.db"
        with sqlite3.connect(path) as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            db.execute("UPDATE images SET disk = zeroblob(length(disk))")
        # The row is made again from the layers.
        self.refused(self.run_in("one", "true"), 125)
        self.assertIn("mended", self.ok(self.verify()).text)
        self.assertEqual(self.sh("cat /t", image="one"), "tail" * 100)
        # A configuration that is another, or none at all.
        for change in ("replace(config, 'linux', 'lunix')", "'{'", "''"):
            for remedy in (["load", "-i", self.archive], ["image", "rm", "one"]):
                with sqlite3.connect(path) as db:
                    db.execute(f"UPDATE images SET config = {change}")
                done = self.verify()
                self.assertEqual(done.code, 1, str(done))
                self.assertIn("load the image again", done.messages)
                self.ok(self.msb("image", "ls"))
                self.refused(self.msb("save", "one", "-o", self.path("out")), 1, "load the image again")
                self.ok(self.msb(*remedy))
                self.ok(self.msb("load", "-i", self.archive))
                self.ok(self.verify())
                self.assertEqual(contents(self.home), self.before)
        with open(path, "r+b") as f:
            f.seek(4096)
            f.write(os.urandom(os.path.getsize(path) - 4096))
        done = self.verify()
        self.assertEqual(done.code, 1, str(done))
        self.assertIn("msb.db", done.messages)
        for name in os.listdir(self.home):
            if name.startswith("msb.db"):
                os.unlink(f"{self.home}/{name}")
        self.ok(self.msb("load", "-i", self.archive))
        self.assertEqual(contents(self.home), self.before)

    def test_other_versions(self):
        for version, word in ((1, "earlier"), (99, "update")):
            with open(self.home + "/version", "w") as f:
                f.write(f"microsandbox-store {version}\n")
            for words in (["image", "ls"], ["load", "-i", self.archive], ["image", "prune", "-y"]):
                self.refused(self.msb(*words), 1, str(version), word)
        self.assertEqual({k: v for k, v in contents(self.home).items() if k != "version"}, {k: v for k, v in self.before.items() if k != "version"})


class Limits(Case):
    """Hostile images: refused with a word on what to do, or taken as they are and harmless."""

    def setUp(self):
        super().setUp()
        self.home = self.path("home")
        self.ok(self.msb("image", "ls"))

    def configure(self, text):
        with open(self.home + "/config.json", "w") as f:
            f.write(text if isinstance(text, str) else json.dumps({"registries": {}, "images": {"limits": text}}))

    def load(self, *entries):
        return self.msb("load", "-i", oci.layout(self.path("i.tar"), [oci.layer(entries)], "x"))

    def test_each_limit_counts(self):
        before = tree(self.home)
        for limits, entries, words in (
                ({"layer_bytes": "100K"}, [oci.entry("a", bytes(200000))], ["uncompressed", "layer_bytes"]),
                ({"file_bytes": 1000}, [oci.entry("a", "x" * 1001)], ["1001 bytes", "file_bytes"]),
                ({"entries": 3}, [oci.entry(str(n), "") for n in range(4)], ["entries"]),
                ({"image_entries": 3}, [oci.entry(str(n), "") for n in range(4)], ["entries in all"]),
                ({"path_bytes": 20}, [oci.entry("a" * 30, "")], ["path longer than 20"]),
                ({"depth": 3}, [oci.entry("a/b/c/d", "")], ["deeper than 3"]),
                ({"link_bytes": 5}, [oci.entry("a", kind="link", target="123456")], ["symbolic link", "at most 5"]),
                ({"xattr_bytes": 50}, [oci.entry("a", "", pax={"SCHILY.xattr.user.a": "v" * 60})], ["exceed 50"])):
            self.configure(limits)
            self.refused(self.load(*entries), 1, *words)
            os.unlink(self.home + "/config.json")
            self.assertEqual(tree(self.home), before)
            self.ok(self.load(*entries))
            self.ok(self.msb("image", "rm", "x"))
        self.configure({"layers": 2})
        self.refused(self.msb("load", "-i", oci.layout(self.path("l.tar"), [oci.layer([oci.entry(str(n), "")]) for n in range(3)], "x")), 1, "3 layers")

    def test_bad_settings(self):
        for text, words in (("{", ["json"]), ("[]", ["object"]), ('{"images": 7}', ["images"]), ('{"images": {"limit": {}}}', ["limit"]),
                            ({"entrys": 5}, ["entrys", "entries"]), ({"entries": 0}, ["entries"]), ({"entries": -1}, ["entries"]),
                            ({"entries": "many"}, ["entries"]), ({"depth": 100000}, ["depth", "1024"]), ({"layer_bytes": "12X"}, ["layer_bytes"]),
                            ({"path_bytes": 1 << 40}, ["path_bytes", "4096"])):
            self.configure(text)
            self.refused(self.load(oci.entry("a", "")), 1, "config.json", *words)
        self.configure({"layer_bytes": "20G", "entries": 2000000})
        self.ok(self.load(oci.entry("a", "")))

    def test_what_others_would_act_on(self):
        # Devices, set-uid, links that lead out or in circles: data for the guest, nothing to the host.
        entries = [
            oci.entry("disk", kind="block", dev=(8, 0)), oci.entry("mem", kind="char", dev=(1, 1)),
            oci.entry("pipe", kind="fifo"), oci.entry("su", "#!/bin/sh", mode=0o6755, uid=0), oci.entry("big", "x", uid=0x7ffffffe, gid=0x7ffffffe),
            oci.entry("out", kind="link", target="../../../../../../etc"), oci.entry("abs", kind="link", target="/etc/passwd"),
            oci.entry("c1", kind="link", target="c2"), oci.entry("c2", kind="link", target="c1"), oci.entry("self", kind="link", target="self"),
            oci.entry("out/through", "inside"),  # lands in the image's own /etc
            oci.entry("caps", "x", pax={"SCHILY.xattr.security.capability": "\x01"}),
        ]
        entries += [oci.entry(f"f{n}", "", pax={f"SCHILY.xattr.user.{k}": "v" for k in range(100)}) for n in range(50)]
        entries += [oci.entry("twice", "first"), oci.entry("twice", kind="link", target="second"), oci.entry("twice", "third")]
        self.ok(self.msb("load", "-i", oci.layout(self.path("i.tar"), [small(*entries)], "x")))
        self.assertFalse(os.path.exists("/etc/through"))
        out = self.sh("cat /etc/through /twice; stat -c '%F %a %u' /su /disk /mem /pipe /big; readlink /c1; readlink /out", image="x")
        for part in ("insidethird", "regular file 6755 0", "block special", "character special", "fifo", "2147483646", "c2", "../../etc"):
            self.assertIn(part, out)
        self.ok(self.msb("save", "-o", self.path("o.tar"), "x"))

    def test_refused_outright(self):
        for entries, words in (
                ([oci.entry("c1", kind="link", target="c2"), oci.entry("c2", kind="link", target="c1"), oci.entry("c1/f", "x")], ["symbolic links"]),
                ([oci.entry("../../etc/evil", "x")], [".."]), ([oci.entry(".wh.../x", "")], []), ([oci.entry("d/.wh...", "")], ["whiteout"]),
                ([oci.entry(".wh.", "")], ["whiteout"]), ([oci.entry(".wh.a/b", "")], ["whiteout"]),
                ([oci.entry("a", "", pax={"SCHILY.xattr.user.a": "v" * 70000})], ["attributes"])):
            self.refused(self.load(*entries), 1, *words)
        self.assertEqual(usage(self.home), 0)

    @deadline(1800)
    def test_large_and_many(self):
        # 3 GiB and a bit in one file, most of it holes; made as it is read.
        import gzip
        layer = self.path("layer.gz")
        size = (3 << 30) + 777
        info, _ = oci.entry("big", "")
        info.size = size
        import hashlib
        whole = hashlib.sha256()
        with open(layer, "wb") as raw, gzip.GzipFile(fileobj=raw, mode="wb", compresslevel=1, mtime=0) as f:
            def put(data):
                whole.update(data)
                f.write(data)
            put(info.tobuf())
            piece, left = bytes(16 << 20), size
            while left:
                put(piece[:left])
                left -= min(left, len(piece))
            put(bytes(-size % 512 + 1024))
        diff_id = "sha256:" + whole.hexdigest()
        files = oci.layout_files([b""], "big")
        index = json.loads(files.pop("index.json"))
        files = {"oci-layout": files["oci-layout"]}
        conf = json.loads(oci.config([b""]))
        conf["rootfs"]["diff_ids"] = [diff_id]

        def add(data, media):
            digest = oci.sha256(data)
            files["blobs/" + digest.replace(":", "/")] = data
            return {"mediaType": media, "digest": digest, "size": len(data)}
        media = "application/vnd.oci.image."
        manifest = add(json.dumps({"schemaVersion": 2, "config": add(json.dumps(conf).encode(), media + "config.v1+json"),
                                   "layers": [add(open(layer, "rb").read(), media + "layer.v1.tar+gzip")]}).encode(), media + "manifest.v1+json")
        manifest["annotations"] = {"org.opencontainers.image.ref.name": "big:latest"}
        files["index.json"] = json.dumps(dict(index, manifests=[manifest])).encode()
        path = oci.blobs(self.path("big.tar"), files)
        # Bounded memory: under a limit that the layer is many times of.
        limit = (100 << 20, 100 << 20)
        self.ok(self.msb("load", "-i", path, timeout=600, preexec_fn=lambda: os.path.exists(Faults.SHIM) and
                         resource.setrlimit(resource.RLIMIT_DATA, limit)))
        self.assertLess(usage(self.home), 1 << 20)
        listed = json.loads(self.ok(self.msb("image", "ls", "--format", "json")).text)
        self.assertEqual(listed[0]["size_bytes"], size)

    @deadline(1800)
    def test_a_hundred_layers(self):
        layers = [small()] + [oci.layer([oci.entry(f"f{n}", f"layer {n}"), oci.entry("common", str(n))]) for n in range(1, 100)]
        self.ok(self.msb("load", "-i", oci.layout(self.path("i.tar"), layers, "many"), timeout=PATIENCE))
        self.assertEqual(self.sh("cat /f1 /f50 /f99 /common", image="many"), "layer 1layer 50layer 9999")
        self.ok(self.msb("image", "verify"))


class Disk(Case):
    """A disk that is full or read-only, a store of somebody else's."""

    def setUp(self):
        super().setUp()
        self.mount = self.path("disk")
        os.mkdir(self.mount)
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", self.mount], stderr=subprocess.DEVNULL).returncode:
            self.skipTest("cannot mount a tmpfs here")
        self.addCleanup(subprocess.run, ["umount", "-l", self.mount])
        self.home = self.mount + "/home"
        for name in ("one", "two"):
            self.ok(self.msb("load", "-i", oci.layout(self.path(name + ".tar"), [oci.layer([oci.entry("f", os.urandom(2000000))])], name)))
        self.before = contents(self.home)

    def fill(self):
        with open(self.mount + "/filler", "wb", 0) as f:
            for size in (1 << 20, 1 << 12, 1):
                try:
                    while f.write(bytes(size)):
                        pass
                except OSError:
                    pass
        self.assertEqual(os.statvfs(self.mount).f_bavail, 0)

    def test_full(self):
        for words in (["load", "-i", self.path("one.tar"), "-t", "other"], ["image", "ls"], ["image", "verify"], ["save", "-o", self.mount + "/out", "one"]):
            self.fill()
            done = self.msb(*words)
            if done.code:
                self.refused(done, 1, "no space", "→")
            self.assertFalse(os.path.exists(self.mount + "/out"))
            self.assertEqual(contents(self.home), self.before)
            os.unlink(self.mount + "/filler")
            self.ok(self.msb("image", "verify"))
        # What makes room works without any.
        for words in (["image", "rm", "one"], ["image", "prune", "-a", "-y"]):
            self.ok(self.msb("image", "ls"))
            self.fill()
            self.ok(self.msb(*words))
            os.unlink(self.mount + "/filler")
        self.assertEqual(usage(self.home), 0)

    def test_metadata_that_cannot_be_mended(self):
        # More of it than what is held back for a full disk.
        many = [oci.entry(f"f{n}", os.urandom(2000)) for n in range(400)]
        self.ok(self.msb("load", "-i", oci.layout(self.path("m.tar"), [oci.layer(many)], "many")))
        self.before = contents(self.home)
        flip(max((f"{self.home}/images/{n}" for n in os.listdir(self.home + "/images")), key=os.path.getsize))
        self.fill()
        self.refused(self.msb("image", "verify"), 1, "no space")
        os.unlink(self.mount + "/filler")
        self.assertIn("mended", self.ok(self.msb("image", "verify")).text)
        self.assertEqual(contents(self.home), self.before)

    def test_read_only(self):
        run("mount", "-o", "remount,ro", self.mount)
        for words in (["load", "-i", self.path("one.tar")], ["image", "ls"], ["image", "rm", "one"], ["image", "prune", "-y"], ["image", "verify"]):
            self.refused(self.msb(*words), 1, "read-only", "MSB_HOME")
        run("mount", "-o", "remount,rw", self.mount)
        self.ok(self.msb("image", "verify"))
        self.assertEqual(contents(self.home), self.before)

    def test_somebody_elses(self):
        if not shutil.which("setpriv"):
            self.skipTest("no setpriv")
        for mode in (0o700, 0o755):
            os.chmod(self.home, mode)
            for words in (["image", "ls"], ["load", "-i", self.path("one.tar")], ["image", "rm", "one"]):
                child = subprocess.run(["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", *self.argv(*words)],
                                       env=environment(self.home), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
                if b"failed to execute" in child.stderr:
                    self.skipTest("nobody cannot reach the program here")
                self.refused(Done(child.returncode, child.stdout, child.stderr), 1, "denied", "MSB_HOME")
        self.assertEqual(contents(self.home), self.before)


class InUse(Case):
    def hold(self, *options):
        child = self.start("run", *options, "busybox", "--", "sh", "-c", "echo up; cat; cat /etc/motd /bin/cat | tail -c 99 | wc -c")
        self.assertEqual(child.stdout.readline(), b"up\n")
        return child

    def release(self, child):
        out, err = child.communicate(b"", 120)
        self.assertEqual((child.returncode, out), (0, b"99\n"), err)

    def test_an_ephemeral_sandbox_keeps_its_image(self):
        self.own_home()
        child = self.hold()
        before = contents(self.home)
        self.refused(self.msb("image", "rm", "busybox"), 1, "running", "--force")
        self.refused(self.msb("rmi", "busybox"), 1, "running")
        pruned = json.loads(self.ok(self.msb("image", "prune", "-a", "-y", "--format", "json")).text)
        self.assertEqual((pruned["removed"], pruned["freed_bytes"]), ([], 0))
        self.assertEqual(contents(self.home), before)
        # One name more or less is no matter; the last one is.
        self.ok(self.msb("load", "-i", os.environ["MSB_TEST_BUSYBOX"], "-t", "second"))
        self.ok(self.msb("image", "rm", "second"))
        self.refused(self.msb("image", "rm", "busybox"), 1, "running")
        self.release(child)
        self.ok(self.msb("image", "rm", "busybox"))
        self.assertEqual(usage(self.home), 0)

    def test_by_force(self):
        self.own_home()
        child = self.hold()
        self.ok(self.msb("image", "rm", "--force", "busybox"))
        self.assertEqual(usage(self.home), 0)
        self.release(child)
        self.refused(self.run_in("busybox", "true"), 125, "busybox")

    def test_a_kept_sandbox_keeps_its_image(self):
        self.own_home()
        self.ok(self.run_in("busybox", "true", options=["--name", "kept"]))
        self.refused(self.msb("image", "rm", "busybox"), 1, "kept", "--force")
        self.assertEqual(json.loads(self.ok(self.msb("image", "prune", "-a", "-y", "--format", "json")).text)["removed"], [])
        self.ok(self.msb("image", "rm", "--force", "busybox"))
        self.refused(self.msb("run", "--name", "kept", "busybox"), 125, "gone")
        # It works again when the image is there again.
        self.ok(self.msb("load", "-i", os.environ["MSB_TEST_BUSYBOX"]))
        self.ok(self.msb("run", "--name", "kept", "busybox", "--", "true"))
        # One whose directory somebody has deleted keeps nothing.
        shutil.rmtree(self.home + "/sandboxes/kept")
        self.ok(self.msb("image", "rm", "busybox"))


class Prune(Case):
    def setUp(self):
        super().setUp()
        self.home = self.path("home")
        self.shared = oci.layer([oci.entry("shared", os.urandom(200000))])

    def load(self, name, *more):
        self.ok(self.msb("load", "-i", oci.layout(self.path("i.tar"), [self.shared, oci.layer([oci.entry("own", os.urandom(70000)), *more])], name)))

    def prune(self, *options):
        before = usage(self.home)
        done = json.loads(self.ok(self.msb("image", "prune", "-y", "--format", "json", *options)).text)
        self.assertEqual(before - usage(self.home), done["freed_bytes"], "it frees something else than it says")
        return done["removed"]

    def test_what_goes(self):
        for name in ("one", "two", "one"):
            self.load(name)
        # The first "one" lost its name to the second.
        self.assertEqual(len(json.loads(self.ok(self.msb("image", "ls", "--format", "json")).text)), 3)
        removed = self.prune()
        self.assertEqual(len(removed), 1)
        self.assertTrue(removed[0].startswith("sha256:"))
        self.assertEqual(self.prune(), [])
        # Leftovers of a crash.
        for name in ("layers/" + "a" * 64 + ".data", "images/" + "b" * 64 + ".erofs"):
            with open(f"{self.home}/{name}", "wb") as f:
                f.write(b"x" * 100000)
        self.assertEqual(self.prune(), [])
        self.assertEqual(sorted(self.prune("--all")), ["docker.io/library/one:latest", "docker.io/library/two:latest"])
        self.assertEqual(usage(self.home), 0)

    def test_sizes_are_real(self):
        self.load("one")
        alone = usage(self.home)
        listed = json.loads(self.ok(self.msb("image", "ls", "--format", "json")).text)[0]
        self.assertEqual(listed["stored_bytes"], alone)
        shown = json.loads(self.ok(self.msb("image", "inspect", "one", "--format", "json")).text)
        self.assertEqual(shown["stored_bytes"], alone)
        # A second image costs its own layer and its metadata only.
        self.load("two")
        shown = json.loads(self.ok(self.msb("image", "inspect", "two", "--format", "json")).text)
        metadata = os.stat(f"{self.home}/images/{shown['id'][7:]}.erofs").st_blocks * 512
        self.assertEqual(usage(self.home) - alone, shown["layers"][1]["stored_bytes"] + metadata)

    def test_it_asks(self):
        self.load("one")
        self.refused(self.msb("image", "prune"), 2, "--yes")
        for answer, code in (b"n\n", 1), (b"\n", 1), (b"y\n", 0):
            t = Terminal(self, "image", "prune", "--all")
            t.expect(b"one:latest")
            t.expect(b"[y/N]")
            t.write(answer)
            self.assertEqual(t.wait(), code)
            self.assertEqual(usage(self.home) == 0, code == 0)


class Faults(Case):
    """Every change to a file fails in turn, or is the last that msb does."""
    # Not there with sanitizers, which neither bear a shim nor a limit on memory.
    SHIM = os.path.join(os.path.dirname(os.environ.get("MSB", "") or os.path.join(os.path.dirname(__file__), "../../build/msb")), "tests/libfault.so")

    def setUp(self):
        super().setUp()
        if not os.path.exists(self.SHIM):
            self.skipTest("no libfault.so: not with sanitizers")
        self.base = self.path("base")
        self.home = self.path("home")
        shared = oci.layer([oci.entry("d"), oci.entry("d/f", b"data" * 5000), oci.entry("t", "tail")])
        self.one = oci.layout(self.path("one.tar"), [shared], "one")
        self.two = oci.layout(self.path("two.tar"), [shared, oci.layer([oci.entry("x", os.urandom(9000))])], "two")

    def state(self):
        """The files, and what the images are."""
        listed = json.loads(self.ok(self.msb("image", "ls", "--format", "json")).text)
        return contents(self.home), sorted((i["reference"], i["digest"]) for i in listed)

    def fresh(self):
        shutil.rmtree(self.home, True)
        if os.path.exists(self.base):
            shutil.copytree(self.base, self.home)

    def each(self, kind, *words):
        """@words, from the state in base, with each fault of that kind."""
        self.fresh()
        before = self.state() if os.path.exists(self.base) else ({"version": b"microsandbox-store 4\n"}, [])
        self.ok(self.msb(*words))
        after = self.state()
        number = 0
        while True:
            number += 1
            self.fresh()
            reader, writer = os.pipe()
            done = self.msb(*words, pass_fds=[writer], env={
                "LD_PRELOAD": self.SHIM, "FAULT": kind, "FAULT_AT": str(number), "FAULT_FD": str(writer)})
            os.close(writer)
            fired = os.read(reader, 1)
            os.close(reader)
            what = f"{words}, {kind} at change {number}: {done}"
            if not fired:
                self.assertEqual(done.code, 0, what)
                break
            if kind == "KILL":
                self.assertEqual(done.code, -9, what)
            elif done.code:
                self.refused(done, 1)
            # The next command works, there is nothing in between, and no byte is wrong.
            files, images = self.state()
            self.assertIn(images, (before[1], after[1]), what)
            if kind != "KILL" and done.code:
                self.assertFalse([n for n in files if n.startswith("tmp/")], what)
            if not done.code:
                self.assertEqual(images, after[1], what)
            self.ok(self.msb("image", "prune", "-y"))
            self.assertEqual(self.state(), before if images == before[1] else after, what)
            # Once more without the fault.
            if images == before[1]:
                self.ok(self.msb(*words))
                self.assertEqual(self.state(), after, what)
        self.assertGreater(number, 5, "the shim sees nothing")
        return number

    def kinds(self, *words):
        for kind in ("ENOSPC", "EIO", "KILL"):
            self.each(kind, *words)

    def make_base(self, *archives):
        for archive in archives:
            self.ok(self.msb("load", "-i", archive))
        os.rename(self.home, self.base)

    @deadline(1800)
    def test_load_into_nothing(self):
        self.kinds("load", "-i", self.one)

    @deadline(1800)
    def test_load(self):
        self.make_base(self.one)
        self.kinds("load", "-i", self.two)

    @deadline(1800)
    def test_rm(self):
        self.make_base(self.one, self.two)
        self.kinds("image", "rm", "two")

    @deadline(1800)
    def test_prune(self):
        self.make_base(self.one, self.two)
        self.kinds("image", "prune", "--all", "--yes")

    def test_mending(self):
        self.make_base(self.two)
        blob = os.listdir(self.base + "/images")[0]
        flip(f"{self.base}/images/{blob}")
        # A damaged file is no state to come back to: what verify left is verified and mended.
        for kind in ("ENOSPC", "EIO", "KILL"):
            number, fired = 0, True
            while fired:
                number += 1
                self.fresh()
                reader, writer = os.pipe()
                done = self.msb("image", "verify", pass_fds=[writer], env={
                    "LD_PRELOAD": self.SHIM, "FAULT": kind, "FAULT_AT": str(number), "FAULT_FD": str(writer)})
                os.close(writer)
                fired = os.read(reader, 1)
                os.close(reader)
                self.ok(self.msb("image", "verify"))
                self.assertIn("sound", self.ok(self.msb("image", "verify")).text, str(done))
                self.assertEqual(os.listdir(self.home + "/tmp"), [])
            self.assertGreater(number, 5)

    def test_save(self):
        self.make_base(self.two)
        self.fresh()
        before = self.state()
        out = self.path("out/file")
        os.mkdir(self.path("out"))
        expected = self.ok(self.msb("save", "two")).out
        for kind in ("ENOSPC", "EIO", "KILL"):
            number, fired = 0, True
            while fired:
                number += 1
                with open(out, "w") as f:
                    f.write("old")
                reader, writer = os.pipe()
                done = self.msb("save", "-o", out, "two", pass_fds=[writer], env={
                    "LD_PRELOAD": self.SHIM, "FAULT": kind, "FAULT_AT": str(number), "FAULT_FD": str(writer)})
                os.close(writer)
                fired = os.read(reader, 1)
                os.close(reader)
                self.assertIn(open(out, "rb").read(), (b"old", expected))
                self.assertEqual(open(out, "rb").read() == expected, done.code == 0 or kind == "KILL" and open(out, "rb").read() == expected, str(done))
                # Between its two names only a kill can leave one more.
                left = set(os.listdir(self.path("out"))) - {"file"}
                self.assertTrue(not left or kind == "KILL" and len(left) == 1, str(left))
                for name in left:
                    self.assertEqual(open(self.path("out/" + name), "rb").read(), expected)
                    os.unlink(self.path("out/" + name))
                self.assertEqual(self.state(), before)
            self.assertGreater(number, 5)
