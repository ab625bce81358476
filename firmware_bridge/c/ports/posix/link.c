#define _XOPEN_SOURCE 700
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

#include "posix.h"

/* The first line on stdout is the address under which a host finds this sensor. */
static void announce(const char *scheme, const char *rest) {
    printf("%s%s\n", scheme, rest);
    fflush(stdout);
}

static void no_waiting(int file) {
    if (fcntl(file, F_SETFL, fcntl(file, F_GETFL) | O_NONBLOCK))
        fail("a connection cannot be set up: %s", strerror(errno));
}

void link_unix(struct link *link, const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    *link = (struct link){.listener = socket(AF_UNIX, SOCK_STREAM, 0), .in = -1, .out = -1};
    if (strlen(path) >= sizeof address.sun_path) fail("%s is too long for a socket", path);
    strcpy(address.sun_path, path);
    (void)unlink(path); /* of a run before */
    if (bind(link->listener, (struct sockaddr *)&address, sizeof address) || listen(link->listener, 1))
        fail("nobody can connect to %s: %s", path, strerror(errno));
    no_waiting(link->listener);
    announce("unix://", path);
}

void link_tcp(struct link *link, const char *host_port) {
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    struct addrinfo *found;
    struct sockaddr_storage bound;
    socklen_t length = sizeof bound;
    char host[256], port[16], address[300];
    const char *colon = strrchr(host_port, ':');
    int on = 1;

    if (!colon || (size_t)(colon - host_port) >= sizeof host) fail("--tcp takes HOST:PORT, not %s", host_port);
    memcpy(host, host_port, (size_t)(colon - host_port));
    host[colon - host_port] = 0;
    if (getaddrinfo(host, colon + 1, &hints, &found)) fail("%s is no address", host_port);
    *link = (struct link){.listener = socket(found->ai_family, SOCK_STREAM, 0), .in = -1, .out = -1};
    (void)setsockopt(link->listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(link->listener, found->ai_addr, found->ai_addrlen) || listen(link->listener, 1) ||
        getsockname(link->listener, (struct sockaddr *)&bound, &length) ||
        getnameinfo((struct sockaddr *)&bound, length, NULL, 0, port, sizeof port, NI_NUMERICSERV))
        fail("nobody can connect to %s: %s", host_port, strerror(errno));
    freeaddrinfo(found);
    no_waiting(link->listener);
    (void)snprintf(address, sizeof address, "%s:%s", host, port);
    announce("tcp://", address);
}

void link_pty(struct link *link) {
    struct termios raw;
    int master = posix_openpt(O_RDWR | O_NOCTTY);

    if (master < 0 || grantpt(master) || unlockpt(master)) fail("there are no pseudo terminals: %s", strerror(errno));
    const char *name = ptsname(master);
    int slave = open(name, O_RDWR | O_NOCTTY);
    if (slave < 0 || tcgetattr(slave, &raw)) fail("%s cannot be opened: %s", name, strerror(errno));
    raw.c_iflag = 0; /* as cfmakeraw(), which is not POSIX */
    raw.c_oflag = 0;
    raw.c_lflag = 0;
    raw.c_cflag = CS8 | CREAD | CLOCAL;
    (void)tcsetattr(slave, TCSANOW, &raw);
    close(slave); /* from here on the master is told when the last one closes it */
    no_waiting(master);
    *link = (struct link){.listener = -1, .in = master, .out = master, .terminal = true};
    announce("", name);
}

void link_stdio(struct link *link) {
    *link = (struct link){.listener = -1, .in = STDIN_FILENO, .out = STDOUT_FILENO};
    no_waiting(STDIN_FILENO);
    no_waiting(STDOUT_FILENO);
}

static void drop(struct link *link) {
    link->ended = true;
    if (link->listener >= 0 && link->in >= 0) {
        close(link->in);
        link->in = link->out = -1;
    }
}

bool link_up(struct link *link) {
    if (link->terminal) {
        struct pollfd master = {.fd = link->in};
        return poll(&master, 1, 0) == 0 || !(master.revents & POLLHUP);
    }
    if (link->in < 0) {
        int client = accept(link->listener, NULL, NULL), on = 1;
        if (client < 0) return false;
        no_waiting(client);
        (void)setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &on,
                         sizeof on); /* fails on a unix socket, which needs it not */
        link->in = link->out = client;
        link->ended = false;
    }
    return true;
}

size_t link_read(struct link *link, uint8_t *bytes, size_t capacity, int timeout_ms) {
    struct pollfd wait = {.fd = link->in < 0 ? link->listener : link->in, .events = POLLIN};

    if (link->listener < 0 && link->ended) wait.fd = -1; /* stdin ended: only wait */
    if (poll(&wait, 1, timeout_ms) <= 0 || link->in < 0) return 0;
    ssize_t count = read(link->in, bytes, capacity);
    if (count > 0) return (size_t)count;
    if (link->terminal) {
        (void)poll(NULL, 0, timeout_ms); /* nobody has it open, which does not end, and would not wait */
    } else if (count == 0 || (errno != EAGAIN && errno != EINTR)) {
        drop(link);
    }
    return 0;
}

size_t link_write(struct link *link, const uint8_t *bytes, size_t count) {
    if (!link_up(link)) return 0;
    ssize_t written = write(link->out, bytes, count);
    if (written < 0 && errno != EAGAIN && errno != EINTR && !link->terminal) drop(link);
    return written > 0 ? (size_t)written : 0;
}
