/*
 * What tests/bench/deliver measures with, compiled by it: a client and a starter of processes that
 * cost next to nothing themselves.
 *
 * run N WHO INPUT PROGRAM [ARGUMENT ...]
 *     Starts the program N times in turn, INPUT on stdin, as WHO (uid:gid, or - for the caller).
 *     Prints a line for each process: microseconds from before its start until it has ended, and
 *     its peak memory in KiB. (Peak memory is never less than this program's own, through vfork.)
 * lmtp N USERS RECIPIENTS MESSAGE unix PATH
 * lmtp N USERS RECIPIENTS MESSAGE run PROGRAM [ARGUMENT ...]
 *     Sends the message N times on one connection, each time to the next RECIPIENTS of the users
 *     u000, u001 and so on @bench.test. Prints the microseconds from LHLO until the last reply.
 * mbox BYTES
 *     Writes an mbox of about so many bytes: messages of 4 to 50 KB.
 */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <grp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static long long now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000LL + t.tv_nsec / 1000;
}

static int run(int argc, char **argv)
{
    if (argc < 4)
        return 64;
    int n = atoi(argv[0]);
    unsigned uid, gid;
    if (sscanf(argv[1], "%u:%u", &uid, &gid) == 2 &&
        (setgroups(1, &gid) || setgid(gid) || setuid(uid)))
        err(71, "%s", argv[1]);
    for (int i = 0; i < n; i++) {
        int input = open(argv[2], O_RDONLY | O_CLOEXEC), status;
        if (input < 0)
            err(66, "%s", argv[2]);
        struct rusage used;
        long long start = now();
        pid_t child = vfork();
        if (child == 0) {
            dup2(input, 0);
            execv(argv[3], argv + 3);
            _exit(127);
        }
        if (child < 0 || wait4(child, &status, 0, &used) < 0)
            err(71, "%s", argv[3]);
        long long end = now();
        if (status != 0)
            errx(1, "%s: wait status %#x", argv[3], status);
        close(input);
        printf("%lld %ld\n", end - start, used.ru_maxrss);
    }
    return 0;
}

static int server;

static void say(const char *bytes, size_t length)
{
    while (length > 0) {
        ssize_t n = write(server, bytes, length);
        if (n <= 0)
            err(74, "sending");
        bytes += n;
        length -= n;
    }
}

/* Reads so many replies, all of them of this class. */
static void hear(int replies, char class)
{
    static char buffer[65536];
    static size_t from, to;
    while (replies > 0) {
        char *end = memchr(buffer + from, '\n', to - from);
        if (!end) {
            memmove(buffer, buffer + from, to - from);
            to -= from;
            from = 0;
            ssize_t n = read(server, buffer + to, sizeof buffer - to);
            if (n <= 0)
                errx(74, "the server has gone away");
            to += n;
            continue;
        }
        char *line = buffer + from;
        from = end + 1 - buffer;
        if (end - line > 3 && line[3] == '-')
            continue;
        /* Recipients and the text are answered as pipelined: 2yz, and 354 for the last. */
        if (line[0] != class && !(class == '3' && replies > 1 && line[0] == '2'))
            errx(1, "the server said %.*s", (int)(end - line), line);
        replies--;
    }
}

static int lmtp(int argc, char **argv)
{
    if (argc < 6)
        return 64;
    int n = atoi(argv[0]), users = atoi(argv[1]), recipients = atoi(argv[2]);
    FILE *file = fopen(argv[3], "r");
    if (!file)
        err(66, "%s", argv[3]);
    static char text[1 << 20];
    size_t length = 0, room = sizeof text - 8;
    for (int c, last = '\n'; (c = getc(file)) != EOF && length < room; last = c) {
        if (c == '\n')
            text[length++] = '\r';
        if (c == '.' && last == '\n')
            text[length++] = '.';
        text[length++] = c;
    }
    memcpy(text + length, ".\r\n", 3);
    length += 3;
    if (strcmp(argv[4], "unix") == 0) {
        struct sockaddr_un address = {.sun_family = AF_UNIX};
        strncpy(address.sun_path, argv[5], sizeof address.sun_path - 1);
        server = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (connect(server, (struct sockaddr *)&address, sizeof address))
            err(69, "%s", argv[5]);
    } else {
        int pair[2];
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair))
            err(71, "socketpair");
        server = pair[0];
        if (fork() == 0) {
            dup2(pair[1], 0);
            dup2(pair[1], 1);
            execv(argv[5], argv + 5);
            err(71, "%s", argv[5]);
        }
        close(pair[1]);
    }
    alarm(600);
    hear(1, '2');
    long long start = now();
    say("LHLO client.test\r\n", 18);
    hear(1, '2');
    static char commands[65536];
    for (int i = 0, user = 0; i < n; i++) {
        int used = sprintf(commands, "MAIL FROM:<sender@bench.test>\r\n");
        for (int r = 0; r < recipients; r++, user = (user + 1) % users)
            used += sprintf(commands + used, "RCPT TO:<u%03d@bench.test>\r\n", user);
        used += sprintf(commands + used, "DATA\r\n");
        say(commands, used);
        hear(1 + recipients + 1, '3');
        say(text, length);
        hear(recipients, '2');
    }
    long long end = now();
    say("QUIT\r\n", 6);
    hear(1, '2');
    printf("%lld\n", end - start);
    return 0;
}

static int mbox(int argc, char **argv)
{
    if (argc < 1)
        return 64;
    long long wanted = atoll(argv[0]), written = 0;
    srand(1);
    for (int i = 0; written < wanted; i++) {
        int body = 3000 + rand() % 47000;
        written += printf(
            "From sender%d@lists.example.org Mon Jan  5 10:%02d:%02d 2026\n"
            "Return-Path: <sender%d@lists.example.org>\n"
            "Delivered-To: u000@bench.test\n"
            "Received: from mx%d.example.org (mx%d.example.org [192.0.2.%d])\n"
            "\tby bench.test (Postfix) with ESMTPS id 4F%08X\n"
            "\tfor <u000@bench.test>; Mon,  5 Jan 2026 10:%02d:%02d +0000 (UTC)\n"
            "DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=example.org; s=one;\n"
            "\th=from:to:subject:date:message-id; bh=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=;\n"
            "\tb=dzdVyOfAKCdLXdJOc9G2q8LoXSlEniSbav+yuU4zGeeruD00lszZVoG4ZHRNiYzR\n"
            "Date: Mon, 5 Jan 2026 10:%02d:%02d +0000\n"
            "From: \"Sender %d\" <sender%d@lists.example.org>\n"
            "To: A list <list@lists.example.org>\n"
            "Subject: [list] Re: message %d about something\n"
            "Message-ID: <%08x.%d@lists.example.org>\n"
            "In-Reply-To: <%08x.%d@lists.example.org>\n"
            "List-Id: A list <list.lists.example.org>\n"
            "MIME-Version: 1.0\n"
            "Content-Type: text/plain; charset=utf-8\n"
            "Status: RO\n"
            "\n",
            i, i / 60 % 60, i % 60, i, i % 9, i % 9, i % 250, rand(), i / 60 % 60, i % 60,
            i / 60 % 60, i % 60, i, i, i, rand(), i, rand(), i);
        for (int line = 0; body > 0; line++) {
            int length = line % 9 == 8 ? printf("\n")
                                       : printf("Line %d of message %d, which tells %08x of it, "
                                                "and then ends here.\n",
                                                line, i, rand());
            body -= length;
            written += length;
        }
        written += printf("\n");
    }
    return fflush(stdout) ? 74 : 0;
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    if (strcmp(what, "run") == 0)
        return run(argc - 2, argv + 2);
    if (strcmp(what, "lmtp") == 0)
        return lmtp(argc - 2, argv + 2);
    if (strcmp(what, "mbox") == 0)
        return mbox(argc - 2, argv + 2);
    return 64;
}
