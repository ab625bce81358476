/* Cuts the power at calls that change flash, while a micro model is replaced, and looks at each start whether a valid
 * model is in use.
 *
 *     slots_power GEOMETRY SEED STEP [CUT]
 *         every STEPth call; CUT: only this one; prints {"calls", "cuts", "starts"}
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ec_bytes.h"
#include "ec_crc.h"
#include "ec_slots.h"
#include "torn_flash.h"

/* ---- The firmware and its host ---- */

static const struct geometry {
    uint32_t unit, header_bytes, erase_bytes, data_bytes, model_bytes;
} geometries[] = {
    {8, 2048, 2048, 16384, 5003},    /* STM32L4, G4: double words */
    {256, 4096, 4096, 65536, 12000}, /* pages of a QSPI chip, RP2040: several blocks to a mark */
    {1, 512, 512, 4096, 1024},       /* bytes; the model ends with a block */
    {32, 1024, 8192, 131072, 9001},  /* STM32H7: flash words; small header blocks */
};

static struct ec_slots_config config;
static struct ec_slots slots;
static uint8_t unit_buffer[256], installed[FLASH_MAX];
static uint32_t starts, acknowledged; /* the latter: bytes that the firmware said it has, before the last request */

struct model {
    uint8_t bytes[65536], id[EC_ID_BYTES];
    uint32_t size;
};
static struct model models[3];

/* Stands for ec_micro: a model begins with 0x4D, and says its size. */
static enum ec_status validate(void *user, uint32_t address, uint32_t size) {
    uint8_t head[5];

    (void)user;
    return chip_read(NULL, address, head, sizeof head) || head[0] != 0x4D || ec_get32(head + 1) != size ? EC_BAD_MODEL
                                                                                                        : EC_OK;
}

static void make_model(struct model *m, uint8_t name, uint32_t size) {
    m->size = size;
    for (uint32_t i = 0; i < size; i++) m->bytes[i] = (uint8_t)(draw() % 5 ? draw() : 0xFF);
    m->bytes[0] = 0x4D;
    ec_put32(m->bytes + 1, size);
    memset(m->id, name, EC_ID_BYTES);
}

/* Starts the firmware; returns the number of the model in use, which must be whole, or 9 where there is none. */
static unsigned start(void) {
    uint32_t address, size;

    starts++;
    power_on();
    memset(unit_buffer, 0xA5, sizeof unit_buffer);
    demand(ec_slots_open(&slots, &config) == EC_OK, "the slots cannot be opened");
    if (ec_slots_model(&slots, &address, &size)) return 9;
    for (unsigned i = 0; i < 3; i++)
        if (memcmp(models[i].id, slots.model.id, EC_ID_BYTES) == 0) {
            demand(size == models[i].size, "the model in use has another size");
            demand(memcmp(chip.bytes + address, models[i].bytes, size) == 0, "the model in use is damaged");
            return i;
        }
    demand(0, "the model in use is none that was sent");
    return 9;
}

struct reply {
    uint32_t state, next;
    uint8_t id[EC_ID_BYTES];
};

static struct reply request(const uint8_t *payload, size_t size) {
    uint8_t answer[EC_ANSWER_BYTES];
    struct reply reply;

    demand(ec_slots_request(&slots, payload, size, answer) == EC_OK && answer[0] == 5, "a request was not answered");
    reply.state = ec_get32(answer + 4);
    memcpy(reply.id, answer + 8, EC_ID_BYTES);
    reply.next = ec_get32(answer + 16);
    return reply;
}

/* The host: sends from where the firmware wants it, now and then twice or a wrong part; returns whether the model was
 * answered to be in use. */
static int transfer(const struct model *m) {
    uint8_t payload[16 + 700] = {1};
    struct reply reply;

    memcpy(payload + 4, m->id, EC_ID_BYTES);
    ec_put32(payload + 12, m->size);
    ec_put32(payload + 16, ec_crc32(0, m->bytes, m->size));
    reply = request(payload, 20);
    while (reply.state == EC_STATE_RECEIVING && reply.next < m->size && !chip.dead) {
        uint32_t offset = draw() % 16 ? reply.next : draw() % m->size, most = m->size - offset;
        uint32_t count = 1 + draw() % 700;
        count = count < most ? count : most;
        payload[0] = 2;
        ec_put32(payload + 12, offset);
        memcpy(payload + 16, m->bytes + offset, count);
        for (unsigned times = draw() % 8 ? 1 : 2; times && !chip.dead; times--) {
            acknowledged = reply.next;
            reply = request(payload, 16 + count);
        }
        demand(reply.state != EC_STATE_RECEIVING || memcmp(reply.id, m->id, EC_ID_BYTES) == 0,
               "another model is under way");
    }
    payload[0] = 3;
    if (!chip.dead && reply.state == EC_STATE_RECEIVING) reply = request(payload, 12);
    return !chip.dead && reply.state == EC_STATE_ACTIVE && memcmp(reply.id, m->id, EC_ID_BYTES) == 0;
}

static void power_off(void) {
    chip.calls = chip.cut_at = 0;
    chip.torn_from = chip.size;
    chip.torn_to = 0;
    memset(chip.torn, 0, chip.size);
}

/* A new board: models 0 and 1 are installed, 1 is in use, and what comes overwrites 0. */
static void build(const struct geometry *g) {
    uint32_t header_end = 2 * g->header_bytes;

    chip.size = header_end + 2 * g->data_bytes;
    chip.unit = g->unit;
    chip.header_bytes = g->header_bytes;
    chip.erase_bytes = g->erase_bytes;
    chip.header_end = header_end;
    config = (struct ec_slots_config){
        .flash = {chip_read, chip_program, chip_erase, NULL, g->unit},
        .header = {0, g->header_bytes},
        .header_bytes = g->header_bytes,
        .data = {header_end, header_end + g->data_bytes},
        .data_bytes = g->data_bytes,
        .erase_bytes = g->erase_bytes,
        .unit = unit_buffer,
        .validate = validate,
    };
    demand(chip.size <= FLASH_MAX, "the flash is too small for this geometry");
    memset(chip.bytes, 0x5A, chip.size); /* whatever was there before */
    power_off();
    demand(start() == 9 && transfer(&models[0]), "model 0 was not taken");
    demand(start() == 0 && transfer(&models[1]) && start() == 1, "model 1 was not taken");
    memcpy(installed, chip.bytes, chip.size);
}

/* The new board again, on which model 1 is in use. */
static void fresh(void) {
    memcpy(chip.bytes, installed, chip.size);
    power_off();
    chip.dead = 0;
    demand(start() == 1, "model 1 is not in use");
}

/* ---- What is tried ---- */

/* Cuts at call `cut`, and in two of three runs again soon after; each time it starts a few times, then the host goes
 * on. */
static void cut_once(uint32_t cut, enum style style, int failing) {
    fresh();
    chip.cut_at = cut;
    chip.style = style;
    chip.failing = failing;
    acknowledged = 0;
    int in_use = transfer(&models[2]);
    if (start() == 1 && acknowledged) /* what was acknowledged is not sent again, but for a part of it */
        demand(slots.receiving && slots.next >= acknowledged / slots.stride * slots.stride,
               "a transfer does not go on");
    for (unsigned again = 0; again < 2; again++) {
        for (unsigned i = 0; i < 3; i++) {
            unsigned model = start();
            demand(model == 2 || (model == 1 && !in_use),
                   in_use ? "a model that was answered to be in use is not" : "no valid model is in use");
        }
        chip.calls = 0;
        chip.cut_at = draw() % 3 ? 1 + draw() % (again ? 12 : cut + 8) : 0;
        /* The other model in between, at times: what is under way is left, and held. */
        if (draw() % 4 == 0 && !in_use) (void)transfer(&models[1]);
        in_use = transfer(&models[2]) || in_use;
    }
    chip.cut_at = 0;
    unsigned model = start();
    demand(model == 2 || (model == 1 && !in_use), "after a second cut no valid model is in use");
    /* A torn mark that reads differently at each start may vouch for data that is being written again: COMMIT finds
     * out, and the next is anew. */
    demand(transfer(&models[2]) || transfer(&models[2]), "a transfer cannot be completed after a cut");
    for (unsigned i = 0; i < 3; i++) demand(start() == 2, "a model that was switched to is not in use");
}

/* The weak record of a switch read well; then the old slot is overwritten: whatever it reads as later, a model must be
 * in use. */
static void cut_and_replace(uint32_t cut) {
    fresh();
    chip.cut_at = cut;
    chip.style = WEAK;
    chip.failing = 0;
    (void)transfer(&models[2]);
    chip.calls = 0;
    chip.cut_at = draw() % 2 ? 1 + draw() % 4 : 0; /* power fails again, when a start makes the switch certain */
    unsigned model = start();
    if (chip.dead) model = start();
    chip.calls = 0;
    chip.cut_at = 1 + draw() % 30;
    (void)transfer(&models[model == 2 ? 0 : 2]); /* 0, of which no slot holds anything: the other slot is erased */
    for (unsigned i = 0; i < 6; i++)
        demand(start() != 9, "no valid model is in use after the other slot was overwritten");
}

int main(int argc, char **argv) {
    const struct geometry *g = &geometries[atoi(argv[1]) % 4];
    uint32_t first_seed = (uint32_t)atoi(argv[2]) * 2654435761u + 1, step = (uint32_t)atoi(argv[3]);
    uint32_t only = argc > 4 ? (uint32_t)atoi(argv[4]) : 0, calls, cuts = 0;

    seed = first_seed;
    make_model(&models[0], 'A', g->model_bytes / 2);
    make_model(&models[1], 'B', g->model_bytes - 7);
    make_model(&models[2], 'C', g->model_bytes);
    build(g);
    fresh();
    demand(transfer(&models[2]), "model 2 was not taken");
    calls = chip.calls;
    for (uint32_t cut = only ? only : 1; cut <= (only ? only : calls); cut += cut < 40 || calls - cut < 80 ? 1 : step) {
        /* The first calls erase and begin, the last ones switch: none of those is left out. */
        seed = first_seed + cut;
        for (int style = 0; style < STYLES; style++, cuts += 2) {
            cut_once(cut, (enum style)style, 0);
            cut_once(cut, (enum style)style, 1);
        }
        for (unsigned i = 0; i < (calls - cut < 10 ? 2 + 1000 / step : 2); i++, cuts++) cut_and_replace(cut);
    }
    printf("{\"calls\": %u, \"cuts\": %u, \"starts\": %u}\n", calls, cuts, starts);
    return 0;
}
