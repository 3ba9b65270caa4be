// Modbus devices on npm's modbus-serial, for the tests: `node modbus_serial_server.js PORT`. Words are typed from the
// manuals; the same ones stand in libmodbus_server.c.
"use strict";
const { ServerTCP } = require("modbus-serial");

const at = (first, words) => new Map(words.map((word, nth) => [first + nth, word]));
const all = (...parts) => new Map(parts.flatMap((part) => [...part]));

const devices = {
  // PZEM-016: 230.2 V, 123.456 A, 29056.2 W, 0.007 kWh, 50.0 Hz, 0.95; double words low word first.
  1: { inputs: at(0, [0x08fe, 0xe240, 0x0001, 0x6f02, 0x0004, 0x0007, 0x0000, 0x01f4, 0x005f, 0x0000]) },
  // Eastron SDM120: 230.2 V, 0.5 A, 115.1 W, 0.95, 50.0 Hz, 1234.5 kWh as IEEE 754, high word first.
  2: {
    inputs: all(
      at(0, Array(0x180).fill(0)),
      at(0x0000, [0x4366, 0x3333]),
      at(0x0006, [0x3f00, 0x0000]),
      at(0x000c, [0x42e6, 0x3333]),
      at(0x001e, [0x3f73, 0x3333]),
      at(0x0046, [0x4248, 0x0000]),
      at(0x0156, [0x449a, 0x5000]),
    ),
  },
  3: { holding: at(0, [0x0218]) }, // XM9505: 53.6 mm
  4: { holding: at(0x34, [0x070b]) }, // SEN0492: 1803 mm
  // DDS238: 1234.56 kWh; 230.0 V, 1.00 A, -200 W, 0.999, 50.00 Hz.
  5: {
    holding: all(
      at(0, Array(0x20).fill(0)),
      at(0x0000, [0x0001, 0xe240]),
      at(0x000c, [0x08fc, 0x0064, 0xff38, 0x0000, 0x03e7, 0x1388]),
    ),
  },
  // A device with a value of each type in each order of bytes; see the profile in test_interop.py.
  6: {
    inputs: at(100, [
      ...[0x0000, 0x0001, 0x0000, 0x0002], // 4294967298
      ...[0xfffe, 0xffff, 0xffff, 0xffff], // -2, words swapped
      ...[0x6c40, 0x66c6, 0x6666, 0x6666], // 230.2, bytes swapped within words
      ...[0xdead, 0xbeef], // a hole: nobody's words
      ...[0x9876, 0x1234, 0x5678], // decimal digits, 4 and 8
      ...[0x3333, 0x6643], // 230.2, little-endian
      0x8005, // bits 0, 2 and 15
    ]),
    coils: at(8, [1, 0, 1, 1, 0, 0, 0, 1, 1, 0, 1]),
    contacts: at(16, [0, 0, 1, 0, 1, 1, 1, 0, 0, 1, 1]),
  },
  7: { holding: at(0x34, [0xffff]) }, // SEN0492: no echo
  8: { holding: at(0x34, [0x1068]) }, // SEN0492: 4200 mm, more than it can measure
  // As many registers as one answer holds, and 2000 coils.
  9: {
    holding: at(0, Array.from({ length: 125 }, (_, nth) => 0xa500 + nth)),
    coils: at(0, Array.from({ length: 2000 }, (_, nth) => (nth % 3 ? 0 : 1))),
  },
  // DALI-GW2, short address 63: told to do nothing; gear 2, status 0, level 127 of 254.
  10: { holding: at(3315, [0x0000, 0x0000, 0x0002, 0x0000, 0x007f]) },
  // HD2013.3: it rains, surely, and does not snow; 24.1 V, -3.5 degrees, 31.2 at the heater, 60 %.
  11: {
    contacts: at(0, [1, 1, 0]),
    inputs: at(7, [0x00f1, 0x00fa, 0x0bb8, 0x03ca, 0x0000, 0xffdd, 0x0138, 0x003c]),
  },
  12: { holding: at(0, [0, 0, 0, 0]), coils: at(0, [0, 0]) }, // a warning board and its beacon, dark
};

// 0x0B is how gateways say that nobody answers; 2 is for an address the device does not have.
function table(kind, unit, address) {
  if (!(unit in devices)) throw { modbusErrorCode: 0x0b };
  const found = devices[unit][kind];
  if (found === undefined || !found.has(address)) throw { modbusErrorCode: 2 };
  return found;
}

const reading = (kind) => (address, unit) => table(kind, unit, address).get(address);
const writing = (kind) => (address, value, unit) => void table(kind, unit, address).set(address, value);

const server = new ServerTCP(
  {
    getInputRegister: reading("inputs"),
    getHoldingRegister: reading("holding"),
    getCoil: reading("coils"),
    getDiscreteInput: reading("contacts"),
    setRegister: writing("holding"),
    setCoil: writing("coils"),
  },
  { host: "127.0.0.1", port: Number(process.argv[2]) },
);
server.on("serverError", (error) => {
  console.error(error.message);
  process.exit(1);
});
