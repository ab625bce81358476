/* The library as a process: a virtual sensor. What its files share. */
#ifndef EC_POSIX_H
#define EC_POSIX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ec_node.h"

/* Ends the process with exit code 2, and says why. */
void fail(const char *format, ...);

/* ---- link.c: one connection at a time, on a unix socket, TCP, a pseudo terminal, or stdin and stdout. ---- */

struct link {
    int listener;  /* -1: none */
    int in, out;   /* -1: nobody is connected */
    bool terminal; /* a pseudo terminal, which is there even when nobody has it open */
    bool ended;    /* stdin ended, or a client left: nothing more comes over this connection */
};

void link_unix(struct link *link, const char *path);
void link_tcp(struct link *link, const char *host_port); /* port 0: any */
void link_pty(struct link *link);
void link_stdio(struct link *link);

/* Whether somebody is connected; takes a connection that waits. */
bool link_up(struct link *link);

/* Waits for bytes, at most `timeout_ms`; returns how many of them came. */
size_t link_read(struct link *link, uint8_t *bytes, size_t capacity, int timeout_ms);

/* Writes what is taken without waiting, and returns how much that was; 0 where nobody is connected. */
size_t link_write(struct link *link, const uint8_t *bytes, size_t count);

/* ---- source.c: where samples come from. ---- */

struct source {
    struct ec_hello hello;
    char *data;       /* path of raw samples; NULL: a sine of another phase in each channel */
    uint8_t *samples; /* of the file */
    uint64_t count;   /* of the file, or of samples to make; UINT64_MAX: without end */
    uint64_t next;    /* sample */
    bool loop;        /* the file begins again at its end */
    size_t sample_bytes;
};

/* Reads "name=gyro,unit=rad/s,scale=1,rate=50,channels=3,dtype=float32,kind=sensor,data=FILE,count=N". */
void source_parse(struct source *source, char *text);

/* When the next sample is taken, in microseconds of true time; UINT64_MAX: never. */
uint64_t source_time_us(const struct source *source);

/* Puts the next sample into `sample`. */
void source_take(struct source *source, uint8_t *sample);

/* ---- flash_file.c: flash that is a file, and behaves as NOR flash does. ---- */

/* Opens or creates `path` and fills in all of `config` but `validate`. */
void flash_open(const char *path, struct ec_slots_config *config);

/* Where `address` lies in memory. */
const uint8_t *flash_at(uint32_t address);

#endif
