package account

import (
	"bytes"
	"context"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/commucat/commucat/sdk/identity"
	"github.com/commucat/commucat/sdk/storage"
)

// Foreign is an account as another program kept it.
type Foreign struct {
	// User is its profile; texts that break the rules are dropped with a note.
	User    User
	Devices []ForeignDevice
}

// ForeignDevice is one device of a Foreign.
type ForeignDevice struct {
	ID      string
	Public  [32]byte
	Revoked bool
	Created time.Time
}

// Outcome says what an import did with one record.
type Outcome struct {
	// Reason says why it was left out; "" when it is stored. Detail adds what is
	// different from record to record.
	Reason, Detail string
	// Conflict says that the store holds another record in its place. Holder is the
	// user that has its handle, where that is it.
	Conflict bool
	Holder   string
	// Present says that it was there already; nothing was changed.
	Present bool
	// Note says what of it was not stored.
	Note string
}

// ImportedAccount is what became of a Foreign and of its devices, in their order.
type ImportedAccount struct {
	User    Outcome
	Devices []Outcome
}

// MaxImport bounds the devices of all accounts of one Import.
const MaxImport = 1000

// Import stores accounts with their devices, all that can be in one Commit. An account
// that is there with the same handle and the same time of creation is the same one: only
// devices are added to it, and those revoked that the other program revoked. The devices'
// certificates are issued when they come. Nothing is told to OnChange. An error has
// changed nothing; of kind Conflict, somebody else writes to the store.
func (s *Store) Import(ctx context.Context, list []Foreign) ([]ImportedAccount, error) {
	now := s.now()
	im := &importing{read: map[storage.Key]storage.Record{}, writes: map[storage.Key]*storage.Write{}}
	for i := range list {
		im.name(&list[i])
	}
	if err := im.load(ctx, s); err != nil {
		return nil, err
	}
	out := make([]ImportedAccount, len(list))
	for i := range list {
		var err error
		if out[i], err = im.account(&list[i], now); err != nil {
			return nil, err
		}
	}
	return out, im.commit(ctx, s.dir, now)
}

// importing is one Commit in the making.
type importing struct {
	order  []storage.Key // of read
	read   map[storage.Key]storage.Record
	writes map[storage.Key]*storage.Write
	put    []storage.Key // order of writes
}

func (im *importing) want(kind, id string) {
	k := storage.Key{Kind: kind, ID: id}
	if _, ok := im.read[k]; !ok && k.Check() == nil {
		im.read[k] = storage.Record{Key: k}
		im.order = append(im.order, k)
	}
}

// name lists the records that decide about an account.
func (im *importing) name(f *Foreign) {
	im.want(kindUser, f.User.ID)
	im.want(kindDevice, f.User.ID)
	im.want(kindHandle, Fold(f.User.Handle))
	im.want(kindUser, f.User.Handle)
	im.want(kindDevice, f.User.Handle)
	for _, d := range f.Devices {
		im.want(kindDevice, d.ID)
		im.want(kindUser, d.ID)
		im.want(kindHandle, Fold(d.ID))
	}
}

func (im *importing) load(ctx context.Context, s *Store) error {
	for part := range slices.Chunk(im.order, 512) {
		recs, err := s.get(ctx, part...)
		if err != nil {
			return err
		}
		for _, r := range recs {
			im.read[r.Key] = r
		}
	}
	return nil
}

// see answers a record as it will be after the commit.
func see[T any](im *importing, kind, id string) (held[T], error) {
	k := storage.Key{Kind: kind, ID: id}
	r := im.read[k]
	if w := im.writes[k]; w != nil {
		h, err := decode[T](storage.Record{Key: k, Version: max(r.Version, 1), Value: w.Value}, k)
		return h, err
	}
	return decode[T](r, k)
}

func (im *importing) set(kind, id string, v any) {
	k := storage.Key{Kind: kind, ID: id}
	if im.writes[k] == nil {
		im.put = append(im.put, k)
	}
	im.writes[k] = &storage.Write{Key: k, Expect: im.read[k].Version, Value: encode(v)}
}

func (im *importing) commit(ctx context.Context, dir storage.Directory, now time.Time) error {
	if len(im.put) == 0 {
		return nil
	}
	var w []storage.Write
	for _, k := range im.put {
		w = append(w, *im.writes[k])
	}
	for _, k := range im.order {
		if im.writes[k] == nil && im.read[k].Version == 0 {
			w = append(w, storage.Write{Key: k, CheckOnly: true})
		}
	}
	return dir.Commit(ctx, now, w)
}

func left(reason string) Outcome { return Outcome{Reason: reason} }

func conflict(reason, detail string) Outcome {
	return Outcome{Reason: reason, Detail: detail, Conflict: true}
}

func (im *importing) account(f *Foreign, now time.Time) (ImportedAccount, error) {
	out := ImportedAccount{Devices: make([]Outcome, len(f.Devices))}
	user, o, err := im.user(f, now)
	out.User = o
	if err != nil {
		return out, err
	}
	if o.Reason != "" {
		for i := range out.Devices {
			out.Devices[i] = left("its account is left out")
		}
		return out, nil
	}
	before := len(im.put)
	active := 0
	var gone []string // revoked ones of the list, oldest first
	for _, id := range user.Devices {
		d, err := see[deviceRecord](im, kindDevice, id)
		if err != nil {
			return out, err
		}
		if d.exists() && d.value.Status != Active || !d.exists() && !im.knows(id) {
			gone = append(gone, id)
		} else {
			active++
		}
	}
	for i := range f.Devices {
		d := &f.Devices[i]
		if !d.Revoked && active >= maxListed {
			out.Devices[i] = left("its account has as many active devices as one can have")
			continue
		}
		o, err := im.device(f.User.ID, d)
		if err != nil {
			return out, err
		}
		out.Devices[i] = o
		if o.Reason != "" || o.Present {
			continue
		}
		if d.Revoked {
			if len(user.Devices) < maxListed {
				user.list(d.ID, nil)
				gone = append(gone, d.ID)
			}
			continue
		}
		user.list(d.ID, gone)
		active++
	}
	if !o.Present || len(im.put) > before {
		im.set(kindUser, f.User.ID, user)
	}
	return out, nil
}

// knows says whether a device's record was asked for.
func (im *importing) knows(id string) bool {
	_, ok := im.read[storage.Key{Kind: kindDevice, ID: id}]
	return ok
}

func (im *importing) user(f *Foreign, now time.Time) (userRecord, Outcome, error) {
	u := &f.User
	if u.ID == "" || len(u.ID) > 255 || !utf8.ValidString(u.ID) {
		return userRecord{}, left("its id is not 1 to 255 bytes of text"), nil
	}
	if CheckHandle(u.Handle) != nil {
		return userRecord{}, left("its handle breaks the rules"), nil //nolint:nilerr // that is the answer
	}
	rec := userRecord{
		Handle: u.Handle, Display: cleanText(u.DisplayName, MaxDisplayName), Avatar: cleanURL(u.AvatarURL),
		Created: created(u.Created, now), Devices: []string{},
	}
	h, err := see[userRecord](im, kindUser, u.ID)
	if err != nil {
		return rec, Outcome{}, err
	}
	if h.exists() {
		if h.value.Handle != rec.Handle || h.value.Created != rec.Created {
			return rec, conflict("this relay has another account with its id", h.value.Handle), nil
		}
		return h.value, Outcome{Present: true}, nil
	}
	handle, err := see[handleRecord](im, kindHandle, Fold(u.Handle))
	if err != nil {
		return rec, Outcome{}, err
	}
	if handle.exists() {
		o := conflict("its handle, or a near-duplicate of it, is taken", handle.value.Handle)
		o.Holder = handle.value.User
		return rec, o, nil
	}
	for _, k := range []storage.Key{{Kind: kindDevice, ID: u.ID}, {Kind: kindDevice, ID: u.Handle}, {Kind: kindUser, ID: u.Handle}} {
		if k.ID == u.ID && k.Kind == kindUser {
			continue
		}
		if h, err := see[struct{}](im, k.Kind, k.ID); err != nil {
			return rec, Outcome{}, err
		} else if h.exists() {
			return rec, conflict("its id or handle is an id of something else", k.Kind), nil
		}
	}
	im.set(kindHandle, Fold(u.Handle), handleRecord{User: u.ID, Handle: u.Handle})
	return rec, Outcome{Note: dropped(u, &rec)}, nil
}

// dropped names the texts that a profile loses.
func dropped(u *User, rec *userRecord) string {
	switch name, avatar := u.DisplayName != "" && rec.Display == "", u.AvatarURL != "" && rec.Avatar == ""; {
	case name && avatar:
		return "without display name and avatar, which break the rules"
	case name:
		return "without display name, which breaks the rules"
	case avatar:
		return "without avatar, which breaks the rules"
	}
	return ""
}

// created is a time that has been, in unix µs.
func created(t, now time.Time) int64 {
	if us := t.UnixMicro(); us > 0 && us < now.UnixMicro() {
		return us
	}
	return 1 // the same whenever it is asked
}

func (im *importing) device(user string, d *ForeignDevice) (Outcome, error) {
	if !identity.ValidDeviceID(d.ID) {
		return left("its id is not 1 to 64 of A-Z a-z 0-9 - _ and dot"), nil
	}
	h, err := see[deviceRecord](im, kindDevice, d.ID)
	if err != nil {
		return Outcome{}, err
	}
	if h.exists() {
		return im.again(user, d, h.value), nil
	}
	if !d.Revoked && identity.CheckPublic(d.Public) != nil {
		return left("its key is no acceptable Ed25519 key (not canonical, of small order, or no point)"), nil //nolint:nilerr // that is the answer
	}
	asUser, err := see[struct{}](im, kindUser, d.ID)
	if err != nil {
		return Outcome{}, err
	}
	handle, err := see[handleRecord](im, kindHandle, Fold(d.ID))
	if err != nil {
		return Outcome{}, err
	}
	if asUser.exists() || handle.exists() && handle.value.User != user {
		return conflict("its id is the id or handle of another account", ""), nil
	}
	rec := deviceRecord{User: user, Public: bytes.Clone(d.Public[:]), Status: Active, Created: max(d.Created.UnixMicro(), 1), Epoch: 1}
	if d.Revoked {
		rec.Status = Revoked
	}
	im.set(kindDevice, d.ID, rec)
	return Outcome{}, nil
}

// again judges a device that is there.
func (im *importing) again(user string, d *ForeignDevice, have deviceRecord) Outcome {
	switch {
	case have.User != user:
		return conflict("this relay has a device with its id, of another account", have.User)
	case have.Public.key() != d.Public && have.Rotated == 0:
		return conflict("this relay has a device with its id and another key", "")
	case d.Revoked && have.Status == Active:
		have.Status = Revoked
		have.Epoch++
		im.set(kindDevice, d.ID, have)
		return Outcome{Note: "was there and is revoked now"}
	}
	return Outcome{Present: true}
}
