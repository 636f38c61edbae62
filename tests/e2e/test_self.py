# SPDX-License-Identifier: Apache-2.0
"""What is installed works from where it is, and goes again."""
import json
import os
import subprocess

from harness import Case, MSB, ROOT, environment


class Self(Case):
    def install(self):
        """`make install` into a directory of this test; its msb."""
        self.prefix = self.path("usr")
        done = subprocess.run([os.path.join(ROOT, "scripts", "install.sh")], stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True,
                              env=dict(os.environ, DESTDIR="", PREFIX=self.prefix, BUILD=os.path.dirname(MSB)))
        self.assertEqual(done.returncode, 0, done.stdout)
        return os.path.join(self.prefix, "bin", "msb")

    def run_it(self, program, *words, code=0, **how):
        done = subprocess.run([program, *words], env=environment(self.home), stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **how)
        self.assertEqual(done.returncode, code, done.stdout)
        return done.stdout

    def files(self):
        return sorted(os.path.join(d, f) for d, _, names in os.walk(self.prefix) for f in names)

    def test_version(self):
        shown = self.ok(self.msb("--version")).text
        self.assertRegex(shown, r"^msb \d+\.\d+\.\d+\n$")
        for words in (["version"], ["self", "version"]):
            self.assertEqual(self.ok(self.msb(*words)).text, shown)
            said = json.loads(self.ok(self.msb(*words, "--format", "json")).text)
            self.assertEqual("msb " + said["version"], shown.strip())

    def test_installed_and_gone(self):
        self.own_home()
        msb = self.install()
        other = os.path.join(self.prefix, "bin", "another")
        open(other, "w").close()
        # Every program that a machine needs is there.
        tls = "--dns-nameserver", "tls://127.0.0.1"
        self.assertEqual(self.run_it(msb, "run", "--engine", "qemu", *tls, "busybox", "--", "echo", "hello"), "hello\n")
        self.assertIn("make install PREFIX=" + self.prefix, self.run_it(msb, "self", "upgrade"))
        # Nobody to ask; and not while it is used.
        self.assertIn("--yes", self.run_it(msb, "self", "uninstall", code=2, start_new_session=True))
        child = subprocess.Popen([msb, "events"], env=environment(self.home), stdout=subprocess.PIPE)
        try:
            self.assertIn(f"(process {child.pid})", self.run_it(msb, "self", "uninstall", "-y", code=1))
        finally:
            child.kill()
            child.communicate()
        # A store that cannot be read may still hold sandboxes that run.
        db = os.path.join(self.home, "msb.db")
        os.rename(db, db + ".aside")
        with open(db, "wb") as f:
            f.write(os.urandom(65536))
        self.assertIn("damaged", self.run_it(msb, "self", "uninstall", "-y", "--home", code=1))
        os.rename(db + ".aside", db)
        self.assertIn(msb, self.files())
        self.assertIn("is kept", self.run_it(msb, "self", "uninstall", "-y"))
        self.assertEqual(self.files(), [other])
        self.assertFalse(os.path.exists(os.path.join(self.prefix, "lib", "microsandbox")))
        self.assertFalse(os.path.exists(os.path.join(self.prefix, "share", "microsandbox")))
        self.assertTrue(os.path.exists(os.path.join(self.home, "msb.db")))

    def test_with_everything(self):
        self.own_home()
        msb = self.install()
        # A directory that is none of ours is nobody's to remove.
        strange = self.path("strange")
        os.mkdir(strange)
        open(os.path.join(strange, "letters"), "w").close()
        home, self.home = self.home, strange
        self.run_it(msb, "self", "uninstall", "-y", "--home", code=1)
        self.assertEqual(os.listdir(strange), ["letters"])
        self.home = home
        self.run_it(msb, "self", "uninstall", "-y", "--home")
        self.assertEqual(self.files(), [])
        self.assertFalse(os.path.exists(home))

    def test_where_it_was_built(self):
        self.refused(self.msb("self", "uninstall", "-y"), 1, "make install")

    def test_a_list_that_names_others(self):
        msb = self.install()
        with open(os.path.join(self.prefix, "lib", "microsandbox", "installed"), "a") as f:
            f.write("bin/../../precious\n")
        precious = self.path("precious")
        open(precious, "w").close()
        self.assertIn("elsewhere", self.run_it(msb, "self", "uninstall", "-y", code=1))
        self.assertTrue(os.path.exists(precious))
        self.assertTrue(os.path.exists(msb))
