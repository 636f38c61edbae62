# SPDX-License-Identifier: Apache-2.0
"""Pulling from a registry that misbehaves in every way we know."""
import gzip
import hashlib
import json
import os
import signal
import tarfile
import threading
import time

import oci
from harness import PATIENCE, deadline, until
from registries import INDEX, MANIFEST, Script, fetchers, noise


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
        self.config(stall_timeout_secs=3)

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
                if not slow.wait(PATIENCE):
                    waited.append(h.path)
                return h.cut()
            return None
        waited = []
        self.config(stall_timeout_secs=2 * PATIENCE)
        self.server.rules.append(rule)
        self.refused(self.pull(ref, "-q"), 1, "layer 2 of 2", "has no " + bad)
        self.assertEqual(waited, [])
        self.no_trace()

    @deadline(1800)
    def test_multi_gigabyte_layer(self):
        """3 GiB of zeros and a file behind them, in a few MiB of gzip."""
        size, zeros = 3 << 30, bytes(16 << 20)
        big, last = tarfile.TarInfo("zeros"), tarfile.TarInfo("last")
        big.size, last.size = size, 4
        head, tail = big.tobuf(), last.tobuf() + b"end\n" + bytes(508) + bytes(1024)
        diff_id, member = hashlib.sha256(head), gzip.compress(zeros, 1, mtime=0)
        for _ in range(size // len(zeros)):
            diff_id.update(zeros)
        diff_id.update(tail)
        blob = gzip.compress(head) + member * (size // len(zeros)) + gzip.compress(tail)
        conf = json.dumps({"architecture": oci.ARCH, "os": "linux", "config": {},
                           "rootfs": {"type": "layers", "diff_ids": ["sha256:" + diff_id.hexdigest()]}}).encode()
        self.server.blobs.update({oci.sha256(b): b for b in (blob, conf)})
        manifest = json.loads(self.server.manifests["some/big", "latest"][1])
        manifest["config"].update(digest=oci.sha256(conf), size=len(conf))
        manifest["layers"][0].update(digest=oci.sha256(blob), size=len(blob))
        self.server.add_manifest("huge", json.dumps(manifest).encode(), "latest")
        ref = f"{self.server.host}/huge:latest"
        self.ok(self.pull(ref, "-q"))
        self.whole(ref)
        info = json.loads(self.ok(self.msb("image", "inspect", "--format", "json", ref)).text)
        self.assertEqual(info["size_bytes"], size + 4)
        # Zeros are holes.
        self.assertLess(info["stored_bytes"], 1 << 20)

    def test_nonsense_is_not_waited_for(self):
        """A layer that cannot be converted is given up although its bytes have not all come."""
        slow = threading.Event()
        self.addCleanup(slow.set)

        def rule(h, n):
            h.answer(200, b"\x1f\x8b\x08" + bytes(7) + b"\xff" * 300000, Content_Length=str(len(self.blob)))
            if not slow.wait(PATIENCE):
                waited.append(h.path)
            return h.cut()
        waited = []
        self.config(stall_timeout_secs=2 * PATIENCE)
        self.on_blob(rule)
        self.refused(self.pull(self.ref, "-q"), 1, "bad gzip data")
        self.assertEqual(waited, [])
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
            out, err = child.communicate(timeout=PATIENCE)
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
                        release.wait(PATIENCE)
                        return h.cut()
                    self.server.rules[:] = [rule]
                    self.home = self.path(f"home-{who}-{stages.index(stage)}")
                    child = self.start("pull", "-q", self.ref, env=self.env)
                    self.assertTrue(reached.wait(PATIENCE))
                    fetch = until(lambda: fetchers(self.home), "no msb-fetch")
                    os.kill(child.pid if who == "msb" else fetch[0], signal.SIGKILL)
                    out, err = child.communicate(timeout=PATIENCE)
                    if who == "msb-fetch":
                        self.assertEqual(child.returncode, 1)
                        self.assertIn(b"msb-fetch", err)
                    until(lambda: not fetchers(self.home), "msb-fetch stays")
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
            self.assertTrue(reached.wait(PATIENCE))
            child.send_signal(signal.SIGINT)
            child.communicate(timeout=PATIENCE)
            self.assertNotEqual(child.returncode, 0)
            until(lambda: not fetchers(self.home), "msb-fetch stays")


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
