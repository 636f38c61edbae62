# SPDX-License-Identifier: Apache-2.0
"""Pulling: from Debian's docker-registry, with logins, tokens, mirrors and proxies."""
import base64
import json
import os
import shutil
import socket
import stat
import subprocess
import threading
import time
import unittest

import oci
from harness import MSB, PATIENCE, Terminal, deadline, open_files, until
from registries import (DockerRegistry, Pull, Script, Scripted, authority, basic, fetchers, files_of, noise, run,
                        tools_missing)
from test_image import small

REAL = tools_missing("docker-registry", "skopeo", "umoci", "openssl", "htpasswd")


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

    @deadline(1800)
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

    def test_a_sandboxes_own_login(self):
        registry = DockerRegistry(self, login=("user", "secret"))
        ref = registry.push(self.layout(), "one:latest")
        with open(self.path("box.yaml"), "w") as f:
            f.write(f"image: {ref}\nregistry: {{username: user, password_env: REGISTRY_PASSWORD}}\n")

        def create(password, *words):
            env = dict(self.env, **({"REGISTRY_PASSWORD": password} if password else {}))
            return self.msb("create", "-n", "own", *words, env=env)
        conf = ["--conf", self.path("box.yaml")]
        self.refused(create(None, *conf), 1, "REGISTRY_PASSWORD is not set", "user")
        self.refused(create("wrong", *conf), 1, registry.host)
        self.refused(create("secret", "--registry-username", "user", ref), 1, "the password is missing")
        # The image runs nothing; but it was fetched.
        self.ok(create("secret", *conf))
        kept = b"".join(open(os.path.join(d, f), "rb").read() for d, _, names in
                        os.walk(os.path.join(self.home, "sandboxes")) for f in names if f.endswith(".json"))
        self.assertNotIn(b"secret", kept)
        self.ok(self.msb("rm", "-f", "-q", "own"))
        self.whole(ref)

    def test_certificates_where_docker_has_them(self):
        tls = authority(self, "IP:127.0.0.1")
        registry = DockerRegistry(self, tls=tls)
        ref = registry.push(self.layout(), "one:latest")
        certs = self.path("certs.d")
        self.config(certs_dir=certs)
        self.refused(self.pull(ref), 1, "cannot trust")
        # Those of another host, and what is no certificate by name.
        os.makedirs(certs + "/127.0.0.1:1")
        shutil.copy(tls[0], certs + "/127.0.0.1:1/ca.crt")
        os.makedirs(certs + "/" + registry.host)
        shutil.copy(tls[0], certs + "/" + registry.host + "/ca.pem")
        self.refused(self.pull(ref), 1, "cannot trust")
        shutil.copy(tls[0], certs + "/" + registry.host + "/ca.crt")
        self.ok(self.pull(ref))
        self.whole(ref)
        with open(certs + "/" + registry.host + "/b.crt", "w") as f:
            f.write("nonsense")
        self.refused(self.pull(ref), 1, "b.crt", "no certificate")

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

    def test_login_kept_by_a_helper(self):
        registry = DockerRegistry(self, login=("user", "secret"))
        ref = registry.push(self.layout(), "one:latest")
        bin_dir, kept = self.path("bin"), self.path("kept.json")
        os.makedirs(bin_dir)
        helper = os.path.join(bin_dir, "docker-credential-keeper")
        with open(helper, "w") as f:
            f.write(f"#!/bin/sh\ncase $1 in\nstore) cat >{kept} ;;\n"
                    f"get) cat {kept} 2>/dev/null || {{ echo credentials not found in native keychain; exit 1; }} ;;\n"
                    f"erase) rm {kept} ;;\nesac\n")
        os.chmod(helper, 0o755)
        self.env["PATH"] = bin_dir + ":" + os.environ["PATH"]
        self.config(credential_helper="keeper")
        self.refused(self.pull(ref, "-q"), 1, "login")
        self.ok(self.msb("registry", "login", "-u", "user", "--password-stdin", registry.host, input=b"secret",
                         env=self.env))
        self.assertEqual(json.load(open(kept)), {"ServerURL": registry.host, "Username": "user", "Secret": "secret"})
        self.assertFalse(os.path.exists(os.path.join(self.home, "registry-auth.json")))
        self.ok(self.pull(ref))
        self.whole(ref)
        self.ok(self.msb("registry", "logout", registry.host, env=self.env))
        self.assertFalse(os.path.exists(kept))
        self.config(credential_helper="that-is-not-installed")
        self.refused(self.pull(ref, "-q"), 1, "docker-credential-that-is-not-installed")
        self.config(credential_helper="../keeper")
        self.refused(self.pull(ref, "-q"), 1, "not the name of a credential helper")

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
        # More than there are requests at a time: no other uses up the token that one has just got.
        self.protect(lifetime=5)
        self.ok(self.pull(ref))
        self.whole(ref)
        self.assertGreaterEqual(len(self.issued), 3)

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

    def test_force(self):
        """All of it comes again, and what was damaged is whole."""
        self.ok(self.pull(self.ref))
        layers = {n: data for n, data in files_of(self.home).items() if n.startswith("layers/")}
        asked = len(self.server.asked("/blobs/"))
        self.ok(self.pull(self.ref))
        self.assertEqual(len(self.server.asked("/blobs/")), asked)
        done = self.pull(self.ref, "--force")
        self.ok(done)
        self.assertGreater(len(self.server.asked("/blobs/")), asked)
        self.whole(self.ref)
        self.assertEqual({n: d for n, d in files_of(self.home).items() if n.startswith("layers/")}, layers)
        for suffix in (".data", ".erofs"):
            name = next(n for n in files_of(self.home) if n.endswith(suffix))
            path = os.path.join(self.home, name)
            os.chmod(path, 0o600)
            with open(path, "r+b") as f:
                f.seek(100)
                f.write(b"damage")
            self.ok(self.pull(self.ref, "--force"))
            self.assertIn("sound", self.ok(self.msb("image", "verify")).text)
        # A registry that fails leaves what was there.
        self.server.rules.append(lambda h: h.answer(404, b"") if "/blobs/" in h.path else None)
        self.refused(self.pull(self.ref, "--force"), 1)
        self.assertIn("sound", self.ok(self.msb("image", "verify")).text)
        self.whole(self.ref)

    @deadline(1800)
    def test_a_dead_server(self):
        """Connections that do not come about, however long one waits: few attempts, and not for long."""
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            s.listen(0)
            host = f"127.0.0.1:{s.getsockname()[1]}"
            # With its queue full it lets connections wait for ever.
            waiting = [socket.socket() for _ in range(4)]
            for w in waiting:
                w.setblocking(False)
                w.connect_ex(s.getsockname())
            for seconds, attempts in (1, 5), (8, 2):
                self.config(connect_timeout_secs=seconds)
                done = self.pull(f"{host}/x", "--insecure")
                self.assertEqual(done.code, 1, done)
                self.assertIn(f"cannot get x:latest from {host}", done.messages)
                self.assertEqual(done.messages.count("trying again"), attempts - 1, done)
            for w in waiting:
                w.close()
        self.no_trace()

    def test_numbers_in_the_configuration(self):
        for key, bad in (("connect_timeout_secs", 0), ("stall_timeout_secs", 3601), ("parallel_layers", 17),
                         ("parallel_layers", "many"), ("certs_dir", "")):
            self.config(**{key: bad})
            self.refused(self.pull(self.ref), 1, key)

    def test_layers_at_a_time(self):
        ref = self.server.add("some/layers", [oci.layer([oci.entry(f"f{i}", os.urandom(1000))]) for i in range(8)])
        digests = [layer["digest"] for layer in self.server.layers("some/layers")]
        for limit in (1, 3, 8):
            lock, state = threading.Lock(), {"now": 0, "most": 0}
            gate = threading.Semaphore(0)

            def rule(h):
                if not any(d in h.path for d in digests):
                    return None
                with lock:
                    state["now"] += 1
                    state["most"] = max(state["most"], state["now"])
                    # Nobody is answered before as many as may be are there.
                    if state["now"] == limit:
                        for _ in range(100):
                            gate.release()
                gate.acquire(timeout=PATIENCE)
                with lock:
                    state["now"] -= 1
                return None
            self.server.rules[:] = [rule]
            self.home = self.path(f"home-{limit}")
            self.config(parallel_layers=limit)
            self.ok(self.pull(ref))
            self.assertEqual(state["most"], limit)

    def test_msb_fetch_is_no_command(self):
        program = os.path.join(os.path.dirname(MSB), "msb-fetch")
        for words in ([], ["--help"], ["--ca"], ["http://127.0.0.1/"]):
            done = subprocess.run([program] + words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE, timeout=PATIENCE, text=True)
            self.assertEqual((done.returncode, done.stdout), (1, ""))
            self.assertIn("msb pull", done.stderr)

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
            release.wait(PATIENCE)
            return h.cut()
        self.on_blob(rule)
        child = self.start("pull", "-q", self.ref, env=self.env)
        self.assertTrue(reached.wait(PATIENCE))
        pid = fetchers(self.home)[0]
        status = open(f"/proc/{pid}/status").read()
        self.assertIn("NoNewPrivs:\t1", status)
        kinds = {link.split(":")[0] for link in open_files(str(pid))}
        self.assertLessEqual(kinds, {"socket", "pipe", "anon_inode", "/dev/null"})
        child.kill()
        child.communicate()
