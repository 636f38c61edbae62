# SPDX-License-Identifier: Apache-2.0
"""Registries for tests: Debian's docker-registry, and a scripted one that can be as bad as is wanted."""
import base64
import collections
import http.server
import json
import os
import random
import re
import shutil
import socket
import ssl
import subprocess
import threading
import time

import oci
from harness import Case, processes_of, stop_leftovers, until

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"


def run(*argv, **how):
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, **how)
    if done.returncode:
        raise AssertionError(f"{argv}: {done.stdout}")
    return done.stdout


def authority(case, *names):
    """A certificate authority of the test's own and a server certificate: paths of CA, certificate, key."""
    ca, key, cert = case.path("ca.pem"), case.path("server.key"), case.path("server.pem")
    run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test authority",
        "-keyout", case.path("ca.key"), "-out", ca)
    run("openssl", "req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=registry", "-keyout", key,
        "-out", case.path("server.csr"))
    with open(case.path("server.ext"), "w") as f:
        f.write("subjectAltName=" + ",".join(names))
    run("openssl", "x509", "-req", "-in", case.path("server.csr"), "-CA", ca, "-CAkey", case.path("ca.key"),
        "-CAcreateserial", "-days", "2", "-extfile", case.path("server.ext"), "-out", cert)
    return ca, cert, key


class DockerRegistry:
    """docker-registry on loopback, with its files in the test's scratch directory."""

    def __init__(self, case, tls=None, login=None, name="registry"):
        self.case, self.tls, self.login = case, tls, login
        top = case.path(name)
        os.makedirs(top)
        config = {"version": 0.1, "log": {"level": "info"},
                  "storage": {"filesystem": {"rootdirectory": os.path.join(top, "data")},
                              "delete": {"enabled": True}},
                  "http": {"addr": "127.0.0.1:0"}}
        if tls:
            config["http"]["tls"] = {"certificate": tls[1], "key": tls[2]}
        if login:
            passwords = os.path.join(top, "htpasswd")
            run("htpasswd", "-Bbc", passwords, *login)
            config["auth"] = {"htpasswd": {"realm": "a realm", "path": passwords}}
        with open(os.path.join(top, "config.yml"), "w") as f:
            json.dump(config, f)
        self.log = os.path.join(top, "log")
        with open(self.log, "wb") as log:
            self.child = subprocess.Popen(["docker-registry", "serve", os.path.join(top, "config.yml")],
                                          stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        case.addCleanup(self.stop)
        found = until(lambda: re.search(r"listening on 127.0.0.1:(\d+)", open(self.log).read()),
                      lambda: "docker-registry does not listen: " + open(self.log).read()[-500:])
        self.host = "127.0.0.1:" + found.group(1)

    def stop(self):
        self.child.kill()
        self.child.wait()

    def push(self, source, name, *options):
        """What skopeo calls @source under @name; returns the reference."""
        extra = ["--dest-creds", ":".join(self.login)] if self.login else []
        run("skopeo", "--insecure-policy", "copy", "--dest-tls-verify=false", *extra, *options, source,
            f"docker://{self.host}/{name}")
        return f"{self.host}/{name}"

    def requests(self, pattern):
        """Answered requests whose path fits."""
        return [line for line in open(self.log) if "http.response.status" in line
                and re.search(r'http.request.uri="[^"]*' + pattern, line)]


Request = collections.namedtuple("Request", "method path headers body time")


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def setup(self):
        super().setup()
        # Who speaks TLS to a server that does not is told so by the end of the connection.
        self.hello = not isinstance(self.request, ssl.SSLSocket) and \
            self.request.recv(1, socket.MSG_PEEK) == b"\x16"

    def handle(self):
        if not self.hello:
            try:
                super().handle()
            except (ConnectionError, ssl.SSLError):
                pass

    def log_message(self, *args):
        pass

    def do_GET(self):
        size = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(size)
        s = self.server.scripted
        with s.lock:
            s.requests.append(Request(self.command, self.path, self.headers, body, time.monotonic()))
        for rule in list(s.rules):
            if rule(self) is not None:
                return
        s.serve(self)

    do_POST = do_HEAD = do_GET

    def answer(self, status, body=b"", **headers):
        """True. Underscores in header names are dashes."""
        self.send_response(status)
        for name, value in headers.items():
            for one in value if isinstance(value, list) else [value]:
                self.send_header(name.replace("_", "-"), one)
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.send(body)
        return True

    def send(self, data):
        if self.command != "HEAD":
            for at in range(0, len(data), 65536):
                self.wfile.write(data[at:at + 65536])
                with self.server.scripted.lock:
                    self.server.scripted.sent[self.path] += len(data[at:at + 65536])
        self.wfile.flush()

    def cut(self):
        """Break the connection in the middle."""
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)
        return True

    def range(self, data):
        """What is asked of @data: status, first byte, the rest of it."""
        m = re.match(r"bytes=(\d+)-$", self.headers.get("Range") or "")
        return (206, int(m.group(1)), data[int(m.group(1)):]) if m else (200, 0, data)


class Scripted:
    """A registry that does what it should, unless one of its rules does something else first.

    A rule is a function of the handler that returns None when it has nothing to say.
    """

    def __init__(self, case, tls=None, host="127.0.0.1", bind="127.0.0.1"):
        self.manifests, self.blobs = {}, {}
        self.requests, self.sent, self.rules = [], collections.Counter(), []
        self.lock = threading.Lock()
        self.server = http.server.ThreadingHTTPServer((bind, 0), Handler)
        self.server.daemon_threads = True
        self.server.scripted = self
        self.scheme = "http"
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tls[1], tls[2])
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
            self.scheme = "https"
        self.host = f"{host}:{self.server.server_port}"
        self.url = f"{self.scheme}://{self.host}"
        thread = threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        case.addCleanup(self.stop)

    def stop(self):
        self.server.shutdown()
        self.server.server_close()

    def add(self, name, layers, tag="latest", **how):
        """An image made by oci.layout_files(); returns its reference."""
        files = oci.layout_files(layers, name, **how)
        digest = None
        for path, data in files.items():
            if path.startswith("blobs/"):
                self.blobs[path[6:].replace("/", ":")] = data
        index = json.loads(files["index.json"])
        digest = index["manifests"][0]["digest"]
        self.add_manifest(name, self.blobs.pop(digest), tag)
        return f"{self.host}/{name}:{tag}"

    def add_manifest(self, name, data, tag, media_type=MANIFEST):
        digest = oci.sha256(data)
        self.manifests[name, tag] = self.manifests[name, digest] = (media_type, data)
        return digest

    def layers(self, name, tag="latest"):
        """Descriptors of the layers of an image."""
        return json.loads(self.manifests[name, tag][1])["layers"]

    def serve(self, h):
        m = re.match(r"/v2/(.+)/(manifests|blobs)/([^/?]+)$", h.path)
        if h.path == "/v2/":
            return h.answer(200, b"{}")
        if m and m.group(2) == "manifests" and (m.group(1), m.group(3)) in self.manifests:
            media_type, data = self.manifests[m.group(1), m.group(3)]
            return h.answer(200, data, Content_Type=media_type, Docker_Content_Digest=oci.sha256(data))
        if m and m.group(2) == "blobs" and m.group(3) in self.blobs:
            data = self.blobs[m.group(3)]
            status, at, rest = h.range(data)
            more = {"Content_Range": f"bytes {at}-{len(data) - 1}/{len(data)}"} if status == 206 else {}
            return h.answer(status, rest, Content_Type="application/octet-stream", **more)
        return h.answer(404, b'{"errors":[{"code":"UNKNOWN","message":"unknown to us"}]}')

    def asked(self, pattern):
        return [r for r in self.requests if re.search(pattern, r.path)]

    def blob_requests(self):
        return collections.Counter(r.path.rsplit("/", 1)[1] for r in self.asked("/blobs/"))


def tools_missing(*names):
    return [n for n in names if not shutil.which(n)]


# ---- cases ----

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


def fetchers(home):
    return [pid for pid, line in processes_of(home).items() if "msb-fetch" in line]


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
