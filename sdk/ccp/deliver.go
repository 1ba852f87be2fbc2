package ccp

import "encoding/binary"

// Deliver flags.
const (
	// DeliverOwn: a copy of what another device of this account sent.
	DeliverOwn uint8 = 1
	// DeliverAgain: sent before, may be a duplicate.
	DeliverAgain uint8 = 2
	// DeliverDirect: addressed without a channel.
	DeliverDirect uint8 = 4

	deliverFlags = DeliverOwn | DeliverAgain | DeliverDirect
)

// Deliver is a message on its way to a device:
//
//	kind u8 | flags u8 | position u64 | log 8 | counter u64 | time u64 |
//	len u8 | device | len u8 | user | body
//
// Integers are big endian. The channel is the frame's.
type Deliver struct {
	Kind  Type
	Flags uint8
	// Position is strictly increasing per receiving device, with gaps; 0 is
	// ephemeral.
	Position uint64
	ID       MessageID
	// Time is when the relay stored the message, unix milliseconds.
	Time int64
	// Device and User are the authenticated sender, each at most 255 bytes;
	// empty where the relay itself speaks.
	Device []byte
	User   []byte
	// Body is the payload of the inner frame.
	Body []byte
}

const deliverFixed = 1 + 1 + 8 + 8 + 8 + 8

// ParseDeliver is Deliver.Parse into a fresh Deliver.
func ParseDeliver(payload []byte) (Deliver, error) {
	var d Deliver
	err := d.Parse(payload)
	return d, err
}

// Parse reads a payload; the slices alias it. It allocates only if it fails.
// Where the fields could be read but the kind or the body is not allowed, they
// are filled in beside the error, so that the receiver can acknowledge the
// position of a message that it cannot use.
func (d *Deliver) Parse(payload []byte) error {
	*d = Deliver{}
	if len(payload) < deliverFixed {
		return &Error{Kind: Truncated, Field: "deliver"}
	}
	device, rest, err := shortName(payload[deliverFixed:], "device")
	if err != nil {
		return err
	}
	user, body, err := shortName(rest, "user")
	if err != nil {
		return err
	}
	*d = Deliver{
		Kind:     Type(payload[0]),
		Flags:    payload[1],
		Position: binary.BigEndian.Uint64(payload[2:]),
		ID:       MessageID{Log: [8]byte(payload[10:18]), Counter: binary.BigEndian.Uint64(payload[18:])},
		Time:     int64(binary.BigEndian.Uint64(payload[26:])),
		Device:   device,
		User:     user,
		Body:     body,
	}
	return d.check()
}

func (d *Deliver) check() error {
	switch {
	case !d.Kind.Deliverable():
		return &Error{Kind: BadKind, Field: "kind"}
	case d.Flags&^deliverFlags != 0:
		return badField("flags", "unknown bits")
	}
	return checkBody(d.Kind, d.Body)
}

// AppendDeliver appends the payload. On error dst is returned unchanged.
func AppendDeliver(dst []byte, d Deliver) ([]byte, error) {
	if err := d.check(); err != nil {
		return dst, err
	}
	return appendDeliver(dst, d)
}

// AppendDeliverHeader appends everything of the payload but the body, which the
// caller appends next; d.Body is not looked at. The relay uses it for bodies
// that it checked when they were sent.
func AppendDeliverHeader(dst []byte, d Deliver) ([]byte, error) {
	if !d.Kind.Deliverable() {
		return dst, &Error{Kind: BadKind, Field: "kind"}
	}
	d.Body = nil
	return appendDeliver(dst, d)
}

// DeliverLen is the length of the payload that AppendDeliver makes of names and
// a body of these lengths.
func DeliverLen(device, user, body int) int { return deliverFixed + 2 + device + user + body }

func appendDeliver(dst []byte, d Deliver) ([]byte, error) {
	if len(d.Device) > MaxName || len(d.User) > MaxName {
		return dst, badField("device", "device or user longer than 255 bytes")
	}
	dst = append(dst, byte(d.Kind), d.Flags)
	dst = binary.BigEndian.AppendUint64(dst, d.Position)
	dst = append(dst, d.ID.Log[:]...)
	dst = binary.BigEndian.AppendUint64(dst, d.ID.Counter)
	dst = binary.BigEndian.AppendUint64(dst, uint64(d.Time))
	dst = append(append(dst, byte(len(d.Device))), d.Device...)
	dst = append(append(dst, byte(len(d.User))), d.User...)
	return append(dst, d.Body...), nil
}
