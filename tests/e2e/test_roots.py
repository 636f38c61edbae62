# SPDX-License-Identifier: Apache-2.0
"""Roots that are no image: directories, disk images; and root disks of the user's."""
import json
import os
import shutil
import socket
import struct
import threading


import roots
from harness import PATIENCE, Case, deadline, machines_of, until

# Writes everywhere: new files, over old ones, gone ones, a lot at once, and all of it to the disk.
BUSY = ("echo new > /new; echo other > /etc/passwd; rm -r /home; mkdir -p /a/b/c;"
        "dd if=/dev/urandom of=/big bs=64k count=80 2>/dev/null; sync; md5sum < /big; cat /etc/passwd")


class Roots(Case):
    def setUp(self):
        super().setUp()
        if not shutil.which("qemu-img"):
            self.skipTest("no qemu-img; install qemu-utils")
        self.tree = roots.directory(self.path("tree"))

    def disk(self, name="disk.raw", *convert):
        raw = self.path("disk.raw")
        if not os.path.exists(raw):
            roots.ext4(raw, self.tree)
        path = self.path(name)
        if convert:
            roots.run("qemu-img", "convert", *convert, raw, path)
        return path

    def held(self, image, *options):
        """A sandbox that is up and waits."""
        child = self.start("run", *options, image, "--", "sh", "-c", "echo up; read x; echo done > /late; sync")
        self.assertEqual(child.stdout.readline(), b"up\n")
        return child


class Disks(Roots):
    @deadline(1800)
    def test_every_format_stays_as_it_is(self):
        self.own_home()
        for path in (self.disk(), self.disk("c.qcow2", "-c", "-O", "qcow2"),
                     self.disk("zstd.qcow2", "-c", "-O", "qcow2", "-o", "compression_type=zstd,cluster_size=16k"),
                     self.disk("ext.qcow2", "-O", "qcow2", "-o", "extended_l2=on"),
                     self.disk("old.qcow2", "-O", "qcow2", "-o", "compat=0.10"),
                     self.disk("flat.vmdk", "-O", "vmdk", "-o", "subformat=monolithicFlat")):
            before = roots.digest(path)
            flat = path.replace(".vmdk", "-flat.vmdk")
            flat_before = roots.digest(flat)
            out = self.sh(BUSY, image=path).splitlines()
            self.assertEqual(out[-1], "other")
            self.assertEqual(roots.digest(path), before, path)
            self.assertEqual(roots.digest(flat), flat_before, path)
            self.assertEqual(self.sh("cat /etc/passwd; ls /", image=path).splitlines()[0],
                             "root:x:0:0:root:/root:/bin/sh")
        self.nothing_left()

    def test_writes_are_kept_when_asked_for(self):
        raw, qcow2 = self.disk(), self.disk("c.qcow2", "-c", "-O", "qcow2")
        for path in (raw, qcow2):
            # No sync: an orderly end is enough.
            done = self.run_in(path + ":rw", "sh", "-c", "echo kept > /kept; dd if=/dev/zero of=/zeros bs=1M count=4 2>/dev/null")
            self.assertEqual(self.ok(done).messages, "")
        roots.run("qemu-img", "check", qcow2)
        out = self.path("out.raw")
        roots.run("qemu-img", "convert", "-O", "raw", qcow2, out)
        for path in (raw, out):
            roots.check_ext4(path)
            self.assertEqual(roots.file_in(path, "/kept"), b"kept\n")
            self.assertEqual(roots.file_in(path, "/zeros"), bytes(4 << 20))

    def test_one_writer(self):
        path = self.disk("c.qcow2", "-O", "qcow2")
        first = self.held(path + ":rw")
        self.refused(self.run_in(path + ":rw", "true"), 125, "in use", path)
        self.refused(self.run_in(path, "true"), 125, "in use", path)
        first.communicate(b"go\n", PATIENCE)
        self.assertEqual(first.returncode, 0)
        self.assertEqual(self.sh("cat /late", image=path), "done\n")
        # Readers do not disturb each other, but keep a writer out.
        second = self.held(path)
        self.sh("true", image=path)
        self.refused(self.run_in(path + ":rw", "true"), 125, "in use")
        second.communicate(b"go\n", PATIENCE)

    def test_killed_with_a_dirty_journal(self):
        path = self.disk()
        self.own_home()
        child = self.held(path + ":rw")
        child.kill()
        child.wait()
        until(lambda: not machines_of(self.home), "the machine stays")
        # Nobody unmounted it.
        self.assertIn("needs_recovery", roots.run("dumpe2fs", "-h", path))
        before = roots.digest(path)
        self.assertEqual(self.sh("cat /etc/group", image=path), "root:x:0:\n")
        self.assertEqual(roots.digest(path), before)
        # No lock is left, and a run with rw puts it in order.
        self.sh("true", image=path + ":rw")
        self.assertNotIn("needs_recovery", roots.run("dumpe2fs", "-h", path))
        roots.check_ext4(path)

    def test_kept_sandbox(self):
        path = self.disk("c.qcow2", "-O", "qcow2")
        self.own_home()
        self.sh("echo mine > /mine", "-n", "box", image=path)
        self.assertEqual(self.sh("cat /mine", "-n", "box", image=path), "mine\n")
        overlay = os.path.join(self.home, "sandboxes/box/overlay.qcow2")
        roots.run("qemu-img", "check", overlay)
        # msb gone in the middle of things: msb-vm ends by itself, and closes its books.
        child = self.start("run", "-n", "box", path, "--", "sh", "-c",
                           "dd if=/dev/urandom of=/x bs=64k count=40 2>/dev/null; sync;"
                           "dd if=/dev/urandom of=/y bs=64k count=40 oflag=direct 2>/dev/null; echo up; read x")
        self.assertEqual(child.stdout.readline(), b"up\n")
        child.kill()
        child.wait()
        until(lambda: not machines_of(self.home), "the machine stays")
        roots.run("qemu-img", "check", overlay)
        # What it rests on changes: it would be garbage.
        os.utime(path)
        self.refused(self.run_in(path, "true", options=["-n", "box"]), 125, "has changed")
        self.ok(self.msb("rm", "box"))
        self.nothing_left()

    def test_partitions(self):
        raw = self.disk()
        for label, kinds in (("dos", ("c", "83")), ("gpt", ("U", "L"))):
            path = self.path(label + ".img")
            with open(path, "wb") as f:
                f.truncate(64 << 20)
            roots.run("sfdisk", "-q", path, input=f"label: {label}\nstart=2048,size=4096,type={kinds[0]}\n"
                                                  f"start=8192,type={kinds[1]}\n")
            with open(path, "r+b") as f:
                f.seek(8192 * 512)
                f.write(open(raw, "rb").read())
            self.assertIn("/dev/vda2 / ext4", self.sh("cat /proc/mounts", image=path))
            self.sh("true", image=path + ":partition=2,fstype=ext4")
            self.refused(self.run_in(path + ":partition=1", "true"), 125, "vda1")
            self.refused(self.run_in(path + ":partition=9", "true"), 125, "no partition 9")

    def test_backing_must_be_named(self):
        base, other, path = self.disk(), self.disk("other.qcow2", "-O", "qcow2"), self.path("top.qcow2")
        roots.run("qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", path)
        self.refused(self.run_in(path, "true"), 125, "rests on another", base, "backing=")
        before = roots.digest(base), roots.digest(path)
        self.sh(BUSY, image=f"{path}:backing={base}")
        self.assertEqual((roots.digest(base), roots.digest(path)), before)
        self.sh("echo x > /kept", image=f"{path}:rw,backing={base}")
        self.assertEqual(roots.digest(base), before[0])
        roots.run("qemu-img", "check", path)
        self.refused(self.run_in(f"{base}:backing={other}", "true"), 125, "does not rest on another")

    def test_a_format_is_never_guessed(self):
        path = self.disk("c.qcow2", "-O", "qcow2")
        raw = self.path("inside.raw")
        shutil.copy(path, raw)
        self.refused(self.run_in(raw, "true"), 125, "neither a file system nor a partition table")
        shutil.copy(self.disk(), self.path("wrong.qcow2"))
        self.refused(self.run_in(self.path("wrong.qcow2"), "true"), 125, "no qcow2 image", "format=raw")
        self.sh("true", image=self.path("wrong.qcow2") + ":format=raw")
        shutil.copy(path, self.path("noname"))
        self.refused(self.run_in(self.path("noname"), "true"), 125, "cannot be told", "format=")
        self.sh("true", image=self.path("noname") + ":format=qcow2")

    def test_damaged(self):
        self.own_home()
        path = self.disk("c.qcow2", "-O", "qcow2")
        good = open(path, "rb").read()
        for at, data, words in ((72, struct.pack(">Q", 2), "marked corrupt"), (20, struct.pack(">I", 99), "clusters"),
                                (40, struct.pack(">Q", 1 << 60), "out of bounds"), (32, struct.pack(">I", 2), "encrypted"),
                                # The first L2 table lies nowhere: the guest finds no file system.
                                (struct.unpack(">Q", good[40:48])[0], struct.pack(">Q", 1 << 63 | 1 << 50), "")):
            with open(path, "wb") as f:
                f.write(good[:at] + data + good[at + len(data):])
            self.refused(self.run_in(path, "true"), 125, *filter(None, [words]))
        with open(path, "wb") as f:
            f.write(good[:72] + struct.pack(">Q", 1) + good[80:])
        self.sh("true", image=path)
        self.refused(self.run_in(path + ":rw", "true"), 125, "qemu-img check -r")
        self.nothing_left()

    def test_words(self):
        path = self.disk()
        for words, said in ((path + ":rww", "rw"), (path + ":format=ntfs", "format"), (path + ":partition=0", "partition"),
                            ("./nothing.qcow2", "no file or directory"), ("/dev/null", "regular"),
                            (self.tree + ":rw", "no options"), (path + ":fstype=../x", "file system"),
                            (path + ":fstype=nofs", "nofs")):
            self.refused(self.run_in(words, "true"), 125, said)
        self.refused(self.run_in(path, "true", options=["--root-disk", "1G"]), 125, "root disk")
        # Without a slash in front it is a reference; the hint knows better.
        done = self.run_in("disk.raw", "true", cwd=self.scratch)
        self.refused(done, 125, "./disk.raw")
        self.assertEqual(self.run_in("./disk.raw", "echo", "here", cwd=self.scratch).text, "here\n")


class Directories(Roots):
    def images(self):
        return [i["reference"] for i in json.loads(self.ok(self.msb("image", "ls", "--format", "json")).text)]

    def test_a_directory(self):
        self.own_home()
        os.chmod(self.tree + "/home", 0o1750)
        os.chown(self.tree + "/home", 1234, 2345)
        os.link(self.tree + "/etc/group", self.tree + "/etc/group-")
        os.setxattr(self.tree + "/var", "user.note", b"kept")
        os.mkfifo(self.tree + "/var/pipe")
        os.mknod(self.tree + "/var/zero", 0o600 | 0o020000, os.makedev(1, 5))
        os.utime(self.tree + "/etc/passwd", (1, 1))
        with socket.socket(socket.AF_UNIX) as s:
            s.bind(self.tree + "/var/socket")
        with open(self.tree + "/var/" + "long" * 50, "w") as f:
            f.write("x" * 10000)
        out = self.sh("stat -c '%a %u %g' /home; ls /var; stat -c %h /etc/group; stat -c %Y /etc/passwd;"
                      "stat -c '%F %t %T' /var/zero /var/pipe; cat /var/long* | wc -c; readlink /bin/ls; rm -r /var; sync",
                      image=self.tree).splitlines()
        self.assertEqual(out, ["1750 1234 2345", "long" * 50, "pipe", "zero", "2", "1",
                               "character special file 1 5", "fifo 0 0", "10000", "busybox"])
        self.assertTrue(os.path.exists(self.tree + "/var/pipe"))
        self.nothing_left()

    def test_converted_once(self):
        self.own_home()
        self.sh("true", image=self.tree)
        first = self.images()
        self.assertEqual(len(first), 2)
        cache = os.path.join(self.home, "cache")

        def remembered():
            # A tree that is younger than the clock's tick is not; one more start then does it.
            self.sh("true", image=self.tree)
            return [n for n in os.listdir(cache) if n.startswith("directory-")]
        until(remembered, "the conversion is not remembered")
        blob = os.path.join(self.home, "images", sorted(os.listdir(self.home + "/images"))[0])
        stamp = os.stat(blob).st_mtime_ns, os.stat(blob).st_ino
        self.sh("true", image=self.tree)
        self.assertEqual((os.stat(blob).st_mtime_ns, os.stat(blob).st_ino), stamp)
        self.assertEqual(self.images(), first)
        # Another state of it is another image, and the first is given up.
        with open(self.tree + "/etc/new", "w") as f:
            f.write("new\n")
        self.assertEqual(self.sh("cat /etc/new", image=self.tree), "new\n")
        until(lambda: self.sh("true", image=self.tree) == "" and len(self.images()) == 2, self.images)
        self.assertNotEqual(self.images(), first)

    def test_kept_sandbox_keeps_its_state(self):
        self.own_home()
        self.sh("echo mine > /mine", "-n", "box", image=self.tree)
        with open(self.tree + "/etc/new", "w") as f:
            f.write("new\n")
        self.assertEqual(self.sh("cat /mine; ls /etc/new || true", "-n", "box", image=self.tree), "mine\n")
        self.assertEqual(self.sh("cat /etc/new", image=self.tree), "new\n")
        self.ok(self.msb("rm", "box"))

    def test_unreadable(self):
        if os.getuid() == 0:
            # Root reads everything: a name that cannot be in an image is what it trips over.
            open(self.tree + "/etc/.wh.x", "w").close()
            self.refused(self.run_in(self.tree, "true"), 125, ".wh.x")
            return
        os.chmod(self.tree + "/etc/passwd", 0)
        self.refused(self.run_in(self.tree, "true"), 125, "etc/passwd", "permission")

    def test_two_at_once(self):
        self.own_home()
        done = []
        threads = [threading.Thread(target=lambda: done.append(self.run_in(self.tree, "echo", "hi"))) for _ in range(2)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        self.assertEqual([d.text for d in done], ["hi\n"] * 2, "\n".join(map(str, done)))


class RootDisks(Roots):
    def test_sizes(self):
        for size, least, most in (("32M", 20, 32), ("2G", 1800, 2048)):
            # From the second on it is a clone of a template; the size is what was asked for.
            for _ in range(2):
                mib = int(self.sh("df -m / | tail -1 | awk '{print $2}'", "--root-disk", size))
                self.assertTrue(least <= mib <= most, mib)
        self.assertIn("no space", self.run_in("busybox", "dd", "if=/dev/zero", "of=/x", "bs=1M",
                                              options=["--root-disk", "32M"]).messages.lower())

    def test_in_memory(self):
        self.own_home()
        self.assertEqual(self.sh("df -m / | tail -1 | awk '{print $2}'; echo x > /x", "-n", "box", "--root-disk", "tmpfs:48M"),
                         "48\n")
        self.assertEqual(self.sh("ls /x 2>/dev/null || echo gone", "-n", "box"), "gone\n")
        self.ok(self.msb("rm", "box"))

    def test_a_disk_of_the_users(self):
        self.own_home()
        empty, path = self.path("empty.img"), self.path("mine.img")
        with open(empty, "wb") as f:
            f.truncate(32 << 20)
        self.refused(self.run_in("busybox", "true", options=["--root-disk", empty]), 125, "neither a file system")
        roots.run("mke2fs", "-q", "-t", "ext4", path, "32M")
        qcow2 = self.path("mine.qcow2")
        roots.run("qemu-img", "convert", "-O", "qcow2", path, qcow2)
        for disk in (path, qcow2 + ":format=qcow2,fstype=ext4"):
            self.sh("echo one > /one", "--root-disk", disk)
            first = self.start("run", "--root-disk", disk, "busybox", "--", "sh", "-c", "cat /one; read x")
            self.assertEqual(first.stdout.readline(), b"one\n")
            self.refused(self.run_in("busybox", "true", options=["--root-disk", disk]), 125, "in use")
            first.communicate(b"\n", PATIENCE)
            self.sh("echo two >> /one", "-n", "box", "--root-disk", disk)
            self.assertEqual(self.sh("cat /one", "-n", "box"), "one\ntwo\n")
            self.ok(self.msb("rm", "box"))
        roots.check_ext4(path)
        roots.run("qemu-img", "check", qcow2)
        self.refused(self.run_in("busybox", "true", options=["--root-disk", self.tree]), 125, "no file")
        self.nothing_left()


