# SPDX-License-Identifier: Apache-2.0
"""`msb logs`: what commands printed, exactly."""
import json
import os
import random
import re
import time

from harness import PATIENCE, Case, machines_of, until


class Logs(Case):
    def logs(self, *options):
        return self.ok(self.msb("logs", *options, "box")).out

    def test_what_was_printed(self):
        self.own_home()
        data = os.urandom(100_000) + b"\0end\n"
        self.running("box").stdin.close()
        until(lambda: not machines_of(self.home), "the sandbox goes on")
        self.assertEqual(self.logs(), b"up\n")
        child = self.running("box")
        self.assertEqual(self.ok(self.msb("exec", "box", "--", "cat", input=data)).out, data)
        self.msb("exec", "box", "--", "sh", "-c", "echo wrong >&2; exit 4")
        self.msb("exec", "-t", "box", "--", "echo", "seen")
        self.msb("exec", "box", "--", "nothing-like-it")
        # Byte for byte, in order, across a restart; it is one log.
        self.assertEqual(self.logs(), b"up\nup\n" + data + b"wrong\nseen\r\n")
        self.assertEqual(self.logs("--source", "stderr"), b"wrong\n")
        self.assertEqual(self.logs("--source", "output"), b"seen\r\n")
        self.assertEqual(self.logs("--tail", "2"), b"wrong\nseen\r\n")
        self.assertEqual(self.logs("--tail", "0"), b"")
        self.assertEqual(self.logs("--grep", "^w.*g$"), b"wrong\n")
        self.assertEqual(self.logs("--since", "1h", "--grep", "^up$"), b"up\nup\n")
        self.assertEqual(self.logs("--until", "1h"), b"")
        self.assertEqual(self.logs("--until", "2020-01-31"), b"")
        self.assertEqual(self.logs("--since", "2020-01-31", "--grep", "^w.*g$"), b"wrong\n")
        self.refused(self.msb("logs", "--since", "2020-13-31", "box"), 2, "no time")
        self.assertEqual(self.logs("--since", "2020-01-31 12:00", "--until", "0s", "--grep", "^w.*g$"), b"wrong\n")
        self.assertRegex(self.logs("--timestamps", "--show-id", "--source", "stderr"),
                         rb"^20\d\d-\d\d-\d\dT[\d:.]{15}Z \[\d+\] wrong\n$")
        self.assertIn(b"\033[31mwrong\n\033[0m", self.logs("--color", "always", "--source", "stderr"))
        system = self.logs("--source", "system").decode()
        for event in ("the sandbox has started", "the sandbox has ended: it was asked to", "asked to run cat",
                      "ended with exit code 4", "could not be run"):
            self.assertIn(event, system)
        entries = [json.loads(line) for line in self.logs("--json", "--source", "all").splitlines()]
        self.assertEqual({e["s"] for e in entries}, {"stdout", "stderr", "output", "system"})
        self.assertTrue(any(e.get("e") == "base64" for e in entries))
        self.refused(self.msb("logs", "--grep", "(", "box"), 2, "regular expression")
        self.refused(self.msb("logs", "--source", "x", "box"), 2, "no source")
        self.refused(self.msb("logs", "nobody"), 1, "no sandbox")
        # Who follows sees what comes, and ends with the sandbox.
        follower = self.start("logs", "-f", "--tail", "1", "box")
        self.assertEqual(follower.stdout.readline(), b"seen\r\n")
        self.ok(self.msb("exec", "box", "--", "echo", "later"))
        self.assertEqual(follower.stdout.readline(), b"later\n")
        child.stdin.close()
        self.assertEqual(follower.communicate(timeout=PATIENCE)[0], b"")
        self.assertEqual(follower.returncode, 0)

    def test_the_last_lines(self):
        """They are those that end the whole, though not all of it is read."""
        self.own_home()
        self.running("box").stdin.close()
        until(lambda: not machines_of(self.home), "the sandbox goes on", 60)
        logs = os.path.join(self.home, "sandboxes", "box", "logs")
        # Two files of many sessions, of which some say a line in pieces, and for long.
        dice = random.Random(1)
        number, seconds, sessions, files = 0, 0, [], []
        for seq in (1001, 1002):
            lines = []

            def say(source, text, session):
                nonlocal seconds
                seconds += 1
                when = time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime(1_700_000_000 + seconds))
                entry = {"t": when, "s": source, "d": text}
                lines.append(json.dumps(entry | ({"id": session} if session else {}), separators=(",", ":")))
            say("system", "a new file of the log", 0)
            lines[0] = lines[0][:-1] + f',"seq":{seq}}}'
            if seq == 1001:
                sessions.append(number := number + 1)
                say("system", "asked to run old", number)
                say("stderr", "begun by the old one", number)
            while sum(map(len, lines)) < 1_500_000:
                if len(sessions) < 5 or dice.random() < 0.02:
                    sessions.append(number := number + 1)
                    say("system", "asked to run something", number)
                session = dice.choice(sessions)
                if dice.random() < 0.02 and session != 1:
                    sessions.remove(session)
                    say("system", "ended with exit code 0", session)
                    continue
                text = "".join(dice.choice(("word ", "more\n", "x" * 50, "y" * 900)) for _ in range(dice.randrange(4)))
                say(dice.choice(("stdout", "stdout", "output")), text, session)
            files.append(lines)
        for name, lines in zip(("exec.log", "exec.log.1"), files):
            with open(os.path.join(logs, name), "w") as f:
                f.write("\n".join(lines) + "\n")
        for options in ((), ("--source", "output"), ("--grep", "word.*xy"), ("--source", "all"), ("--json",)):
            shown = ("--timestamps", "--show-id") if options != ("--json",) else ()
            whole = self.logs(*shown, *options).splitlines(True)
            self.assertGreater(len(whole), 1200 if options in ((), ("--source", "all")) else 100, options)
            for n in (0, 1, 2, 10, 100, 10**6):
                # What the old one has begun was too long ago to be among the last, unless those are all.
                late = [x for x in whole if b"begun by the old" not in x] if shown and n < 10**6 else whole
                self.assertEqual(self.logs("--tail", str(n), *shown, *options).splitlines(True), late[-n:] if n else [],
                                 (options, n))
        # It is the beginning of what is shown of it later.
        with open(os.path.join(logs, "exec.log.1"), "a") as f:
            f.write('{"t":"2026-01-31T12:00:00Z","s":"stderr","d":" goes on\\n","id":1}\n')
        self.assertEqual(self.logs("--tail", "1", "--source", "stderr"), b"begun by the old one goes on\n")

    def test_rotation(self):
        self.own_home()
        self.running("box", "-m", "256M")
        # Some 60 MB, of which the last thirty are kept; whoever follows may lose some, and is told.
        script = "i=0; while [ $i -lt 60 ]; do head -c 1000000 /dev/zero | tr '\\0' x; echo; i=$((i+1)); done; echo last"
        self.ok(self.msb("exec", "box", "--", "sh", "-c", script))
        logs = os.path.join(self.home, "sandboxes", "box", "logs")

        def settled():
            return self.logs("--tail", "1") == b"last\n"
        until(settled, "the last line")
        sizes = [os.path.getsize(os.path.join(logs, f)) for f in os.listdir(logs) if f.startswith("exec.log")]
        self.assertEqual(len(sizes), 4)
        self.assertLessEqual(max(sizes), 10 << 20)
        lost = re.findall(rb"(\d+) bytes of output are not in the log", self.logs("--source", "system"))
        kept = len(self.logs())
        self.assertGreater(kept + sum(map(int, lost)), 25_000_000)
