#define _POSIX_C_SOURCE 200809L
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "posix.h"

#define BLOCK 4096u
#define DATA (256u * 1024u)
#define SIZE (2u * BLOCK + 2u * DATA)
#define UNIT 8u

static uint8_t *flash;

static enum ec_status flash_read(void *user, uint32_t address, uint8_t *bytes, uint32_t count) {
    (void)user;
    memcpy(bytes, flash + address, count);
    return EC_OK;
}

static enum ec_status flash_program(void *user, uint32_t address, const uint8_t *unit) {
    (void)user;
    for (uint32_t i = 0; i < UNIT; i++) flash[address + i] &= unit[i];
    return memcmp(flash + address, unit, UNIT) ? EC_FLASH : EC_OK; /* it was not erased */
}

static enum ec_status flash_erase(void *user, uint32_t address) {
    (void)user;
    memset(flash + address, 0xFF, BLOCK);
    return EC_OK;
}

const uint8_t *flash_at(uint32_t address) {
    return flash + address;
}

void flash_open(const char *path, struct ec_slots_config *config) {
    static uint8_t unit[UNIT];
    struct stat found;
    int file = open(path, O_RDWR | O_CREAT, 0666);

    if (file < 0 || fstat(file, &found) || (found.st_size != 0 && found.st_size != SIZE) || ftruncate(file, SIZE))
        fail("%s cannot be flash of %u bytes: %s", path, SIZE, strerror(errno));
    flash = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (flash == MAP_FAILED) fail("%s cannot be mapped: %s", path, strerror(errno));
    if (found.st_size == 0) memset(flash, 0xFF, SIZE);
    *config = (struct ec_slots_config){
        .flash = {flash_read, flash_program, flash_erase, NULL, UNIT},
        .header = {0, BLOCK},
        .header_bytes = BLOCK,
        .data = {2 * BLOCK, 2 * BLOCK + DATA},
        .data_bytes = DATA,
        .erase_bytes = BLOCK,
        .unit = unit,
    };
}
