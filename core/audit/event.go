package audit

import (
	"encoding/hex"
	"maps"
	"slices"
	"time"
)

// Event is one thing to record; the functions below make them.
type Event struct {
	// Action is the stable name, for example "device.revoked".
	Action string
	// kind and id name the subject, whose keyed digest becomes the record's.
	kind, id string
	// users and devices are ids that appear as keyed digests.
	ids map[string][2]string
	// fields appear as they are: nothing personal, no secret.
	fields map[string]any
}

// metadata resolves the ids.
func (e Event) metadata(subject func(kind, id string) [32]byte) map[string]any {
	m := map[string]any{"action": e.Action}
	maps.Copy(m, e.fields)
	for key, id := range e.ids {
		digest := subject(id[0], id[1])
		m[key] = hex.EncodeToString(digest[:16])
	}
	return m
}

// Device names a device in an event.
type Device struct {
	User, ID string
	// Public is the device's key; only its keyed digest is recorded.
	Public [32]byte
}

func (d Device) event(action string, fields map[string]any) Event {
	e := Event{Action: action, kind: "device", id: d.ID, fields: fields, ids: map[string][2]string{
		"user": {"user", d.User}, "device": {"device", d.ID},
	}}
	if d.Public != [32]byte{} {
		e.ids["key"] = [2]string{"key", string(d.Public[:])}
	}
	return e
}

// Registered: an account began with this device, through "invite" or "open".
func Registered(d Device, via string) Event {
	return d.event("user.registered", map[string]any{"via": via})
}

// DeviceAdded: a device joined an account, through "pairing" or "certificate".
func DeviceAdded(d Device, via string) Event {
	return d.event("device.added", map[string]any{"via": via})
}

// DeviceRevoked: a device was cut off, by "user" or "operator".
func DeviceRevoked(d Device, by string) Event {
	return d.event("device.revoked", map[string]any{"by": by})
}

// DeviceRotated: a device's key was replaced; via is "signature" or "pairing".
func DeviceRotated(d Device, via string) Event {
	return d.event("device.rotated", map[string]any{"via": via})
}

// CertificateIssued: the device got a certificate with this serial number.
func CertificateIssued(d Device, serial uint64, expires time.Time) Event {
	return d.event("certificate.issued", map[string]any{"serial": serial, "expires": stamp(expires)})
}

// UserRemoved: an account and its devices were removed, by "user" or "operator".
func UserRemoved(user, by string) Event {
	return Event{Action: "user.removed", kind: "user", id: user, fields: map[string]any{"by": by}, ids: map[string][2]string{"user": {"user", user}}}
}

func invite(action, id string, fields map[string]any) Event {
	return Event{Action: action, kind: "invite", id: id, fields: fields, ids: map[string][2]string{"invite": {"invite", id}}}
}

// InviteCreated: id is the invitation's public id, never its secret.
func InviteCreated(id string, quota uint32, expires time.Time, by string) Event {
	return invite("invite.created", id, map[string]any{"quota": quota, "expires": stamp(expires), "by": by})
}

// InviteSpent: an account was made with the invitation.
func InviteSpent(id, user string) Event {
	e := invite("invite.spent", id, nil)
	e.ids["user"] = [2]string{"user", user}
	return e
}

// InviteRevoked: the invitation ended before its time.
func InviteRevoked(id, by string) Event {
	return invite("invite.revoked", id, map[string]any{"by": by})
}

// Purged: an operator removed messages that waited for a device.
func Purged(device string, messages uint64, reason string) Event {
	return Event{Action: "queue.purged", kind: "device", id: device, ids: map[string][2]string{"device": {"device", device}},
		fields: map[string]any{"messages": messages, "reason": reason}}
}

// KeyRotated: the relay has a new key of its own ("noise", "root", "ca", "entry",
// "storage"); fingerprint is public.
func KeyRotated(what string, version uint32, fingerprint string) Event {
	return Event{Action: "key.rotated", kind: "relay-key", id: what,
		fields: map[string]any{"what": what, "version": version, "fingerprint": fingerprint}}
}

// PeerChanged: another relay was "added", "removed" or "blocked".
func PeerChanged(domain, change string) Event {
	return Event{Action: "peer." + change, kind: "peer", id: domain, fields: map[string]any{"domain": domain}}
}

// Configured: these keys changed; values are not recorded.
func Configured(keys []string, how string) Event {
	const most = 256
	keys = slices.Clone(keys)
	fields := map[string]any{"how": how, "count": len(keys)}
	if len(keys) > most {
		keys = keys[:most]
	}
	fields["keys"] = keys
	return Event{Action: "configuration.changed", kind: "relay", id: "configuration", fields: fields}
}

// Imported: rows of another program's database were taken over, so many of each table.
func Imported(source string, rows map[string]uint64) Event {
	counts := make(map[string]any, len(rows))
	for table, n := range rows {
		counts[table] = n
	}
	return Event{Action: "relay.imported", kind: "relay", id: "import", fields: map[string]any{"source": source, "rows": counts}}
}

// Started: the relay began to serve.
func Started(version string) Event {
	return Event{Action: "relay.started", kind: "relay", id: "process", fields: map[string]any{"version": version}}
}

// Stopped: the relay ended in order.
func Stopped(reason string) Event {
	return Event{Action: "relay.stopped", kind: "relay", id: "process", fields: map[string]any{"reason": reason}}
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
