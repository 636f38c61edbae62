#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Images made of what a project describes."""
import io
import json
import os
import shutil
import signal
import subprocess
import tarfile
import unittest

from harness import PATIENCE, tree, until
from test_project import Projects

CHANGES = """
mkdir -p /usr/new/deep /home/user/there
echo added >/usr/new/deep/file
ln -s deep/file /usr/new/link
ln /usr/new/deep/file /usr/new/hard
chown 1000:2001 /usr/new/deep/file
chmod 4750 /usr/new/deep/file
dd if=/dev/zero of=/usr/new/holes bs=1 count=1 seek=1048575 2>/dev/null
rm /etc/motd /bin/yes
rm -r /home/user
mkdir /home/user
echo fresh >/home/user/only
"""

# For commands of our own where the image has one.
ANY = ("--entrypoint", "/bin/busybox")


class Build(Projects):
    def save(self, image):
        """The configuration of an image, and its layers as tar files, by skopeo."""
        archive, layout = self.path("image.tar"), self.path("layout")
        self.ok(self.msb("save", "-o", archive, image))
        subprocess.run(["skopeo", "--insecure-policy", "copy", "-q", f"docker-archive:{archive}", f"oci:{layout}"],
                       check=True, stdout=subprocess.DEVNULL)

        def blob(digest):
            with open(os.path.join(layout, "blobs", *digest.split(":")), "rb") as f:
                return f.read()

        with open(os.path.join(layout, "index.json")) as f:
            manifest = json.loads(blob(json.load(f)["manifests"][0]["digest"]))
        return (json.loads(blob(manifest["config"]["digest"])),
                [tarfile.open(fileobj=io.BytesIO(blob(one["digest"]))) for one in manifest["layers"]])

    @unittest.skipUnless(shutil.which("skopeo"), "no skopeo")
    def test_a_sandbox_with_what_was_written(self):
        self.write("""
sandboxes:
  web:
    image: busybox
    env: {COLOUR: blue}
    workdir: /usr
    command: [cat, file]
    scripts: {hello: echo hello $1}
""")
        self.refused(self.do("build", "web"), 1, "nothing was written in web yet", "msb up")
        self.assertFalse(os.path.exists(os.path.join(self.dir, ".menv")))
        self.write(self.read().replace("    command: [cat, file]\n", ""))
        self.ok(self.do("up", "-d"))
        name = self.status()["web"]["sandbox"]
        self.ok(self.do("exec", "web", "--", "sh", "-c", CHANGES))
        marked = self.path("marked")
        with open(marked, "w") as f:
            f.write("text\n")
        os.setxattr(marked, "user.note", b"kept")
        self.ok(self.msb("cp", "-a", marked, f"{name}:/usr/new"))
        self.refused(self.do("build", "web"), 1, "web runs", "msb down web")
        self.ok(self.do("down"))
        self.write(self.read() + "    command: [cat, new/deep/file]\n")
        before = tree(self.home)
        done = self.ok(self.do("build", "web", "-t", "shop/web:1"))
        self.assertEqual(done.text, "shop/web:1\n")
        self.assertFalse([p for p in tree(self.home) - before if "sandboxes/" in p])
        # Its own command, in its own directory.
        self.assertEqual(self.ok(self.msb("run", "shop/web:1")).text, "added\n")
        self.assertEqual(self.sh("echo $COLOUR $FROM_IMAGE; hello you; cd new; cat link; stat -c '%u:%g %a %h' hard;"
                                 "stat -c %s holes; ls -A /home/user; test -e /etc/motd || echo no motd;"
                                 "test -e /bin/yes || echo no yes", *ANY, image="shop/web:1"),
                         "blue yes\nhello you\nadded\n1000:2001 4750 2\n1048576\nonly\nno motd\nno yes\n")
        config, layers = self.save("shop/web:1")
        self.assertEqual(len(layers), 3)
        self.assertEqual(len(config["rootfs"]["diff_ids"]), 3)
        self.assertEqual(config["config"]["Entrypoint"], ["cat"])
        self.assertEqual(config["config"]["Cmd"], ["new/deep/file"])
        self.assertEqual(config["config"]["WorkingDir"], "/usr")
        self.assertIn("COLOUR=blue", config["config"]["Env"])
        top = layers[-1]
        names = [n.removeprefix("./") for n in top.getnames()]
        for name in ("etc/.wh.motd", "bin/.wh.yes", "home/user/.wh..wh..opq", "usr/new/deep/file"):
            self.assertIn(name, names)
        # Not what is written anew at each start, and nothing that only an overlay understands.
        for name in ("etc/hosts", "etc/resolv.conf", "etc/hostname", "etc/motd", "home/user/there"):
            self.assertNotIn(name, names)
        self.assertFalse([k for e in top for k in e.pax_headers if "trusted" in k])
        note = next(e for e in top if e.name.endswith("usr/new/marked")).pax_headers
        self.assertEqual(note["SCHILY.xattr.user.note"], "kept")
        # It goes on as it was, and the next image has what is written meanwhile as well.
        self.ok(self.do("run", "-s", "web", "-x", "/bin/sh", "--", "-c", "echo more >/more"))
        self.assertEqual(self.ok(self.do("build", "web")).text, "web:latest\n")
        self.assertEqual(self.sh("cat /more /home/user/only", *ANY, image="web"), "more\nfresh\n")
        self.assertEqual(len(self.save("web")[1]), 3)

    def test_steps(self):
        with open(os.path.join(self.dir, "app.txt"), "w") as f:
            f.write("from here\n")
        self.write("""
sandboxes:
  dev: {image: tools}
builds:
  tools:
    image: base
    depends_on: [base]
    env: {WHO: tools}
    patches: [{copy_file: {src: ./app.txt, dst: /srv/app.txt}}]
    steps:
      second: |
        cat /first /srv/app.txt >/both
        echo "$WHO at $(pwd)"
      first in name only: rm /first
    workdir: /srv
    command: [cat, /both]
  base:
    image: busybox
    steps: {only: echo one >/first}
""")
        self.refused(self.do("run", "-s", "dev"), 125, "not made yet", "msb build tools")
        self.refused(self.do("up", "-d"), 1, "not made yet", "msb build tools")
        self.ok(self.do("clean", "--force"))
        done = self.ok(self.do("build", "tools"))
        # What is made is on standard output; what steps say is not.
        self.assertEqual(done.text, "base:latest\ntools:latest\n")
        self.assertIn("tools at /srv\n", done.messages)
        self.assertLess(done.messages.index("step second"), done.messages.index("step first in name only"))
        self.assertFalse(os.path.exists(os.path.join(self.dir, ".menv")))
        self.nothing_left()
        self.assertEqual(self.ok(self.do("run", "-s", "dev")).text, "one\nfrom here\n")
        self.assertEqual(self.sh("ls /first 2>&1 | wc -l; ls /both", *ANY, image="tools"), "1\n/both\n")
        self.refused(self.do("build", "nothing"), 1, 'no sandbox "nothing"')

    def test_stopped_half_way(self):
        self.write("builds: {tools: {image: busybox, steps: {long: echo here; sleep 1000}}}\n")
        before = tree(self.home)
        for number, code in ((signal.SIGINT, 1), (signal.SIGKILL, -signal.SIGKILL)):
            child = self.start("build", "tools", cwd=self.dir)
            while child.stderr.readline() != b"here\n":
                self.assertIsNone(child.poll())
            child.send_signal(number)
            self.assertEqual(child.wait(PATIENCE), code)
            until(lambda: not self.machine_pids("msb-vm"), self.machine_pids)
            self.assertEqual(os.path.exists(os.path.join(self.dir, ".menv")), number == signal.SIGKILL)
        # What one has left that was killed is in nobody's way.
        self.write("builds: {tools: {image: busybox, steps: {short: echo made >/made}}}\n")
        self.ok(self.do("build", "tools"))
        self.assertEqual(self.sh("cat /made", image="tools"), "made\n")
        self.assertEqual(self.ok(self.do("clean", "--force")).text, "")
        self.nothing_left()
        self.assertFalse([p for p in tree(self.home) - before if "sandboxes/" in p])
        self.assertFalse(os.path.exists(os.path.join(self.dir, ".menv")))

    def test_a_step_that_fails(self):
        self.write("""
builds:
  tools:
    image: busybox
    steps: {fine: "true", broken: "exit 3\\n", later: echo later}
  busybox: {image: busybox}
  Tools: {image: busybox}
""")
        images, before = self.ok(self.msb("image", "list", "--format", "json")).text, tree(self.home)
        done = self.do("build", "tools")
        self.assertEqual((done.code, done.text), (1, ""), done)
        self.assertIn("tools: step broken ended with 3", done.messages)
        self.assertNotIn("later", done.messages)
        self.assertEqual(self.ok(self.msb("image", "list", "--format", "json")).text, images)
        self.assertFalse(os.path.exists(os.path.join(self.dir, ".menv")))
        self.nothing_left()
        self.assertFalse([p for p in tree(self.home) - before if "sandboxes/" in p or "images/" in p])
        # Names that would not do.
        self.refused(self.do("build", "busybox"), 1, "the name of the one it is made of", "--tag")
        self.refused(self.do("build", "Tools"), 1, "Tools", "--tag")


if __name__ == "__main__":
    unittest.main()
