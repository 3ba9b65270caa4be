/* Modbus devices on libmodbus, for the tests: `libmodbus_server tcp PORT` is all of them behind one endpoint,
   `libmodbus_server rtu TTY UNIT` one of them on a serial line. Words are typed from the manuals; the same stand in
   modbus_serial_server.js. */
#include <errno.h>
#include <modbus.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/select.h>
#include <unistd.h>

#define COUNT(table) ((int)(sizeof(table) / sizeof((table)[0])))
#define INPUTS(first, words) \
    .start_input_registers = first, .nb_input_registers = COUNT(words), .tab_input_registers = words
#define HOLDING(first, words) .start_registers = first, .nb_registers = COUNT(words), .tab_registers = words
#define COILS(first, bits) .start_bits = first, .nb_bits = COUNT(bits), .tab_bits = bits
#define CONTACTS(first, bits) .start_input_bits = first, .nb_input_bits = COUNT(bits), .tab_input_bits = bits

/* 230.2 V, 123.456 A, 29056.2 W, 0.007 kWh, 50.0 Hz, 0.95; double words low word first. */
static uint16_t pzem_016[] = {0x08FE, 0xE240, 0x0001, 0x6F02, 0x0004, 0x0007, 0x0000, 0x01F4, 0x005F, 0x0000};

/* 230.2 V, 0.5 A, 115.1 W, 0.95, 50.0 Hz, 1234.5 kWh as IEEE 754, high word first. */
static uint16_t eastron_sdm120[0x180] = {
    [0x0000] = 0x4366, 0x3333, [0x0006] = 0x3F00, 0x0000, [0x000C] = 0x42E6, 0x3333,
    [0x001E] = 0x3F73, 0x3333, [0x0046] = 0x4248, 0x0000, [0x0156] = 0x449A, 0x5000,
};

/* 53.6 mm. */
static uint16_t xunchip_xm9505[] = {0x0218};

/* 1803 mm; no echo; 4200 mm, more than it can measure. */
static uint16_t dfrobot_sen0492[] = {0x070B}, no_echo[] = {0xFFFF}, too_far[] = {0x1068};

/* 1234.56 kWh; 230.0 V, 1.00 A, -200 W, 0.999, 50.00 Hz. */
static uint16_t hiking_dds238[0x20] = {
    [0x0000] = 0x0001, 0xE240, [0x000C] = 0x08FC, 0x0064, 0xFF38, 0x0000, 0x03E7, 0x1388,
};

/* A device with a value of each type in each order of bytes; see the profile in test_interop.py. */
static uint16_t every_type[] = {
    0x0000, 0x0001, 0x0000, 0x0002, /* 4294967298 */
    0xFFFE, 0xFFFF, 0xFFFF, 0xFFFF, /* -2, words swapped */
    0x6C40, 0x66C6, 0x6666, 0x6666, /* 230.2, bytes swapped within words */
    0xDEAD, 0xBEEF,                 /* a hole: nobody's words */
    0x9876, 0x1234, 0x5678,         /* decimal digits, 4 and 8 */
    0x3333, 0x6643,                 /* 230.2, little-endian */
    0x8005,                         /* bits 0, 2 and 15 */
};
static uint8_t coils[] = {1, 0, 1, 1, 0, 0, 0, 1, 1, 0, 1}, contacts[] = {0, 0, 1, 0, 1, 1, 1, 0, 0, 1, 1};

/* Registers 0 to 124, as many as one answer holds, and 2000 coils; filled in main. */
static uint16_t longest[125];
static uint8_t most_coils[2000];

/* DALI-GW2, short address 63: told to do nothing; gear 2, status 0, level 127 of 254. */
static uint16_t ecodim_dali_gw2[] = {0x0000, 0x0000, 0x0002, 0x0000, 0x007F};

/* HD2013.3: it rains, surely, and does not snow; 24.1 V, -3.5 degrees, 31.2 at the heater, 60 %. */
static uint8_t rains[] = {1, 1, 0};
static uint16_t deltaohm_hd2013_3[] = {0x00F1, 0x00FA, 0x0BB8, 0x03CA, 0x0000, 0xFFDD, 0x0138, 0x003C};

/* A warning board and its beacon, dark. */
static uint16_t board[4];
static uint8_t beacon[2];

static modbus_mapping_t devices[] = {
    [1] = {INPUTS(0, pzem_016)},
    [2] = {INPUTS(0, eastron_sdm120)},
    [3] = {HOLDING(0, xunchip_xm9505)},
    [4] = {HOLDING(0x34, dfrobot_sen0492)},
    [5] = {HOLDING(0, hiking_dds238)},
    [6] = {INPUTS(100, every_type), COILS(8, coils), CONTACTS(16, contacts)},
    [7] = {HOLDING(0x34, no_echo)},
    [8] = {HOLDING(0x34, too_far)},
    [9] = {HOLDING(0, longest), COILS(0, most_coils)},
    [10] = {HOLDING(3315, ecodim_dali_gw2)},
    [11] = {CONTACTS(0, rains), INPUTS(7, deltaohm_hd2013_3)},
    [12] = {HOLDING(0, board), COILS(0, beacon)},
};

static void die(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, modbus_strerror(errno));
    exit(1);
}

/* Answers one request; 0 when the peer is gone. A unit that is not there is answered as gateways do: 0x0B. */
static int answer(modbus_t *context)
{
    uint8_t query[MODBUS_TCP_MAX_ADU_LENGTH];
    int size = modbus_receive(context, query);
    if (size <= 0)
        return size == 0;
    int unit = query[modbus_get_header_length(context) - 1];
    if (unit > 0 && unit < COUNT(devices))
        return modbus_reply(context, query, size, &devices[unit]) >= 0;
    return modbus_reply_exception(context, query, MODBUS_EXCEPTION_GATEWAY_TARGET) >= 0;
}

static void serve_tcp(int port)
{
    modbus_t *context = modbus_new_tcp("127.0.0.1", port);
    int listening = context ? modbus_tcp_listen(context, 8) : -1, highest = listening;
    if (listening < 0)
        die("tcp");
    fd_set open, ready;
    FD_ZERO(&open);
    FD_SET(listening, &open);
    for (;;) {
        ready = open;
        if (select(highest + 1, &ready, NULL, NULL, NULL) < 0)
            die("select");
        for (int peer = 0; peer <= highest; peer++) {
            if (!FD_ISSET(peer, &ready))
                continue;
            if (peer == listening) {
                int accepted = modbus_tcp_accept(context, &(int){listening});
                FD_SET(accepted, &open);
                highest = accepted > highest ? accepted : highest;
            } else {
                modbus_set_socket(context, peer);
                if (!answer(context)) {
                    close(peer);
                    FD_CLR(peer, &open);
                }
            }
        }
    }
}

static void serve_rtu(const char *tty, int unit)
{
    modbus_t *context = modbus_new_rtu(tty, 9600, 'N', 8, 1);
    if (!context || modbus_set_slave(context, unit) || modbus_connect(context))
        die(tty);
    puts("ready");
    fflush(stdout);
    for (;;)
        if (!answer(context)) { /* half a frame, or a wrong checksum */
            if (errno == EIO)
                die("rtu");
            modbus_flush(context);
        }
}

int main(int count, char **arguments)
{
    for (int n = 0; n < COUNT(longest); n++)
        longest[n] = (uint16_t)(0xA500 + n);
    for (int n = 0; n < COUNT(most_coils); n += 3)
        most_coils[n] = 1;
    if (count == 3 && !strcmp(arguments[1], "tcp"))
        serve_tcp(atoi(arguments[2]));
    if (count == 4 && !strcmp(arguments[1], "rtu"))
        serve_rtu(arguments[2], atoi(arguments[3]));
    fprintf(stderr, "usage: libmodbus_server tcp PORT | rtu TTY UNIT\n");
    return 2;
}
