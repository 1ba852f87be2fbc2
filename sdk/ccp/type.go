package ccp

import "strconv"

// Type is the type byte of a frame.
type Type uint8

// The frame types of CCP-1 (ccp1.md 1.5), and from TypeSend on those of the
// capability ack (protocol-extensions.md section 5).
const (
	TypeHello           Type = 0x01
	TypeAuth            Type = 0x02
	TypeJoin            Type = 0x03
	TypeLeave           Type = 0x04
	TypeMsg             Type = 0x05
	TypeAck             Type = 0x06
	TypeTyping          Type = 0x07
	TypePresence        Type = 0x08
	TypeKeyUpdate       Type = 0x09
	TypeGroupCreate     Type = 0x0a
	TypeGroupInvite     Type = 0x0b
	TypeGroupEvent      Type = 0x0c
	TypeError           Type = 0x0d
	TypeCallOffer       Type = 0x0e
	TypeCallAnswer      Type = 0x0f
	TypeCallEnd         Type = 0x10
	TypeVoiceFrame      Type = 0x11
	TypeVideoFrame      Type = 0x12
	TypeCallStats       Type = 0x13
	TypeTransportUpdate Type = 0x14

	TypeSend    Type = 0x20
	TypeDeliver Type = 0x21
	TypeDone    Type = 0x22
	TypePad     Type = 0x23
	TypeMove    Type = 0x24
)

const (
	traitValid = 1 << iota
	traitControl
	traitExtension
	traitSend    // may be the kind of a Send
	traitDeliver // may be the kind of a Deliver
)

var typeTraits = [...]uint8{
	TypeHello:           traitValid | traitControl,
	TypeAuth:            traitValid | traitControl,
	TypeJoin:            traitValid | traitControl | traitDeliver,
	TypeLeave:           traitValid | traitControl | traitDeliver,
	TypeMsg:             traitValid | traitSend | traitDeliver,
	TypeAck:             traitValid | traitControl,
	TypeTyping:          traitValid | traitControl | traitSend | traitDeliver,
	TypePresence:        traitValid | traitControl | traitDeliver,
	TypeKeyUpdate:       traitValid | traitControl | traitSend | traitDeliver,
	TypeGroupCreate:     traitValid | traitControl | traitDeliver,
	TypeGroupInvite:     traitValid | traitControl | traitDeliver,
	TypeGroupEvent:      traitValid | traitControl | traitSend | traitDeliver,
	TypeError:           traitValid | traitControl,
	TypeCallOffer:       traitValid | traitControl | traitSend | traitDeliver,
	TypeCallAnswer:      traitValid | traitControl | traitSend | traitDeliver,
	TypeCallEnd:         traitValid | traitControl | traitSend | traitDeliver,
	TypeVoiceFrame:      traitValid | traitSend | traitDeliver,
	TypeVideoFrame:      traitValid | traitSend | traitDeliver,
	TypeCallStats:       traitValid | traitControl | traitSend | traitDeliver,
	TypeTransportUpdate: traitValid | traitControl | traitSend | traitDeliver,
	TypeSend:            traitValid | traitExtension,
	TypeDeliver:         traitValid | traitExtension,
	TypeDone:            traitValid | traitExtension,
	TypePad:             traitValid | traitExtension,
	TypeMove:            traitValid | traitExtension | traitControl,
}

var typeLabels = [...]string{
	TypeHello: "hello", TypeAuth: "auth", TypeJoin: "join", TypeLeave: "leave",
	TypeMsg: "msg", TypeAck: "ack", TypeTyping: "typing", TypePresence: "presence",
	TypeKeyUpdate: "key_update", TypeGroupCreate: "group_create",
	TypeGroupInvite: "group_invite", TypeGroupEvent: "group_event", TypeError: "error",
	TypeCallOffer: "call_offer", TypeCallAnswer: "call_answer", TypeCallEnd: "call_end",
	TypeVoiceFrame: "voice_frame", TypeVideoFrame: "video_frame", TypeCallStats: "call_stats",
	TypeTransportUpdate: "transport_update", TypeSend: "send", TypeDeliver: "deliver",
	TypeDone: "done", TypePad: "pad", TypeMove: "move",
}

func (t Type) has(trait uint8) bool { return int(t) < len(typeTraits) && typeTraits[t]&trait != 0 }

// Valid says that the type is in one of the two tables.
func (t Type) Valid() bool { return t.has(traitValid) }

// Control says that the payload is JSON; all other types are opaque.
func (t Type) Control() bool { return t.has(traitControl) }

// Extension says that the type may be sent only where ack was accepted (Pad:
// records).
func (t Type) Extension() bool { return t.has(traitExtension) }

// Sendable says that the type may be the kind of a [Send].
func (t Type) Sendable() bool { return t.has(traitSend) }

// Deliverable says that the type may be the kind of a [Deliver]: what can be
// sent, and what the relay itself hands on (Join, Leave, Presence and the two
// group types).
func (t Type) Deliverable() bool { return t.has(traitDeliver) }

// Media says that the type is voice or video: relayed to online peers only and
// droppable.
func (t Type) Media() bool { return t == TypeVoiceFrame || t == TypeVideoFrame }

// String is the label of NDJSON and metrics ("msg", "key_update").
func (t Type) String() string {
	if t.Valid() {
		return typeLabels[t]
	}
	return "type(0x" + strconv.FormatUint(uint64(t), 16) + ")"
}
