package account

import (
	"bytes"
	"context"
	"time"

	"github.com/commucat/commucat/sdk/ccp"
	"github.com/commucat/commucat/sdk/identity"
	"github.com/commucat/commucat/sdk/storage"
)

// Hint is what a device says about its user.
type Hint struct {
	ID, Handle, DisplayName, AvatarURL string
}

// Request is what a device asks for after it has proved, in the finished
// handshake, that it holds Public and that ClientStatic is its Noise key.
type Request struct {
	Device               string
	Public, ClientStatic [32]byte
	// Certificate is the one presented, parsed and otherwise unjudged.
	Certificate *identity.Certificate
	User        Hint
	// Invite is the secret of an invitation, Pair a pairing code; nil when absent.
	Invite, Pair []byte
	// Name is the device's name, for lists.
	Name         string
	Capabilities ccp.Capabilities
	// Keys are the device's own keys for transports of this relay.
	Keys []ccp.TransportKey
	// Session is the public id of the session, kept with the token.
	Session string
	// NewUser is the id that a new account takes, Token the text of the token to
	// be made; both are drawn when empty.
	NewUser, Token string
	// Keep is a token that the device may go on using, when it resumes.
	Keep *TokenHash
	// NoToken asks for no token at all.
	NoToken bool
	// CountDevices asks for Grant.PairingRequired to be worked out.
	CountDevices bool
}

// Grant is what Establish did.
type Grant struct {
	User        User
	Device      Device
	Certificate identity.Certificate
	// Renewed says that the peer should be sent the certificate: it is new, or not
	// the one that was presented.
	Renewed bool
	// Token is the new bearer token; empty when Keep goes on, or with NoToken.
	Token     string
	TokenHash TokenHash
	// Action is what happened to the device's key: "register", "rotate",
	// "certificate" or "". Via says how.
	Action, Via string
	// NewUser says that the account was made.
	NewUser bool
	// PairingRequired says that a further device of this account needs pairing.
	PairingRequired bool
}

// plan is a use case decided and not yet done.
type plan struct {
	grant  Grant
	writes []storage.Write
	change *Change
	// seen is what was read of a known device; recalled says that it is from
	// memory, so that it must be checked and may not refuse anybody.
	seen     *standing
	recalled bool
	// gone are transport keys that go with the device key which pairing replaces.
	gone []ccp.TransportKey
}

// Establish is the one transaction of a handshake. It decides from what is
// stored whether the device may come in, and as whose, and writes at once all
// that follows: user, device, key event, spent invitation or code, certificate,
// profile, token. A refusal is an *Error and has written nothing; so has a failure.
//
//	known device    the key must be the stored one; a pairing code of the same
//	                account may replace it, nothing else
//	unknown device  pairing code, or valid certificate: joins that account
//	                invitation, or open registration: a new account
func (s *Store) Establish(ctx context.Context, r Request) (Grant, error) {
	mu := s.lock(r.contended())
	mu.Lock()
	defer mu.Unlock()
	for try := 0; ; try++ {
		now := s.now()
		p, err := s.plan(ctx, &r, now, try == 0)
		if err != nil {
			if p.recalled {
				continue
			}
			return Grant{}, err
		}
		err = s.dir.Commit(ctx, now, p.writes)
		if err == nil {
			s.remember(&r, p)
			if p.change != nil {
				s.tell(*p.change)
			}
			return p.grant, nil
		}
		if !isConflict(err) || try == commitTries {
			return Grant{}, err
		}
	}
}

// remember keeps what a handshake has read for the device's next one, or drops it
// where the device's record has changed.
func (s *Store) remember(r *Request, p *plan) {
	for i := range p.writes {
		if w := &p.writes[i]; !w.CheckOnly && (w.Kind == kindDevice || w.Kind == kindUser) {
			s.cache.drop(r.Device)
			return
		}
	}
	if p.seen != nil && !p.recalled {
		s.cache.keep(r.Device, p.seen)
	}
}

// Preview decides as Establish would and writes nothing, for peers that need
// their user before the handshake ends (the reference client).
func (s *Store) Preview(ctx context.Context, r Request) (Grant, error) {
	p, err := s.plan(ctx, &r, s.now(), false)
	return p.grant, err
}

// contended names the record that several requests are most likely to change.
func (r *Request) contended() string {
	switch {
	case r.Invite != nil:
		return string(r.Invite)
	case r.Pair != nil:
		return string(r.Pair)
	}
	return r.Device
}

// plan decides; recall allows what the device's last handshake read.
func (s *Store) plan(ctx context.Context, r *Request, now time.Time, recall bool) (*plan, error) {
	p := &plan{}
	if !identity.ValidDeviceID(r.Device) {
		return p, refuse(ccp.CodeUnknownDevice, "device id breaks the rules")
	}
	dev, err := s.record(ctx, p, r.Device, recall)
	if err != nil {
		return p, err
	}
	if !dev.exists() || dev.value.Public.key() != r.Public { // a stored key was judged when it came
		if err := identity.CheckPublic(r.Public); err != nil {
			return p, refuse(ccp.CodeProofInvalid, "device key is not acceptable")
		}
	}
	var user held[userRecord]
	if dev.exists() {
		user, err = s.known(ctx, p, r, dev, now)
	} else {
		user, err = s.unknown(ctx, p, r, dev, now)
	}
	if err != nil {
		return &plan{recalled: p.recalled}, err
	}
	if r.CountDevices && p.grant.Action != "register" {
		n, err := s.activeDevices(ctx, user.value.Devices)
		if err != nil {
			return &plan{recalled: p.recalled}, err
		}
		p.grant.PairingRequired = n >= s.opt.MaxDevices
	}
	p.grant.PairingRequired = p.grant.PairingRequired || s.Registration() != Open
	p.compact()
	return p, nil
}

// record answers the device's record: from the last handshake, or read.
func (s *Store) record(ctx context.Context, p *plan, device string, recall bool) (held[deviceRecord], error) {
	if recall {
		if p.seen = s.cache.standing(device); p.seen != nil {
			p.recalled = true
			return p.seen.record, nil
		}
	}
	return load[deviceRecord](ctx, s, kindDevice, device)
}

// standing answers the rest of what is known of a stored device, and has the
// Commit check what is from memory.
func (s *Store) standing(ctx context.Context, p *plan, dev held[deviceRecord]) (*standing, error) {
	if p.recalled {
		p.writes = append(p.writes, dev.check(), p.seen.user.check())
		return p.seen, nil
	}
	user, err := load[userRecord](ctx, s, kindUser, dev.value.User)
	if err != nil {
		return nil, err
	}
	if !user.exists() {
		return nil, refuse(ccp.CodeUnknownDevice, "account of the device is gone")
	}
	device, err := dev.value.device(dev.key.ID)
	if err != nil {
		return nil, err
	}
	p.seen = &standing{record: dev, device: device, user: user}
	return p.seen, nil
}

// compact leaves one write a record: a condition that a change of the same record
// carries anyway is dropped.
func (p *plan) compact() {
	at := make(map[storage.Key]int, len(p.writes))
	out := p.writes[:0]
	for _, w := range p.writes {
		i, seen := at[w.Key]
		switch {
		case !seen:
			at[w.Key] = len(out)
			out = append(out, w)
		case out[i].CheckOnly:
			out[i] = w
		}
	}
	p.writes = out
}

// known decides for a device that is stored.
func (s *Store) known(ctx context.Context, p *plan, r *Request, dev held[deviceRecord], now time.Time) (held[userRecord], error) {
	var none held[userRecord]
	rec := dev.value
	if rec.Status != Active {
		return none, refuse(ccp.CodeRevoked, "device is revoked")
	}
	action, via := "", ""
	if r.Pair != nil {
		of, err := s.spendPair(ctx, p, r.Pair)
		if err != nil {
			return none, err
		}
		if of != rec.User {
			return none, refusePairing(ccp.CodePairingInvalid, "code of another account")
		}
		action, via = "certificate", ViaPairing
	}
	old := rec.Public.key()
	if old != r.Public {
		if r.Pair == nil {
			return none, refuse(ccp.CodeKeyMismatch, "another key is stored for this device")
		}
		if err := s.retire(ctx, p, &rec, r.Public, now); err != nil {
			return none, err
		}
		action = "rotate"
		// Who had the old key may have the transport keys as well.
		p.gone = rec.dropKeys()
	}
	known, err := s.standing(ctx, p, dev)
	if err != nil {
		return none, err
	}
	user, stored := known.user, &known.device
	if (r.User.ID != "" && r.User.ID != rec.User) || (r.User.Handle != "" && r.User.Handle != user.value.Handle) {
		return none, refuse(ccp.CodeKeyMismatch, "device of another user")
	}
	if r.Certificate != nil && via == "" {
		if err := s.judge(r.Certificate, r, rec.User, stored, now); err != nil {
			return none, err
		}
	}
	if via == "" && s.lapsed(stored.Certificate, now) {
		return none, refusePairing(ccp.CodeCertificateInvalid, "certificate lapsed")
	}
	fresh := via != "" || s.due(stored.Certificate, r.Public, now)
	if fresh && action == "" {
		action = "certificate"
	}
	if caps := uint16(r.Capabilities); caps != rec.Caps {
		rec.Caps = caps
	}
	s.profile(p, r, user, now)
	p.grant.Certificate = stored.Certificate
	return user, s.finish(ctx, p, r, dev, rec, user, fresh, action, via, now)
}

// retire puts a new key into the record and remembers the old one as used up.
// Tokens of the old key end with it.
func (s *Store) retire(ctx context.Context, p *plan, rec *deviceRecord, public [32]byte, now time.Time) error {
	used, err := load[string](ctx, s, kindRetired, hexKey(public))
	if err != nil {
		return err
	}
	if used.exists() {
		return refuse(ccp.CodeKeyMismatch, "key was rotated away before")
	}
	p.writes = append(p.writes, used.check(), storage.Write{
		Key:    storage.Key{Kind: kindRetired, ID: hexKey(rec.Public.key())},
		Expect: storage.AnyVersion, Value: encode(now.UTC().Format(time.RFC3339)),
	})
	rec.Public = bytes.Clone(public[:])
	rec.Rotated = now.UnixMicro()
	rec.Epoch++
	return nil
}

// unknown decides for a device that is not stored.
func (s *Store) unknown(ctx context.Context, p *plan, r *Request, dev held[deviceRecord], now time.Time) (held[userRecord], error) {
	var none held[userRecord]
	rec := deviceRecord{
		Name: cleanText(r.Name, MaxDeviceName), Public: bytes.Clone(r.Public[:]), Status: Active,
		Created: now.UnixMicro(), Epoch: 1, Caps: uint16(r.Capabilities),
	}
	var user held[userRecord]
	var via string
	var err error
	switch {
	case r.Pair != nil:
		user, err = s.byPairing(ctx, p, r)
		via = ViaPairing
	case r.Certificate != nil:
		user, err = s.byCertificate(ctx, r, now)
		via = ViaCertificate
	default:
		user, via, err = s.register(ctx, p, r, now)
	}
	if err != nil {
		return none, err
	}
	rec.User = user.key.ID
	if !p.grant.NewUser {
		if (r.User.ID != "" && r.User.ID != rec.User) || (r.User.Handle != "" && r.User.Handle != user.value.Handle) {
			return none, refuse(ccp.CodeUnknownDevice, "code or certificate of another user")
		}
		if err := s.addListed(ctx, p, r.Device, &user); err != nil {
			return none, err
		}
	}
	if err := s.reserve(ctx, p, r.Device, rec.User); err != nil {
		return none, err
	}
	p.change = &Change{Kind: DeviceAdded, User: rec.User, Device: r.Device, Public: r.Public, Via: via, NewUser: p.grant.NewUser}
	return user, s.finish(ctx, p, r, dev, rec, user, true, "register", via, now)
}

// spendPair plans the spending of a pairing code and answers its account. The
// device that made the code must still be active.
func (s *Store) spendPair(ctx context.Context, p *plan, code []byte) (user string, err error) {
	h, err := load[pairRecord](ctx, s, kindPair, PairID(code))
	if err != nil {
		return "", err
	}
	if !h.exists() {
		return "", refusePairing(ccp.CodePairingInvalid, "code unknown, spent or expired")
	}
	p.writes = append(p.writes, storage.Write{Key: h.key, Expect: h.version})
	if h.value.Issuer == "" {
		return h.value.User, nil // made by the operator
	}
	issuer, err := load[deviceRecord](ctx, s, kindDevice, h.value.Issuer)
	if err == nil && issuer.value.Status != Active {
		err = refusePairing(ccp.CodePairingInvalid, "issuer of the code is revoked")
	}
	p.writes = append(p.writes, issuer.check())
	return h.value.User, err
}

func (s *Store) byPairing(ctx context.Context, p *plan, r *Request) (held[userRecord], error) {
	id, err := s.spendPair(ctx, p, r.Pair)
	if err != nil {
		return held[userRecord]{}, err
	}
	user, err := load[userRecord](ctx, s, kindUser, id)
	if err == nil && !user.exists() {
		err = refusePairing(ccp.CodePairingInvalid, "account of the code is gone")
	}
	return user, err
}

func (s *Store) byCertificate(ctx context.Context, r *Request, now time.Time) (held[userRecord], error) {
	if err := s.judge(r.Certificate, r, r.Certificate.UserID, nil, now); err != nil {
		return held[userRecord]{}, err
	}
	user, err := load[userRecord](ctx, s, kindUser, r.Certificate.UserID)
	if err == nil && !user.exists() {
		err = refuse(ccp.CodeUnknownDevice, "user of the certificate is unknown")
	}
	return user, err
}

// addListed puts the device on the account's list, within the device limit. The
// condition on the user record makes the limit hold in races too.
func (s *Store) addListed(ctx context.Context, p *plan, device string, user *held[userRecord]) error {
	devices, err := s.loadDevices(ctx, user.value.Devices)
	if err != nil {
		return err
	}
	active, gone := 0, []string(nil)
	for _, d := range devices {
		if d.value.Status == Active {
			active++
		} else {
			gone = append(gone, d.key.ID)
		}
	}
	if active >= s.opt.MaxDevices {
		return refusePairing(CodeDeviceLimit, "account has its full number of devices")
	}
	user.value.list(device, gone)
	p.writes = append(p.writes, user.write(time.Time{}))
	return nil
}

// reserve refuses a device id that is somebody else's user id or handle: names
// are resolved in one space.
func (s *Store) reserve(ctx context.Context, p *plan, device, user string) error {
	asUser, err := load[userRecord](ctx, s, kindUser, device)
	if err != nil {
		return err
	}
	asHandle, err := s.byHandle(ctx, device)
	if err != nil {
		return err
	}
	if asUser.exists() || (asHandle.exists() && asHandle.value.User != user) {
		return refuse(ccp.CodeKeyMismatch, "device id is a name of somebody else")
	}
	p.writes = append(p.writes, asUser.check(), asHandle.check())
	return nil
}

func (s *Store) activeDevices(ctx context.Context, ids []string) (int, error) {
	devices, err := s.loadDevices(ctx, ids)
	n := 0
	for _, d := range devices {
		if d.value.Status == Active {
			n++
		}
	}
	return n, err
}

// finish adds what every establishment ends with: certificate, device record,
// key event and token.
func (s *Store) finish(ctx context.Context, p *plan, r *Request, dev held[deviceRecord], rec deviceRecord, user held[userRecord], fresh bool, action, via string, now time.Time) error {
	g := &p.grant
	if fresh {
		c, err := s.certify(r.Device, &rec, now)
		if err != nil {
			return err
		}
		g.Certificate = c
		p.writes = append(p.writes, s.event(r.Device, eventRecord{Action: action, Via: via, Public: rec.Public, Serial: c.Serial}, now))
	}
	came, gone := rec.setKeys(r.Keys)
	for _, k := range p.gone { // one that was announced again stays
		if !bytes.Equal(rec.Keys[k.Transport], k.Public) {
			gone = append(gone, k)
		}
	}
	if changed := fresh || action != "" || rec.Caps != dev.value.Caps || len(came)+len(gone) > 0; changed {
		dev.value = rec
		p.writes = append(p.writes, dev.write(time.Time{}))
	} else {
		p.writes = append(p.writes, dev.check())
	}
	device := rec.bare(r.Device)
	device.Certificate = g.Certificate
	if action == "rotate" {
		p.change = &Change{Kind: DeviceRotated, User: rec.User, Device: r.Device, Public: r.Public, Via: via}
	}
	if len(came)+len(gone) > 0 {
		if p.change == nil {
			p.change = &Change{Kind: KeysChanged, User: rec.User, Device: r.Device, Public: r.Public, Via: via}
		}
		p.change.Came, p.change.Gone = came, gone
	}
	if c := p.change; c != nil && !c.NewUser && c.Kind != KeysChanged {
		p.writes = append(p.writes, s.owe(c, now))
	}
	g.Device, g.Action, g.Via = device, action, via
	g.Renewed = r.Certificate == nil || r.Certificate.Serial != g.Certificate.Serial
	g.User = user.value.user(user.key.ID)
	return s.grantToken(ctx, p, r, rec, now)
}

// grantToken goes on with the token that the device has, or makes one.
func (s *Store) grantToken(ctx context.Context, p *plan, r *Request, rec deviceRecord, now time.Time) error {
	if r.NoToken {
		return nil
	}
	if r.Keep != nil {
		t, err := loadExpiring[tokenRecord](ctx, s, kindToken, r.Keep.id())
		if err != nil {
			return err
		}
		if t.exists() && t.value.Device == r.Device && t.value.Epoch == rec.Epoch {
			p.grant.TokenHash = *r.Keep
			if t.expires.Sub(now) < s.opt.TokenTTL/2 {
				p.writes = append(p.writes, t.write(now.Add(s.opt.TokenTTL)))
			}
			return nil
		}
	}
	token := r.Token
	if token == "" {
		var err error
		if token, err = NewToken(s.opt.Rand); err != nil {
			return err
		}
	}
	w, h := s.tokenWrite(token, tokenRecord{r.Device, rec.Epoch, r.Session}, now)
	p.writes = append(p.writes, w)
	p.grant.Token, p.grant.TokenHash = token, h
	return nil
}
