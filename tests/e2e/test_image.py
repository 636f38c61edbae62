# SPDX-License-Identifier: Apache-2.0
"""Images: load, list, inspect, remove, bootstrap; archives made by other tools; hostile ones."""
import gzip
import json
import os
import shutil
import subprocess
import unittest

import oci
from harness import PATIENCE, Case, deadline, tree


def tool(name):
    return unittest.skipUnless(shutil.which(name), f"no {name}")


def run(*argv, **how):
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, **how)
    if done.returncode:
        raise AssertionError(f"{argv}: {done.stdout}")
    return done.stdout


def small(*more):
    """A layer with busybox and a few applets, and what else is given."""
    busybox = open(shutil.which("busybox") or "/bin/busybox", "rb").read()
    names = "sh cat echo ls stat test readlink getfattr sha256sum true".split()
    return oci.layer([oci.entry("bin"), oci.entry("bin/busybox", busybox, mode=0o755)] +
                     [oci.entry("bin/" + n, kind="link", target="busybox") for n in names] + list(more))


class Load(Case):
    def setUp(self):
        super().setUp()
        self.home = self.path("home")

    def load(self, path, *options, **how):
        return self.msb("load", "-i", path, *options, **how)

    def says_hello(self, image):
        done = self.ok(self.run_in(image, "echo", "hello"))
        self.assertEqual(done.out, b"hello\n")

    def test_oci_layout_tar(self):
        self.ok(self.load(oci.layout(self.path("i.tar"), [small()], "one:latest")))
        self.says_hello("one")

    def test_oci_layout_directory(self):
        self.ok(self.load(oci.layout(self.path("i") + "/", [small()], "one:latest")))
        self.says_hello("one")

    def test_oci_layout_uncompressed_layers(self):
        self.ok(self.load(oci.layout(self.path("i.tar"), [small()], "one:latest", compress=False)))
        self.says_hello("one")

    def test_docker_archive(self):
        self.ok(self.load(oci.docker_archive(self.path("i.tar"), [small()], "one:latest")))
        self.says_hello("one")

    def test_compressed_archives(self):
        plain = oci.docker_archive(self.path("i.tar"), [small()], "one:latest")
        with open(plain, "rb") as f, gzip.open(self.path("i.tar.gz"), "wb", 1) as g:
            shutil.copyfileobj(f, g)
        self.ok(self.load(self.path("i.tar.gz")))
        self.says_hello("one")

    def test_from_standard_input(self):
        path = oci.layout(self.path("i.tar"), [small()], "one:latest")
        child = self.start("load", stdin=open(path, "rb"))
        out, err = child.communicate(timeout=PATIENCE)
        self.assertEqual(child.returncode, 0, err)
        self.says_hello("one")

    def test_a_tag(self):
        self.ok(self.load(oci.layout(self.path("i.tar"), [small()], "one:latest"), "-t", "two:v1"))
        self.says_hello("two:v1")

    @tool("skopeo")
    def test_archives_of_skopeo(self):
        oci.layout(self.path("i") + "/", [small()], "one:latest", Cmd=["echo", "cmd"])
        source = f"oci:{self.path('i')}:one:latest"
        for kind in ("oci-archive", "docker-archive"):
            path = self.path(kind + ".tar")
            run("skopeo", "--insecure-policy", "copy", source, f"{kind}:{path}:{kind}:latest")
            self.ok(self.load(path))
            self.says_hello(kind)
        # A docker daemon's directory form is no input of ours, an OCI layout of skopeo's is.
        run("skopeo", "--insecure-policy", "copy", source, f"oci:{self.path('o')}:again:latest")
        self.ok(self.load(self.path("o")))
        self.says_hello("again")

    @tool("skopeo")
    def test_zstd_layers_of_skopeo(self):
        oci.layout(self.path("i") + "/", [small()], "one:latest")
        run("skopeo", "--insecure-policy", "copy", "--dest-compress-format", "zstd",
            f"oci:{self.path('i')}:one:latest", f"oci:{self.path('z')}:zstd:latest")
        self.ok(self.load(self.path("z")))
        self.says_hello("zstd")

    @tool("umoci")
    def test_layout_of_umoci(self):
        root = self.path("rootfs")
        with open(self.path("l.tar"), "wb") as f:
            f.write(small())
        os.makedirs(root)
        run("tar", "-xf", self.path("l.tar"), "-C", root)
        run("umoci", "init", "--layout", self.path("u"))
        run("umoci", "new", "--image", self.path("u") + ":made")
        run("umoci", "insert", "--image", self.path("u") + ":made", root, "/")
        run("umoci", "config", "--image", self.path("u") + ":made", "--config.cmd", "echo", "--config.cmd", "hi")
        self.ok(self.load(self.path("u"), "-t", "made"))
        self.says_hello("made")
        self.assertEqual(self.ok(self.msb("run", "made")).out, b"hi\n")

    def test_layers_and_whiteouts(self):
        first = small(oci.entry("a"), oci.entry("a/keep", "1"), oci.entry("a/gone", "1"), oci.entry("b"),
                      oci.entry("b/old", "1"), oci.entry("c", "file"), oci.entry("d"), oci.entry("d/x", "1"))
        second = oci.layer([oci.entry("a/.wh.gone", ""), oci.entry("b/.wh..wh..opq", ""), oci.entry("b/new", "2"),
                            oci.entry("c"), oci.entry("c/now-a-dir", "2"), oci.entry(".wh.d", "")])
        self.ok(self.load(oci.layout(self.path("i.tar"), [first, second], "w")))
        out = self.sh("cd /; echo a/* b/* c/*; test -e d || echo no-d", image="w")
        self.assertEqual(out, "a/keep b/new c/now-a-dir\nno-d\n")

    def test_all_kinds_of_entries(self):
        self.ok(self.load(oci.layout(self.path("i.tar"), [small(
            oci.entry("n"), oci.entry("n/fifo", kind="fifo", mode=0o640), oci.entry("n/null", kind="char", dev=(1, 3)),
            oci.entry("n/file", "same", uid=100000, gid=3000000, mtime=1234567890),
            oci.entry("n/hard", kind="hard", target="n/file"), oci.entry("n/link", kind="link", target="/n/file"),
            oci.entry("n/suid", "x", mode=0o4755), oci.entry("n/" + "l" * 255, "long"),
            oci.entry("n/ü ", "utf8"), oci.entry("n/empty", ""),
            oci.entry("n/x", "attr", pax={"SCHILY.xattr.user.test": "value"}))], "n")))
        out = self.sh("cd /n; stat -c '%n %a %u %g %h %Y %F' fifo null file suid;"
                      "test file -ef hard && echo hard; readlink link; cat link; echo; cat l*l; echo; cat 'ü '; echo;"
                      "test -c null && echo x >null && echo device; stat -c %s empty", image="n")
        self.assertEqual(out.splitlines(), [
            "fifo 640 0 0 1 0 fifo", "null 644 0 0 1 0 character special file",
            "file 644 100000 3000000 2 1234567890 regular file", "suid 4755 0 0 1 0 regular file",
            "hard", "/n/file", "same", "long", "utf8", "device", "0"])

    def test_loading_twice_is_no_work(self):
        path = oci.layout(self.path("i.tar"), [small()], "one:latest")
        self.ok(self.load(path))
        before = tree(self.home)
        self.ok(self.load(path))
        self.assertEqual(tree(self.home), before)

    def test_same_input_same_bytes(self):
        path = oci.layout(self.path("i.tar"), [small(oci.entry("x", "1"))], "one:latest")
        sums = []
        for n in "ab":
            self.home = self.path("home-" + n)
            self.ok(self.load(path))
            sums.append(run("sh", "-c", f"cd {self.home} && find layers images -type f | sort | xargs sha256sum"))
        self.assertEqual(*sums)

    def test_two_at_once_share_the_work(self):
        path = oci.layout(self.path("i.tar"), [small(oci.entry("x", os.urandom(20_000_000)))], "one:latest")
        children = [self.start("load", "-i", path) for _ in range(3)]
        for child in children:
            out, err = child.communicate(timeout=PATIENCE)
            self.assertEqual(child.returncode, 0, err)
        self.says_hello("one")
        self.assertEqual(len([n for n in os.listdir(self.home + "/layers") if n.endswith(".index")]), 1)

    def test_killed_at_many_moments(self):
        path = oci.layout(self.path("i.tar"), [small(oci.entry("x", os.urandom(20_000_000)))], "one:latest")
        import time
        for delay in (0.0, 0.01, 0.05, 0.1, 0.2, 0.4):
            child = self.start("load", "-i", path)
            time.sleep(delay)
            child.kill()
            child.communicate()
        self.ok(self.load(path))
        self.says_hello("one")
        self.assertEqual(os.listdir(self.home + "/tmp"), [])


class Bad(Case):
    """Refused with one message, and nothing of it stays."""

    def setUp(self):
        super().setUp()
        self.home = self.path("home")
        self.msb("image", "ls")
        self.before = tree(self.home)

    def bad(self, path, *words, **how):
        done = self.msb("load", "-i", path, **how)
        self.assertNotEqual(done.code, 0, str(done))
        self.refused(done, done.code, *words)
        self.assertIn(done.code, (1, 125))
        self.assertEqual(tree(self.home), self.before)

    def bad_layer(self, *entries, words=()):
        self.bad(oci.layout(self.path("i.tar"), [oci.layer(entries)], "bad"), *words)

    def test_missing_file(self):
        self.bad(self.path("none.tar"), "none.tar")

    def test_not_an_archive(self):
        for n, data in enumerate((b"", b"hello", bytes(20000), os.urandom(20000), gzip.compress(b"x" * 5000))):
            with open(self.path(f"x{n}"), "wb") as f:
                f.write(data)
            self.bad(self.path(f"x{n}"))
        os.mkdir(self.path("empty"))
        self.bad(self.path("empty"))

    def test_truncated(self):
        path = oci.layout(self.path("i.tar"), [small()], "x")
        size = os.path.getsize(path)
        for part in (0.1, 0.5, 0.9):
            os.truncate(path, int(size * part))
            self.bad(path)

    def test_truncated_layer(self):
        files = oci.layout_files([small()], "x")
        name = max(files, key=lambda n: len(files[n]))
        files[name] = files[name][:-1000]
        self.bad(oci.blobs(self.path("i.tar"), files))

    def test_wrong_digests(self):
        good = oci.layout_files([small()], "x")
        for name in good:
            if name.startswith("blobs/"):
                files = dict(good)
                data = bytearray(files[name])
                data[len(data) // 2] ^= 1
                files[name] = bytes(data)
                self.bad(oci.blobs(self.path("i.tar"), files), "digest" if len(data) < 10000 else "")

    def test_wrong_diff_id(self):
        conf = json.loads(oci.config([small()]))
        conf["rootfs"]["diff_ids"] = ["sha256:" + "0" * 64]
        self.bad(oci.layout(self.path("i.tar"), [small()], "x", conf=json.dumps(conf).encode()), "digest")

    def test_missing_blob(self):
        good = oci.layout_files([small()], "x")
        for name in good:
            if name.startswith("blobs/"):
                self.bad(oci.blobs(self.path("i.tar"), {k: v for k, v in good.items() if k != name}))

    def test_another_architecture(self):
        self.bad(oci.layout(self.path("i.tar"), [small()], "x", arch="s390x"), "s390x")

    def test_paths_that_lead_out(self):
        for name in ("../escape", "a/../../escape", "/../escape"):
            self.bad_layer(oci.entry("a"), oci.entry(name, "x"))
        self.assertFalse(os.path.exists(self.path("escape")))

    def test_links_that_lead_out(self):
        # Links themselves are data; writing or linking through them would leave the tree.
        self.bad_layer(oci.entry("l", kind="link", target="../../.."), oci.entry("h", kind="hard", target="../../etc/passwd"))

    def test_a_hard_link_to_nothing(self):
        self.bad_layer(oci.entry("h", kind="hard", target="no/such"))

    def test_a_hard_link_to_a_directory(self):
        self.bad_layer(oci.entry("d"), oci.entry("h", kind="hard", target="d"))

    def test_too_deep(self):
        self.bad_layer(*[oci.entry("/".join(["d"] * n)) for n in range(1, 200)])

    def test_a_bomb(self):
        # 20 GB of zeros in a few MB.
        import zlib
        packer = zlib.compressobj(9, zlib.DEFLATED, 31)
        info, _ = oci.entry("big", "")
        info.size = 20 << 30
        data = packer.compress(info.tobuf()) + packer.flush(zlib.Z_FULL_FLUSH)
        # A full flush forgets what came before: the same zeros pack into the same bytes again.
        data += (packer.compress(bytes(64 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)) * 60
        data += packer.flush()
        files = oci.layout_files([b""], "bomb")
        manifest = json.loads(files.pop("index.json"))
        old = [n for n in files if n.startswith("blobs/")]
        for n in old:
            del files[n]

        def add(content, media):
            digest = oci.sha256(content)
            files["blobs/" + digest.replace(":", "/")] = content
            return {"mediaType": media, "digest": digest, "size": len(content)}
        base = "application/vnd.oci.image."
        conf = json.loads(oci.config([b""]))
        conf = add(json.dumps(conf).encode(), base + "config.v1+json")
        blob = add(data, base + "layer.v1.tar+gzip")
        m = add(json.dumps({"schemaVersion": 2, "config": conf, "layers": [blob]}).encode(), base + "manifest.v1+json")
        manifest["manifests"] = [m]
        files["index.json"] = json.dumps(manifest).encode()
        self.bad(oci.blobs(self.path("i.tar"), files))

    def test_nonsense_json(self):
        good = oci.layout_files([small()], "x")
        for data in (b"", b"[]", b"{", b"null", b"{}", b'{"manifests": 7}', b'{"manifests": [null]}', b"[" * 100000):
            self.bad(oci.blobs(self.path("i.tar"), dict(good, **{"index.json": data})))

    def test_no_room(self):
        mount = self.path("small")
        os.mkdir(mount)
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", mount], stderr=subprocess.DEVNULL).returncode:
            self.skipTest("cannot mount a tmpfs here")
        self.addCleanup(subprocess.run, ["umount", "-l", mount])
        self.home = mount + "/home"
        self.ok(self.msb("image", "ls"))
        before = tree(self.home)
        done = self.msb("load", "-i", oci.layout(self.path("i.tar"), [small(oci.entry("x", os.urandom(9_000_000)))], "x"))
        self.refused(done, done.code, "no space")
        self.assertNotEqual(done.code, 0)
        self.assertEqual(tree(self.home), before)
        # Smaller things still work.
        self.ok(self.msb("load", "-i", oci.layout(self.path("s.tar"), [oci.layer([oci.entry("d")])], "s")))


class Manage(Case):
    def test_list(self):
        self.own_home()
        listed = json.loads(self.ok(self.msb("image", "ls", "--format", "json")).text)
        self.assertEqual(len(listed), 1)
        self.assertIn("busybox", listed[0]["reference"])
        self.assertEqual((listed[0]["architecture"], listed[0]["os"]), (oci.ARCH, "linux"))
        self.assertEqual(listed[0]["layer_count"], 2)
        self.assertGreater(listed[0]["size_bytes"], 100000)
        self.assertTrue(listed[0]["digest"].startswith("sha256:"))
        text = self.ok(self.msb("image", "ls")).text
        self.assertIn("REFERENCE", text.splitlines()[0])
        self.assertIn("busybox", text)

    def test_an_empty_list(self):
        self.home = self.path("home")
        self.assertEqual(json.loads(self.ok(self.msb("image", "ls", "--format", "json")).text), [])

    def test_inspect(self):
        shown = json.loads(self.ok(self.msb("image", "inspect", "busybox", "--format", "json")).text)
        self.assertIn("FROM_IMAGE=yes", json.dumps(shown))
        self.assertIn("/work", json.dumps(shown))
        self.ok(self.msb("image", "inspect", "busybox"))

    def test_inspect_an_unknown_one(self):
        done = self.msb("image", "inspect", "nothing-like-it")
        self.refused(done, done.code, "nothing-like-it")
        self.assertNotEqual(done.code, 0)

    def test_remove(self):
        self.own_home()
        self.ok(self.msb("image", "rm", "busybox"))
        self.assertEqual(json.loads(self.ok(self.msb("image", "ls", "--format", "json")).text), [])
        self.assertEqual(os.listdir(self.home + "/layers") + os.listdir(self.home + "/images"), [])
        done = self.msb("image", "rm", "busybox")
        self.refused(done, done.code, "busybox")
        self.refused(self.run_in("busybox", "true"), 125, "busybox")

    def test_remove_keeps_shared_layers(self):
        self.own_home()
        shared = small(oci.entry("shared", "s"))
        for name in ("one", "two"):
            self.ok(self.msb("load", "-i", oci.layout(self.path(name), [shared, oci.layer([oci.entry(name, name)])], name)))
        self.ok(self.msb("image", "rm", "one"))
        self.assertEqual(self.sh("cat /shared /two", image="two"), "stwo")

    @deadline(1800)
    def test_bootstrap(self):
        if not shutil.which("mmdebstrap"):
            self.skipTest("no mmdebstrap")
        if "MSB_BOX" in os.environ:
            self.skipTest("the box has no network")
        self.home = self.path("home")
        # A mirror may fail once.
        for _ in range(3):
            done = self.msb("image", "bootstrap", "debian:bookworm", "--include", "python3-minimal", "-t", "made", timeout=500)
            if done.code == 0:
                break
        self.ok(done)
        out = self.ok(self.run_in("made", "python3", "-c", "import platform; print(platform.freedesktop_os_release()['ID'])")).text
        self.assertEqual(out, "debian\n")

    def test_bootstrap_of_nonsense(self):
        self.home = self.path("home")
        done = self.msb("image", "bootstrap", "debian:no-such-suite", timeout=PATIENCE)
        self.refused(done, done.code, "no-such-suite")
        self.assertNotEqual(done.code, 0)
