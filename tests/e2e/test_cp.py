# SPDX-License-Identifier: Apache-2.0
"""`msb cp`: files into, out of and between sandboxes. tar, find and sha256sum are the judges."""
import gzip
import hashlib
import io
import os
import shutil
import stat
import subprocess
import tarfile
import tempfile
import unittest

import harness
from harness import PATIENCE, Case, deadline, until


def listing(top):
    """What a tree is, but for where: {name: type, mode, owner, time, links, target, contents}."""
    found = {}
    top = os.fsencode(top)
    for folder, folders, files in os.walk(top):
        for name in folders + files + ([b"."] if folder == top else []):
            path = os.path.join(folder, name)
            st = os.lstat(path)
            what = [stat.S_IFMT(st.st_mode), stat.S_IMODE(st.st_mode), st.st_uid, st.st_gid, st.st_mtime_ns]
            if stat.S_ISREG(st.st_mode):
                what += [st.st_nlink, st.st_size, hashlib.sha256(open(path, "rb").read()).hexdigest()]
            elif stat.S_ISLNK(st.st_mode):
                what.append(os.readlink(path))
            elif stat.S_ISCHR(st.st_mode):
                what.append(st.st_rdev)
            found[os.path.relpath(path, top)] = what
    return found


class Copy(Case):
    def cp(self, *words, **how):
        return self.msb("cp", *words, **how)

    def inside(self, script, box="box"):
        return self.ok(self.msb("exec", box, "--", "sh", "-c", script)).text

    def make_tree(self, name):
        top = self.path(name)
        script = r"""
            mkdir -p "$1/d/e" "$1/empty" && cd "$1"
            echo one >f; ln f d/hard; ln -s ../f d/l; ln -s /no/where dangling; mkfifo fifo
            truncate -s 8M sparse; printf x | dd of=sparse bs=1 seek=5000000 conv=notrunc status=none
            head -c 1000001 /dev/urandom >big; chmod 1777 d/e; chmod 640 f
            printf n >"$(printf '\377\001')"; n=$(printf '%0200d' 0); mkdir $n; echo deep >$n/$n
            touch -d '1999-12-31 23:59:59.123456789' big d/e; touch -h -d 2001-01-01 dangling
        """
        subprocess.run(["bash", "-ec", script, "-", top], check=True)
        if os.geteuid() == 0:
            os.chown(os.path.join(top, "big"), 1234, 4321)
        return top

    def test_trees_both_ways(self):
        self.own_home()
        self.running()
        src = self.make_tree("src")
        # Into a directory that is there, and out under another name.
        self.assertEqual(self.ok(self.cp(src, "box:/root/")).err, b"")
        self.assertEqual(self.ok(self.cp("box:/root/src", self.path("back"))).err, b"")
        self.assertEqual(listing(self.path("back")), listing(src))
        self.assertLess(os.stat(self.path("back/sparse")).st_blocks, 1000)
        # The guest's own tools agree.
        self.assertEqual(self.inside("cd /root/src && sha256sum big f d/hard").split()[0::2],
                         [hashlib.sha256(open(os.path.join(src, n), "rb").read()).hexdigest()
                          for n in ("big", "f", "d/hard")])
        self.assertEqual(self.inside("cd /root/src && stat -c '%a %h' f && stat -c '%a %Y' d/e && readlink d/l && "
                                     "test -p fifo && du -k sparse | cut -f1").split()[:5],
                         ["640", "2", "1777", "946684799", "../f"])
        self.assertLess(int(self.inside("du -k /root/src/sparse").split()[0]), 500)
        if os.geteuid() == 0:
            self.assertEqual(self.inside("stat -c '%u %g' /root/src/big"), "1234 4321\n")
        # Once more, over what is there.
        self.ok(self.cp(src, "box:/root"))
        self.ok(self.cp("box:/root/src/.", self.path("back")))
        again, first = listing(self.path("back")), listing(src)
        again.pop(b".")  # a directory that was there is its owner's
        first.pop(b".")
        self.assertEqual(again, first)
        # As archives, whose reader is somebody else.
        archive = self.ok(self.cp("box:/root/src", "-")).out
        os.mkdir(self.path("untar"))
        subprocess.run(["tar", "-C", self.path("untar"), "--same-owner" if os.geteuid() == 0 else "-p", "-xpf", "-"],
                       input=archive, check=True)
        self.assertEqual(listing(self.path("untar/src")), listing(src))
        packed = subprocess.run(["tar", "-C", src, "-S", "--format=gnu", "-cf", "-", "."], check=True,
                                stdout=subprocess.PIPE).stdout
        self.inside("mkdir /root/fromtar")
        self.ok(self.cp("-", "box:/root/fromtar", input=packed))
        self.ok(self.cp("box:/root/fromtar/", self.path("third")))
        whole, seconds = listing(self.path("third")), listing(src)
        for name in (b".", b"big", b"d/e", b"dangling"):  # that format has no fractions of seconds
            whole[name][4], seconds[name][4] = 0, 0
        self.assertEqual({n: w[:4] + w[5:] for n, w in whole.items() if n != b"."},
                         {n: w[:4] + w[5:] for n, w in seconds.items() if n != b"."})

    def test_places_and_refusals(self):
        self.own_home()
        self.running()
        one = self.path("one")
        open(one, "w").write("1\n")
        os.mkdir(self.path("dir"))
        self.ok(self.cp(one, "box:/root/two"))
        self.assertEqual(self.inside("cat /root/two"), "1\n")
        self.ok(self.cp(one, "box:/root"))
        self.ok(self.cp("box:/root/one", self.path("dir")))
        self.ok(self.cp("box:/root/two", self.path("dir/three")))
        self.assertEqual(sorted(os.listdir(self.path("dir"))), ["one", "three"])
        self.ok(self.cp(self.path("dir"), "box:/root/new"))
        self.ok(self.cp(self.path("dir"), "box:/root/new"))
        self.ok(self.cp(self.path("dir") + "/.", "box:/root/contents"))
        self.assertEqual(self.inside("cd /root && find new contents | sort").split(), [
            "contents", "contents/one", "contents/three", "new", "new/dir", "new/dir/one", "new/dir/three",
            "new/one", "new/three"])
        self.ok(self.cp("box:/root/new", "box:/root/newer"))
        self.assertEqual(self.inside("ls /root/newer; rm -r /root/newer"), self.inside("ls /root/new"))
        # A link is a link, unless it is followed.
        self.inside("ln -s one /root/link")
        self.ok(self.cp("box:/root/link", self.path("link")))
        self.assertEqual(os.readlink(self.path("link")), "one")
        self.ok(self.cp("-L", "box:/root/link", self.path("followed")))
        self.assertEqual(open(self.path("followed")).read(), "1\n")
        # What replaces a link does not write through it.
        os.symlink(one, self.path("tolink"))
        self.inside("echo other >/root/other")
        self.ok(self.cp("box:/root/other", self.path("tolink")))
        self.assertEqual((open(one).read(), open(self.path("tolink")).read()), ("1\n", "other\n"))
        self.assertFalse(os.path.islink(self.path("tolink")))
        # Files without a size.
        self.ok(self.cp("box:/proc/version", self.path("version")))
        self.assertIn("Linux version", open(self.path("version")).read())
        self.ok(self.cp("box:/sys/kernel/uevent_seqnum", self.path("sysfs")))
        self.assertTrue(open(self.path("sysfs")).read().strip().isdigit())
        # Refusals, each with nothing left.
        before = sorted(os.listdir(self.scratch))
        for words, code, text in (
                (("box:/no/such", self.path("x")), 1, "/no/such"),
                ((self.path("none"), "box:/root/x"), 1, "none"),
                ((one, "box:/no/such/"), 1, "slash"),
                ((one, "box:/no/such/file"), 1, "must exist"),
                (("box:/root/new", one), 1, "directory"),
                (("box:/root/one", "/dev/null"), 1, "/dev/null"),
                ((self.path("dir"), "box:/root/one"), 1, "directory"),
                ((one, self.path("two")), 2, "sandbox"),
                (("box:relative", self.path("x")), 2, "absolute"),
                ((one, "nobody:/root"), 1, "nobody"),
                (("-", "box:/root/one"), 1, "one"),
                (("box:/root/new", "box:/root/new/copy"), 1, "into itself"),
                (("box:/root/./new/.", "box:/root//new/"), 1, "into itself"),
                (("box:/root/one",), 2, "missing")):
            self.refused(self.cp(*words), code, text)
        self.assertEqual(sorted(os.listdir(self.scratch)), before)
        self.refused(self.cp("-", "box:/root", input=b"no tar at all" * 100), 1, "tar")
        self.refused(self.cp("-", "box:/root", input=gzip.compress(b"x" * 1000)), 1, "compressed", "gzip -dc")
        self.refused(self.cp("box:/dev/null", self.path("x")), 1, "device", "-a")
        self.inside("mkdir /root/ro && mount -t tmpfs -o ro t /root/ro")
        self.refused(self.cp(one, "box:/root/ro/"), 1, "/root/ro/one", "read-only")

    def test_what_a_sandbox_may_not_send(self):
        self.own_home()
        self.running()
        self.inside("mkdir -p /root/t && cd /root/t && echo x >su && chmod 6755 su && mknod null c 1 3 && "
                    "ln -s /etc evil && ln -s ../../.. up")
        done = self.ok(self.cp("box:/root/t", self.path("t")))
        self.assertIn("3 without set-id" if os.geteuid() else "2 without set-id", done.messages)
        self.assertEqual(stat.S_IMODE(os.lstat(self.path("t/su")).st_mode), 0o755)
        self.assertFalse(os.path.lexists(self.path("t/null")))
        self.assertEqual(os.readlink(self.path("t/evil")), "/etc")
        self.assertEqual(self.ok(self.cp("-q", "box:/root/t", self.path("t"))).err, b"")
        if os.geteuid() == 0:
            self.assertEqual(self.ok(self.cp("-a", "box:/root/t", self.path("all"))).err, b"")
            self.assertEqual(stat.S_IMODE(os.lstat(self.path("all/su")).st_mode), 0o6755)
            self.assertTrue(stat.S_ISCHR(os.lstat(self.path("all/null")).st_mode))
        # A tree over a link that an earlier one left is not followed.
        self.inside("cd /root/t && rm evil && mkdir evil && echo x >evil/by-msb-cp-test")
        self.refused(self.cp("-q", "box:/root/t/.", self.path("t")), 1, "evil")
        self.assertFalse(os.path.exists("/etc/by-msb-cp-test"))

    def test_archives_with_names_that_lead_out(self):
        self.own_home()
        self.running()
        for name in ("../out", "a/../../out"):
            b = io.BytesIO()
            with tarfile.open(fileobj=b, mode="w") as t:
                t.addfile(tarfile.TarInfo(name), io.BytesIO())
            self.refused(self.cp("-", "box:/root", input=b.getvalue()), 1, "leads out")
        self.assertEqual(self.inside("ls -A /root"), "")

    def test_interrupted_copies_leave_nothing(self):
        self.own_home()
        self.running()
        self.inside("mkdir /root/t && cd /root/t && echo x >first && mkfifo wait && "
                    "for i in $(seq 2000); do echo $i >$i; done; head -c 30000000 /dev/urandom >z")
        # Into the sandbox: our end dies in the middle of the stream.
        child = self.start("cp", "-", "box:/root/none")
        child.stdin.write(b"x")
        child.kill()
        child = self.start("cp", "-", "box:/root")
        big = tarfile.TarInfo("big")
        big.size = 200 << 20
        child.stdin.write(big.tobuf() + os.urandom(4 << 20))
        child.stdin.flush()
        until(lambda: "big" in self.inside("ls /root"), "nothing has come")
        child.kill()
        child.wait()
        until(lambda: "big" not in self.inside("ls /root"), "the part that came stays")
        # Out of it, with a signal.
        child = self.start("cp", "box:/root/t", self.path("t"))
        until(lambda: os.path.exists(self.path("t")) or child.poll() is not None, "nothing has come")
        child.terminate()
        code = child.wait(PATIENCE)
        self.assertIn(code, (0, 143))
        if code:
            self.assertFalse(os.path.exists(self.path("t")))
        self.assertEqual(self.inside("echo alive"), "alive\n")
        # What was to be replaced is there still.
        self.inside("echo mine >/root/mine")
        child = self.start("cp", "-", "box:/root")
        again = tarfile.TarInfo("mine")
        again.size = 200 << 20
        child.stdin.write(again.tobuf() + os.urandom(4 << 20))
        child.stdin.flush()
        # It has no name before it is whole.
        opened = "ls -l /proc/[0-9]*/fd 2>/dev/null; true"
        until(lambda: "/root/#" in self.inside(opened), "nothing has come")
        child.kill()
        child.wait()
        until(lambda: "/root/#" not in self.inside(opened), "the part that came stays")
        self.assertNotIn(".msb-cp", self.inside("ls -A /root"))
        self.assertEqual(self.inside("cat /root/mine"), "mine\n")

    def test_between_sandboxes(self):
        self.own_home()
        self.running()
        self.running("other")
        src = self.make_tree("src")
        self.ok(self.cp(src, "box:/root/src"))
        self.ok(self.cp("box:/root/src", "other:/root/there"))
        self.ok(self.cp("other:/root/there", self.path("back")))
        self.assertEqual(listing(self.path("back")), listing(src))
        self.refused(self.cp("box:/nothing", "other:/root/x"), 1, "/nothing", "box")
        self.refused(self.cp("box:/root/src", "other:/no/where/x"), 1, "other")

    @deadline(1800)
    def test_many_small_files_and_a_huge_one(self):
        self.own_home()
        self.running("box", "-m", "96M")
        many = self.path("many")
        for i in range(2500):
            folder = os.path.join(many, str(i % 50))
            os.makedirs(folder, exist_ok=True)
            with open(os.path.join(folder, str(i)), "w") as f:
                f.write(f"file {i}\n" * (i % 7))
        self.ok(self.cp(many, "box:/root/many"))
        self.assertEqual(self.inside("find /root/many -type f | wc -l"), "2500\n")
        self.ok(self.cp("box:/root/many", self.path("back")))
        self.assertEqual(listing(self.path("back")), listing(many))
        # More than the memory of either end's buffers, and of the machine.
        block = os.urandom(1 << 20)
        digest = hashlib.sha256()
        with open(self.path("huge"), "wb") as f:
            for _ in range(128):
                f.write(block)
                digest.update(block)
        self.ok(self.cp(self.path("huge"), "box:/root/huge", timeout=800))
        self.assertEqual(self.inside("sha256sum /root/huge").split()[0], digest.hexdigest())

    @unittest.skipUnless(os.geteuid() == 0 and shutil.which("setpriv"), "needs root and setpriv to be another user")
    def test_by_somebody_without_privileges(self):
        """The whole of it: a user of this host who is not root, with a home and programs of his own."""
        top = tempfile.mkdtemp(prefix="msb-e2e-other-", dir="/tmp")
        self.addCleanup(shutil.rmtree, top, True)
        self.addCleanup(harness.stop_leftovers, top)
        build = os.path.dirname(harness.MSB)
        for name in ("msb", "msb-vm", "msb-convert", "vmlinux", "guest/agentd"):
            if not os.path.exists(os.path.join(build, name)):
                self.skipTest(f"{name} is not beside msb")
            os.makedirs(os.path.dirname(os.path.join(top, "bin", name)), exist_ok=True)
            shutil.copy(os.path.join(build, name), os.path.join(top, "bin", name))
        shutil.copy(os.environ["MSB_TEST_BUSYBOX"], os.path.join(top, "image.tar"))
        os.makedirs(os.path.join(top, "src/dir"))
        with open(os.path.join(top, "src/dir/file"), "w") as f:
            f.write("mine")
        os.symlink("file", os.path.join(top, "src/dir/link"))
        subprocess.run(["chown", "-R", "65534:65534", top], check=True)
        os.chmod(top, 0o755)

        def other(*words, code=0, input=b""):
            argv = self.argv(*words)
            done = subprocess.run(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
                                   os.path.join(top, "bin/msb"), *argv[1:]], cwd=top, input=input, timeout=PATIENCE,
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                  env=harness.environment(os.path.join(top, "home"), HOME=top))
            self.assertEqual(done.returncode, code, done.stderr)
            return done
        other("load", "-q", "-i", "image.tar")
        other("create", "--name", "box", "busybox")
        self.assertEqual(other("cp", "src", "box:/root/src").stderr, b"")
        # What only root could keep is told, and no failure; it is his in the end.
        other("exec", "box", "--", "sh", "-c", "cd /root/src/dir && chown 1234:55 file && chmod 4755 file && mknod null c 1 3")
        self.assertIn(b"not given to their owners", other("cp", "-a", "box:/root/src", "back").stderr)
        st = os.lstat(os.path.join(top, "back/dir/file"))
        self.assertEqual((st.st_uid, stat.S_IMODE(st.st_mode)), (65534, 0o755))
        self.assertFalse(os.path.lexists(os.path.join(top, "back/dir/null")))
        self.assertEqual(os.readlink(os.path.join(top, "back/dir/link")), "file")
        # Through tar nothing is lost.
        with tarfile.open(fileobj=io.BytesIO(other("cp", "box:/root/src/dir", "-").stdout)) as t:
            self.assertEqual((t.getmember("dir/file").uid, t.getmember("dir/file").mode & 0o7777), (1234, 0o4755))
        self.assertIn(b"Permission denied", other("cp", "box:/root/src", "/etc/msb-cp-test", code=1).stderr)
        # And the rest of working inside.
        other("exec", "-d", "--session", "s", "box", "--", "sh", "-c", "echo said; exit 3")
        self.assertEqual(other("attach", "box", "s", code=3).stdout, b"said\n")
        self.assertEqual(other("logs", "--tail", "1", "box").stdout, b"said\n")
        self.assertEqual(other("shell", "box", input=b"echo $((6*7))\n").stdout, b"42\n")
        other("rm", "-f", "box")
