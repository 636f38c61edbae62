#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Help, completion and manual pages: all that there is, is in each of them."""
import itertools
import os
import re
import shlex
import shutil
import subprocess
import unittest

from harness import Case, MSB


class Words(Case):
    def verbs(self):
        """{("image", "ls"): {"--format", ...}} for every command, by the tree."""
        found, path = {}, []
        for line in self.ok(self.msb("--tree")).text.splitlines()[1:]:
            depth, word = (len(line) - len(line.lstrip())) // 4, line.split()[0]
            if word.startswith("--"):
                found[tuple(path)].add(word)
            else:
                path = path[:depth - 1] + [word.split("|")[0]]
                found[tuple(path)] = set()
        return found

    def completed(self, *words):
        return {line.split("\t")[0] for line in self.ok(self.msb("__complete", "words", *words)).text.splitlines()}

    def test_every_flag_is_everywhere(self):
        verbs = self.verbs()
        self.assertGreater(sum(map(len, verbs.values())), 150)
        pages = self.ok(self.msb("__man")).text.split()
        for path, options in verbs.items():
            told = self.ok(self.msb(*path, "--help")).text
            page = "-".join(("msb",) + path) + ".1"
            self.assertIn(page, pages)
            man = self.ok(self.msb("__man", page)).text.replace("\\-", "-")
            offered = self.completed(*path, "--")
            for option in options:
                place = f"{option} of {' '.join(path)}"
                self.assertRegex(told, rf"(?m)^ +(-\w, )?{option}( |$)", f"{place}: not in the help")
                self.assertIn(f"\\fB{option}\\fR", man, f"{place}: not in the manual")
                self.assertIn(option, offered, f"{place}: not completed")
            self.assertIn(path[-1], self.completed(*path[:-1], path[-1][0]))
            shown = re.findall(r"(?m)^ +--", self.ok(self.msb(*path, "--tree")).text)
            below = sum(len(o) for p, o in verbs.items() if p[:-1] == path)
            self.assertEqual(len(shown), len(options) + below, path)

    def test_examples(self):
        """Every command has some, and they say nothing that there is not."""
        verbs = self.verbs()
        short = {}
        for path in verbs:
            names = self.ok(self.msb(*path, "--help")).text
            alias = re.search(r"(?m)^Alias: (.*)$", names)
            for name in [path[-1]] + (alias.group(1).split() if alias else []):
                short[path[:-1] + (name,)] = path
        for path in verbs:
            if any(p[:-1] == path for p in verbs):
                continue
            told = self.ok(self.msb(*path, "--help")).text
            self.assertIn("\nExamples:\n", told, path)
            page = self.ok(self.msb("__man", "-".join(("msb",) + path) + ".1")).text
            self.assertIn(".SH EXAMPLES", page)
            own = 0
            for line in told.split("\nExamples:\n")[1].split("\n\n")[0].splitlines():
                line = re.sub(r'eval "\$\((.*)\)"', r"\1", line.split("  #")[0])
                lexer = shlex.shlex(line, posix=True, punctuation_chars="|&")
                lexer.whitespace_split = True
                # What a shell makes of it: commands of a pipe, and the words that are ours.
                for _, part in itertools.groupby(lexer, lambda word: word in ("|", "&&")):
                    words = list(part)
                    if "msb" not in words:
                        continue
                    words = words[words.index("msb") + 1:]
                    used = short.get(tuple(words[:2])) or short.get(tuple(words[:1]))
                    self.assertTrue(used, f"{path}: no such command: {line}")
                    own += used == path or path[0] == "image"
                    known = verbs[used] | {"--help"}
                    letters = dict(re.findall(r"(?m)^ +-(\w), (--[a-z-]+)", self.ok(self.msb(*used, "--help")).text))
                    for word in words[:words.index("--") if "--" in words else None]:
                        if word.startswith("--"):
                            self.assertIn(word.split("=")[0], known, f"{path}: {line}")
                        elif re.match(r"-\w", word):
                            self.assertIn(word[1], letters, f"{path}: {line}")
            self.assertTrue(own, f"{path}: no example of its own")

    def test_typing_errors(self):
        for words, hint in ((["rnu"], "run"), (["image", "lst"], "list"), (["run", "--memroy", "1G", "busybox"], "--memory"),
                            (["run", "--engine", "qemo", "busybox"], "qemu"), (["image", "ls", "--format", "jsn"], "json"),
                            (["completion", "bahs"], "bash"), (["port"], "ps"), (["stats", "x"], "metrics"), (["login"], "registry login")):
            done = self.msb(*words)
            self.assertNotEqual(done.code, 0, words)
            self.assertRegex(done.messages, rf"did you mean `?(msb )?(image )?{hint}\b", words)
        # Habits from elsewhere.
        self.assertIn("input always goes through", self.msb("run", "-it", "busybox").messages)
        self.assertIn("msb image ls", self.msb("create").messages)
        self.own_home()
        for name in ("boxes", "webserver"):
            self.ok(self.msb("create", "-q", "-n", name, "busybox"))
        for verb in ("exec", "stop", "rm", "logs", "inspect", "shell", "start", "wait"):
            done = self.msb(verb, "webservr")
            self.assertEqual(done.code, 125 if verb in ("exec", "shell") else 1, done)
            self.assertIn("did you mean webserver?", done.messages, verb)
        self.ok(self.msb("rm", "-f", "--all"))

    @unittest.skipUnless(shutil.which("groff"), "no groff; install it")
    def test_manual_pages_are_sound(self):
        for page in self.ok(self.msb("__man")).text.split():
            text = self.ok(self.msb("__man", page)).out
            done = subprocess.run(["groff", "-ww", "-man", "-Tutf8", "-K", "utf8", "-z"], input=text,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            self.assertEqual((done.returncode, done.stdout), (0, b""), page)
        self.assertNotEqual(self.msb("__man", "msb-nothing.1").code, 0)

    def test_values(self):
        self.assertEqual(self.completed("run", "--engine", "k"), {"kvm"})
        self.assertEqual(self.completed("run", "--engine=k"), {"--engine=kvm"})
        self.assertIn(":files", self.completed("run", "--conf", ""))
        self.assertIn("busybox:latest", self.completed("run", "-c", "2", "bu"))
        self.assertIn(":files", self.completed("run", "./"))
        # What follows the image is the guest's.
        self.assertEqual(self.completed("run", "busybox", "l"), set())
        self.assertEqual(self.completed("run", "--", "l"), set())
        self.assertEqual(self.completed("completion", ""), {"bash", "zsh", "fish"})
        self.assertEqual(self.completed("no-such-verb", ""), set())
        # A store that is not there is not made.
        self.home = self.path("none")
        self.assertEqual(self.completed("rm", ""), set())
        self.assertFalse(os.path.exists(self.home))

    def test_sandboxes(self):
        self.ok(self.msb("run", "-q", "-n", "completed", "busybox", "--", "true"))
        self.addCleanup(self.msb, "rm", "-q", "completed")
        self.assertEqual(self.completed("rm", "comp"), {"completed"})
        self.assertEqual(self.completed("exec", "comp"), {"completed"})
        self.assertEqual(self.completed("cp", "comp"), {"completed:", ":files"})
        self.assertEqual(self.completed("rm", "-f", "other", "comp"), {"completed"})

    def bash(self, line):
        """What bash completes: a real one, as readline asks it."""
        script = ('eval "$("$MSB" completion bash)"; COMP_LINE=$1; COMP_POINT=${#1}; COMP_WORDS=($2); '
                  'COMP_CWORD=$(( ${#COMP_WORDS[@]} - 1 )); [ "${COMP_WORDS[COMP_CWORD]}" = NONE ] && '
                  'COMP_WORDS[COMP_CWORD]=; _msb; printf "%s\\n" "${COMPREPLY[@]}"')
        # As COMP_WORDBREAKS parts it.
        words = re.findall(r"[=:]|[^\s=:]+", line) + (["NONE"] if line.endswith(" ") else [])
        env = dict(os.environ, MSB=MSB, MSB_HOME=self.home, PATH=os.path.dirname(MSB) + ":" + os.environ["PATH"])
        done = subprocess.run(["bash", "-u", "-c", script, "bash", line, " ".join(words)], env=env, text=True,
                              capture_output=True, cwd=self.scratch)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return set(done.stdout.split())

    def test_bash(self):
        self.assertIn("--engine", self.bash("msb run --eng"))
        self.assertEqual(self.bash("msb run --engine "), {"auto", "kvm", "qemu"})
        self.assertEqual(self.bash("msb run --engine=q"), {"qemu"})
        self.assertEqual(self.bash("msb run --engine="), {"auto", "kvm", "qemu"})
        self.assertEqual(self.bash("msb run busybox:l"), {"latest"})
        open(self.path("app.yaml"), "w").close()
        self.assertEqual(self.bash("msb run --conf a"), {"app.yaml"})
        self.assertEqual(self.bash("msb run --conf=a"), {"app.yaml"})

    @unittest.skipUnless(shutil.which("fish"), "no fish; install it")
    def test_fish(self):
        env = dict(os.environ, MSB_HOME=self.home, HOME=self.scratch,
                   PATH=os.path.dirname(MSB) + ":" + os.environ["PATH"])
        for line, want in (("msb run --eng", "--engine"), ("msb run --engine k", "kvm"), ("msb imag", "image"),
                           ("msb run busy", "busybox:latest")):
            done = subprocess.run(["fish", "-c", f'msb completion fish | source; complete -C "{line}"'],
                                  env=env, text=True, capture_output=True)
            self.assertIn(want, [w.split("\t")[0] for w in done.stdout.splitlines()], done)

    @unittest.skipUnless(shutil.which("zsh"), "no zsh; install it")
    def test_zsh(self):
        script = self.ok(self.msb("completion", "zsh")).text
        done = subprocess.run(["zsh", "-n", "-c", script], text=True, capture_output=True)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        # Its function, with what the completion system would set and take.
        harness = ("compdef() { }; compset() { }; _files() { print -r -- FILES }; "
                   "compadd() { print -rl -- $found }; " + script +
                   '\nwords=(msb run --engine k); CURRENT=4; PREFIX=k; _msb; PREFIX=; words=(msb run --conf ""); _msb')
        env = dict(os.environ, MSB_HOME=self.home, PATH=os.path.dirname(MSB) + ":" + os.environ["PATH"])
        done = subprocess.run(["zsh", "-f", "-c", harness], env=env, text=True, capture_output=True)
        self.assertEqual(done.stdout.split(), ["kvm", "FILES"], done)
