/* SPDX-License-Identifier: Apache-2.0 */
/*
 * msb ssh: SSH into sandboxes. The server is msb-ssh, the client the system's; we hand them what
 * they need and become them.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/install.h"
#include "base/io.h"
#include "base/proc.h"
#include "base/str.h"
#include "cli/cli.h"
#include "cli/project.h"
#include "sandbox/artifacts.h"
#include "sandbox/reach.h"
#include "sandbox/record.h"
#include "sandbox/sandbox_dir.h"
#include "store/store.h"

enum { DIR_FD = 3, LISTEN_FD = 4 };
/* An RSA key of 16384 bits has some 2,800 characters. */
#define KEY_MAX	     ((size_t)16 << 10)
#define KEYS_MAX     ((size_t)1 << 20)
#define IDLE_SECONDS 600

struct ssh_args {
	const char *host, *port, *file, *key, *name, *user;
	bool stdio, from_stdin, forever;
	uint64_t idle_ns;
};

static const struct opt serve_opts[] = {
	{0, "host", "ADDRESS", "Listen at this address [127.0.0.1]", opt_set_text,
	 offsetof(struct ssh_args, host), 0, NULL},
	{0, "port", "PORT", "Listen on this port [2222]", opt_set_text,
	 offsetof(struct ssh_args, port), 0, NULL},
	{'u', "user", "USER",
	 "Let everybody in as this user; '': the sandbox's [whom they ask for]", opt_set_text,
	 offsetof(struct ssh_args, user), 0, NULL},
	{0, "stdio", NULL, "Serve one connection on standard input and output: a ProxyCommand",
	 opt_set_flag, offsetof(struct ssh_args, stdio), 0, NULL},
	{0, "inactivity-timeout", "TIME", "End a connection without traffic after this long [10m]",
	 opt_set_timeout, offsetof(struct ssh_args, idle_ns), 0, NULL},
	{0, "no-inactivity-timeout", NULL, "Never end it for that", opt_set_flag,
	 offsetof(struct ssh_args, forever), 0, NULL},
};

static const struct opt connect_opts[] = {
	{'n', "name", "NAME", "The sandbox, instead of the first word", opt_set_text,
	 offsetof(struct ssh_args, name), 0, NULL},
	{'u', "user", "USER", "Log in as this user [the sandbox's]", opt_set_text,
	 offsetof(struct ssh_args, user), 0, NULL},
	{0, "inactivity-timeout", "TIME", "End a connection without traffic after this long [10m]",
	 opt_set_timeout, offsetof(struct ssh_args, idle_ns), 0, NULL},
	{0, "no-inactivity-timeout", NULL, "Never end it for that", opt_set_flag,
	 offsetof(struct ssh_args, forever), 0, NULL},
};

static const struct opt authorize_opts[] = {
	{0, "file", "PATH", "Add the public keys in this file", opt_set_text,
	 offsetof(struct ssh_args, file), 0, NULL},
	{0, "key", "KEY", "Add this public key, as in \"ssh-ed25519 AAAA… me\"", opt_set_text,
	 offsetof(struct ssh_args, key), 0, NULL},
	{0, "stdin", NULL, "Add the public keys on standard input", opt_set_flag,
	 offsetof(struct ssh_args, from_stdin), 0, NULL},
};

static int keys_path(const struct store *store, const char *name, char **ret, struct err *err)
{
	cleanup_free char *dir = str_fmt("%s/ssh", store_home(store));
	int r;

	*ret = dir ? str_fmt("%s/%s", dir, name) : NULL;
	if (!*ret)
		return err_set(err, ENOMEM, "out of memory");
	r = io_mkdir_p(dir, 0700, err);
	return r;
}

/* ---- authorize ---- */

static int base64_value(char c)
{
	static const char digits[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	const char *at = c ? strchr(digits, c) : NULL;

	return at ? (int)(at - digits) : -1;
}

/*
 * Is it a public key as in authorized_keys, without options? The blob must begin with the type that
 * stands in front of it, which also catches private keys and what was cut off early.
 */
static bool is_key(const char *line)
{
	static const char *const types[] = {"ssh-ed25519",
					    "ssh-rsa",
					    "ecdsa-sha2-nistp256",
					    "ecdsa-sha2-nistp384",
					    "ecdsa-sha2-nistp521",
					    "sk-ssh-ed25519@openssh.com",
					    "sk-ecdsa-sha2-nistp256@openssh.com"};
	size_t type = strcspn(line, " "), n = 0, have = 0;
	const char *blob = line + type + strspn(line + type, " ");
	uint8_t head[64];
	uint32_t bits = 0;
	bool known = false;

	for (size_t i = 0; i < ARRAY_SIZE(types); i++)
		known |= strlen(types[i]) == type && !strncmp(types[i], line, type);
	for (; known && base64_value(blob[n]) >= 0; n++) {
		bits = bits << 6 | (uint32_t)base64_value(blob[n]);
		if (n % 4 && have < sizeof(head))
			head[have++] = (uint8_t)(bits >> (2 * (3 - n % 4)));
	}
	while (blob[n] == '=')
		n++;
	return known && n % 4 == 0 && (!blob[n] || blob[n] == ' ') && have >= type + 4 &&
	       head[0] == 0 && head[1] == 0 && head[2] == 0 && head[3] == type &&
	       !memcmp(head + 4, line, type) && n > type * 4 / 3 + 16;
}

/* Does a line of @known let in the key that @line is? One that restricts it, or is a remark, does not. */
static bool lets_in(const char *known, const char *line)
{
	size_t n = strcspn(line, " ");

	n += strspn(line + n, " ");
	n += strcspn(line + n, " ");
	for (const char *at = known; at; at = strchr(at, '\n')) {
		at += strspn(at, "\n \t");
		if (!strncmp(at, line, n) && strchr(" \t\r\n", at[n]))
			return true;
	}
	return false;
}

/* Add those lines of @text that are not there yet. */
static int add_keys(const struct store *store, char *text, const char *from, size_t *added,
		    struct err *err)
{
	cleanup_free char *path = NULL;
	cleanup_buf struct buf old = BUF_INIT, all = BUF_INIT;
	char *rest, *known;
	size_t keys = 0;
	int r = keys_path(store, "authorized_keys", &path, err);

	if (r < 0)
		return r;
	if (io_read_file(path, KEYS_MAX, &old, err) < 0) {
		if (access(path, F_OK) == 0)
			return -EIO;
		err_clear(err);
	}
	buf_add(&all, buf_size(&old) ? (const void *)buf_ptr(&old) : "", buf_size(&old));
	if (buf_size(&old) && buf_ptr(&old)[buf_size(&old) - 1] != '\n')
		buf_add_u8(&all, '\n');
	known = buf_cstr(&old);
	if (!known)
		return err_set(err, ENOMEM, "out of memory");
	for (char *line = strtok_r(text, "\r\n", &rest); line;
	     line = strtok_r(NULL, "\r\n", &rest)) {
		line += strspn(line, " \t");
		if (!*line || *line == '#')
			continue;
		if (strlen(line) > KEY_MAX || !is_key(line)) {
			err_set(err, ERR_USAGE, "%s: \"%.60s\" is no public key", from, line);
			return err_hint(err, "public keys are in files like ~/.ssh/id_ed25519.pub");
		}
		keys++;
		if (lets_in(known, line))
			continue;
		buf_addf(&all, "%s\n", line);
		++*added;
	}
	if (!keys)
		return err_set(err, ERR_USAGE, "%s: there is no public key in it", from);
	if (buf_failed(&all))
		return err_set(err, ENOMEM, "out of memory");
	return *added ? io_write_file_atomic(path, buf_ptr(&all), buf_size(&all), 0600, err) : 0;
}

static int authorize(struct cli *cli, int argc, char **argv)
{
	struct ssh_args a = {0};
	cleanup_words struct opt_words words = {0};
	cleanup_store struct store *store = NULL;
	cleanup_buf struct buf text = BUF_INIT;
	struct err err = ERR_INIT;
	size_t added = 0;
	int code, r = 0;

	if (cli_parse_operands(cli, &a, argc, argv, 0, 0, &words, &code))
		return code;
	if (!!a.file + !!a.key + a.from_stdin != 1) {
		err_set(&err, ERR_USAGE, "which key?");
		err_hint(&err, "one of --file PATH, --key KEY and --stdin");
		return cli_fail(&err, EXIT_USAGE);
	}
	if (a.file)
		r = io_read_file(a.file, KEYS_MAX, &text, &err);
	else if (a.key)
		buf_add_str(&text, a.key);
	else if ((r = io_read_fd(STDIN_FILENO, KEYS_MAX, &text)) < 0)
		err_set(&err, r, "cannot read standard input: %s", err_name(r));
	if (r >= 0)
		r = store_open(&store, NULL, &err);
	if (r >= 0)
		r = buf_cstr(&text) ? add_keys(store, buf_cstr(&text),
					       a.file  ? a.file
					       : a.key ? "--key"
						       : "standard input",
					       &added, &err)
				    : -ENOMEM;
	if (r < 0)
		return cli_fail(&err, r == -ERR_USAGE ? EXIT_USAGE : EXIT_FAILURE);
	printf("%zu added\n", added);
	return cli_finish();
}

/* ---- serve ---- */

static int listen_at(const char *host, const char *port, struct err *err)
{
	const struct addrinfo hints = {.ai_flags = AI_PASSIVE | AI_NUMERICHOST,
				       .ai_socktype = SOCK_STREAM};
	struct addrinfo *list = NULL;
	uint64_t number;
	int fd, on = 1;

	if (str_to_u64(port, 65535, &number) < 0 || getaddrinfo(host, port, &hints, &list) != 0) {
		err_set(err, ERR_USAGE, "cannot listen at %s port %s: not an address", host, port);
		return err_hint(err, "as in --host 127.0.0.1 --port 2222");
	}
	fd = socket(list->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (fd < 0 || bind(fd, list->ai_addr, list->ai_addrlen) < 0 || listen(fd, 64) < 0) {
		err_errno(err, "cannot listen at %s port %s", host, port);
		fd = close_fd(fd);
	}
	freeaddrinfo(list);
	return fd < 0 ? -EADDRINUSE : fd;
}

/* Say where, with the port that the system has chosen if that was its part. */
static void say_where(int fd, const char *name)
{
	struct sockaddr_storage a;
	socklen_t n = sizeof(a);
	char host[64], port[16];

	if (getsockname(fd, (struct sockaddr *)&a, &n) == 0 &&
	    getnameinfo((struct sockaddr *)&a, n, host, sizeof(host), port, sizeof(port),
			NI_NUMERICHOST | NI_NUMERICSERV) == 0)
		fprintf(stderr, "Sandbox %s: ssh -p %s USER@%s\n", name, port, host);
}

static int check_runs(struct store *store, const char *name, struct err *err)
{
	int fd = sandbox_reach(store, name, err);

	close_fd(fd);
	return fd < 0 ? fd : 0;
}

/* The sandbox's shell, for people. */
static char *shell_of(int dir)
{
	struct sandbox_record rec = {0};
	char *shell = NULL;

	if (record_read(dir, &rec, NULL) == 0) {
		if (rec.spec.shell)
			shell = strdup(rec.spec.shell);
		record_done(&rec);
	}
	return shell;
}

static int become_server(const struct store *store, const struct ssh_args *a, int dir, int fd,
			 struct err *err)
{
	cleanup_free char *program = NULL, *keys = NULL, *shell = shell_of(dir);
	char idle[24];
	const char *argv[] = {
		"msb-ssh", "--keys", NULL, "--idle", idle, "--shell", shell ? shell : "/bin/sh",
		NULL,	   NULL,     NULL, NULL};
	size_t n = 7;
	int r = install_find("msb-ssh", X_OK, INSTALL_HINT, &program, err);

	if (r == 0)
		r = keys_path(store, "authorized_keys", &keys, err);
	if (r < 0)
		return r;
	argv[2] = keys;
	if (a->user) {
		argv[n++] = "--user";
		argv[n++] = a->user;
	}
	if (a->stdio)
		argv[n++] = "--stdio";
	snprintf(idle, sizeof(idle), "%llu",
		 a->forever   ? 0ull
		 : a->idle_ns ? (unsigned long long)(a->idle_ns + 999999999) / 1000000000
			      : (unsigned long long)IDLE_SECONDS);
	/* Out of each other's way first. */
	dir = fcntl(dir, F_DUPFD, LISTEN_FD + 1);
	fd = fd >= 0 ? fcntl(fd, F_DUPFD, LISTEN_FD + 1) : -1;
	if (dir < 0 || dup2(dir, DIR_FD) < 0 || (fd >= 0 && dup2(fd, LISTEN_FD) < 0))
		return err_errno(err, "cannot start msb-ssh");
	close(dir);
	close_fd(fd);
	execv(program, (char *const *)(uintptr_t)argv);
	return err_errno(err, "cannot start %s", program);
}

static int serve(struct cli *cli, int argc, char **argv)
{
	struct ssh_args a = {.host = "127.0.0.1", .port = "2222"};
	cleanup_words struct opt_words words = {0};
	cleanup_store struct store *store = NULL;
	cleanup_close int dir = -1, fd = -1;
	cleanup_free char *name = NULL;
	struct err err = ERR_INIT;
	int code, r;

	if (cli_parse_operands(cli, &a, argc, argv, 1, 1, &words, &code))
		return code;
	r = store_open(&store, NULL, &err);
	if (r >= 0)
		r = cli_project_name(cli, store, NULL, words.words[0], &name, &err);
	if (r >= 0)
		r = check_runs(store, name, &err);
	if (r >= 0)
		r = dir = sandbox_dir_open(store, name, &err);
	if (r >= 0 && !a.stdio)
		r = fd = listen_at(a.host, a.port, &err);
	if (r < 0)
		return cli_fail(&err, r == -ERR_USAGE ? EXIT_USAGE : EXIT_FAILURE);
	if (fd >= 0)
		say_where(fd, name);
	become_server(store, &a, dir, fd, &err);
	return cli_fail(&err, EXIT_FAILURE);
}

/* ---- connect ---- */

/* The key by which our own connections get in, made and let in when it is first needed. */
static int own_key(const struct store *store, char **ret, struct err *err)
{
	cleanup_free char *keygen = artifact_program("ssh-keygen"), *pub = NULL;
	cleanup_buf struct buf text = BUF_INIT;
	struct proc proc = PROC_INIT;
	size_t added = 0;
	int r = keys_path(store, "id_ed25519", ret, err);

	if (r < 0)
		return r;
	pub = str_fmt("%s.pub", *ret);
	if (!pub)
		return err_set(err, ENOMEM, "out of memory");
	if (access(*ret, R_OK) < 0) {
		const char *argv[] = {"ssh-keygen", "-q",  "-t", "ed25519", "-N", "",
				      "-C",	    "msb", "-f", *ret,	    NULL};
		const struct proc_spec spec = {.path = keygen, .argv = argv};

		if (!keygen) {
			err_set(err, ERR_NOT_FOUND, "there is no ssh-keygen");
			return err_hint(err, "install OpenSSH's client, or use `msb exec`");
		}
		r = proc_spawn(&proc, &spec, err);
		if (r == 0)
			r = proc_wait(&proc, -1);
		/* Another may have been faster. */
		if (r != 0 && access(*ret, R_OK) < 0)
			return err_set(err, EIO, "ssh-keygen cannot make %s", *ret);
	}
	r = io_read_file(pub, KEY_MAX, &text, err);
	return r < 0 ? r : add_keys(store, buf_cstr(&text), pub, &added, err);
}

static int connect_to(struct cli *cli, int argc, char **argv)
{
	struct ssh_args a = {0};
	cleanup_words struct opt_words words = {0};
	cleanup_store struct store *store = NULL;
	cleanup_free char *key = NULL, *self = NULL, *proxy = NULL, *ssh = NULL, *idle = NULL;
	cleanup_free char *name = NULL;
	cleanup_strv struct strv args = {0};
	struct err err = ERR_INIT;
	const char *word;
	int code, r = 0;

	if (cli_parse(cli, &a, argc, argv, &words, &code))
		return code;
	word = a.name ? a.name : words.n ? words.words[0] : NULL;
	if (!word || words.n > (a.name ? 0 : 1)) {
		err_set(&err, ERR_USAGE, word ? "\"%s\" is too much" : "which sandbox?",
			words.n ? words.words[words.n - 1] : "");
		err_hint(&err, "usage: msb ssh NAME [-- COMMAND…]");
		return cli_fail(&err, EXIT_USAGE);
	}
	r = store_open(&store, NULL, &err);
	if (r >= 0)
		r = cli_project_name(cli, store, NULL, word, &name, &err);
	if (r >= 0)
		r = check_runs(store, name, &err);
	if (r >= 0)
		r = own_key(store, &key, &err);
	if (r < 0)
		return cli_fail(&err, EXIT_FAILURE);
	ssh = artifact_program("ssh");
	if (!ssh) {
		err_set(&err, ERR_NOT_FOUND, "there is no ssh");
		err_hint(&err, "install OpenSSH's client, or use `msb exec`");
		return cli_fail(&err, EXIT_FAILURE);
	}
	self = realpath("/proc/self/exe", NULL);
	idle = a.forever   ? strdup("--no-inactivity-timeout")
	       : a.idle_ns ? str_fmt("--inactivity-timeout %llus",
				     (unsigned long long)(a.idle_ns + 999999999) / 1000000000)
			   : strdup("");
	/* Names hold nothing that a shell understands; the path of the program may. */
	proxy = self && idle && !strpbrk(self, "'%")
			? str_fmt("ProxyCommand='%s' ssh serve %s --stdio %s %s", self, idle,
				  a.user ? "" : "--user=''", name)
			: NULL;
	/* Both ends of the line are ours: there is nobody whose key could be another's. */
	const char *const fixed[] = {"ssh",
				     "-o",
				     proxy,
				     "-o",
				     "StrictHostKeyChecking=no",
				     "-o",
				     "UserKnownHostsFile=/dev/null",
				     "-o",
				     "LogLevel=ERROR",
				     "-o",
				     "IdentitiesOnly=yes",
				     "-F",
				     "none",
				     "-i",
				     key,
				     "-l",
				     a.user ? a.user : "sandbox",
				     name,
				     "--"};

	for (size_t i = 0; i < ARRAY_SIZE(fixed) - !words.nrest && r >= 0; i++)
		r = fixed[i] ? strv_add(&args, fixed[i]) : -ENOMEM;
	for (size_t i = 0; i < words.nrest && r >= 0; i++)
		r = strv_add(&args, words.rest[i]);
	if (r < 0) {
		err_set(&err, r, "cannot start ssh: %s", err_name(r));
		return cli_fail(&err, EXIT_FAILURE);
	}
	execv(ssh, args.v);
	err_errno(&err, "cannot start %s", ssh);
	return cli_fail(&err, EXIT_FAILURE);
}

static const struct verb subs[] = {
	{.name = "connect",
	 .args = "[OPTIONS] NAME [-- COMMAND…]",
	 .entries = true,
	 .summary = "The same as `msb ssh NAME`",
	 .examples = "msb ssh connect box\n"
		     "msb ssh connect -u user box -- make test",
	 .opts = connect_opts,
	 .nopts = ARRAY_SIZE(connect_opts),
	 .run = connect_to,
	 .operands = 1},
	{.name = "serve",
	 .args = "[OPTIONS] NAME",
	 .entries = true,
	 .summary = "Let SSH clients into a sandbox",
	 .details = "Keys that `msb ssh authorize` was told get in, as the user they ask for, "
		    "or --user. Shells,\n"
		    "commands, sftp, scp, -L and -D work. Nothing runs in the sandbox for it.",
	 .examples = "msb ssh serve box --port 2222  # then: ssh -p 2222 root@127.0.0.1\n"
		     "msb ssh serve box --stdio  # as a ProxyCommand",
	 .opts = serve_opts,
	 .nopts = ARRAY_SIZE(serve_opts),
	 .run = serve},
	{.name = "authorize",
	 .args = "--file PATH | --key KEY | --stdin",
	 .summary = "Let the owner of a key into all sandboxes that are served",
	 .examples = "msb ssh authorize --file ~/.ssh/id_ed25519.pub\n"
		     "ssh-add -L | msb ssh authorize --stdin",
	 .opts = authorize_opts,
	 .nopts = ARRAY_SIZE(authorize_opts),
	 .run = authorize},
};

static int ssh_verb(struct cli *cli, int argc, char **argv)
{
	for (size_t i = 0; argc && i < ARRAY_SIZE(subs); i++) {
		if (!str_eq(argv[0], subs[i].name))
			continue;
		cli->parent = "ssh";
		cli->verb = &subs[i];
		return subs[i].run(cli, argc - 1, argv + 1);
	}
	return connect_to(cli, argc, argv);
}

const struct verb verb_ssh = {
	.name = "ssh",
	.group = "Sandboxes",
	.args = "[OPTIONS] NAME [-- COMMAND…] | connect | serve | authorize",
	.entries = true,
	.summary = "SSH into a sandbox, or let SSH clients in",
	.details = "A shell or COMMAND in a sandbox that runs, through the system's ssh. `msb ssh "
		   "serve` lets\n"
		   "any SSH client in, `msb ssh authorize` says whose. See `msb ssh serve --help`.",
	.examples = "msb ssh box\n"
		    "msb ssh -u user box -- make test\n"
		    "msb ssh authorize --file ~/.ssh/id_ed25519.pub\n"
		    "msb ssh serve box --port 2222",
	.opts = connect_opts,
	.nopts = ARRAY_SIZE(connect_opts),
	.subs = subs,
	.nsubs = ARRAY_SIZE(subs),
	.run = ssh_verb,
	.operands = 1,
};
