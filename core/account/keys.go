package account

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/storage"
)

// maxSlots bounds the transport keys in a device's record: those that the device
// announces, and those that the operator has set for it.
const maxSlots = 2 * ccp.MaxTransportKeys

// exported ends the slot of a key that the operator has set. A device cannot name
// such a slot: the names that it announces have no slash.
const exported = "/export"

// ExportSlot is where a key goes that the operator sets for a device, beside the
// device's own key for that transport.
func ExportSlot(transport string) string { return transport + exported }

// SlotTransport is the transport that a slot belongs to.
func SlotTransport(slot string) string { return strings.TrimSuffix(slot, exported) }

// GuestID is the id under which a transport knows a device's key. It belongs to this
// device with this key alone, so that neither a device's name nor a later key can
// stand for it.
func GuestID(device string, public []byte) string {
	h := sha256.New()
	h.Write([]byte("commucat/guest/1\x00" + device + "\x00"))
	h.Write(public)
	return "d-" + hex.EncodeToString(h.Sum(nil)[:16])
}

// DeviceKeys are the transport keys of one device. Their Transport is a slot.
type DeviceKeys struct {
	Device string
	Keys   []ccp.TransportKey
	// Err is of kind Corrupt where the device's record cannot be read; Keys is nil then.
	Err error
}

// TransportKeys lists the keys of active devices: of those that come after a device
// id, in the order of ids. next is where to go on, "" at the end. limit bounds the
// devices that are read for one answer, with keys or without. A record that cannot be read
// costs its own device only, which is in the answer with the reason.
func (s *Store) TransportKeys(ctx context.Context, after string, limit int) (out []DeviceKeys, next string, err error) {
	recs, err := s.dir.List(ctx, s.now(), storage.Range{Kind: kindDevice, After: after, Limit: limit})
	if err != nil {
		return nil, "", err
	}
	for _, r := range recs {
		h, err := decode[deviceRecord](r, r.Key)
		if err != nil {
			out = append(out, DeviceKeys{Device: r.ID, Err: err})
			continue
		}
		if h.value.Status == Active && len(h.value.Keys) > 0 {
			out = append(out, DeviceKeys{Device: r.ID, Keys: listKeys(h.value.Keys)})
		}
	}
	if len(recs) == limit {
		next = recs[len(recs)-1].ID
	}
	return out, next, nil
}

// SetTransportKey sets the key in a slot of an active device, for the operator.
func (s *Store) SetTransportKey(ctx context.Context, device string, key ccp.TransportKey) error {
	c := Change{Kind: KeysChanged, Device: device, Via: ViaOperator}
	err := s.changeDevice(ctx, device, func(d *deviceRecord) error {
		if d.Status != Active {
			return ErrRevoked
		}
		c.User, c.Public = d.User, d.Public.key()
		c.Came, c.Gone = d.setKeys([]ccp.TransportKey{key})
		return nil
	})
	if err == nil {
		s.tell(c)
	}
	return err
}

// HasTransportKey says that a device is active and has this key in this slot now. It
// asks the storage, not what is remembered.
func (s *Store) HasTransportKey(ctx context.Context, device string, key ccp.TransportKey) (bool, error) {
	h, err := load[deviceRecord](ctx, s, kindDevice, device)
	return err == nil && h.exists() && h.value.has(key), err
}

// DropTransportKey takes a key out of its slot, unless another one stands there by now.
func (s *Store) DropTransportKey(ctx context.Context, device string, key ccp.TransportKey) error {
	c := Change{Kind: KeysChanged, Device: device, Gone: []ccp.TransportKey{key}}
	err := s.changeDevice(ctx, device, func(d *deviceRecord) error {
		if !d.has(key) {
			return ErrNotFound
		}
		c.User, c.Public = d.User, d.Public.key()
		d.Keys = maps.Clone(d.Keys)
		delete(d.Keys, key.Transport)
		return nil
	})
	switch {
	case err == nil:
		s.tell(c)
	case errors.Is(err, ErrNotFound):
		return nil
	}
	return err
}

// has says that a key of this device is good.
func (r *deviceRecord) has(key ccp.TransportKey) bool {
	public, ok := r.Keys[key.Transport]
	return ok && r.Status == Active && bytes.Equal(public, key.Public)
}

// setKeys puts keys in, and answers what came and what is no longer good. Keys that
// are not named stay, as long as there is room.
func (r *deviceRecord) setKeys(keys []ccp.TransportKey) (came, gone []ccp.TransportKey) {
	next := maps.Clone(r.Keys)
	if next == nil {
		next = make(map[string]hexBytes, len(keys))
	}
	named := make(map[string]bool, len(keys))
	for _, k := range keys {
		named[k.Transport] = true
		old, known := next[k.Transport]
		if known && bytes.Equal(old, k.Public) {
			continue
		}
		if known {
			gone = append(gone, ccp.TransportKey{Transport: k.Transport, Public: old})
		}
		next[k.Transport] = bytes.Clone(k.Public)
		came = append(came, k)
	}
	for _, name := range slices.Sorted(maps.Keys(next)) {
		if len(next) <= maxSlots {
			break
		}
		if !named[name] {
			gone = append(gone, ccp.TransportKey{Transport: name, Public: next[name]})
			delete(next, name)
		}
	}
	if len(came)+len(gone) > 0 {
		r.Keys = next // a copy: the old map may be shared
	}
	return came, gone
}

// dropKeys takes all keys out and answers them.
func (r *deviceRecord) dropKeys() []ccp.TransportKey {
	gone := listKeys(r.Keys)
	r.Keys = nil
	return gone
}

func listKeys(keys map[string]hexBytes) []ccp.TransportKey {
	out := make([]ccp.TransportKey, 0, len(keys))
	for _, name := range slices.Sorted(maps.Keys(keys)) {
		out = append(out, ccp.TransportKey{Transport: name, Public: keys[name]})
	}
	return out
}
