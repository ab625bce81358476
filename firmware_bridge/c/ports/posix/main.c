/* A sensor without hardware: the library, fed from files or with a sine, behind a socket or a pseudo terminal.
 * `ec_posix --help` says how. */
#define _POSIX_C_SOURCE 200809L
#include <getopt.h>
#include <math.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ec_micro.h"
#include "posix.h"

#define MAX_STREAMS 32
#define MAX_SAMPLE 4096

static const char help[] =
    "usage: ec_posix (--unix PATH | --tcp HOST:PORT | --pty | --stdio) --stream KEY=VALUE,... [--stream ...]\n"
    "\n"
    "A sensor that registers and sends itself as firmware does. Its address is the first line on stdout; its\n"
    "clock starts when somebody connects. Example:\n"
    "  ec_posix --tcp 127.0.0.1:0 --stream name=gyro,unit=rad/s,rate=50,channels=3,dtype=float32,data=gyro.raw\n"
    "\n"
    "  --stream    name, unit [1], scale [1], rate [50], channels [1], dtype [float32], kind [sensor],\n"
    "              data: file of raw little-endian samples [a sine], count: samples of a sine [no end]\n"
    "  --boot N    boot id, above 0 [random]\n"
    "  --speed F   device seconds in one second; 0: as fast as the line takes it [1]\n"
    "  --drift PPM of the device clock [0]\n"
    "  --delay MS  longest that a sample waits for its frame to fill [50]\n"
    "  --payload N longest payload that is sent and taken, 64 to 4096 [1024]\n"
    "  --ring N    samples that wait for the line, in each stream [4096]\n"
    "  --flash F   file that holds the micro model; made where it is missing [none: no model is taken]\n"
    "  --loop      files begin again at their end\n"
    "  --exit      end when all samples have been sent\n";

static struct sensor {
    struct link link;
    struct source sources[MAX_STREAMS];
    struct ec_stream streams[MAX_STREAMS];
    uint8_t count;
    struct ec_node node;
    struct ec_slots slots;
    double speed, drift_ppm;
    struct timespec started;
    uint64_t free_us; /* true time where speed is 0: that of the sample taken last */
    bool running, loop, exits;
} sensor;

void fail(const char *format, ...) {
    va_list arguments;

    va_start(arguments, format);
    (void)fputs("ec_posix: ", stderr);
    (void)vfprintf(stderr, format, arguments);
    (void)fputc('\n', stderr);
    va_end(arguments);
    exit(2);
}

/* ---- Time: the sensor's true time runs `speed` times as fast as ours; its clock drifts against that. ---- */

static uint64_t true_us(void) {
    struct timespec now;

    if (sensor.speed == 0 || !sensor.running) return sensor.free_us;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    double seconds =
        (double)(now.tv_sec - sensor.started.tv_sec) + (double)(now.tv_nsec - sensor.started.tv_nsec) / 1e9;
    return (uint64_t)(seconds * 1e6 * sensor.speed);
}

static uint64_t device_us(uint64_t us) {
    return us + (uint64_t)(int64_t)llround((double)us * sensor.drift_ppm * 1e-6);
}

static uint64_t clock_us(void *user) {
    (void)user;
    return device_us(true_us());
}

static size_t write_link(void *user, const uint8_t *bytes, size_t count) {
    return link_write(user, bytes, count);
}

/* ---- Samples: what an interrupt does in firmware. ---- */

static int next_source(void) {
    int next = 0;

    for (int i = 1; i < sensor.count; i++)
        if (source_time_us(&sensor.sources[i]) < source_time_us(&sensor.sources[next])) next = i;
    return next;
}

static bool ring_full(const struct ec_ring *ring) {
    return ec_ring_count(ring) == ring->places - 1;
}

/* Takes all samples that are due; where speed is 0, those that the rings have room for. */
static void sample(void) {
    static uint8_t bytes[MAX_SAMPLE];
    bool free_running = sensor.speed == 0;

    for (;;) {
        int i = next_source();
        uint64_t time = source_time_us(&sensor.sources[i]);
        if (time == UINT64_MAX || (free_running ? ring_full(&sensor.streams[i].ring) : time > true_us())) return;
        if (free_running) sensor.free_us = time;
        source_take(&sensor.sources[i], bytes);
        /* Full: dropped and counted, as in firmware. */
        (void)ec_stream_push(&sensor.streams[i], bytes, device_us(time));
    }
}

static bool all_sent(void) {
    uint32_t waiting = sensor.node.sending - sensor.node.sent > 0;

    for (int i = 0; i < sensor.count; i++)
        waiting += source_time_us(&sensor.sources[i]) != UINT64_MAX || ec_ring_count(&sensor.streams[i].ring) != 0;
    return waiting == 0;
}

/* ---- Main loop ---- */

static void start_clock(void) {
    if (!sensor.running && link_up(&sensor.link)) {
        (void)clock_gettime(CLOCK_MONOTONIC, &sensor.started);
        sensor.running = true;
    }
}

static void loop(void) {
    uint8_t bytes[4096];
    enum ec_status status = EC_NOT_YET;

    while (!(sensor.exits && sensor.running && (all_sent() || (sensor.link.ended && sensor.link.listener >= 0)))) {
        start_clock();
        size_t count = link_read(&sensor.link, bytes, sizeof bytes, status == EC_OK ? 0 : 1);
        ec_node_receive(&sensor.node, bytes, count, clock_us(NULL));
        if (sensor.running) sample();
        status = sensor.running ? ec_node_poll(&sensor.node) : EC_NOT_YET;
        if (status == EC_NOT_YET && sensor.speed == 0 && next_source() >= 0 && sensor.node.sent == sensor.node.sending)
            sensor.free_us += 1000; /* nothing is due: time must go on for the last samples to be */
    }
}

/* ---- Start ---- */

/* A model of one of the sensors. It is not run here: that is for firmware. */
static enum ec_status validate(void *user, uint32_t address, uint32_t size) {
    ec_micro model;

    (void)user;
    if (ec_micro_open(flash_at(address), size, &model)) return EC_BAD_MODEL;
    for (int i = 0; i < sensor.count; i++)
        if (strcmp(sensor.sources[i].hello.name, model.modality) == 0 &&
            sensor.sources[i].hello.channels == model.channels)
            return EC_OK;
    return EC_BAD_MODEL;
}

static void open_slots(const char *path) {
    struct ec_slots_config config;

    flash_open(path, &config);
    config.validate = validate;
    if (ec_slots_open(&sensor.slots, &config)) fail("%s holds no slots", path);
}

static void start(uint32_t boot, uint32_t delay_us, size_t payload, size_t ring, const char *flash) {
    struct ec_node_config config = {
        .write = write_link,
        .clock_us = clock_us,
        .user = &sensor.link,
        .boot = boot,
        .delay_us = delay_us,
        .streams = sensor.streams,
        .stream_count = sensor.count,
        .transmit_bytes = EC_TRANSMIT_BYTES(payload),
        .receive_bytes = EC_PACKET_BYTES(payload),
    };
    for (int i = 0; i < sensor.count; i++) {
        size_t bytes = EC_RING_BYTES(ring, sensor.sources[i].sample_bytes);
        if (ec_stream_init(&sensor.streams[i], &sensor.sources[i].hello, malloc(bytes), bytes))
            fail("stream %d is none that SPEC.md allows", i + 1);
        sensor.sources[i].loop = sensor.loop;
    }
    if (flash) {
        open_slots(flash);
        config.slots = &sensor.slots;
    }
    config.transmit = malloc(config.transmit_bytes);
    config.receive = malloc(config.receive_bytes);
    if (ec_node_init(&sensor.node, &config))
        fail("expected other names of streams, --payload 64 to 4096 and large enough for a sample and a HELLO, --boot "
             "above 0, --delay below 2000");
}

static uint32_t random_boot(void) {
    uint32_t boot = 0;
    FILE *file = fopen("/dev/urandom", "rb");

    if (!file || fread(&boot, sizeof boot, 1, file) != 1) fail("/dev/urandom cannot be read: give --boot");
    fclose(file);
    return boot | 1;
}

static void connect_link(int key, const char *value) {
    static bool connected;

    if (connected) fail("one place is enough: --unix, --tcp, --pty or --stdio");
    connected = true;
    if (key == 'u')
        link_unix(&sensor.link, value);
    else if (key == 't')
        link_tcp(&sensor.link, value);
    else if (key == 'p')
        link_pty(&sensor.link);
    else
        link_stdio(&sensor.link);
}

int main(int argc, char **argv) {
    static const struct option options[] = {
        {"unix", 1, 0, 'u'},   {"tcp", 1, 0, 't'},     {"pty", 0, 0, 'p'},   {"stdio", 0, 0, 'i'},
        {"stream", 1, 0, 's'}, {"boot", 1, 0, 'b'},    {"speed", 1, 0, 'x'}, {"drift", 1, 0, 'd'},
        {"delay", 1, 0, 'y'},  {"payload", 1, 0, 'l'}, {"ring", 1, 0, 'r'},  {"flash", 1, 0, 'f'},
        {"loop", 0, 0, 'o'},   {"exit", 0, 0, 'e'},    {"help", 0, 0, 'h'},  {0, 0, 0, 0},
    };
    uint32_t boot = 0, delay_ms = 50;
    size_t payload = 1024, ring = 4096;
    const char *flash = NULL, *place = NULL;
    int key, place_key = 0;

    sensor.speed = 1;
    while ((key = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (key) {
        case 'u':
        case 't':
        case 'p':
        case 'i':
            place_key = key;
            place = optarg;
            break;
        case 's':
            if (sensor.count == MAX_STREAMS) fail("at most %d streams", MAX_STREAMS);
            source_parse(&sensor.sources[sensor.count++], optarg);
            break;
        case 'b': boot = (uint32_t)strtoul(optarg, NULL, 10); break;
        case 'x': sensor.speed = strtod(optarg, NULL); break;
        case 'd': sensor.drift_ppm = strtod(optarg, NULL); break;
        case 'y': delay_ms = (uint32_t)strtoul(optarg, NULL, 10); break;
        case 'l': payload = strtoul(optarg, NULL, 10); break;
        case 'r': ring = strtoul(optarg, NULL, 10); break;
        case 'f': flash = optarg; break;
        case 'o': sensor.loop = true; break;
        case 'e': sensor.exits = true; break;
        case 'h': (void)fputs(help, stdout); return 0;
        default: (void)fputs(help, stderr); return 2;
        }
    }
    if (!place_key || !sensor.count || optind != argc || !(sensor.speed >= 0) || ring < 1 || payload > EC_MAX_PAYLOAD ||
        delay_ms > 2000)
        fail("expected one place, at least one stream, --speed of 0 or above, --ring of 1 or above; --help says more");
    (void)signal(SIGPIPE, SIG_IGN);
    start(boot ? boot : random_boot(), delay_ms * 1000, payload, ring, flash);
    connect_link(place_key, place);
    loop();
    return 0;
}
