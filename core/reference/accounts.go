package reference

import (
	"cmp"
	"context"
	"slices"

	"github.com/commucat/commucat/core/account"
	"github.com/commucat/commucat/core/relay"
	"github.com/commucat/commucat/sdk/storage"
)

const (
	// batchAccounts and batchDevices bound what one Commit holds.
	batchAccounts = 32
	batchDevices  = 256
	// maxDevices is how many devices of an account are looked at.
	maxDevices = account.MaxImport
	// maxMembers is how many members a group may have.
	maxMembers = 1024
)

// Reasons for which rows go with another one.
const (
	whyNoAccount = "its account does not exist"
	whyNoGroup   = "its group does not exist"
	whyGroupLeft = "its group is left out"
)

// users goes through accounts and their devices side by side.
func (p *pass) users(ctx context.Context) error {
	t, dt := p.table("app-user"), p.table("user-device")
	users, devices := p.feed("app-user"), p.feed("user-device")
	var list []account.Foreign
	held := 0
	for {
		u, err := users.next(ctx)
		if err != nil {
			return err
		}
		if u == nil {
			break
		}
		f, why := p.user(u)
		whyDevice := ""
		if why != "" {
			t.left(why, named(u.ID))
			whyDevice = "its account is left out"
		}
		if f.Devices, err = p.devices(ctx, devices, dt, u.ID, whyDevice); err != nil {
			return err
		}
		if why != "" {
			continue
		}
		if len(list) > 0 && (len(list) == batchAccounts || held+len(f.Devices) > batchDevices) {
			if err := p.store(ctx, t, dt, list); err != nil {
				return err
			}
			list, held = list[:0], 0
		}
		list, held = append(list, f), held+len(f.Devices)
	}
	for { // devices behind the last account
		d, err := devices.next(ctx)
		if err != nil {
			return err
		}
		if d == nil {
			return p.store(ctx, t, dt, list)
		}
		_, id := split(d.ID)
		dt.left(whyNoAccount, named(id))
	}
}

func (p *pass) user(r *storage.Record) (account.Foreign, string) {
	u, why := row[userRow](r)
	if why == "" && u.Domain != "" && u.Domain != "local" && u.Domain != p.Domain {
		why = "it is an account of another domain"
	}
	return account.Foreign{User: account.User{
		ID: r.ID, Handle: u.Handle, DisplayName: u.Display, AvatarURL: u.Avatar, Created: u.Created.at,
	}}, why
}

// devices reads those of one account, and passes those before it: they have none.
func (p *pass) devices(ctx context.Context, f *feed, t *Table, user, why string) ([]account.ForeignDevice, error) {
	var out []account.ForeignDevice
	for {
		r, err := f.peek(ctx)
		if err != nil || r == nil {
			return inOrder(out), err
		}
		owner, id := split(r.ID)
		if owner > user {
			return inOrder(out), nil
		}
		if _, err := f.next(ctx); err != nil {
			return nil, err
		}
		d, bad := row[deviceRow](r)
		key, whyKey := d.Public.key()
		switch {
		case owner < user:
			bad = whyNoAccount
		case why != "":
			bad = why
		case bad != "":
		case whyKey != "":
			bad = whyKey
		case len(out) == maxDevices:
			bad = "its account has too many devices"
		}
		if bad != "" {
			t.left(bad, named(id))
			continue
		}
		revoked := d.Status != "active"
		if revoked && d.Status != "revoked" {
			t.note("revoked here: its status is neither active nor revoked", named(id, d.Status))
		}
		out = append(out, account.ForeignDevice{ID: id, Public: key, Revoked: revoked, Created: d.Created.at})
	}
}

// inOrder sorts by age.
func inOrder(d []account.ForeignDevice) []account.ForeignDevice {
	slices.SortStableFunc(d, func(a, b account.ForeignDevice) int { return a.Created.Compare(b.Created) })
	return d
}

func (p *pass) store(ctx context.Context, t, dt *Table, list []account.Foreign) error {
	if len(list) == 0 {
		return nil
	}
	out, err := p.accounts.Import(ctx, list)
	if err != nil {
		return err
	}
	for i := range list {
		o := out[i].User
		if o.Conflict && o.Holder != "" {
			if o, err = p.twin(ctx, o); err != nil {
				return err
			}
		}
		p.outcome(t, o, named(list[i].User.ID, list[i].User.Handle))
		for j, d := range out[i].Devices {
			p.outcome(dt, d, named(list[i].Devices[j].ID))
		}
	}
	return nil
}

// twin looks whether who has a handle comes from the same database: then the two of them
// are too alike for this relay, and nothing of its own stands in the way.
func (p *pass) twin(ctx context.Context, o account.Outcome) (account.Outcome, error) {
	r, err := p.Source.Directory.Get(ctx, p.now, []storage.Key{{Kind: "app-user", ID: o.Holder}})
	if err != nil || len(r) != 1 || r[0].Version == 0 {
		return o, err
	}
	if u, why := row[userRow](&r[0]); why == "" && account.Fold(u.Handle) == account.Fold(o.Detail) {
		o.Conflict = false
		o.Reason = "its handle is a near-duplicate of another account's"
	}
	return o, nil
}

// history stores keys that devices had.
func (p *pass) history(ctx context.Context, kind string, read func(*storage.Record) (account.ForeignKey, string)) error {
	t := p.table(kind)
	keys := &pile[account.ForeignKey]{most: batchDevices, store: func(list []account.ForeignKey, names []string) error {
		out, err := p.accounts.ImportKeys(ctx, list)
		return p.outcomes(t, out, names, err)
	}}
	err := p.feed(kind).each(ctx, func(r *storage.Record) error {
		k, why := read(r)
		var id string
		if k.Device, id = split(r.ID); why != "" {
			t.left(why, named(id))
			return nil
		}
		return keys.add(k, named(id))
	})
	if err != nil {
		return err
	}
	return keys.flush()
}

func (p *pass) rotations(ctx context.Context) error {
	return p.history(ctx, "device-rotation-audit", func(r *storage.Record) (account.ForeignKey, string) {
		v, why := row[rotationRow](r)
		key, whyKey := v.Old.key()
		return account.ForeignKey{Public: key, At: v.Applied.at, Retired: true}, cmp.Or(why, whyKey)
	})
}

func (p *pass) events(ctx context.Context) error {
	return p.history(ctx, "device-key-event", func(r *storage.Record) (account.ForeignKey, string) {
		v, why := row[eventRow](r)
		key, whyKey := v.Public.key()
		return account.ForeignKey{Public: key, At: v.Recorded.at}, cmp.Or(why, whyKey)
	})
}

// blobs takes friend lists.
func (p *pass) blobs(ctx context.Context) error {
	t := p.table("user-blob")
	lists := &pile[[]account.Friend]{most: batchAccounts, store: func(lists [][]account.Friend, users []string) error {
		out, err := p.accounts.ImportFriends(ctx, users, lists)
		names := make([]string, len(users))
		for i, u := range users {
			names[i] = named(u)
		}
		return p.outcomes(t, out, names, err)
	}}
	err := p.feed("user-blob").each(ctx, func(r *storage.Record) error {
		user, key := split(r.ID)
		b, why := row[blobRow](r)
		list, sound := friends(b.Payload)
		switch {
		case why != "":
		case key != "friends":
			why = "only friend lists are kept here"
		case !sound:
			why = "it is no friend list"
		}
		if why != "" {
			t.left(why, named(user, key))
			return nil
		}
		return lists.add(list, user)
	})
	if err != nil {
		return err
	}
	return lists.flush()
}

// requests are left out: what was accepted is in the friend lists.
func (p *pass) requests(ctx context.Context) error {
	t := p.table("friend-requests")
	return p.feed("friend-requests").each(ctx, func(r *storage.Record) error {
		v, why := row[requestRow](r)
		switch {
		case why != "":
		case v.Status == "accepted":
			why = "accepted: the friend lists have it"
		default:
			why = "this relay keeps friend lists, no requests"
		}
		t.left(why, named(split(r.ID)))
		return nil
	})
}

// groups goes through groups and their members side by side.
func (p *pass) groups(ctx context.Context) error {
	t, mt := p.table("chat-group"), p.table("group-member")
	members := p.feed("group-member")
	// Each group goes with how many members it has, the owner too.
	groups := &pile[relay.ForeignGroup]{most: batchAccounts}
	var counts []uint64
	groups.store = func(list []relay.ForeignGroup, names []string) error {
		out, err := relay.ImportGroups(ctx, p.dir, p.now, list)
		if err != nil {
			return err
		}
		for i, o := range out {
			switch {
			case o.Conflict:
				p.outcome(t, account.Outcome{Reason: "this relay has another group with its id", Conflict: true}, names[i])
				mt.leftOut(whyGroupLeft, counts[i], "")
			case o.Present:
				t.present()
				mt.Rows, mt.Present = mt.Rows+counts[i], mt.Present+counts[i]
			default:
				t.carried()
				mt.Rows, mt.Carried = mt.Rows+counts[i], mt.Carried+counts[i]
			}
		}
		counts = counts[:0]
		return nil
	}
	err := p.feed("chat-group").each(ctx, func(r *storage.Record) error {
		g, why := row[groupRow](r)
		f := relay.ForeignGroup{ID: r.ID, Owner: g.Owner}
		var err error
		switch {
		case why != "":
		case r.ID == "" || len(r.ID) > 255:
			why = "its id is not 1 to 255 bytes"
		default:
			if why, err = p.member(ctx, g.Owner); err != nil {
				return err
			}
			if why != "" {
				why = "its owner is no active device of this relay"
			}
		}
		var n uint64
		if f.Members, n, err = p.members(ctx, members, mt, &f, why); err != nil {
			return err
		}
		if why != "" {
			t.left(why, named(r.ID))
			return nil
		}
		counts = append(counts, n)
		return groups.add(f, named(r.ID))
	})
	if err != nil {
		return err
	}
	if _, _, err := p.members(ctx, members, mt, nil, whyNoGroup); err != nil {
		return err
	}
	return groups.flush()
}

// members reads those of one group (nil: all that are left), and counts those kept.
func (p *pass) members(ctx context.Context, f *feed, t *Table, g *relay.ForeignGroup, why string) ([]relay.ForeignMember, uint64, error) {
	type member struct {
		relay.ForeignMember
		joined stamp
	}
	var all []member
	kept := uint64(0)
	for {
		r, err := f.peek(ctx)
		if err != nil {
			return nil, 0, err
		}
		var id, device string
		if r != nil {
			id, device = split(r.ID)
		}
		if r == nil || g != nil && id > g.ID {
			break
		}
		if _, err := f.next(ctx); err != nil {
			return nil, 0, err
		}
		m, bad := row[memberRow](r)
		switch {
		case g != nil && id < g.ID:
			bad = whyNoGroup
		case why != "" && g != nil:
			bad = whyGroupLeft
		case why != "":
			bad = why
		case bad != "":
		case len(all) >= maxMembers-1:
			bad = "its group has too many members"
		default:
			if bad, err = p.member(ctx, device); err != nil {
				return nil, 0, err
			}
		}
		if bad != "" {
			t.left(bad, named(device, id))
			continue
		}
		kept++
		if device != g.Owner {
			all = append(all, member{relay.ForeignMember{Device: device, Role: m.Role}, m.Joined})
		}
	}
	slices.SortStableFunc(all, func(a, b member) int { return a.joined.at.Compare(b.joined.at) })
	out := make([]relay.ForeignMember, len(all))
	for i := range all {
		out[i] = all[i].ForeignMember
	}
	return out, kept, nil
}

// member says why a device can be in no group, or have no queue.
func (p *pass) member(ctx context.Context, device string) (string, error) {
	d, err := p.accounts.Device(ctx, device)
	switch {
	case isNotFound(err):
		return "its device is not here", nil
	case err != nil:
		return "", err
	case d.Status != account.Active:
		return "its device is revoked", nil
	}
	return "", nil
}
