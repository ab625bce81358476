/* What the board streams where no other file is given (`make mps2 DATA=FILE`): two windows of a three-axis ramp. A file
 * of data has these names. */
#define DATA_NAME "ramp"
#define DATA_UNIT "g"
#define DATA_SCALE 0.001
#define DATA_RATE 50
#define DATA_CHANNELS 3
#define DATA_DTYPE EC_DTYPE_INT16
#define DATA_SAMPLES 32 /* of one window */
#define DATA_WINDOWS 2

static const int16_t data[DATA_WINDOWS * DATA_SAMPLES * DATA_CHANNELS] = {
#define ROW(i) (i), 1000 - (i), (i) * (i) % 100
#define ROWS(i) ROW(i), ROW(i + 1), ROW(i + 2), ROW(i + 3), ROW(i + 4), ROW(i + 5), ROW(i + 6), ROW(i + 7)
    ROWS(0), ROWS(8), ROWS(16), ROWS(24), ROWS(32), ROWS(40), ROWS(48), ROWS(56),
};
