# SPDX-License-Identifier: Apache-2.0
"""Pulling: from Debian's docker-registry, and from a registry that misbehaves in every way we know."""
import base64
import gzip
import io
import json
import os
import random
import signal
import socket
import stat
import subprocess
import tarfile
import threading
import time
import unittest
import zlib

import oci
from harness import Case, Terminal, deadline, open_files, processes_of, stop_leftovers, tree, until
from registries import INDEX, MANIFEST, DockerRegistry, Scripted, authority, run, tools_missing
from test_image import small

REAL = tools_missing("docker-registry", "skopeo", "umoci", "openssl", "htpasswd")


def noise(size, seed=1):
    """Bytes that no compressor makes smaller, the same ones each time."""
    return random.Random(seed).randbytes(size)


def files_of(home):
    """Every blob of a store: {path: bytes}."""
    found = {}
    for folder in ("layers", "images"):
        for name in os.listdir(os.path.join(home, folder)):
            with open(os.path.join(home, folder, name), "rb") as f:
                found[folder + "/" + name] = f.read()
    return found


def basic(user, password):
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


class Pull(Case):
    def setUp(self):
        super().setUp()
        self.home = self.path("home")
        os.makedirs(self.path("user"))
        # Nobody's logins but the test's.
        self.env = {"HOME": self.path("user"), "DOCKER_CONFIG": "", "HTTP_PROXY": "", "http_proxy": ""}
        self.addCleanup(stop_leftovers, self.home)

    def pull(self, ref, *options, env=None, **how):
        return self.msb("pull", *options, ref, env={**self.env, **(env or {})}, **how)

    def config(self, **registries):
        os.makedirs(self.home, exist_ok=True)
        with open(os.path.join(self.home, "config.json"), "w") as f:
            json.dump({"registries": registries}, f)

    def images(self, home=None):
        was, self.home = self.home, home or self.home
        listed = json.loads(self.ok(self.msb("image", "ls", "--format", "json")).text)
        self.home = was
        return {i["reference"]: i["digest"] for i in listed}

    def image_id(self, ref):
        return json.loads(self.ok(self.msb("image", "inspect", "--format", "json", ref)).text)["id"]

    def whole(self, ref):
        """The image is in the store and good, and nothing else is there that should not be."""
        self.assertIn(ref, self.images())
        self.nothing_left()
        self.assertEqual(fetchers(self.home), [])

    def no_trace(self):
        """A failure has left nothing."""
        self.assertEqual(self.images(), {})
        self.assertEqual(files_of(self.home), {})
        self.nothing_left()
        self.assertEqual(fetchers(self.home), [])


def fetchers(home):
    return [pid for pid, line in processes_of(home).items() if "msb-fetch" in line]


@unittest.skipIf(REAL, f"not installed: {REAL}")
class Real(Pull):
    """Debian's docker-registry, filled by skopeo and umoci."""

    def layout(self, name="one:latest", layers=None, **settings):
        path = oci.layout(self.path("layout") + "/", layers or [small(), oci.layer([oci.entry("x", "1")])], name,
                          **settings)
        return f"oci:{path}:{name}"

    def test_pull_and_run(self):
        ref = DockerRegistry(self).push(self.layout(), "some/one:v1")
        done = self.ok(self.pull(ref))
        self.assertEqual(done.text, ref + "\n")
        self.whole(ref)
        self.assertEqual(self.ok(self.run_in(ref, "echo", "hello")).out, b"hello\n")

    def test_same_bytes_whatever_way(self):
        layers = [small(), oci.layer([oci.entry("etc"), oci.entry("etc/a", noise(70000)), oci.entry("bin/.wh.cat", "")])]
        source = self.layout(layers=layers)
        ref = DockerRegistry(self).push(source, "same:latest")
        run("skopeo", "--insecure-policy", "copy", source, f"docker-archive:{self.path('d.tar')}:same:latest")
        self.ok(self.pull(ref))
        pulled, ident = files_of(self.home), self.image_id(ref)
        for archive in (self.path("layout"), self.path("d.tar")):
            self.home = self.path("home-" + os.path.basename(archive))
            self.ok(self.msb("load", "-i", archive, "-t", "same"))
            loaded = files_of(self.home)
            self.assertEqual(sorted(loaded), sorted(pulled))
            for name, data in loaded.items():
                self.assertEqual(data, pulled[name], name)
            self.assertEqual(self.image_id("same"), ident)

    def test_formats(self):
        registry = DockerRegistry(self)
        source = self.layout()
        for name, options in {"v2s2": ["--format", "v2s2"], "oci": ["--format", "oci"],
                              "zstd": ["--format", "oci", "--dest-compress-format", "zstd"]}.items():
            ref = registry.push(source, name + ":latest", *options)
            self.home = self.path("home-" + name)
            self.ok(self.pull(ref))
            self.whole(ref)

    def test_image_of_umoci(self):
        root, at = self.path("rootfs"), self.path("u") + ":made"
        os.makedirs(root)
        with open(os.path.join(root, "file"), "w") as f:
            f.write("by umoci")
        run("umoci", "init", "--layout", self.path("u"))
        run("umoci", "new", "--image", at)
        run("umoci", "insert", "--image", at, root, "/")
        ref = DockerRegistry(self).push("oci:" + at, "made:by-umoci")
        self.ok(self.pull(ref))
        self.whole(ref)

    def test_by_digest(self):
        registry = DockerRegistry(self)
        ref = registry.push(self.layout(), "one:latest")
        self.ok(self.pull(ref))
        digest = self.images()[ref]
        self.home = self.path("other")
        exact = f"{registry.host}/one@{digest}"
        self.ok(self.pull(exact))
        self.whole(exact)
        absent = f"{registry.host}/one@sha256:{'0' * 64}"
        self.refused(self.pull(absent), 1, "has no", "one@sha256:0")

    @deadline(600)
    def test_hundred_layers(self):
        layers = [small()] + [oci.layer([oci.entry(f"f{i}", f"{i}\n"), oci.entry(f"n{i}", noise(3000, i))])
                              for i in range(99)]
        ref = DockerRegistry(self).push(self.layout(layers=layers), "many:latest")
        self.ok(self.pull(ref))
        self.whole(ref)
        done = self.ok(self.run_in(ref, "sh", "-c", "cat /f0 /f57 /f98"))
        self.assertEqual(done.out, b"0\n57\n98\n")

    def test_second_image_costs_one_layer(self):
        registry = DockerRegistry(self)
        shared = small()
        first = registry.push(self.layout("one:latest", [shared]), "one:latest")
        self.ok(self.pull(first))
        before = len(registry.requests("/blobs/"))
        second = registry.push(self.layout("two:latest", [shared, oci.layer([oci.entry("new", "1")])]), "other/two:latest")
        pushed = len(registry.requests("/blobs/"))
        self.ok(self.pull(second))
        # The configuration and the one new layer.
        self.assertEqual(len(registry.requests("/blobs/")) - pushed, 2, before)
        self.whole(second)

    def test_tls_and_login(self):
        tls = authority(self, "IP:127.0.0.1", "DNS:localhost")
        registry = DockerRegistry(self, tls=tls, login=("user", "secret"))
        ref = registry.push(self.layout(), "one:latest")
        ca = ["--ca-certs", tls[0]]
        self.refused(self.pull(ref), 1, "cannot trust", registry.host, "--ca-certs")
        self.refused(self.pull(ref, *ca), 1, "login", "msb registry login")

        def login(user, password, *options):
            return self.msb("registry", "login", *ca, "-u", user, "--password-stdin", *options, registry.host,
                            input=password.encode() + b"\n", env=self.env)
        self.refused(login("user", "wrong"), 1, "cannot log in", registry.host)
        self.refused(self.pull(ref, *ca), 1, "login")
        kept = os.path.join(self.home, "registry-auth.json")
        self.assertFalse(os.path.exists(kept))
        self.assertIn("user", self.ok(login("user", "secret")).text)
        self.assertEqual(stat.S_IMODE(os.stat(kept).st_mode), 0o600)
        listed = json.loads(self.ok(self.msb("registry", "ls", "--format", "json", env=self.env)).text)
        self.assertEqual([(i["registry"], i["username"]) for i in listed], [(registry.host, "user")])
        self.assertIn(registry.host, self.ok(self.msb("registry", "list", env=self.env)).text)
        self.ok(self.pull(ref, *ca))
        self.whole(ref)
        self.ok(self.msb("registry", "logout", registry.host, env=self.env))
        self.refused(self.msb("registry", "logout", registry.host, env=self.env), 1, "no login")
        self.refused(self.pull(ref, *ca), 1, "login")
        # A file that holds no certificate, and one that is not there.
        self.refused(self.pull(ref, "--ca-certs", kept), 1, "no certificate")
        self.refused(self.pull(ref, "--ca-certs", self.path("none")), 1, "none")

    def test_dockers_logins(self):
        registry = DockerRegistry(self, login=("user", "secret"))
        ref = registry.push(self.layout(), "one:latest")
        bin_dir, log = self.path("bin"), self.path("helper.log")
        os.makedirs(bin_dir)
        helper = os.path.join(bin_dir, "docker-credential-testing")
        with open(helper, "w") as f:
            f.write(f"#!/bin/sh\nread -r host\necho \"$1 $host\" >>{log}\n"
                    f"if [ \"$host\" = {registry.host} ]; then\n"
                    f"echo '{{\"ServerURL\":\"'$host'\",\"Username\":\"user\",\"Secret\":\"secret\"}}'\n"
                    "else echo credentials not found in native keychain; exit 1; fi\n")
        os.chmod(helper, 0o755)
        auth = base64.b64encode(b"user:secret").decode()
        configs = {
            "auths": {"auths": {registry.host: {"auth": auth}}},
            "url": {"auths": {f"https://{registry.host}/v1/": {"auth": auth}}},
            "helper": {"credHelpers": {registry.host: "testing"}},
            "store": {"credsStore": "testing", "auths": {registry.host: {}}},
        }
        for name, config in configs.items():
            docker = self.path("docker-" + name)
            os.makedirs(docker)
            with open(os.path.join(docker, "config.json"), "w") as f:
                json.dump(config, f)
            self.home = self.path("home-" + name)
            env = {"DOCKER_CONFIG": docker, "PATH": bin_dir + ":" + os.environ["PATH"]}
            self.ok(self.pull(ref, env=env))
            self.whole(ref)
        self.assertEqual(open(log).read().split("\n")[0], "get " + registry.host)
        # Wrong ones are said to be from where they are.
        with open(os.path.join(docker, "config.json"), "w") as f:
            json.dump({"auths": {registry.host: {"auth": base64.b64encode(b"user:wrong").decode()}}}, f)
        self.home = self.path("home-wrong")
        self.refused(self.pull(ref, env={"DOCKER_CONFIG": docker}), 1, "Docker", "turned down")

    def test_config_json(self):
        tls = authority(self, "IP:127.0.0.1")
        registry = DockerRegistry(self, tls=tls, login=("user", "secret"))
        ref = registry.push(self.layout(), "one:latest")
        self.config(ca_certs=tls[0], hosts={registry.host: {"auth": {"username": "user", "password_env": "PW"}}})
        self.refused(self.pull(ref), 1, "$PW", "not set")
        self.ok(self.pull(ref, env={"PW": "secret"}))
        self.whole(ref)
        self.config(ca_cert=tls[0])
        self.refused(self.pull(ref), 1, "config.json", "ca_cert")

    def test_run_pulls_what_is_missing(self):
        registry = DockerRegistry(self)
        ref = registry.push(self.layout(Cmd=["echo", "first"]), "one:latest")

        def msb_run(*options):
            return self.msb("run", *options, ref, env=self.env)
        self.refused(msb_run("--pull", "never"), 125, "no image")
        done = self.ok(msb_run())
        self.assertEqual(done.out, b"first\n")
        self.assertIn("pulling", done.messages)
        before = len(registry.requests("/manifests/"))
        registry.push(self.layout(Cmd=["echo", "second"]), "one:latest")
        pushed = len(registry.requests("/manifests/"))
        self.assertEqual(self.ok(msb_run()).out, b"first\n")
        self.assertEqual(len(registry.requests("/manifests/")), pushed, before)
        done = self.ok(msb_run("--pull", "always", "-q"))
        self.assertEqual((done.out, done.err), (b"second\n", b""))
        # A named sandbox stays with the image that it has.
        self.assertEqual(self.ok(msb_run("--name", "kept")).out, b"second\n")
        registry.push(self.layout(Cmd=["echo", "third"]), "one:latest")
        self.ok(self.pull(ref))
        self.assertEqual(self.ok(msb_run("--name", "kept", "-q")).out, b"second\n")
        self.refused(self.msb("run", f"{registry.host}/none", env=self.env), 125, "has no none")
        self.refused(msb_run("--pull", "sometimes"), 125, "always, missing, never")


class Script(Pull):
    """A registry of ours that does as a test says."""

    def setUp(self):
        super().setUp()
        self.server = Scripted(self)
        self.big = oci.layer([oci.entry("noise", noise(3 << 20))])
        self.ref = self.server.add("some/big", [self.big])
        self.layer = self.server.layers("some/big")[0]
        self.blob = self.server.blobs[self.layer["digest"]]
        self.blob_path = "/v2/some/big/blobs/" + self.layer["digest"]

    def on_blob(self, rule):
        """@rule for requests of the big layer, with their number from 0."""
        count = iter(range(10 ** 6))
        self.server.rules.append(lambda h: rule(h, next(count)) if h.path == self.blob_path else None)

    def ranges(self):
        return [r.headers.get("Range") for r in self.server.asked(self.layer["digest"])]


class Transfer(Script):
    def test_a_cut_is_resumed(self):
        def rule(h, n):
            if n > 2:
                return None
            status, at, rest = h.range(self.blob)
            more = {"Content_Range": f"bytes {at}-{len(self.blob) - 1}/{len(self.blob)}"} if at else {}
            h.answer(status, rest[:1 << 20], Content_Length=str(len(rest)), **more)
            return h.cut()
        self.on_blob(rule)
        self.ok(self.pull(self.ref))
        self.whole(self.ref)
        ranges = self.ranges()
        self.assertEqual(ranges[0], None)
        self.assertEqual(len(ranges), 4)
        self.assertTrue(all(ranges[1:]), ranges)
        # No byte came twice.
        self.assertEqual(self.server.sent[self.blob_path], len(self.blob))

    def test_a_server_without_ranges(self):
        def rule(h, n):
            h.answer(200, self.blob[:1 << 20] if n == 0 else self.blob, Content_Length=str(len(self.blob)))
            return h.cut() if n == 0 else True
        self.on_blob(rule)
        self.ok(self.pull(self.ref))
        self.whole(self.ref)

    def test_another_range_than_asked_for(self):
        def rule(h, n):
            if n == 0:
                h.answer(200, self.blob[:1 << 20], Content_Length=str(len(self.blob)))
                return h.cut()
            return h.answer(206, self.blob[2 << 20:],
                            Content_Range=f"bytes {2 << 20}-{len(self.blob) - 1}/{len(self.blob)}")
        self.on_blob(rule)
        self.refused(self.pull(self.ref, "-q"), 1, "another part")
        self.no_trace()

    def test_a_stall_is_cut_and_resumed(self):
        self.config(stall_timeout_secs=1)

        def rule(h, n):
            if n:
                return None
            h.answer(200, self.blob[:1 << 20], Content_Length=str(len(self.blob)))
            for _ in range(300):
                time.sleep(0.1)
                h.send(b"")
                if n:
                    break
            return h.cut()
        self.on_blob(rule)
        self.ok(self.pull(self.ref))
        self.whole(self.ref)
        self.assertEqual(len(self.ranges()), 2)

    def test_drips_end(self):
        """A byte now and then is no progress."""
        self.config(stall_timeout_secs=1)
        gone = threading.Event()
        self.addCleanup(gone.set)

        def rule(h, n):
            status, at, rest = h.range(self.blob)
            more = {"Content_Range": f"bytes {at}-{len(self.blob) - 1}/{len(self.blob)}"} if at else {}
            h.answer(status, b"", Content_Length=str(len(rest)), **more)
            for i in range(1000):
                h.send(rest[i:i + 1])
                if gone.wait(0.2):
                    break
            return h.cut()
        self.on_blob(rule)
        self.refused(self.pull(self.ref, "-q"), 1, "cannot get")
        self.assertLessEqual(len(self.ranges()), 6)

    def test_wrong_lengths(self):
        for name, data in {"longer": self.blob + b"x", "shorter": self.blob[:-1]}.items():
            with self.subTest(name):
                self.server.blobs[self.layer["digest"]] = data
                self.refused(self.pull(self.ref, "-q"), 1, "length", str(len(self.blob)))
                self.no_trace()
        # Without a length that says so before.
        for name, data in {"longer": self.blob + bytes(1 << 20), "shorter": self.blob[:-1]}.items():
            with self.subTest("chunked " + name):
                def rule(h, n):
                    h.send_response(200)
                    h.send_header("Connection", "close")
                    h.end_headers()
                    h.send(data)
                    h.close_connection = True
                    return True
                self.server.rules.clear()
                self.on_blob(rule)
                self.refused(self.pull(self.ref, "-q"), 1, self.layer["digest"][:20])
                self.no_trace()

    def test_damaged_blob(self):
        # In the middle gzip sees it, in the time stamp of its header only the digest does.
        for at, word in ((len(self.blob) // 2, "bad gzip data"), (4, self.layer["digest"])):
            bad = bytearray(self.blob)
            bad[at] ^= 1
            self.server.blobs[self.layer["digest"]] = bytes(bad)
            self.refused(self.pull(self.ref, "-q"), 1, "layer 1 of 1", word)
            self.no_trace()

    def test_damaged_contents(self):
        """A good blob that is not what the configuration promises."""
        conf = oci.config([oci.layer([oci.entry("other", "1")])])
        ref = self.server.add("liar", [self.big], conf=conf)
        self.refused(self.pull(ref, "-q"), 1, "its contents have the digest")
        self.no_trace()

    def test_busy_server(self):
        def rule(h, n):
            if n == 0:
                return h.answer(429, b"", Retry_After="1")
            return h.answer(503, b"busy") if n == 1 else None
        self.on_blob(rule)
        done = self.ok(self.pull(self.ref))
        self.assertIn("429", done.messages)
        self.whole(self.ref)
        times = [r.time for r in self.server.asked(self.layer["digest"])]
        self.assertEqual(len(times), 3)
        self.assertGreaterEqual(times[1] - times[0], 1)

    def test_server_that_stays_busy(self):
        self.server.rules.append(lambda h: h.answer(503, b""))
        self.refused(self.pull(self.ref, "-q"), 1, "503", "later")
        self.assertLessEqual(len(self.server.requests), 8)
        self.no_trace()

    def test_server_that_wants_too_much_time(self):
        self.server.rules.append(lambda h: h.answer(429, b"", Retry_After="86400"))
        self.refused(self.pull(self.ref, "-q"), 1, "too many requests", "86400")
        self.assertEqual(len(self.server.requests), 1)

    def test_what_came_is_kept_for_the_next_time(self):
        first = oci.layer([oci.entry("first", noise(100000, 2))])
        ref = self.server.add("two", [first, self.big])
        digest = self.server.layers("two")[0]["digest"]
        path = "/v2/two/blobs/" + self.layer["digest"]

        def gone(h):
            if h.path != path:
                return None
            # The other layer first.
            until(lambda: [n for n in os.listdir(os.path.join(self.home, "layers")) if n.endswith(".index")], "no layer")
            return h.answer(503, b"")
        self.server.rules.append(gone)
        self.refused(self.pull(ref, "-q"), 1, "503")
        self.assertEqual(self.images(), {})
        self.server.rules.clear()
        self.ok(self.pull(ref))
        self.whole(ref)
        self.assertEqual(self.server.blob_requests()[digest], 1)

    def test_one_failure_stops_the_others(self):
        slow = threading.Event()
        self.addCleanup(slow.set)
        ref = self.server.add("two", [self.big, oci.layer([oci.entry("second", noise(1 << 20, 3))])])
        bad = self.server.layers("two")[1]["digest"]

        def rule(h):
            if h.path.endswith(bad):
                return h.answer(404, b"")
            if h.path.endswith(self.layer["digest"]):
                h.answer(200, self.blob[:1 << 20], Content_Length=str(len(self.blob)))
                slow.wait(100)
                return h.cut()
            return None
        self.server.rules.append(rule)
        began = time.monotonic()
        self.refused(self.pull(ref, "-q"), 1, "layer 2 of 2", "has no " + bad)
        self.assertLess(time.monotonic() - began, 60)
        self.no_trace()

    def test_two_at_once_fetch_once(self):
        def slowly(h):
            if h.path == self.blob_path:
                half = len(self.blob) // 2
                h.answer(200, self.blob[:half], Content_Length=str(len(self.blob)))
                time.sleep(1)
                h.send(self.blob[half:])
                return True
            return None
        self.server.rules.append(slowly)
        other = self.server.add("other", [self.big, oci.layer([oci.entry("x", "1")])])
        self.ok(self.msb("image", "ls"))
        children = [self.start("pull", "-q", ref, env=self.env) for ref in (self.ref, self.ref, self.ref, other)]
        for child in children:
            out, err = child.communicate(timeout=120)
            self.assertEqual(child.returncode, 0, err)
        self.assertEqual(set(self.server.blob_requests().values()), {1}, self.server.blob_requests())
        self.whole(self.ref)
        self.whole(other)

    def test_kill_at_any_moment(self):
        """msb or msb-fetch gone at a point of the transfer: nothing is wrong afterwards."""
        stages = ["/manifests/", "/blobs/" + json.loads(self.server.manifests["some/big", "latest"][1])["config"]["digest"],
                  self.blob_path]
        for who in ("msb", "msb-fetch"):
            for stage in stages:
                with self.subTest(who=who, stage=stage[:20]):
                    reached, release = threading.Event(), threading.Event()

                    def rule(h):
                        if stage not in h.path:
                            return None
                        if stage == self.blob_path:
                            h.answer(200, self.blob[:1 << 20], Content_Length=str(len(self.blob)))
                        reached.set()
                        release.wait(60)
                        return h.cut()
                    self.server.rules[:] = [rule]
                    self.home = self.path(f"home-{who}-{stages.index(stage)}")
                    child = self.start("pull", "-q", self.ref, env=self.env)
                    self.assertTrue(reached.wait(60))
                    fetch = until(lambda: fetchers(self.home), "no msb-fetch")
                    os.kill(child.pid if who == "msb" else fetch[0], signal.SIGKILL)
                    out, err = child.communicate(timeout=60)
                    if who == "msb-fetch":
                        self.assertEqual(child.returncode, 1)
                        self.assertIn(b"msb-fetch", err)
                    until(lambda: not fetchers(self.home), "msb-fetch stays", 20)
                    self.server.rules.clear()
                    release.set()
                    self.ok(self.pull(self.ref))
                    self.whole(self.ref)

    def test_interrupted(self):
        reached = threading.Event()

        def rule(h):
            if h.path != self.blob_path:
                return None
            h.answer(200, self.blob[:1 << 20], Content_Length=str(len(self.blob)))
            reached.set()
            time.sleep(5)
            return h.cut()
        self.server.rules.append(rule)
        for verb in (["pull", "-q"], ["run", "-q"]):
            reached.clear()
            child = self.start(*verb, self.ref, env=self.env)
            self.assertTrue(reached.wait(60))
            child.send_signal(signal.SIGINT)
            child.communicate(timeout=30)
            self.assertNotEqual(child.returncode, 0)
            until(lambda: not fetchers(self.home), "msb-fetch stays", 20)


class Hostile(Script):
    def refused_ref(self, ref, *words):
        self.refused(self.pull(ref, "-q"), 1, *words)
        self.no_trace()

    def manifest(self, **changes):
        m = json.loads(self.server.manifests["some/big", "latest"][1])
        m.update(changes)
        return json.dumps(m).encode()

    def test_manifest_too_large(self):
        self.server.add_manifest("some/big", self.manifest(x="y" * (5 << 20)), "fat")
        self.refused_ref(f"{self.server.host}/some/big:fat", "length", "too long")

    def test_endless_manifest(self):
        def rule(h):
            if "/manifests/" not in h.path:
                return None
            h.send_response(200)
            h.send_header("Content-Type", MANIFEST)
            h.end_headers()
            for _ in range(100000):
                h.send(b" " * 65536)
            return True
        self.server.rules.append(rule)
        self.refused_ref(self.ref, "longer than")
        self.assertLess(sum(self.server.sent.values()), 64 << 20)

    def test_endless_refusal(self):
        def rule(h):
            h.send_response(403)
            h.end_headers()
            for _ in range(100000):
                h.send(b"no " * 20000)
            return True
        self.server.rules.append(rule)
        self.refused_ref(self.ref, "denies access")
        self.assertLess(sum(self.server.sent.values()), 64 << 20)

    def test_endless_headers(self):
        def rule(h):
            h.send_response(200)
            for i in range(100000):
                h.send_header(f"X-{i}", "y" * 1000)
                if i % 100 == 0:
                    h.flush_headers()
            h.end_headers()
            return True
        self.server.rules.append(rule)
        self.refused_ref(self.ref, "headers")

    def test_one_huge_header(self):
        self.server.rules.append(lambda h: h.answer(200, b"{}", X_Long="y" * (1 << 20)))
        self.refused(self.pull(self.ref, "-q"), 1, self.server.host)
        self.no_trace()

    def test_nonsense(self):
        answers = {
            "not JSON": lambda h: h.answer(200, b"<html>", Content_Type=MANIFEST),
            "schema version": lambda h: h.answer(200, b'{"schemaVersion": 1}', Content_Type=MANIFEST),
            "unknown media type": lambda h: h.answer(200, b'{"schemaVersion": 2}', Content_Type="text/html"),
        }
        for words, rule in answers.items():
            with self.subTest(words):
                self.server.rules[:] = [rule]
                self.refused_ref(self.ref, words)
        self.server.rules[:] = [lambda h: (h.wfile.write(b"SSH-2.0-OpenSSH_9.2\r\n"), h.cut())[1]]
        self.refused(self.pull(self.ref, "-q"), 1, self.server.host)
        self.no_trace()

    def test_content_types(self):
        kind, data = self.server.manifests["some/big", "latest"]
        self.server.manifests["some/big", "latest"] = ("text/plain; charset=utf-8", data)
        self.ok(self.pull(self.ref))
        self.whole(self.ref)
        self.home = self.path("other")
        self.server.manifests["some/big", "latest"] = (INDEX, data)
        self.refused_ref(self.ref, "calls itself")

    def test_manifest_that_is_not_what_was_asked_for(self):
        kind, data = self.server.manifests["some/big", "latest"]
        digest = oci.sha256(data)
        self.server.manifests["some/big", digest] = (kind, data + b" ")
        self.refused_ref(f"{self.server.host}/some/big@{digest}", "damaged", digest)
        self.server.rules.append(lambda h: h.answer(200, data, Content_Type=kind,
                                                    Docker_Content_Digest="sha256:" + "0" * 64)
                                 if "/manifests/" in h.path else None)
        self.refused_ref(self.ref, "damaged", "0" * 64)

    def test_damaged_configuration(self):
        digest = json.loads(self.server.manifests["some/big", "latest"][1])["config"]["digest"]
        self.server.blobs[digest] = self.server.blobs[digest].replace(b"linux", b"Linux")
        self.refused_ref(self.ref, "configuration", "damaged")

    def test_foreign_and_encrypted_layers(self):
        base = "application/vnd.oci.image.layer."
        for words, kind in {"foreign": base + "nondistributable.v1.tar+gzip", "encrypted": base + "v1.tar+gzip+encrypted",
                            "unknown media type": "application/x-anything"}.items():
            layer = dict(self.layer, mediaType=kind, urls=["http://127.0.0.1:1/elsewhere"])
            self.server.add_manifest("some/big", self.manifest(layers=[layer]), "odd")
            self.refused_ref(f"{self.server.host}/some/big:odd", words)

    def index(self, *manifests, **more):
        return json.dumps(dict({"schemaVersion": 2, "mediaType": INDEX, "manifests": list(manifests)}, **more)).encode()

    def descriptor(self, data, kind=MANIFEST, **more):
        return dict({"mediaType": kind, "digest": oci.sha256(data), "size": len(data)}, **more)

    def test_platforms(self):
        entries = []
        for arch, variant in (("s390x", ""), ("arm", "v6"), ("arm", "v7"), ("arm64", "v8"), (oci.ARCH, "")):
            name = "multi"
            layer = oci.layer([oci.entry("arch", arch + variant)])
            self.server.add(name, [layer], tag=arch + variant, conf=oci.config([layer], arch=arch))
            data = self.server.manifests[name, arch + variant][1]
            platform = {"os": "linux", "architecture": arch}
            entries.append(self.descriptor(data, platform=dict(platform, variant=variant) if variant else platform))
        entries.insert(0, dict(entries[-1], digest="sha256:" + "1" * 64, platform={"os": "windows", "architecture": oci.ARCH}))
        self.server.add_manifest("multi", self.index(*entries), "latest", INDEX)
        ref = f"{self.server.host}/multi:latest"

        def pulled(*options):
            done = self.ok(self.pull(ref, "-q", *options))
            info = json.loads(self.ok(self.msb("image", "inspect", "--format", "json", done.text.strip())).text)
            return info["architecture"], info["digest"]
        digests = {e["platform"]["architecture"] + e["platform"].get("variant", ""): e["digest"] for e in entries[1:]}
        self.assertEqual(pulled(), (oci.ARCH, digests[oci.ARCH]))
        self.assertEqual(pulled("--platform", "linux/s390x"), ("s390x", digests["s390x"]))
        self.assertEqual(pulled("--platform", "linux/arm/v7"), ("arm", digests["armv7"]))
        self.assertEqual(pulled("--platform", "linux/arm64"), ("arm64", digests["arm64v8"]))
        self.refused(self.pull(ref, "-q", "--platform", "linux/riscv64"), 1, "not for linux/riscv64", "s390x")
        self.refused(self.pull(ref, "-q", "--platform", "windows/amd64"), 1, "windows", "linux")
        self.refused(self.pull(ref, "-q", "--platform", "linux/../x"), 1, "platform")

    def test_nested_indexes(self):
        kind, data = self.server.manifests["some/big", "latest"]
        for depth in range(1, 12):
            inner = self.descriptor(data, kind)
            kind, data = INDEX, self.index(inner)
            self.server.add_manifest("some/big", data, f"deep{depth}", INDEX)
        self.ok(self.pull(f"{self.server.host}/some/big:deep2", "-q"))
        self.home = self.path("other")
        self.refused_ref(f"{self.server.host}/some/big:deep11", "nested")

    def test_bomb(self):
        """12 GiB of zeros in a few MiB: refused at the limit, with nothing of it written."""
        head = tarfile.TarInfo("zeros")
        head.size = 4 << 30
        block = gzip.compress(bytes(16 << 20), 9, mtime=0)
        blob = b"".join(gzip.compress(head.tobuf(tarfile.PAX_FORMAT)) + block * 256 for _ in range(3))
        digest = oci.sha256(blob)
        self.server.blobs[digest] = blob
        self.server.add_manifest("some/big", self.manifest(layers=[dict(self.layer, digest=digest, size=len(blob))]), "bomb")
        self.refused_ref(f"{self.server.host}/some/big:bomb", "more than", "bytes")

    def test_bad_names(self):
        for name in ("UPPER", "a//b", "a:b:c", "host:port/x", "-x/y", ""):
            done = self.pull("--", name) if not name else self.pull(name)
            self.assertNotEqual(done.code, 0)
            self.assertTrue(done.messages.startswith("error:"), str(done))


class Tokens(Script):
    """Bearer tokens, from a service of the registry's."""

    def protect(self, tokens=None, login=None, lifetime=None, realm=None, post=None):
        """Demand a token. @lifetime: requests that one is good for."""
        self.valid, self.issued = {}, []

        def service(h):
            if not h.path.startswith("/token"):
                return None
            if h.command == "POST":
                return h.answer(*post(h.server.scripted.requests[-1].body.decode())) if post else h.answer(404)
            if login and h.headers.get("Authorization") != basic(*login):
                return h.answer(401, b'{"details":"incorrect username or password"}')
            token = tokens(h) if tokens else f"token-{len(self.issued)}"
            self.issued.append(h.path)
            self.valid[token] = lifetime or 10 ** 9
            return h.answer(200, json.dumps({"token": token, "expires_in": 300}).encode())

        def guard(h):
            if not h.path.startswith("/v2/"):
                return None
            token = (h.headers.get("Authorization") or "").replace("Bearer ", "")
            if self.valid.get(token, 0) > 0:
                self.valid[token] -= 1
                return None
            where = realm or self.server.url + "/token"
            return h.answer(401, b'{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}',
                            WWW_Authenticate=f'Bearer realm="{where}",service="the \\"service\\"",scope="repository:some/big:pull"')
        self.server.rules += [service, guard]

    def login(self, host, user, password, expect=0):
        done = self.msb("registry", "login", "-u", user, "--password-stdin", host, input=password.encode(), env=self.env)
        self.assertEqual(done.code, expect, str(done))
        return done

    def test_anonymous_token(self):
        self.protect()
        self.ok(self.pull(self.ref))
        self.whole(self.ref)
        self.assertEqual(len(self.issued), 1)
        self.assertIn("service=the%20%22service%22", self.issued[0])
        self.assertIn("scope=repository%3Asome%2Fbig%3Apull", self.issued[0])

    def test_token_for_a_login(self):
        self.protect(login=("user", "secret"))
        self.refused(self.pull(self.ref, "-q"), 1, "denies", "registry login")
        self.login(self.server.host, "user", "wrong", 1)
        self.login(self.server.host, "user", "secret")
        self.ok(self.pull(self.ref))
        self.whole(self.ref)
        # The password went to the token service alone.
        for r in self.server.requests:
            if r.path.startswith("/v2/"):
                self.assertFalse((r.headers.get("Authorization") or "").startswith("Basic"), r.path)

    def test_tokens_that_end_during_the_pull(self):
        layers = [oci.layer([oci.entry(f"f{i}", noise(50000, i))]) for i in range(12)]
        ref = self.server.add("some/big", layers, tag="many")
        self.protect(lifetime=2)
        self.ok(self.pull(ref))
        self.whole(ref)
        self.assertGreaterEqual(len(self.issued), 7)

    def test_refresh_token(self):
        seen = []

        def post(body):
            seen.append(body)
            if "refresh_token=the-refresh%2Ftoken" not in body:
                return 401, b"{}"
            self.valid["fresh"] = 100
            return 200, b'{"access_token": "fresh", "expires_in": 60}'
        self.protect(login=("nobody", "ever"), post=post)
        docker = self.path("docker")
        os.makedirs(docker)
        with open(os.path.join(docker, "config.json"), "w") as f:
            json.dump({"auths": {self.server.host: {"auth": base64.b64encode(b"00000000-0000-0000-0000-000000000000:").decode(),
                                                    "identitytoken": "the-refresh/token"}}}, f)
        self.ok(self.pull(self.ref, env={"DOCKER_CONFIG": docker}))
        self.whole(self.ref)
        self.assertIn("grant_type=refresh_token", seen[0])

    def test_tokens_that_are_never_good(self):
        self.protect(lifetime=1)
        self.server.rules.insert(0, lambda h: self.valid.clear())
        self.refused(self.pull(self.ref, "-q"), 1, "denies access")
        self.assertLessEqual(len(self.server.requests), 8)
        self.no_trace()

    def test_endless_challenges(self):
        for challenge in ("Basic realm=x", 'Bearer realm="http://127.0.0.1:1/"', "Negotiate", "", 'Bearer realm="',
                          "Bearer realm=" + "x" * 5000, 'Bearer realm="file:///etc/passwd"', "Basic " * 50):
            with self.subTest(challenge[:40]):
                self.server.requests.clear()
                self.server.rules[:] = [lambda h: h.answer(401, b"", WWW_Authenticate=challenge)]
                self.refused(self.pull(self.ref, "-q"), 1, self.server.host.split(":")[0])
                self.assertLessEqual(len(self.server.requests), 8)
                self.no_trace()

    def test_tokens_that_would_be_headers(self):
        self.protect(tokens=lambda h: "x\r\nX-Injected: yes")
        self.refused(self.pull(self.ref, "-q"), 1, "usable token")
        self.assertFalse([r for r in self.server.requests if r.headers.get("X-Injected")])

    def test_secrets_stay_with_their_host(self):
        """A redirection elsewhere takes no login and no token along; one to the same origin does."""
        elsewhere = Scripted(self, host="localhost")
        elsewhere.blobs.update(self.server.blobs)
        self.protect(login=("user", "secret"))
        self.login(self.server.host, "user", "secret")
        self.server.rules.insert(0, lambda h: h.answer(307, b"", Location=elsewhere.url + h.path)
                                 if h.path == self.blob_path else None)
        self.ok(self.pull(self.ref))
        self.whole(self.ref)
        self.assertEqual(len(elsewhere.requests), 1)
        for r in elsewhere.requests:
            self.assertIsNone(r.headers.get("Authorization"))
        # Nor when it asks for them.
        self.home = self.path("other")
        self.login(self.server.host, "user", "secret")
        elsewhere.rules.append(lambda h: h.answer(401, b"", WWW_Authenticate='Basic realm="please"'))
        self.refused(self.pull(self.ref, "-q"), 1, "denies")
        for r in elsewhere.requests:
            self.assertIsNone(r.headers.get("Authorization"))
        self.server.rules[0] = lambda h: (h.answer(307, b"", Location=h.path + "?again") if h.path == self.blob_path else
                                          h.answer(200, self.blob) if h.path == self.blob_path + "?again" and
                                          h.headers.get("Authorization") else None)
        self.ok(self.pull(self.ref))

    def test_redirections_end(self):
        self.server.rules.append(lambda h: h.answer(302, b"", Location=h.path + "x") if "/blobs/" in h.path else None)
        self.refused(self.pull(self.ref, "-q"), 1, "redirects more than")
        self.server.rules[:] = [lambda h: h.answer(302, b"", Location="file:///etc/passwd") if "/blobs/" in h.path else None]
        self.refused(self.pull(self.ref, "-q"), 1, "redirects to nowhere")
        self.no_trace()


def own_address():
    """An address of this machine that is not loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        try:
            s.connect(("192.0.2.1", 9))
            return s.getsockname()[0]
        except OSError:
            return None


class Ways(Script):
    """Plain HTTP, TLS, mirrors, proxies."""

    @unittest.skipUnless(own_address(), "no address but loopback")
    def test_plain_http_only_when_allowed(self):
        address = own_address()
        server = Scripted(self, host=address, bind=address)
        ref = server.add("one", [self.big])
        self.refused(self.pull(ref, "-q"), 1, "TLS", "--insecure")
        self.assertEqual(server.requests, [])
        self.ok(self.pull(ref, "--insecure"))
        self.home = self.path("other")
        self.config(hosts={server.host: {"insecure": True}})
        self.ok(self.pull(ref))

    @unittest.skipUnless(own_address(), "no address but loopback")
    @unittest.skipIf(tools_missing("openssl"), "no openssl")
    def test_no_secret_leaves_without_encryption(self):
        """A registry over TLS that wants us to go on without: no redirection, no token service."""
        address = own_address()
        tls = authority(self, "IP:" + address)
        server = Scripted(self, tls=tls, host=address, bind=address)
        plain = Scripted(self, host=address, bind=address)
        ref = server.add("one", [self.big])
        plain.blobs.update(server.blobs)
        self.config(ca_certs=tls[0], hosts={server.host: {"auth": {"username": "user", "password_env": "PW"}}})
        pw = {"PW": "secret"}
        server.rules.append(lambda h: h.answer(307, b"", Location=plain.url + h.path) if "/blobs/" in h.path else None)
        self.refused(self.pull(ref, "-q", env=pw), 1, "plain HTTP")
        server.rules[:] = [lambda h: h.answer(401, b"", WWW_Authenticate=f'Bearer realm="{plain.url}/token"')]
        self.refused(self.pull(ref, "-q", env=pw), 1, "without encryption")
        self.assertEqual(plain.requests, [])
        server.rules.clear()
        self.ok(self.pull(ref, env=pw))
        self.whole(ref)

    def test_mirrors(self):
        mirror = Scripted(self)
        self.config(hosts={self.server.host: {"mirrors": [mirror.url + "/"]}})
        # One that does not have it.
        self.ok(self.pull(self.ref))
        self.assertTrue(mirror.requests)
        # One that has it: the registry is not asked.
        mirror.manifests.update(self.server.manifests)
        mirror.blobs.update(self.server.blobs)
        self.server.requests.clear()
        os.rename(self.home, self.path("first"))
        self.config(hosts={self.server.host: {"mirrors": [mirror.url]}})
        self.ok(self.pull(self.ref))
        self.assertEqual(self.server.requests, [])
        # One that breaks off for good in the middle: the rest comes from the registry.
        os.rename(self.home, self.path("second"))
        self.config(hosts={self.server.host: {"mirrors": [mirror.url]}})

        def rule(h):
            if h.path != self.blob_path:
                return None
            if h.headers.get("Range"):
                return h.answer(404, b"")
            h.answer(200, self.blob[:1 << 20], Content_Length=str(len(self.blob)))
            return h.cut()
        mirror.rules.append(rule)
        self.ok(self.pull(self.ref))
        self.whole(self.ref)
        self.assertEqual([r.headers.get("Range") for r in self.server.asked("/blobs/")], [f"bytes={1 << 20}-"])

    def test_proxy(self):
        proxy = Scripted(self)
        seen = []

        def rule(h):
            if h.path.startswith("http://registry.invalid/"):
                seen.append(h.path)
                h.path = h.path[len("http://registry.invalid"):]
                proxy.serve(h)
                return True
            return None
        proxy.rules.append(rule)
        proxy.add("one", [self.big])
        ref = "registry.invalid/one:latest"
        for variable in ("http_proxy", "HTTP_PROXY"):
            self.home = self.path("home-" + variable)
            self.env.pop("http_proxy" if variable == "HTTP_PROXY" else "HTTP_PROXY", None)
            self.ok(self.pull(ref, "--insecure", env={variable: proxy.url, "http_proxy" if variable == "HTTP_PROXY" else "HTTP_PROXY": ""}
                              if variable == "http_proxy" else {variable: proxy.url}))
            self.whole(ref)
            self.assertTrue(seen)
            seen.clear()
        self.home = self.path("home-none")
        self.refused(self.pull(ref, "-q", "--insecure", env={"HTTP_PROXY": proxy.url, "NO_PROXY": "registry.invalid"}), 1,
                     "cannot reach registry.invalid")
        # What is on this machine is never asked through one.
        self.ok(self.pull(self.ref, env={"HTTP_PROXY": "http://127.0.0.1:1"}))

    def test_nobody_there(self):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.refused(self.pull(f"127.0.0.1:{s.getsockname()[1]}/x", "-q"), 1, "cannot get")
        self.refused(self.pull("nobody.invalid/x", "-q"), 1, "cannot reach nobody.invalid")
        self.no_trace()

    def test_without_msb_fetch(self):
        lib = self.path("lib")
        os.makedirs(lib)
        self.refused(self.pull(self.ref, "-q", env={"MSB_LIBDIR": lib}), 1, "msb-fetch", "MSB_LIBDIR")


class Progress(Script):
    def test_lines(self):
        done = self.ok(self.pull(self.ref))
        self.assertEqual(done.text, self.ref + "\n")
        self.assertIn("layer 1 of 1: 3.0 MiB", done.messages)
        self.assertIn("layer 1 of 1: done", done.messages)
        self.assertNotIn("\r", done.messages)
        self.assertIn("layer 1 of 1: is here", self.ok(self.pull(self.ref)).messages)

    def test_quiet(self):
        self.assertEqual(self.ok(self.pull(self.ref, "-q")).err, b"")

    def test_json(self):
        done = self.ok(self.pull(self.ref, "--format", "json"))
        events = [json.loads(line) for line in done.text.splitlines()]
        self.assertEqual(done.err, b"")
        names = [e["event"] for e in events]
        self.assertEqual((names[0], names[-1]), ("resolving", "done"))
        self.assertIn("layer_done", names)
        last = [e for e in events if e["event"] == "downloading"][-1]
        self.assertEqual((last["bytes"], last["total_bytes"]), (len(self.blob), len(self.blob)))
        self.assertEqual(events[-1]["digest"], oci.sha256(self.server.manifests["some/big", "latest"][1]))

    def test_bars(self):
        def rule(h, n):
            h.answer(200, self.blob[:2 << 20], Content_Length=str(len(self.blob)))
            time.sleep(0.5)
            h.send(self.blob[2 << 20:])
            return True
        self.on_blob(rule)
        t = Terminal(self, "pull", self.ref, rows=24, columns=100)
        t.expect(b"MiB of 3.0 MiB")
        t.expect(b"MiB/s")
        self.assertEqual(t.wait(), 0)
        self.assertTrue(t.seen.replace(b"\r", b"").endswith(self.ref.encode() + b"\n"), t.seen[-200:])

    def test_login_at_a_terminal(self):
        self.server.rules.append(lambda h: None if h.headers.get("Authorization") == basic("me", "pass word") else
                                 h.answer(401, b"", WWW_Authenticate='Basic realm="x"'))
        t = Terminal(self, "registry", "login", self.server.host)
        t.expect(b"Username: ")
        t.write(b"me\n")
        t.expect(b"Password: ")
        until(lambda: not t.stty()[3] & 8, "it shows the password")
        t.write(b"pass wordx\x7f\n")
        t.expect(b"logged in to")
        self.assertEqual(t.wait(), 0)
        self.assertNotIn(b"pass", t.seen)
        self.assertEqual(t.stty(), t.modes)
        t = Terminal(self, "registry", "login", "-u", "me", self.server.host)
        t.expect(b"Password: ")
        until(lambda: not t.stty()[3] & 8, "it shows the password")
        t.write(b"pass\x03")
        self.assertEqual(t.wait(), 1)
        self.assertEqual(t.stty(), t.modes)

    def test_confined(self):
        """msb-fetch holds nothing but sockets and pipes, and cannot start a program."""
        reached, release = threading.Event(), threading.Event()
        self.addCleanup(release.set)

        def rule(h, n):
            h.answer(200, self.blob[:1 << 20], Content_Length=str(len(self.blob)))
            reached.set()
            release.wait(60)
            return h.cut()
        self.on_blob(rule)
        child = self.start("pull", "-q", self.ref, env=self.env)
        self.assertTrue(reached.wait(60))
        pid = fetchers(self.home)[0]
        status = open(f"/proc/{pid}/status").read()
        self.assertIn("NoNewPrivs:\t1", status)
        kinds = {link.split(":")[0] for link in open_files(str(pid))}
        self.assertLessEqual(kinds, {"socket", "pipe", "anon_inode", "/dev/null"})
        child.kill()
        child.communicate()
