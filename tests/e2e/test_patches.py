# SPDX-License-Identifier: Apache-2.0
"""Changes to a root before the first command: copies, directories, removals, scripts."""
import contextlib
import os
import socket
import threading

import roots
from harness import Case


class Patches(Case):
    def setUp(self):
        super().setUp()
        src = self.src = self.path("src")
        os.makedirs(src + "/sub/empty")
        for name, text, mode in (("a", "aaa\n", 0o4750), ("sub/b", "b" * 300000, 0o640), ("sub/none", "", 0o444)):
            with open(f"{src}/{name}", "w") as f:
                f.write(text)
            os.chmod(f"{src}/{name}", mode)
            os.chown(f"{src}/{name}", 1000, 1000)
            os.utime(f"{src}/{name}", (1234567890, 1234567890))
        os.chmod(src + "/sub/empty", 0o1777)
        os.symlink("/etc/passwd", src + "/absolute")
        os.symlink("../../../../../../nowhere", src + "/sub/up")
        with socket.socket(socket.AF_UNIX) as s:
            s.bind(src + "/socket")

    def every_root(self):
        yield "busybox", []
        yield "busybox", ["--root-disk", "tmpfs"]
        tree = roots.directory(self.path("tree"))
        yield tree, []
        yield roots.ext4(self.path("disk.raw"), tree), []

    def test_every_kind_of_root(self):
        for image, options in self.every_root():
            out = self.sh("cd /opt/deep/copy; stat -c '%a %u %g %Y %s' a sub/b sub/none; stat -c %a sub/empty;"
                          "readlink absolute; readlink sub/up; ls -a; cat /etc/a; ls -d /srv/x/y; ls /bin/awk /home 2>/dev/null; hi you",
                          *options, "--copy", self.src + ":/opt/deep/copy", "--copy-file", self.src + "/a:/etc/a",
                          "--mkdir", "/srv/x/y", "--mkdir", "/etc", "--rm", "/bin/awk", "--rm", "/home", "--rm", "/not/there",
                          "--script", r'hi=echo \"hello\t$1\"', image=image)
            # The set-id bit goes with the owner who gave it.
            self.assertEqual(out.splitlines(), ["750 0 0 1234567890 4", "640 0 0 1234567890 300000", "444 0 0 1234567890 0",
                                                "1777", "/etc/passwd", "../../../../../../nowhere",
                                                ".", "..", "a", "absolute", "sub", "aaa", "/srv/x/y", "hello\tyou"], image)

    def test_from_a_file(self):
        """Kinds that only files have, or --patch; everything a patch can say."""
        path = self.path("box.yaml")
        with open(path, "w") as f:
            f.write("""
patches:
  - text: {path: /etc/motd, content: "one\\n", replace: true}
  - append: {path: /etc/motd, content: "two\\n"}
  - append: {path: /etc/new, content: three}
  - text: {path: /srv/secret, content: "", mode: "0400"}
  - file: {path: /srv/bytes, content_base64: AAEC/w==, mode: "4755"}
  - symlink: {target: ../etc/motd, link: /srv/motd}
  - symlink: {target: nowhere, link: /bin/awk, replace: true}
  - copy_file: {src: src/a, dst: /srv/a, mode: "0640"}
  - copy_dir: {src: src/sub, dst: /home, replace: true}
  - mkdir: {path: /srv/private/more, mode: "0700"}
""")
        for image, options in self.every_root():
            out = self.sh("cat /srv/motd /etc/new; echo; stat -c '%a %s' /srv/secret /srv/bytes /srv/a /srv/private/more |"
                          "cut -d' ' -f1 | xargs; od -An -tx1 /srv/bytes; readlink /bin/awk; readlink /srv/motd; ls /home; cat /late",
                          *options, "--conf", path, "--patch", "{text: {path: /late, content: $HOME}}", image=image)
            self.assertEqual(out.split(), ["one", "two", "three", "400", "4755", "640", "700", "00", "01", "02", "ff",
                                           "nowhere", "../etc/motd", "b", "empty", "none", "up", "$HOME"], image)

    def test_in_order(self):
        out = self.sh("cat /etc/passwd /x/b", "--rm", "/etc/passwd", "--copy", self.src + "/a:/etc/passwd",
                      "--copy-dir", self.src + "/sub:/x", "--rm", "/x/b", "--copy-file", self.src + "/a:/x/b")
        self.assertEqual(out, "aaa\n" * 2)

    def test_links_of_the_root_stay_inside_of_it(self):
        tree = roots.directory(self.path("tree"))
        os.symlink("/etc", tree + "/abs")
        os.symlink("../../../../../../../../etc", tree + "/rel")
        out = self.sh("cat /etc/one /etc/two", "--copy", self.src + "/a:/abs/one", "--copy", self.src + "/a:/rel/two", image=tree)
        self.assertEqual(out, "aaa\n" * 2)
        self.assertFalse(os.path.exists("/etc/one") or os.path.exists("/etc/two"))

    def test_refusals(self):
        self.own_home()
        for words, said in ((["--copy", self.src + "/a:/etc/passwd"], "there already"),
                            (["--copy", self.src + ":/etc"], "there already"),
                            (["--mkdir", "/etc/passwd"], "something else"),
                            (["--copy", "nothing:/x"], "no such file"),
                            (["--copy", self.src + "/a"], "where"),
                            (["--copy", self.src + "/a:relative"], "where"),
                            (["--copy", self.src + "/a:/x/../../y"], ".."),
                            (["--copy", self.src + "/a:/"], "root itself"),
                            (["--copy", self.src + "/a:/opt/"], "slash"),
                            (["--copy-file", self.src + ":/x"], "directory"),
                            (["--copy-dir", self.src + "/a:/x"], "not a directory"),
                            (["--copy", "/dev/null:/x"], "neither"),
                            (["--rm", "/"], "root itself"), (["--rm", "relative"], "absolute"),
                            (["--script", "nobody"], "body"), (["--script", "a/b=x"], "name"), (["--script", "=x"], "name"),
                            (["--script-path", "x:/no/such/file"], "no such file")):
            self.refused(self.run_in("busybox", "true", options=words), 125, said)
        os.mkfifo(self.src + "/pipe")
        self.refused(self.run_in("busybox", "true", options=["--copy", self.src + ":/x"]), 125, "pipe")
        self.nothing_left()

    def test_kept_sandbox(self):
        self.own_home()
        for options in ([], ["--root-disk", "tmpfs"]):
            self.sh("one; echo mine > /mine", "-n", "box", *options, "--script", "one=echo 1", "--copy", self.src + "/a:/a")
            self.assertEqual(self.sh("one; cat /a", "-n", "box"), "1\naaa\n")
            self.ok(self.msb("rm", "box"))
        self.nothing_left()

    def test_once(self):
        """A machine that is killed just after its start meets the patch again."""
        self.own_home()
        patch, saved = os.path.join(self.home, "sandboxes/box/patch.img"), self.path("saved")

        def save():
            while not over.wait(.005):
                with contextlib.suppress(FileNotFoundError):
                    return os.link(patch, saved)
        over = threading.Event()
        thread = threading.Thread(target=save)
        thread.start()
        self.sh("echo changed > /a; one", "-n", "box", "--copy", self.src + "/a:/a", "--copy", self.src + ":/s",
                "--patch", "append: {path: /etc/motd, content: more}", "--patch", "append: {path: /etc/motd, content: MORE}",
                "--script", "one=echo 1")
        over.set()
        thread.join()
        self.assertFalse(os.path.exists(patch))
        os.link(saved, patch)
        self.assertEqual(self.sh("cat /a; one; cat /s/a", "-n", "box"), "changed\n1\naaa\n")
        # Killed on the way: what had been begun is done over.
        os.link(saved, patch)
        self.sh("printf b | dd of=/.msb/patched bs=1 seek=16 conv=notrunc 2>/dev/null; rm /s/sub/b", "-n", "box")
        os.link(saved, patch)
        self.assertEqual(self.sh("cat /a; one; wc -c < /s/sub/b; grep -c 'scripts of' /etc/profile; cat /etc/motd", "-n", "box"),
                         "aaa\n1\n300000\n1\nsecond layer\nmoreMORE")
        self.ok(self.msb("rm", "box"))


class Scripts(Case):
    def test_bodies(self):
        path = self.path("file.sh")
        with open(path, "wb") as f:
            f.write(b"#!/bin/sh\nprintf '%s\\n' \"$0 $#\" '\xff'\n")
        done = self.ok(self.msb("run", "--script", r"esc=printf '%s|' 'a\\nb'\nprintf x\'y\'", "--script-raw", r"raw=printf 'a\nb\n'",
                                "--script-path", "file:" + path, "--script", "self=#!/bin/cat\\nas it is", "busybox", "--",
                                "sh", "-c", "esc; echo; raw; file 1 2; self; cat /etc/motd; stat -c %a /.msb/scripts/esc"))
        self.assertEqual(done.out, b"a\\nb|xy\na\nb\n/.msb/scripts/file 2\n\xff\n#!/bin/cat\nas it is\nsecond layer\n755\n")

    def test_shell(self):
        out = self.sh("head -1 /.msb/scripts/x; echo $PATH; sh -lc x; x", "--script", "x=echo $0", "--shell", "/bin/ash")
        self.assertEqual(out, "#!/bin/ash\n/.msb/scripts:/bin:/usr/bin\n/.msb/scripts/x\n/.msb/scripts/x\n")
        self.assertEqual(self.sh("head -1 /.msb/scripts/x", "--script", "x=", "--shell", "ash"), "#!/usr/bin/env ash\n")

    def test_the_command_itself(self):
        self.assertEqual(self.ok(self.run_in("busybox", "go", "1", options=["--script", "go=echo went $1; exit 0"])).text, "went 1\n")
        # An environment of the user's has the scripts in front as well.
        self.assertEqual(self.ok(self.run_in("busybox", "go", options=["-e", "PATH=/bin", "--script", "go=echo $PATH"])).text,
                         "/.msb/scripts:/bin\n")
