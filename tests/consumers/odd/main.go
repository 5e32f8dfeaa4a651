// Odd serves one connection a stream of unusual but valid frames, and closes it. It prints its port.
//
// The frames are written by hand, since no library encodes them like this.
// tests/system/test_consumers.py has the expected events.
package main

import (
	"encoding/binary"
	"fmt"
	"log"
	"math"
	"net"
	"slices"
	"strings"
)

// Wire types.
const (
	varintType  = 0
	fixed64Type = 1
	bytesType   = 2
	groupBegin  = 3
	groupEnd    = 4
	fixed32Type = 5
)

func varint(value uint64) []byte {
	return binary.AppendUvarint(nil, value)
}

// padded returns a varint of a larger size than necessary.
func padded(value uint64, size int) []byte {
	number := varint(value)
	for len(number) < size {
		number[len(number)-1] |= 0x80
		number = append(number, 0)
	}
	return number
}

func join(parts ...[]byte) []byte {
	return slices.Concat(parts...)
}

func tag(field, wireType uint64) []byte {
	return varint(field<<3 | wireType)
}

func number(field, value uint64) []byte {
	return join(tag(field, varintType), varint(value))
}

func double(field uint64, value float64) []byte {
	return binary.LittleEndian.AppendUint64(tag(field, fixed64Type), math.Float64bits(value))
}

func message(field uint64, parts ...[]byte) []byte {
	content := join(parts...)
	return join(tag(field, bytesType), varint(uint64(len(content))), content)
}

func text(field uint64, value string) []byte {
	return message(field, []byte(value))
}

func group(field uint64, parts ...[]byte) []byte {
	return join(tag(field, groupBegin), join(parts...), tag(field, groupEnd))
}

func frame(parts ...[]byte) []byte {
	content := join(parts...)
	return join(varint(uint64(len(content))), content)
}

// Fields of txmetrics_tcp/event.proto.

func metadata(parts ...[]byte) []byte { return message(1, parts...) }
func metric(parts ...[]byte) []byte   { return message(2, parts...) }
func name(value string) []byte        { return text(1, value) }
func label(key, value string) []byte  { return message(3, text(1, key), text(2, value)) }
func increment(value uint64) []byte   { return number(4, value) }
func setCounter(value uint64) []byte  { return number(5, value) }
func setGauge(value float64) []byte   { return double(8, value) }
func record(value float64) []byte     { return double(9, value) }
func snapshot(parts ...[]byte) []byte { return message(1001, parts...) }
func gone(parts ...[]byte) []byte     { return message(1002, parts...) }
func total(parts ...[]byte) []byte    { return message(1003, parts...) }

func timestamp(seconds, nanos uint64) []byte {
	return message(2, number(1, seconds), number(2, nanos))
}

// unknown returns fields of all wire types that no message has.
func unknown() []byte {
	return join(
		number(100, math.MaxUint64),
		double(101, 1),
		text(102, "\xff is not UTF-8"),
		group(103, number(1, 1), group(1, text(2, "nested"), group(103)), double(2, 2)),
		tag(104, fixed32Type), []byte{1, 2, 3, 4},
		number(1<<29-1, 1), // the highest number
	)
}

var (
	empty   = []byte{0}
	long    = strings.Repeat("x", 900<<10)
	content = metric(name("padded_frame"), increment(1))
	stream  = [][]byte{
		// A complete snapshot.
		frame(metric(name("absent"), increment(1))),
		frame(snapshot(unknown(), number(2, 1), number(1, 2), number(1, 1))),
		frame(metric(name("present"), setCounter(5))),
		frame(snapshot(number(1, 2), unknown())),

		// Numbers in more bytes than necessary: the lengths of a frame, of an empty frame and of a message, and a value.
		// Within a frame, the libraries differ: Python's rejects lengths of more than five bytes, and Java's misreads a
		// value whose tenth byte is zero.
		join(padded(uint64(len(content)), 10), content),
		padded(0, 10),
		frame(tag(2, bytesType), padded(uint64(len(content)-2), 5), content[2:]),
		frame(metric(name("padded_value"), tag(4, varintType), padded(7, 9))),
		empty, empty, empty,

		// Unknown fields in an event, in a metric and in a timestamp.
		frame(unknown(), metric(name("unknown_fields"), increment(2)), unknown()),
		frame(metric(unknown(), name("unknown_fields"), unknown(), increment(3), unknown())),
		frame(metric(
			name("unknown_fields"),
			message(2, unknown(), number(1, 1), unknown()),
			increment(4),
		)),

		// Gone series.
		frame(metric(name("gone"), label("a", "1"), label("b", ""), increment(1))),
		frame(metric(name("gone"), setGauge(1))),
		frame(metric(name("stays"), increment(1))),
		frame(gone(unknown(), label("b", ""), label("a", "0"), number(1, 0), text(2, "gone"), label("a", "1"))),
		frame(gone(text(2, "earlier"), message(4, number(1, 7)), number(1, 1)), gone(text(2, "gone"))),
		frame(gone(text(2, "stays"), number(1, 2))), // a histogram
		frame(gone()),

		// Totals of histograms: fields in another order and more than once, numbers that are not packed, and unknown fields.
		// The numbers of buckets are in zigzag encoding.
		frame(metric(name("total"), label("a", "1"), record(1))),
		frame(
			total(
				message(10, number(1, 1), number(2, 2), unknown()), // bucket -1
				double(7, 8), double(6, -8), double(5, 0.5),
				number(9, 1), unknown(), number(4, 9), label("a", "1"), // scale -5
				message(11, message(1, varint(0)), message(2, varint(1<<40))),
			),
			total(name("total"), number(8, 3), number(4, 0), timestamp(9, 10), message(10, message(1, varint(4)), message(2, varint(4)))),
		),
		frame(metric(name("total"), label("a", "1"), record(2))),
		frame(total()),

		// Labels.
		frame(metric(name("labels"), label("a", "first"), label("b", ""), label("a", "last"), increment(1))),
		frame(metric(name("labels"), label("b", ""), label("a", "last"), increment(2))),
		frame(metric(name("labels"), label("a", "last"), increment(4))),
		frame(metric(name("labels"), message(3, text(2, "last"), text(1, "a")), increment(8))),
		frame(metric(name("labels"), message(3, text(1, "absent value")), increment(16))),
		frame(metric(name("labels"), message(3, text(2, "absent key")), increment(32))),
		frame(metric(name("labels"), message(3), increment(64))),
		frame(metric(name("labels"), label("__proto__", "1"), increment(128))),
		frame(metric(name("labels"), label("a", "b,c"), label("a,b", "c"), increment(256))),
		frame(metric(name("labels"), label("a,b", "c"), label("a", "b,c"), increment(512))),

		// The order of fields.
		frame(metric(setGauge(math.Copysign(0, -1)), label("z", "1"), timestamp(3, 4), label("y", "2"), name("order"))),
		frame(metric(timestamp(5, 6), setGauge(math.Inf(-1)), name("order"), label("y", "2"), label("z", "1"))),

		// Fields that occur more than once: the last one counts, but messages are merged.
		frame(metric(name("earlier"), name("repeated"), increment(1), record(1), increment(2), setCounter(1<<63))),
		frame(
			metric(name("split"), label("a", "1"), message(2, number(1, 7)), increment(1)),
			metric(label("b", "2"), message(2, number(2, 8)), increment(math.MaxUint64)),
		),
		frame(metadata(name("not this")), metric(name("variant"), increment(1))),
		frame(metric(name("not this"), increment(1)), metadata(name("variant"), number(2, 2))),

		// Values that an encoder leaves out: they are the defaults.
		frame(metric(name("zero"), increment(0))),
		frame(metric(name("zero"), setGauge(0))),
		frame(metadata(name("zero"), number(2, 0), text(3, ""), text(4, ""))),
		frame(metadata()),

		// Timestamps.
		frame(metric(name("time"), record(math.NaN()))),
		frame(metric(name("time"), message(2), record(math.MaxFloat64))),
		frame(metric(name("time"), timestamp(math.MaxUint64, 999_999_999), record(5e-324))),
		frame(metric(name("time"), timestamp(253_402_300_799, 999_999_999), record(1))),

		// Events that a client skips.
		frame(unknown()),
		frame(text(3, "a variant of the Rust crate")),
		frame(message(999, unknown())),
		frame(message(1004, unknown())),
		frame(snapshot(unknown())),
		frame(snapshot(number(1, 3))),
		frame(metric(name("no operation"))),
		frame(metric(name("unknown operation"), number(10, 1))),
		frame(metadata(name("unknown kind"), number(2, 3))),
		frame(metadata(name("unknown kind"), number(2, math.MaxUint64))), // -1
		frame(gone(text(2, "stays"), number(1, 3))),

		// Large frames.
		frame(metadata(name("large"), text(4, long))),
		frame(metric(name("large"), label("long", long), increment(1))),
		frame(unknown(), text(105, long)),
		frame(metric(name("end"), increment(1))),
	}
)

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	connection, err := listener.Accept()
	if err != nil {
		log.Fatal(err)
	}
	listener.Close()
	connection.Write(join(stream...))
	connection.Close()
}
