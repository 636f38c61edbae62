# SPDX-License-Identifier: Apache-2.0
"""The store: images saved again byte for byte, checked and mended, in use, pruned, and its figures."""
import io
import json
import os
import shutil
import subprocess
import tarfile

import oci
from harness import Case, tree
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
